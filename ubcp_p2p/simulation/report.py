"""The documents of `ubcp simulate` in tables and a paragraph for people. Every figure is one of the document's."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ubcp_p2p.log import printable
from ubcp_p2p.simulation.pairs import GAINS, OURS

_MOVES_SHOWN: Final = 10  # of the sensitivity table; --json has all


def show(document: Mapping[str, Any], console: Console) -> None:
    """Waits and shares, then what cheating brings, then what follows."""
    rules = document["rules"]
    console.print(_waits(rules))
    console.print(_shares(rules))
    console.print(_gains(rules))
    console.print(conclusions(document), soft_wrap=True, highlight=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table


def _waits(rules: Mapping[str, Any]) -> Table:
    table = _table(
        "Hours from coming to the first slice served", "rule", "steady p50", "p99", "max", "newcomers p99",
        "at once",
    )  # fmt: skip
    for name, rule in rules.items():
        steady, new = rule["wait_h"]["steady"], rule["wait_h"]["newcomers"]
        table.add_row(
            name, *(f"{steady[key]:.2f}" for key in ("p50", "p99", "max")), f"{new['p99']:.2f}",
            f"{100 * rule['accepted_at_once'].get('steady', 0):.1f} %",
        )  # fmt: skip
    return table


def _shares(rules: Mapping[str, Any]) -> Table:
    table = _table("Work in the wrong hands", "rule", "of all", "largest of a unit", "of a person", "budgets used")
    for name, rule in rules.items():
        error = rule["share_error"]["flat"]
        table.add_row(
            name, f"{100 * error['misplaced']:.1f} %", f"{100 * error['unit']:.1f} %",
            f"{100 * error['person']:,.0f} %", f"{100 * rule['used']:.1f} %",
        )  # fmt: skip
    return table


def _gains(rules: Mapping[str, Any]) -> Table:
    table = _table("What a trick brings: work more than without it (mean over seeds)", "trick", *rules)
    for key in GAINS:
        table.add_row(key.replace("_", " "), *(_percent(rule["gains"][key]["mean"]) for rule in rules.values()))
    return table


def _percent(part: float) -> str:
    return f"{round(100 * part, 1) + 0.0:+.1f} %"  # no "-0.0"


def conclusions(document: Mapping[str, Any]) -> str:
    """One paragraph."""
    rules, bound = document["rules"], document["bound"]
    ours = rules[OURS]
    steady, gains = ours["wait_h"]["steady"], ours["gains"]
    others = ", ".join(
        f"{rule['wait_h']['steady']['p99']:.2f} by {name}" for name, rule in rules.items() if name != OURS
    )
    worst = max(document["bounded"], key=lambda key: gains[key]["mean"])
    kept = gains[worst]["mean"] <= bound
    flooded = ", ".join(f"{_percent(rule['gains']['flooding']['mean'])} by {name}" for name, rule in rules.items())
    return (
        f"By our rule 99 of 100 requests of people who ask for no more than their part begin within "
        f"{steady['p99']:.2f} hours ({others}), and {100 * ours['share_error']['flat']['misplaced']:.1f} % of all work "
        f"went to others than the entitled. Flooding brings {flooded}. Of the tricks that are to bring at most "
        f"{100 * bound:.0f} %, {worst.replace('_', ' ')} brings most by our rule, {_percent(gains[worst]['mean'])}: "
        f"the bound {'holds' if kept else 'does NOT hold'}. One person enrolled many times takes "
        f"{_percent(gains['sybils_person']['mean'])} more from its own unit, and "
        f"{_percent(gains['sybils_idle_share']['mean'])} for a unit that left a part of its share: what no rule sees, "
        f"that they are one person, enrolment has to."
    )


def show_curve(document: Mapping[str, Any], console: Console) -> None:
    points = _table("People whose project reaches usefulness", "PFLOP/s-days", "people", "± (seeds)", "part")
    for point in document["points"]:
        points.add_row(
            f"{point['budget_pflops_days']:,.0f}", f"{point['users']:,.0f}", f"{point['users_sd']:,.0f}",
            f"{100 * point['part']:.1f} %",
        )  # fmt: skip
    console.print(points)
    if document["sensitivity"]:
        moves = _table(
            "The inflection point, when one assumption is halved or doubled", "assumption", "halved", "doubled"
        )
        for row in document["sensitivity"][:_MOVES_SHOWN]:
            name = Text(printable(_name_of(document, row["assumption"])))  # a reader's file: no markup of ours
            moves.add_row(name, *(_factor(row[key]) for key in ("halved", "doubled")))
        console.print(moves)
    inflection = document["inflection"]
    reached = ", ".join(f"{one['part']:.0%} at {one['budget_pflops_days']:,.0f}" for one in document["reached"])
    console.print(
        f"The curve is steepest at {inflection['budget_pflops_days']:,.0f} ± {inflection['sd']:,.0f} PFLOP/s-days in "
        f"{document['assumptions']['period_days']:g} days, where everybody has had "
        f"{inflection['credits_a_person']:,.0f} credits and {inflection['part']:.0%} have what they need. {reached}. "
        f"The ± is of drawing people anew; what the assumptions do is in the table.",
        soft_wrap=True, highlight=False,
    )  # fmt: skip


def csv_of(document: Mapping[str, Any]) -> bytes:
    """The table behind the curve."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(document["points"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(document["points"])
    return text.getvalue().encode()


def _factor(value: float | None) -> str:
    return "impossible" if value is None else f"× {value:.2f}"


def _name_of(document: Mapping[str, Any], name: str) -> str:
    """A project's assumptions with what the project is, in place of its number."""
    first, *rest = name.split(".")
    if first != "project":
        return name
    place, key = rest
    return f"{key} of {document['assumptions']['project'][int(place)]['name']}"
