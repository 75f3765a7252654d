"""`python -m ubcp_p2p.peer.demo.villains KIND up --profile DIR`: a node as `ubcp up` starts it, but for one part.

Each kind swaps in what it lies with before the node's code looks for the honest part; the rest of it is our own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import ubcp_p2p.peer.node as node_module
from ubcp_p2p.__main__ import entry
from ubcp_p2p.training import process
from ubcp_p2p.training.spawn import spawn_worker

TRAINERS: Final = "ubcp_p2p.peer.demo.villains.trainer"


def _trainer(program: str) -> None:
    """Its trainer process runs another program."""
    setattr(process, "spawn_worker", partial(spawn_worker, program=f"{TRAINERS}.{program}"))  # noqa: B010


def _weight_inflator() -> None:
    from ubcp_p2p.peer.demo.villains.members import Inflator, play

    _trainer("idle")
    play(Inflator)


def _state_liar() -> None:
    from ubcp_p2p.peer.demo.villains.members import StateLiar, play

    play(StateLiar)


def _forker() -> None:
    from ubcp_p2p.peer.demo.villains.authors import Forker

    node_module.Node = Forker  # type: ignore[misc]


def _overspender() -> None:
    from ubcp_p2p.peer.demo.villains.authors import Overspender

    node_module.Node = Overspender  # type: ignore[misc]


PARTS: Final[Mapping[str, Callable[[], None]]] = {
    "freeloader": partial(_trainer, "freeloader"),
    "copycat": partial(_trainer, "copycat"),
    "nan-sender": partial(_trainer, "nan_sender"),
    "weight-inflator": _weight_inflator,
    "state-liar": _state_liar,
    "forker": _forker,
    "overspender": _overspender,
}

if __name__ == "__main__":
    PARTS[sys.argv.pop(1)]()
    entry()
