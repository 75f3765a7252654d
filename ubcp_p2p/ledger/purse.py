"""One account's credits: vintages that expire, reserves, debt. Exact integers, zero-sum at every event (SPEC §8). Pure.

Always `issued + earned = available + reserved + released + burned − debt`: what came in is somewhere. `check` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ubcp_p2p.ledger.faults import LedgerError

ALLOWANCE: Final = 0
EARNED: Final = 1


class Vintage(NamedTuple):
    """Credits of one period and source, in the order in which they are spent (SPEC §8.2).

    expires: the first period in which they are gone. source: ALLOWANCE or EARNED.
    """

    expires: int
    period: int
    source: int


class Reserve(NamedTuple):
    """What one REQUEST set aside. parts: oldest vintage first. uncovered: what no vintage covered, after a fork."""

    parts: tuple[tuple[Vintage, int], ...]
    uncovered: int

    @property
    def amount(self) -> int:
        return sum(amount for _, amount in self.parts) + self.uncovered


@dataclass
class Purse:
    """What one account has, in µcredits. released: what closes left to the contributors."""

    vintages: dict[Vintage, int] = field(default_factory=dict)
    reserves: dict[bytes, Reserve] = field(default_factory=dict)  # by REQUEST id
    debt: int = 0
    issued: int = 0
    earned: int = 0
    released: int = 0
    burned: int = 0

    def copy(self) -> Purse:
        """An independent purse with the same content."""
        return Purse(
            dict(self.vintages), dict(self.reserves), self.debt, self.issued, self.earned, self.released, self.burned
        )

    @property
    def available(self) -> int:
        return sum(self.vintages.values())

    @property
    def reserved(self) -> int:
        return sum(reserve.amount for reserve in self.reserves.values())

    def add(self, vintage: Vintage, amount: int) -> None:
        """An allowance, or income."""
        if vintage.source == ALLOWANCE:
            self.issued += amount
        else:
            self.earned += amount
        self._put(vintage, amount)

    def expire(self, period: int) -> int:
        """Burn what cannot be spent in `period` any more (SPEC §8.2), debt being repaid first; returns what burned."""
        self.repay()
        gone = sum(self.vintages.pop(vintage) for vintage in [v for v in self.vintages if v.expires <= period])
        self.burned += gone
        return gone

    def repay(self) -> None:
        """Let what is available repay debt, oldest vintage first (SPEC §8.6)."""
        if self.debt and self.vintages:
            self.debt -= sum(amount for _, amount in self._take(self.debt))

    def reserve(self, request: bytes, amount: int, *, overdraw: bool = False) -> None:
        """Set `amount` aside, oldest vintage first. overdraw: what is not there becomes debt (SPEC §8.6)."""
        parts = self._take(amount)
        uncovered = amount - sum(part for _, part in parts)
        assert overdraw or not uncovered
        self.reserves[request] = Reserve(parts, uncovered)
        self.debt += uncovered

    def close(self, request: bytes, returned: int) -> None:
        """End a reserve (SPEC §8.5): `returned` goes back, youngest part first; the rest is the contributors'.

        What no vintage had covered is the youngest part: it takes debt back, and burns where that was repaid since.
        """
        reserve = self.reserves.pop(request)
        self.released += reserve.amount - returned
        uncovered = min(reserve.uncovered, returned)
        forgiven = min(uncovered, self.debt)
        self.debt -= forgiven
        self.burned += uncovered - forgiven
        returned -= uncovered
        for vintage, amount in reversed(reserve.parts):
            part = min(amount, returned)
            returned -= part
            self._put(vintage, part)

    def check(self) -> None:
        """SPEC §8.1. Raises LedgerError when something was made or lost, which is a mistake of this program."""
        if self.issued + self.earned != self.available + self.reserved + self.released + self.burned - self.debt:
            raise LedgerError("zero-sum", "an account's credits do not sum to zero: a mistake in this program")

    def _put(self, vintage: Vintage, amount: int) -> None:
        if amount:
            self.vintages[vintage] = self.vintages.get(vintage, 0) + amount

    def _take(self, amount: int) -> tuple[tuple[Vintage, int], ...]:
        taken = []
        for vintage in sorted(self.vintages):
            part = min(amount, self.vintages[vintage])
            if part == 0:
                break
            amount -= part
            taken.append((vintage, part))
            if part == self.vintages[vintage]:
                del self.vintages[vintage]
            else:
                self.vintages[vintage] -= part
        return tuple(taken)
