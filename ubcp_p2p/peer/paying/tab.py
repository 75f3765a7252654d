"""What a paymaster owes to the contributors of one REQUEST: every bill is held against the rounds before. Pure.

A contributor bills a round with its certificate, which more than half of the round's group signed. Money is integers:
FLOP are summed, and as many whole GFLOP of them are owed as µcredits; nothing is owed above the ALLOT, above what the
device class can do in the time that the contributor was here, twice for one round, or for a round whose certificate
names another payer. The FLOP of a round that is drawn for a check are counted when the check is over.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ubcp_p2p.codec import Value, bytes_of, decode, encode, fields, hash_of, items, number
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.ledger.entry import CONTRIBUTORS_MAX, ROUNDS_MAX, SECONDS_MAX, TEXT_BYTES_MAX, ZERO
from ubcp_p2p.models.cost import UNIT_FLOP
from ubcp_p2p.peer.paying.holding import HOLDS_MAX, HOLDS_PER_NODE_MAX, Hold, hold_of
from ubcp_p2p.swarm.quorum import ROUND_MAX, Certificate, is_majority
from ubcp_p2p.units import AMOUNT_MAX
from ubcp_p2p.verification.draw import Draw

ROUNDS_KEPT: Final = 1024
ROUNDS_AWAY: Final = 512  # from the newest round that was paid: who names a far one would shut out the others
FIRST_SHARE: Final = 4  # the first ALLOT is so small a part of an equal share: who comes and goes holds nothing up
# A machine is off now and then, and opens nothing then; that it is found off three times, with no honest check
# between, and bills rounds each time, is no accident.
UNOPENED_MAX: Final = 3
TAB_BYTES_MAX: Final = 1 << 20
WORDS_MAX: Final = 300
FLOP_MAX: Final = 2**63 - 1
_BILLED_MAX: Final = 2**ROUNDS_KEPT - 1


class BillRefused(UbcpError):
    """A bill that is not paid, and why."""


class NotYet(BillRefused):
    """A bill that may be paid when it comes again."""


class NothingMore(BillRefused):
    """No bill of this contributor is paid any more."""


class Terms(NamedTuple):
    """What a REQUEST and its recipe say. credits: the most that all may earn, µcredits; share: that one account may, of
    work that nobody checks, None where it is checked."""

    request: bytes
    run_id: bytes
    flop_per_sample: int
    weight_max: int  # samples of one peer in one round
    peers_max: int
    rounds: int
    credits: int
    share: int | None = None


@dataclass
class Account:
    """One contributor. flop: metered so far. since_s: Unix seconds of its first word; what it owes its device class.

    billed: bit n for the round that is n before the last one, ROUNDS_KEPT bits. barred: why nothing more is paid;
    proof: the hash of the evidence for that, ZERO where there is none. withheld: rounds that could not be checked.
    unopened: times in a row that it did not open, the last at unopened_s.
    """

    opening: bytes
    device: str
    since_s: int
    flop: int = 0
    rounds: int = 0
    last_round: int = -1
    billed: int = 0
    units: int = 0  # what its newest voucher says
    seconds: int = 0
    evidence: bytes = ZERO  # SHA-256 chain over the certificates that it billed
    barred: str = ""
    proof: bytes = ZERO
    withheld: int = 0
    unopened: int = 0
    unopened_s: int = 0
    words: str = ""  # of the last check that was not in order


class Due(NamedTuple):
    """What a contributor's next voucher says. wanted: what it would be worth without the limit of its ALLOT, and with
    the rounds that wait for a check."""

    units: int
    rounds: int
    seconds: int
    wanted: int


@dataclass
class Tab:
    """All that is owed for one REQUEST. places: of each paid round its (base hash, group digest, state hash).

    holds: rounds that wait for a check, by (node, round).
    """

    terms: Terms
    accounts: dict[bytes, Account] = field(default_factory=dict)
    places: dict[int, tuple[bytes, bytes, bytes]] = field(default_factory=dict)
    holds: dict[tuple[bytes, int], Hold] = field(default_factory=dict)

    def welcome(self, node: bytes, opening: bytes, device: str, now_s: int) -> Account:
        """Note a contributor; one that is known keeps its first word. Raises BillRefused for one too many."""
        account = self.accounts.get(node)
        if account is None:
            if len(self.accounts) >= CONTRIBUTORS_MAX:
                raise BillRefused(f"a request has {CONTRIBUTORS_MAX} contributors at most")
            account = self.accounts[node] = Account(opening, device, now_s)
        return account

    def meter(
        self, node: bytes, certificate: Certificate, leased: Set[bytes], drawn: Draw | None = None, now_s: int = 0
    ) -> None:
        """Count one round of `node`, or hold it back where a check of it is drawn. Raises BillRefused, and then does
        nothing.

        certificate: verified. leased: the nodes whose leases of this run hold, by whichever REQUEST for it; more than
        half of the round's group must be of them, or names that cost nothing could sign a line of rounds of their own.
        """
        account, group, round_ = self.accounts.get(node), certificate.group, certificate.group.round
        if account is None:
            raise BillRefused("a bill before the first word")
        if account.barred:
            raise NothingMore(account.barred)
        seat = group.seat_of(node)
        if seat is None:
            raise BillRefused(f"the certificate of round {round_} does not name this contributor")
        if seat.payer != self.terms.request:
            raise BillRefused(f"the certificate of round {round_} names another payer for this contributor")
        if len(group.members) > self.terms.peers_max:
            raise BillRefused(f"a group of {len(group.members)} where the recipe seats {self.terms.peers_max}")
        if not is_majority(sum(peer in leased for peer in group.peers), len(group.peers)):
            raise BillRefused(f"most members of round {round_} have no lease of a request for this run")
        if not 0 <= round_ < self.terms.rounds:
            raise BillRefused(f"round {round_} of a run of {self.terms.rounds}")
        if round_ <= account.last_round:
            raise BillRefused(f"round {round_} was billed before, or a later one was")
        if drawn is not None and (len(self.holds) >= HOLDS_MAX or len(self.held(node)) >= HOLDS_PER_NODE_MAX):
            raise NotYet("too many rounds wait for their checks already")
        self._require_one_line(certificate)
        flop = min(FLOP_MAX, min(seat.weight, self.terms.weight_max) * self.terms.flop_per_sample)
        account.billed = (account.billed << min(round_ - account.last_round, ROUNDS_KEPT) | 1) & _BILLED_MAX
        account.last_round = round_
        if drawn is not None:
            self.holds[node, round_] = hold_of(certificate, drawn, flop, now_s)
        else:
            self._count(account, flop)

    def has_billed(self, node: bytes, round_: int) -> bool:
        """Whether `node` has billed this round here; so it is said, too, of rounds too long ago to be known."""
        account = self.accounts.get(node)
        if account is None or round_ > account.last_round:
            return False
        ago = account.last_round - round_
        return ago >= ROUNDS_KEPT or bool(account.billed >> ago & 1)

    def is_newest_of(self, node: bytes, certificate: Certificate) -> bool:
        """Whether this is the round that `node` has billed last, once more."""
        round_ = certificate.group.round
        return self.accounts[node].last_round == round_ and self.places.get(round_) == _place_of(certificate)

    def is_on_line(self, base: Certificate | None) -> bool:
        """Whether it is the round that was paid, if one was: among others the next one's data is cut otherwise."""
        return base is None or self.places.get(base.group.round) in (None, _place_of(base))

    def held(self, node: bytes) -> list[Hold]:
        """The rounds of `node` that wait for a check."""
        return [hold for (of, _), hold in self.holds.items() if of == node]

    def release(self, node: bytes, round_: int, *, honest: bool) -> None:
        """The round is owed. honest: it was checked, and not only given up to be."""
        hold = self.holds.pop((node, round_), None)
        if hold is not None:
            account = self.accounts[node]
            self._count(account, hold.flop)
            if honest:
                account.unopened = 0

    def withhold(self, node: bytes, round_: int, words: str, *, unopened: bool, now_s: int) -> None:
        """The round could not be checked, by the contributor's doing: it is never owed.

        Who does not open again and again earns nothing more. Rounds that were billed before it was found out the last
        time are of the same failure: a machine that is off for an hour opens none of them.
        """
        hold = self.holds.pop((node, round_), None)
        if hold is None:
            return
        account = self.accounts[node]
        account.withheld = min(account.withheld + 1, ROUNDS_MAX)
        account.words = words[:WORDS_MAX]
        if unopened and hold.since_s > account.unopened_s:
            account.unopened, account.unopened_s = account.unopened + 1, now_s
            if account.unopened >= UNOPENED_MAX:
                self.bar(node, f"it did not open its work {UNOPENED_MAX} times in a row; {words}", ZERO)

    def bar(self, node: bytes, words: str, proof: bytes) -> None:
        """It has lied, or does not open: no round that waits is owed, and none that it will bill."""
        account = self.accounts[node]
        if not account.barred:
            account.barred, account.proof = words[:WORDS_MAX], proof
        for hold in self.held(node):
            del self.holds[node, hold.round]

    def _count(self, account: Account, flop: int) -> None:
        account.flop = min(FLOP_MAX, account.flop + flop)
        account.rounds = min(account.rounds + 1, ROUNDS_MAX)

    def _require_one_line(self, certificate: Certificate) -> None:
        """One group a round, and each round from the one before: a run has one line, and only that is paid."""
        round_, here = certificate.group.round, _place_of(certificate)
        known = self.places.get(round_)
        if known is not None and known != here:
            raise BillRefused(f"another group's round {round_} was paid")
        before, after = self.places.get(round_ - 1), self.places.get(round_ + 1)
        if (before is not None and before[2] != here[0]) or (after is not None and after[0] != here[2]):
            raise BillRefused(f"round {round_} is not on the line of the rounds that were paid")
        newest = max(self.places, default=round_)
        if abs(round_ - newest) > ROUNDS_AWAY:
            raise BillRefused(f"round {round_} is too far from round {newest}, the newest that was paid")
        self.places[round_] = here
        while len(self.places) > ROUNDS_KEPT:
            del self.places[min(self.places)]

    def due(self, node: bytes, allotted: int, peak: int, now_s: int) -> Due:
        """What the next voucher of `node` is to say. peak: GFLOP/s of its device class at most."""
        account = self.accounts[node]
        seconds = min(max(account.seconds, now_s - account.since_s, 1), SECONDS_MAX)
        limit = min(peak * seconds, AMOUNT_MAX)
        wanted = min((account.flop + sum(hold.flop for hold in self.held(node))) // UNIT_FLOP, limit)
        units = max(account.units, min(account.flop // UNIT_FLOP, limit, allotted))
        return Due(units, account.rounds, seconds, wanted)

    def promise(self, node: bytes, due: Due, evidence: bytes) -> None:
        """The voucher that says this is about to be signed: to be kept before it is sent."""
        account = self.accounts[node]
        account.units, account.seconds, account.evidence = due.units, due.seconds, evidence

    def to_bytes(self) -> bytes:
        accounts: list[Value] = [
            [node, a.opening, a.device, a.since_s, a.flop, a.rounds, a.last_round + 1,
             a.billed.to_bytes(ROUNDS_KEPT // 8, "big"), a.units, a.seconds, a.evidence, a.barred, a.proof, a.withheld,
             a.unopened, a.unopened_s, a.words]
            for node, a in sorted(self.accounts.items())
        ]  # fmt: skip
        places: list[Value] = [[round_, *place] for round_, place in sorted(self.places.items())]
        holds: list[Value] = [[node, hold.to_value()] for (node, _), hold in sorted(self.holds.items())]
        return encode([self.terms.request, accounts, places, holds])

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> Tab:
        """Raises MalformedMessage; BillRefused for the tab of another REQUEST."""
        request, accounts, places, holds = fields(decode(data, bytes_max=TAB_BYTES_MAX), 4)
        if hash_of(request) != terms.request:
            raise BillRefused("the tab of another request")
        tab = cls(terms)
        for row in items(accounts, CONTRIBUTORS_MAX):
            cells = items(row, 17)
            if len(cells) == 14:  # of a version that noted neither which rounds were billed nor what was not opened
                cells = [*cells[:7], b"", *cells[7:13], 0, 0, cells[13]]
            (node, opening, device, since_s, flop, rounds, after, billed, units, seconds, evidence,
             barred, proof, withheld, unopened, unopened_s, words) = fields(cells, 17)  # fmt: skip
            if not isinstance(device, str) or len(device) > TEXT_BYTES_MAX:
                raise BillRefused("a tab with a device class that is none")
            if not isinstance(barred, str) or not isinstance(words, str) or max(len(barred), len(words)) > WORDS_MAX:
                raise BillRefused("a tab with words that are none")
            if len(bytes_of(billed)) > ROUNDS_KEPT // 8:
                raise BillRefused("a tab that knows of more rounds than it keeps")
            tab.accounts[hash_of(node)] = Account(
                hash_of(opening), device, number(since_s), number(flop, FLOP_MAX), number(rounds, ROUNDS_MAX),
                number(after, ROUND_MAX + 1) - 1, int.from_bytes(bytes_of(billed), "big"),
                number(units, AMOUNT_MAX), number(seconds, SECONDS_MAX), hash_of(evidence), barred, hash_of(proof),
                number(withheld, ROUNDS_MAX), number(unopened, UNOPENED_MAX), number(unopened_s), words,
            )  # fmt: skip
        for row in items(places, 2 * ROUNDS_KEPT):
            round_, base, group, state = fields(row, 4)
            tab.places[number(round_, ROUND_MAX)] = (hash_of(base), hash_of(group), hash_of(state))
        for row in items(holds, HOLDS_MAX):
            node, value = fields(row, 2)
            hold = Hold.of(value)
            if hash_of(node) not in tab.accounts:
                raise BillRefused("a tab that holds a round of nobody")
            tab.holds[hash_of(node), hold.round] = hold
        return tab


def _place_of(certificate: Certificate) -> tuple[bytes, bytes, bytes]:
    return certificate.group.base_hash, certificate.group.digest, certificate.state_hash


def allotment(terms: Terms, allots: dict[bytes, int], opening: bytes, wanted: int, limit: int = AMOUNT_MAX) -> int:
    """What to allot to a contributor now, µcredits; what it has is enough when that is returned.

    limit: what `share.limit_of` finds. It begins with a small part of an equal share and doubles as it is earned, so
    that what nobody earns stays free for who comes later. Never more in all than the REQUEST reserves.
    """
    has = allots.get(opening, 0)
    free = max(0, min(terms.credits - sum(allots.values()), limit - has))
    first = max(1, terms.credits // (terms.peers_max * FIRST_SHARE))
    if not has:
        return min(free, max(first, min(wanted, free)))
    if wanted <= has:
        return has
    return has + min(free, max(has, wanted - has))
