"""One REQUEST as its paymaster has it in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.peer.paying.tab import Tab, Terms


@dataclass
class Job:
    """allots: OPEN id → (id of the newest ALLOT, µcredits). false_reports: by validator, of lies that were none."""

    terms: Terms
    recipe: Recipe
    tab: Tab
    allots: dict[bytes, tuple[bytes, int]]
    expiry: int
    false_reports: dict[bytes, int] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def request(self) -> bytes:
        return self.terms.request

    def amounts(self) -> dict[bytes, int]:
        """OPEN id → µcredits of its newest ALLOT."""
        return {opening: credits_ for opening, (_, credits_) in self.allots.items()}
