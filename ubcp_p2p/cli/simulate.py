"""`ubcp simulate`: the allocator and its rivals in a made-up community; `ubcp simulate curve`: users by budget."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ubcp_p2p.cli.output import JsonOption, emit_json, say
from ubcp_p2p.errors import ConfigError

simulate = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

SeedOption = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="The same: the same figures.")
]


@simulate.callback(invoke_without_command=True)
def compare(
    context: typer.Context,
    json: JsonOption = False,
    quick: Annotated[bool, typer.Option("--quick", help="A small community for a few days: seconds.")] = False,
    seed: SeedOption = 1,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, max=64, help="Processes [default: a core each].")
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option("--scenario", metavar="FILE", help="Another community than the shipped one (TOML).")
    ] = None,
) -> None:
    """Run the allocator and four other rules in one made-up community, and see what cheating brings.

    The rules: ours, first come first served, AI Horde's, Slurm's Fair Tree, ours filled in greedily. Waits, shares,
    acceptance; then each trick with and without in a smaller community. Progress is on stderr. `curve` is another
    question: how many people's projects become useful with which budget.

    Exit code 1: cheating brings more than it may under our rule.
    """
    if context.invoked_subcommand is not None:
        return
    import resource
    import time

    from ubcp_p2p.simulation.comparison import document_of, results
    from ubcp_p2p.simulation.pairs import broken
    from ubcp_p2p.simulation.scenario import load, shipped_scenario, small

    began_s = time.monotonic()
    community = load(scenario or shipped_scenario())
    if quick:
        community = small(community)
    found = {}
    for task, result in results(community, seed, jobs or os.cpu_count() or 1):
        found[task] = result
        where = "the community" if task.pair_seed is None else f"all tricks, seed {task.pair_seed}"
        say(f"{time.monotonic() - began_s:6.1f} s  {task.rule}: {where}")
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(one.ru_utime + one.ru_stime for one in usage)
    say(f"{time.monotonic() - began_s:6.1f} s in all, {cpu_s:.1f} s of processor time")
    document = document_of(community, seed, found)
    if json:
        emit_json(document)
    else:
        from rich.console import Console

        from ubcp_p2p.simulation.report import show

        show(document, Console(highlight=False))
    if not quick:  # in a small community one job more or less is some percent
        broken(document)


@simulate.command()
def curve(
    json: JsonOption = False,
    assumptions: Annotated[
        Path | None, typer.Option("--assumptions", metavar="FILE", help="Others than the shipped ones (TOML).")
    ] = None,
    seed: SeedOption = 1,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table there.")] = None,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw the curve (extra: peer).")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw the curve (extra: peer).")] = None,
) -> None:
    """How many people's projects reach usefulness with which budget, and where the curve is steepest.

    The budget is the whole community's, in PFLOP/s-days of peak power in a period. All that this assumes is in one
    file; the last table says how the inflection point moves when each assumption is halved and doubled.
    """
    from rich.console import Console

    from ubcp_p2p.files import atomic_write
    from ubcp_p2p.simulation.assumptions import load, shipped_assumptions
    from ubcp_p2p.simulation.curve import curve_of, document_of, sensitivity
    from ubcp_p2p.simulation.plots import draw
    from ubcp_p2p.simulation.report import csv_of, show_curve

    pictures = _pictures(png, svg)
    assumed = load(assumptions or shipped_assumptions())
    document = document_of(assumed, curve_of(assumed, seed), sensitivity(assumed, seed), seed)
    if json:
        emit_json(document)
    else:
        show_curve(document, Console(highlight=False))
    if csv is not None:
        atomic_write(csv, csv_of(document), mode=0o644)
    for picture in pictures:  # last: where matplotlib is missing, all figures are there nevertheless
        draw(document, picture)


def _pictures(png: Path | None, svg: Path | None) -> list[Path]:
    """Before the work rather than after it: the names' endings say what is drawn."""
    for path, suffix in ((png, ".png"), (svg, ".svg")):
        if path is not None and path.suffix != suffix:
            raise ConfigError(f"{path} does not end in {suffix}", hint=f"--{suffix[1:]} draws a {suffix} file")
    return [path for path in (png, svg) if path is not None]
