"""Entries ahead of this machine's clock: left out, counted, and told in words (SPEC §5.4).

One such entry would let every allowance up to its slice expire; it is early, and nobody's fault before its time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias

from ubcp_p2p.charter.values import Charter

CLOCK_HINT: Final = "is this machine's clock right?"
Until: TypeAlias = Callable[[Charter], int]  # the greatest slice that counts, by a community's first charter


def by_clock(now_s: float) -> Until:
    """What SPEC §5.4 lets in at a moment (Unix time)."""
    return lambda charter: charter.slice_at(now_s) + 1


@dataclass
class Ahead:
    """What was left out. first: the least slice of those that are ahead. dependent: ids that refer to one of them."""

    ids: set[bytes] = field(default_factory=set)
    dependent: set[bytes] = field(default_factory=set)
    first: int = 0

    def add(self, id_: bytes, slice_: int) -> None:
        self.first = min(slice_, self.first) if self.ids else slice_
        self.ids.add(id_)

    def __contains__(self, id_: bytes) -> bool:
        return id_ in self.ids or id_ in self.dependent

    def __bool__(self) -> bool:
        return bool(self.ids)

    def words(self, charter: Charter) -> str:
        """`3 entries are of the future (first: slice 2558016, 2099-01-01 00:00 UTC)`."""
        are = "entry is" if len(self.ids) == 1 else "entries are"
        return f"{len(self.ids)} {are} of the future (first: slice {self.first}, {moment(charter, self.first)} UTC)"


def moment(charter: Charter, slice_: int) -> str:
    """When a slice begins, to the minute."""
    try:
        begins = datetime.fromtimestamp(charter.epoch + slice_ * charter.slice_s, UTC)
    except (ValueError, OverflowError):
        return "after 9999"  # a slice number may lie thousands of years ahead
    return begins.strftime("%Y-%m-%d %H:%M")
