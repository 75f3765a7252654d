"""A store's life in steps, and children that are killed at every statement of it.

`python -m tests.support.store_life FOLDER` makes FOLDER/0, FOLDER/1, …: in each lies the store of a child that killed
itself (SIGKILL) at that point, and `acknowledged`, one byte for each step that had returned to it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.community import CREDIT, Community, community, new_store, second_charter
from ubcp_p2p.keys import AccountKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import Request
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import secret

FILE = "ledger.sqlite3"
TOGETHER = 16  # children at once: they wait for the disk most of the time


class Life:
    """The same for the same seed: entries that wait, a proof that comes first, a draft, a charter that comes late."""

    def __init__(self) -> None:
        self.town: Community = community()
        world = self.town.world
        self.entries = list(self.town.entries)
        self.world = world
        paymaster = world.entries[-1].entry.body
        assert isinstance(paymaster, Request)
        self.late = second_charter(world.charters, world, effective=1, exposure_cap=100 * CREDIT)
        self.own = self._own(paymaster.paymaster)
        self.steps: tuple[Callable[[Store], object], ...] = (
            lambda store: store.append(self.entries[:6]),
            lambda store: store.append(self.entries[9:14]),
            lambda store: store.add_proof(self.town.proof),
            lambda store: store.append(self.entries),
            lambda store: store.put_blob(b"evidence"),
            lambda store: store.put_draft(self.own.entry.author, b"a draft"),
            lambda store: store.add_own(self.own, draft=1),
            lambda store: store.add_charter(self.late),
        )

    def _own(self, paymaster: bytes) -> Signed:
        """A REQUEST in period 1, good by the first charter and above the second one's cap."""
        key = AccountKey(secret(self.world.seed, "account ben"))
        author = Author(self.world.charters.network, key, head=self.world.history(key.public)[-1].entry.position)
        purpose, now = self.world.charter.purposes[0], self.world.charter.period_slices
        body = Request("run", bytes(32), purpose, 1, 1, 1, 600 * CREDIT, now, now, 1000, paymaster, (), ())
        return author.draft(now, body)

    def play(self, path: Path, after: Callable[[Store], object]) -> None:
        """Step 0 makes the store."""
        with new_store(path, self.world) as store:
            after(store)
            for step in self.steps:
                step(store)
                after(store)


class _Counting(sqlite3.Connection):
    """Calls `point` before and after each statement."""

    point: Callable[[], None]

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        _Counting.point()
        cursor = super().execute(*arguments)
        _Counting.point()
        return cursor


def _play_until(life: Life, folder: Path, at: int) -> int:
    """How many points there were; never returns when `at` is one of them."""
    points = 0

    def point() -> None:
        nonlocal points
        if points == at:
            os.kill(os.getpid(), signal.SIGKILL)
        points += 1

    _Counting.point = staticmethod(point)
    folder.mkdir()
    said = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT)
    life.play(folder / FILE, lambda _: os.write(said, b"."))
    os.close(said)
    return points


def _child(life: Life, root: Path, at: int) -> int:
    """Its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            _play_until(life, root / str(at), at)
        finally:
            os._exit(1)  # not killed: who waits for it says so
    return pid


def main(root: Path) -> None:
    life = Life()
    connect = sqlite3.connect

    def counting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=_Counting, **options)

    sqlite3.connect = counting  # type: ignore[assignment]  # the same, with another class of connection
    points = _play_until(life, root / "whole", -1)
    for group in range(0, points, TOGETHER):
        pids = [_child(life, root, at) for at in range(group, min(group + TOGETHER, points))]
        for pid in pids:
            _, status = os.waitpid(pid, 0)
            assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, group
    print(points)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
