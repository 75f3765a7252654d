"""`python -m ubcp_p2p.peer.demo.villains KIND up --profile DIR`: a node as `ubcp up` starts it, but for one part.

Each kind swaps in what it lies with before the node's code looks for the honest part; the rest of it is our own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from ubcp_p2p.log import setup_logging
from ubcp_p2p.peer.node import Node, run_node
from ubcp_p2p.peer.profile import Profile
from ubcp_p2p.training import process
from ubcp_p2p.training.spawn import spawn_worker

TRAINERS: Final = "ubcp_p2p.peer.demo.villains.trainer"


def _trainer(program: str) -> type[Node]:
    """Its trainer process runs another program."""
    setattr(process, "spawn_worker", partial(spawn_worker, program=f"{TRAINERS}.{program}"))  # noqa: B010
    return Node


def _weight_inflator() -> type[Node]:
    from ubcp_p2p.peer.demo.villains.members import Inflator, play

    play(Inflator)
    return _trainer("idle")


def _state_liar() -> type[Node]:
    from ubcp_p2p.peer.demo.villains.members import StateLiar, play

    play(StateLiar)
    return Node


def _forker() -> type[Node]:
    from ubcp_p2p.peer.demo.villains.authors import Forker

    return Forker


def _overspender() -> type[Node]:
    from ubcp_p2p.peer.demo.villains.authors import Overspender

    return Overspender


PARTS: Final[Mapping[str, Callable[[], type[Node]]]] = {
    "freeloader": partial(_trainer, "freeloader"),
    "copycat": partial(_trainer, "copycat"),
    "nan-sender": partial(_trainer, "nan_sender"),
    "weight-inflator": _weight_inflator,
    "state-liar": _state_liar,
    "forker": _forker,
    "overspender": _overspender,
}


def main() -> None:
    """The words are those of `ubcp`, after the kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=PARTS)
    parser.add_argument("command", choices=["up"])
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("--peer", action="append", default=[])
    options = parser.parse_args()
    profile = Profile(options.profile)
    config = profile.config()
    setup_logging(config.log.level, file=profile.log / "ubcp.log")
    node = PARTS[options.kind]()
    run_node(node(profile, config, join=tuple(options.peer)))


if __name__ == "__main__":
    main()
