"""`ubcp demo`: a whole community on this machine, from its charter to the audit of its ledger."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ubcp_p2p.cli.output import JsonOption, emit_json, require_extra, say
from ubcp_p2p.errors import LocalIOError

DEFAULT_PNG = "ubcp-demo.png"


class Device(StrEnum):
    """The CPU unless asked: the story and its figures are the same on every machine then."""

    CPU = "cpu"
    CUDA = "cuda"


class Villain(StrEnum):
    """As in ubcp_p2p.peer.demo.villain, which is too heavy for --help; a test holds the two together."""

    FREELOADER = "freeloader"
    FORKER = "forker"
    OVERSPENDER = "overspender"
    WEIGHT_INFLATOR = "weight-inflator"
    NAN_SENDER = "nan-sender"
    STATE_LIAR = "state-liar"
    COPYCAT = "copycat"


def demo(
    json: JsonOption = False,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png",
            metavar="PATH",
            help=f"Where to write the loss plot [default: ./{DEFAULT_PNG}; with --json: nowhere].",
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="DIR", help="Keep the nodes' profiles and logs in DIR (empty or new)."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The same story in fewer and shorter rounds: no gain to be seen.")
    ] = False,
    device: Annotated[
        Device, typer.Option("--device", help="What the peers train on; all of them share one GPU with cuda.")
    ] = Device.CPU,
    villain: Annotated[
        Villain | None,
        typer.Option("--villain", metavar="KIND", help=f"Add a peer that cheats: {', '.join(Villain)}."),
    ] = None,
) -> None:
    """Show a whole community.

    One member, who has no machine to train on, asks for a language model of Shakespeare's plays; four peers, each a
    process of its own on loopback, train it and are paid for each round. The third peer comes late, the fourth is
    killed in the middle of a round. At the end: the loss, who contributed what, everybody's credits, the allocators'
    decisions in words, and an audit of the ledger. The survivors' models are compared with each other, and with what
    one peer alone learns in as many steps. It takes up to two minutes on two free cores. Progress is on stderr; Ctrl-C
    ends everything at any moment.

    --villain adds a peer with an account like everybody's, whose node has one hostile part: it is caught, unpaid, and
    the model unharmed. Every peer's work is then checked in every round, and takes a minute more.

    Exit code 1: something of this did not come true.
    """
    began_s = time.monotonic()
    require_extra("peer")
    from rich.console import Console

    from ubcp_p2p.peer.demo.plots import write_png
    from ubcp_p2p.peer.demo.report import check, document, show
    from ubcp_p2p.peer.demo.run import run_demo

    target = png if png is not None or json else Path(DEFAULT_PNG)
    if target is not None:
        _refuse_unwritable(target)
    outcome = run_demo(quick=quick, device=device.value, keep=keep, began_s=began_s, villain=villain and villain.value)
    if target is not None:
        write_png(outcome, target)
    outcome = replace(outcome, seconds=time.monotonic() - began_s)
    if json:
        check(outcome, gain=not quick and villain is None)
        emit_json(document(outcome))
        return
    show(outcome, Console(highlight=False), target.absolute() if target is not None else None)
    if keep is not None:
        say(f"profiles and logs: {keep}")
    check(outcome, gain=not quick and villain is None)


def _refuse_unwritable(path: Path) -> None:
    """Before the work rather than after it."""
    place = path if path.exists() else path.parent
    if path.is_dir() or not path.parent.is_dir() or not os.access(place, os.W_OK):
        raise LocalIOError(f"cannot write the plot to {path}", hint="give a place for it with --png PATH")
