"""What the demo says at its end: the one JSON document, or words and plots; and whether the story came true."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ubcp_p2p.log import printable
from ubcp_p2p.peer.demo.plots import terminal_plot
from ubcp_p2p.peer.demo.processes import DemoFailed
from ubcp_p2p.peer.demo.stage import figure
from ubcp_p2p.peer.demo.story import Outcome
from ubcp_p2p.peer.demo.tables import (
    books_document,
    check_books,
    check_villain,
    conclusions,
    show_books,
    villain_document,
    villain_line,
    who_did_what,
)

SIGNIFICANT = 3.0  # standard errors of the difference: less could be chance


def document(outcome: Outcome) -> dict[str, Any]:
    """The JSON document of `ubcp demo --json`; losses are held-out, in nats."""
    return {
        "peers": sum(name in outcome.books.promised for name in outcome.board.peers),
        "rounds": outcome.board.round,
        "loss_first": round(outcome.first.loss, 4),
        "loss_last": round(outcome.last.loss, 4),
        "loss_alone": round(outcome.best_alone.last.loss, 4),
        "replicas_identical": outcome.replicas_identical,
        "late_joiner_round": outcome.late_round,
        "killed_peer_round": outcome.kill.round,
        **books_document(outcome.books),
        "seconds": round(outcome.seconds, 1),
        **(villain_document(outcome.villain) if outcome.villain is not None else {}),
    }


def margin(outcome: Outcome) -> tuple[float, float]:
    """How much better the swarm is than the better way alone, in nats, and the standard error of that difference.

    Both were measured on the same held-out windows, so the true error is smaller than this one.
    """
    alone, last = outcome.best_alone.last, outcome.last
    return alone.loss - last.loss, math.hypot(alone.stderr, last.stderr)


def check(outcome: Outcome, *, gain: bool) -> None:
    """Raise DemoFailed unless all that the demo shows came true. gain: the swarm must beat the peer alone."""
    if not outcome.replicas_identical:
        states = ", ".join(f"{name} {state[:12]} (round {round_})" for name, (round_, state) in outcome.hashes.items())
        raise DemoFailed(f"the peers' models differ at the end: {states}", hint="this is a bug: please report it")
    torn = torn_rounds(outcome)
    if (
        torn and outcome.villain is None
    ):  # while not all shun a proven liar yet, a round can be made with it and without
        raise DemoFailed(f"members committed different states of round {torn[0]}", hint="a bug: please report it")
    if outcome.board.round != outcome.board.rounds or outcome.last.round != outcome.board.rounds:
        raise DemoFailed(f"{outcome.board.round} of {outcome.board.rounds} rounds were made", hint="run it again")
    if outcome.kill.left:
        raise DemoFailed(
            f"the killed peer left something behind: {', '.join(outcome.kill.left)}",
            hint="end it by hand; this is a bug: please report it",
        )
    check_books(outcome.books)
    if outcome.villain is not None:
        check_villain(outcome.villain)
    better, error = margin(outcome)
    if gain and better < SIGNIFICANT * error:
        raise DemoFailed(
            f"the swarm's loss {figure(outcome.last)} is not clearly below that of one peer alone, "
            f"{figure(outcome.best_alone.last)} (standard error of the difference: {error:.3f})",
            hint="on a very busy machine peers offer fewer steps in a round; try again",
        )


def torn_rounds(outcome: Outcome) -> list[int]:
    """Rounds that were committed with several states, of which one went on."""
    return [round_ for round_, hashes in outcome.board.hashes.items() if len(hashes) > 1]


def show(outcome: Outcome, console: Console, png: Path | None) -> None:
    """Print the whole report; `png` is where the plot was written."""
    board = outcome.board
    columns = console.width if console.is_terminal else 80
    console.print()
    plot = terminal_plot(outcome, columns, colour=console.is_terminal and console.color_system is not None)
    console.print(Text.from_ansi(plot), soft_wrap=True)
    if png is not None:
        console.print(f"The plot as a picture: {png}", markup=False, soft_wrap=True)
    console.print()
    console.print(who_did_what(outcome))
    if outcome.sample is not None:
        console.print("\nWhat the model writes now, a byte at a time (blank lines left out):", markup=False)
        for line in filter(str.strip, outcome.sample.splitlines()):
            console.print(f"    {printable(line)}", markup=False, soft_wrap=True)
    for each in show_books(outcome.books):
        console.print()
        console.print(each, soft_wrap=True)
    console.print()
    rogue = [villain_line(outcome.villain)] if outcome.villain is not None else []
    if outcome.villain is not None and (torn := torn_rounds(outcome)):
        rounds = ", ".join(map(str, torn))
        rogue.append(f"Rounds made twice, with the villain and without it, of which one state went on: {rounds}.")
    for line in [*_conclusions(outcome), *conclusions(outcome.books), *rogue]:
        console.print(f"- {line}", markup=False, soft_wrap=True)
    parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in outcome.parts.items())
    console.print(f"\n{outcome.seconds:.0f} s in all ({parts}; {board.rounds} rounds).", markup=False, soft_wrap=True)


def _conclusions(outcome: Outcome) -> list[str]:
    board, best, kill = outcome.board, outcome.best_alone, outcome.kill
    steps = board.rounds * board.local_steps
    others = "".join(f"; {alone.way}: {figure(alone.last)}" for alone in outcome.alone if alone is not best)
    losses = (
        f"Held-out loss, nats a byte: {outcome.first.loss:.3f} untrained, {figure(outcome.last)} by the swarm, "
        f"{figure(best.last)} by one peer alone after the same {steps} steps ({best.way}{others})."
    )
    state = next(iter(outcome.hashes.values()))[1][:16]
    same = f"{', '.join(outcome.hashes)} hold the same model to the bit: state hash {state}…"
    if not outcome.replicas_identical:
        same = "The models at the end DIFFER."
    left = "nothing of it was left" if not kill.left else f"LEFT BEHIND: {', '.join(kill.left)}"
    killed = (
        f"kill -9 in round {kill.round} (last heard: {kill.place}): the others committed again after "
        f"{kill.went_on_s:.1f} s; {left}."
    )
    return [losses, _verdict(outcome), same, killed]


def _verdict(outcome: Outcome) -> str:
    better, error = margin(outcome)
    size = f"{abs(better):.3f} ± {error:.3f} nats, {abs(better) / error:.0f} standard errors"
    if better >= SIGNIFICANT * error:
        return f"Together they are better by {size}: not chance."
    return f"Together they are {'better' if better > 0 else 'worse'} by {size}: nothing to conclude from."
