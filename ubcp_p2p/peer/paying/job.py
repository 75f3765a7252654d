"""One REQUEST as its paymaster has it in memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.peer.paying.tab import Tab, Terms

GROUPS_KEPT: Final = 64


@dataclass
class Job:
    """allots: OPEN id → (id of the newest ALLOT, µcredits). groups: the members of rounds that were billed lately.

    ending: no more rounds follow. false_reports: by validator, of lies that were none.
    """

    terms: Terms
    recipe: Recipe
    tab: Tab
    allots: dict[bytes, tuple[bytes, int]]
    expiry: int
    groups: OrderedDict[int, tuple[bytes, ...]] = field(default_factory=OrderedDict)
    false_reports: dict[bytes, int] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def request(self) -> bytes:
        return self.terms.request

    def amounts(self) -> dict[bytes, int]:
        """OPEN id → µcredits of its newest ALLOT."""
        return {opening: credits_ for opening, (_, credits_) in self.allots.items()}

    def note_group(self, round_: int, peers: tuple[bytes, ...]) -> None:
        """Whom the next round's data is cut among."""
        self.groups[round_] = peers
        while len(self.groups) > GROUPS_KEPT:
            self.groups.popitem(last=False)
