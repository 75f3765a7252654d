"""What a paymaster owes this node for one REQUEST, and its form on the disk: a restart forgives nothing. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from ubcp_p2p.codec import MalformedMessage, Value, bytes_of, decode, encode, fields, hash_of, items, number
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.models.cost import UNIT_FLOP, Cost
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.peer.paying.bill import BILL_BYTES_MAX
from ubcp_p2p.peer.paying.holding import HOLDS_PER_NODE_MAX
from ubcp_p2p.peer.paying.tab import FLOP_MAX
from ubcp_p2p.peer.paying.wire import Promise
from ubcp_p2p.swarm.quorum import ROUND_MAX

BILLS_MAX: Final = 64
OWED_BYTES_MAX: Final = BILLS_MAX * (BILL_BYTES_MAX + 8) + 8192
# What a paymaster may hold back for checks, and is not counted against it: so many drawn rounds, and all this young.
DRAWN_ROUNDS: Final = 16
DRAWN_S: Final = 120.0
ALLOT_S: Final = 10.0  # so long an ALLOT may be on its way: gossip is no slower, and a pull follows what it loses
PAUSE_S: Final = 1.0
PAUSE_S_MAX: Final = 30.0
AGAIN_S: Final = 2.0
WAIT_S: Final = 60.0  # more than the limit may be unpaid so long while an answer, or a turn to ask, is waited for


@dataclass
class Owed:
    """A REQUEST that this node works for. done: FLOP, what was promised before included. bills: the oldest first.

    held: rounds that the paymaster says to wait for a check; drawn: (monotonic seconds, FLOP) of those that may.
    paid: µcredits of the newest voucher that a RECEIPT could hold; a later one may wait for its ALLOT. late_s: since
    when more than the limit is unpaid. not_before_s: when the paymaster is asked again. stopped: it does not pay, and
    is asked no more. unkept: not all of this is on the disk. worked: a lease of it has held since the start; else this
    was left from before. last: the last slice that takes a RECEIPT for it, once that was looked up. looked: the
    slice that needs no other RECEIPT. waits_s: since when more than the limit is unpaid, whatever the paymaster does.
    """

    asked: Asked
    recipe: Recipe
    cost: Cost
    promise: Promise | None = None
    done: int = 0
    rounds: int = 0
    greeted: bool = False
    paid: int = 0
    late_s: float | None = None
    receipted: int = 0  # µcredits of the last RECEIPT
    words: str = ""
    held: int = 0
    stated_s: float = 0.0
    pause_s: float = PAUSE_S
    not_before_s: float = 0.0
    stopped: bool = False
    unkept: bool = False
    worked: bool = False
    last: int | None = None
    looked: int = -1
    waits_s: float | None = None
    drawn: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=HOLDS_PER_NODE_MAX))
    bills: deque[bytes] = field(default_factory=lambda: deque(maxlen=BILLS_MAX))

    @property
    def credits(self) -> int:
        return self.promise.voucher.credits if self.promise is not None else 0

    def begin(self) -> None:
        """A lease holds: the paymaster is greeted at once, whatever it has said when none did."""
        self.worked, self.greeted = True, False
        self.not_before_s, self.pause_s, self.waits_s = 0.0, PAUSE_S, None

    def is_over(self, slice_: int) -> bool:
        """Whether no RECEIPT can hold it any more."""
        return self.last is not None and slice_ > self.last

    def asks(self, now_s: float) -> bool:
        """Whether there is something to write down, or to ask of the paymaster, now."""
        if self.unkept:
            return True
        if self.stopped or now_s < self.not_before_s:
            return False
        waits = self.held > 0 and now_s - self.stated_s >= AGAIN_S
        return bool(self.bills) or not self.greeted or waits or self.paid < self.credits

    def work(self, bill: bytes, flop: int, now_s: float, *, drawn: bool) -> None:
        """One round more was done."""
        self.bills.append(bill)
        self.done = min(FLOP_MAX, self.done + flop)
        if drawn:
            self.drawn.append((now_s, flop))
        self.rounds += 1
        self.unkept = True

    def settle(self, bill: bytes) -> None:
        """This bill was answered, and no other: it may have fallen out of the row meanwhile."""
        if self.bills and self.bills[0] == bill:
            self.bills.popleft()

    def write_off(self) -> None:
        """Nothing more comes of it: what is not in a voucher is lost."""
        self.done, self.held = self.paid * UNIT_FLOP, 0
        self.bills.clear()
        self.stopped = self.unkept = True

    def put_off(self, now_s: float) -> None:
        """The paymaster has said "not now": ask again, and ever more seldom."""
        self.not_before_s, self.pause_s = now_s + self.pause_s, min(2 * self.pause_s, PAUSE_S_MAX)

    def waiting(self, now_s: float) -> int:
        """FLOP that the paymaster may hold back: of rounds that were drawn, and that it says to wait for checks."""
        newest = list(reversed(self.drawn))[: self.held]
        return sum(flop for place, (at_s, flop) in enumerate(newest) if place < DRAWN_ROUNDS or now_s - at_s < DRAWN_S)

    def unpaid_rounds(self, now_s: float) -> int:
        """So many rounds' work is not in a voucher that is worth something, rounded up, but for what may wait and the
        part of a unit that no voucher can hold."""
        missing = self.done - self.waiting(now_s) - (self.paid + 1) * UNIT_FLOP
        return -(-max(0, missing) // (self.cost.flop_per_sample * self.cost.samples_per_round))

    def is_overdue(self, now_s: float, rounds_max: int) -> bool:
        """Whether more is unpaid than may be; a voucher whose ALLOT is on its way has some seconds from then on."""
        self.late_s = self._since(self.late_s, now_s, rounds_max)
        return self.late_s is not None and (self.credits <= self.paid or now_s - self.late_s >= ALLOT_S)

    def is_kept_waiting(self, now_s: float, rounds_max: int) -> bool:
        """Whether more is unpaid than may be for so long that no answer is waited for any more."""
        self.waits_s = self._since(self.waits_s, now_s, rounds_max)
        return self.waits_s is not None and now_s - self.waits_s >= WAIT_S

    def _since(self, before_s: float | None, now_s: float, rounds_max: int) -> float | None:
        """Since when more than that is unpaid, None where it is not. before_s: what was said when it was asked last."""
        if self.unpaid_rounds(now_s) <= rounds_max:
            return None
        return now_s if before_s is None else before_s

    # -- on the disk ----------------------------------------------------------------------------------------------

    def to_bytes(self, now_s: float, unix_s: float) -> bytes:
        """All but the voucher, which has a file of its own. now_s: monotonic, which a restart begins anew."""
        drawn: list[Value] = [[max(0, int(unix_s - (now_s - at_s))), flop] for at_s, flop in self.drawn]
        return encode([self.asked.id, self.done, self.rounds, self.held, drawn, list(self.bills)])

    def recall(self, data: bytes, now_s: float, unix_s: float) -> None:
        """What was owed before the restart, of which the voucher tells a part. Raises MalformedMessage."""
        request, done, rounds, held, drawn, bills = fields(decode(data, bytes_max=OWED_BYTES_MAX), 6)
        if hash_of(request) != self.asked.id:
            raise MalformedMessage("what is owed for another request")
        found = [fields(row, 2) for row in items(drawn, HOLDS_PER_NODE_MAX)]
        waiting = [(now_s - max(0.0, unix_s - number(at_s)), number(flop, FLOP_MAX)) for at_s, flop in found]
        found_bills = [bytes_of(bill) for bill in items(bills, BILLS_MAX)]
        if any(len(bill) > BILL_BYTES_MAX for bill in found_bills):
            raise MalformedMessage("a bill longer than such are")
        done_, rounds_, held_ = number(done, FLOP_MAX), number(rounds, ROUND_MAX), number(held, HOLDS_PER_NODE_MAX)
        self.done, self.rounds, self.held = max(self.done, done_), rounds_, held_
        self.drawn.extend(waiting)
        self.bills.extend(found_bills)
