"""The budget curve as a picture, PNG or SVG, by matplotlib (the extra `peer`); the same document gives the same SVG."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.files import atomic_write

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#666666"  # Okabe & Ito 2008
SUFFIXES: Final = (".png", ".svg")


def require_matplotlib() -> None:
    """Raises ConfigError with the pip command where it is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "a picture needs the extra 'peer' (matplotlib not installed); --csv and --json have the same figures",
            hint="in the folder of ubcp's source: pip install -c constraints.txt '.[peer]'",
        )


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write the picture that the name's ending asks for. Raises ConfigError for another ending, LocalIOError."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: a picture is a {' or a '.join(SUFFIXES)} file", hint="give the name such an ending")
    require_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points, inflection = document["points"], document["inflection"]
    budgets = [point["budget_pflops_days"] for point in points]
    users = [point["users"] for point in points]
    spread = [point["users_sd"] for point in points]
    at, error = inflection["budget_pflops_days"], inflection["sd"]
    people = document["assumptions"]["users"]
    full = document["reached"][-1]["budget_pflops_days"]  # the last part that is asked for: nearly all
    figure = Figure(figsize=(10.4, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    linear, logarithmic = figure.subplots(1, 2, sharey=True)
    for axes, scale in ((linear, "linear"), (logarithmic, "log")):
        low = [one - 2 * sd for one, sd in zip(users, spread, strict=True)]
        high = [one + 2 * sd for one, sd in zip(users, spread, strict=True)]
        axes.fill_between(budgets, low, high, color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(budgets, users, color=BLUE, marker="o", markersize=3.5, linewidth=1.6)
        axes.axvspan(at - 2 * error, at + 2 * error, color=ORANGE, alpha=0.35, linewidth=0)
        axes.axvline(at, color=ORANGE, linewidth=1.4)
        axes.set_xscale(scale)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(f"budget of {document['assumptions']['period_days']:g} days, PFLOP/s-days of peak power")
    linear.set_xlim(0, 1.8 * full)
    words = f"inflection: {at:,.0f} ± {error:,.0f},\n{inflection['part']:.0%} of the people"
    linear.annotate(
        words, (at, inflection["part"] * people),
        xytext=(14, -4), textcoords="offset points", fontsize=9, va="top", color=GREY,
    )  # fmt: skip
    linear.set_ylabel(f"people whose project is useful, of {people:,}")
    linear.set_title("on a linear scale", loc="left", fontsize=11)
    logarithmic.set_title("on a logarithmic scale", loc="left", fontsize=11)
    image = io.BytesIO()
    kind = path.suffix[1:]
    with matplotlib.rc_context({"svg.hashsalt": "ubcp"}):
        figure.savefig(image, format=kind, metadata={"Date": None} if kind == "svg" else None)
    atomic_write(path, image.getvalue(), mode=0o644)
