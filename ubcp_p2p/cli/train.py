"""`ubcp train` and `leave`: taking part in runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at, require_extra, say
from ubcp_p2p.errors import LocalIOError, TrainingError
from ubcp_p2p.log import printable

RunOption = Annotated[
    str,
    typer.Option(
        "--run", metavar="NAME", help="The run's name: all who give the same recipe and name train one model."
    ),
]


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a recipe file (TOML).")],
    run: RunOption,
    profile: ProfileOption = None,
    min_peers: Annotated[
        int, typer.Option("--min-peers", metavar="N", min=1, max=64, help="Wait for so many peers before each round.")
    ] = 1,
    new: Annotated[
        bool,
        typer.Option("--new", help="Go on although peers claim this name for another recipe, or train on other data."),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the node goes on training.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a recipe together with everyone in the same run.

    The running node does the work; this command shows it. Ctrl-C leaves the run: the others are told, and a
    checkpoint is kept from which the same command goes on. Peers that come late get the model from those who are there.
    """
    require_extra("peer")
    from ubcp_p2p.models.recipe import load_recipe
    from ubcp_p2p.peer.control import call, stream

    place = profile_at(profile)
    chosen = load_recipe(recipe)
    started = call(
        place, "train", recipe=chosen.to_toml(), where=recipe, run=run, peers_min=min_peers, new=new, timeout_s=60.0
    )
    if detach:
        _print_status(started, json)
        return
    try:
        for message in stream(place, "follow", run=run):
            if "ok" in message:
                _finish(message["ok"], json)
                return
            _show(message["event"])
    except KeyboardInterrupt:
        say("leaving the run: telling the others, keeping a checkpoint")
        call(place, "leave", run=run, timeout_s=60.0)
        raise


def leave(
    run: Annotated[str, typer.Argument(metavar="NAME", help="The run to leave.")],
    profile: ProfileOption = None,
    json: JsonOption = False,
) -> None:
    """Leave a run: the others are told, a checkpoint is kept, the trainer ends."""
    from ubcp_p2p.peer.control import call

    _print_status(call(profile_at(profile), "leave", run=run, timeout_s=60.0), json)


def _show(event: dict[str, Any]) -> None:
    """One line a happening on stderr; progress only on a terminal, in place."""
    kind, round_ = event["kind"], event["round"]
    terminal = sys.stderr.isatty()
    if kind == "progress":
        if terminal:
            text = f"round {round_ + 1}: step {event['step']}/{event['steps']}, loss {event['loss']:.3f}"
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        return
    lines: dict[str, Callable[[], str]] = {
        "note": lambda: f"note: {event['text']}",
        "paused": lambda: f"paused: {event['reason']}",
        "goes on": lambda: "goes on: the owner's rules allow it",
        "joined": lambda: f"joined with {event['peers']} peer(s)",
        "waiting": lambda: f"waiting for peers: {event['peers']} of {event['wanted']}",
        "committed": lambda: (
            f"round {round_} committed by {len(event['members'])}: loss {event['loss']:.3f}, "
            f"train {event['train_s']:.2f} s, group {event['match_s']:.2f} s, exchange {event['exchange_s']:.2f} s"
        ),
        "retry": lambda: f"round {round_ + 1} is tried again: {event['reason']}",
        "adopted": lambda: f"caught up: now at round {round_} ({event['how']})",
        "mismatch": lambda: f"round {round_}: our result differed from the majority's; repaired",
        "refused a seat": lambda: f"round {round_ + 1} is made without this node: {event['reason']}",
        "refused": lambda: f"not let in ({len(event['by'])} peers say so): {event['reason']}",
        "let in": lambda: "let in: nobody refuses this node any more",
        "rejected": lambda: f"round {round_ + 1}: an offer was left out: {event['reason']}",
        "evaluated": lambda: f"held-out loss after round {round_}: {event['loss']:.4f} ± {event['stderr']:.4f}",
        "checkpoint failed": lambda: f"NO CHECKPOINT: {event['reason']}; {event['hint']}",
    }
    line = lines.get(kind)
    if line is not None:
        stamp = time.strftime("%H:%M:%S", time.localtime(event["time"]))
        text = printable(f"{stamp}  {line()}")  # reasons can hold words that a peer sent
        say(f"{chr(13) + chr(27) + '[K' if terminal else ''}{text}")


def _finish(status: dict[str, Any], json: bool) -> None:
    if status["error"]:
        raise TrainingError(
            f"the run {status['name']!r} failed: {status['error']['message']}", hint=status["error"]["hint"]
        )
    _print_status(status, json)
    if status["checkpoint_trouble"]:
        raise LocalIOError(
            f"the run {status['name']!r} is done, but not kept: {status['checkpoint_trouble']}",
            hint="make room: the node tries again every few seconds, and `ubcp status` says when it is kept",
        )


def _print_status(status: dict[str, Any], json: bool) -> None:
    from ubcp_p2p.cli.node import describe_run

    if json:
        emit_json(status)
    else:
        print(describe_run(status))
