"""One REQUEST as its paymaster has it in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.peer.paying.tab import Tab, Terms


@dataclass
class Job:
    """allots: OPEN id → (id of the newest ALLOT, µcredits). false_reports: by validator, of lies that were none.

    lock: of whoever changes the tab or signs by it. closed: the numbers of its CLOSE are read, so nothing more is
    promised. unkept: the tab says something that is not on the disk. users: tasks that have the job in their hands.
    """

    terms: Terms
    recipe: Recipe
    tab: Tab
    allots: dict[bytes, tuple[bytes, int]]
    expiry: int
    run: str  # its name
    false_reports: dict[bytes, int] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False
    unkept: bool = False
    users: int = 0

    @property
    def request(self) -> bytes:
        return self.terms.request

    @property
    def is_idle(self) -> bool:
        """Whether it may be dropped, and be read from the disk when it is needed again."""
        return not (self.users or self.tab.holds or self.unkept)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The job stays in memory meanwhile."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    def amounts(self) -> dict[bytes, int]:
        """OPEN id → µcredits of its newest ALLOT."""
        return {opening: credits_ for opening, (_, credits_) in self.allots.items()}
