"""A node whose trainer cheats (cheating_trainer.py): `python -m tests.support.cheating_node`, else as `ubcp`."""

from __future__ import annotations

from ubcp_p2p.__main__ import entry
from ubcp_p2p.training.spawn import spawn_worker

if __name__ == "__main__":
    spawn_worker.__defaults__ = ("tests.support.cheating_trainer",)  # the program that is started
    entry()
