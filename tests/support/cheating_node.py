"""A node whose trainer cheats (cheating_trainer.py): `python -m tests.support.cheating_node`, else as `ubcp`."""

from __future__ import annotations

from functools import partial

from ubcp_p2p.__main__ import entry
from ubcp_p2p.training import process
from ubcp_p2p.training.spawn import spawn_worker

if __name__ == "__main__":
    process.spawn_worker = partial(spawn_worker, program="tests.support.cheating_trainer")  # type: ignore[assignment]
    entry()
