"""A small community made from a seed: charter, stewards, people, machines, requests, payments. For synth and tests.

Every entry that a World writes is applied to its own Ledger, so that a World is valid by construction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from ubcp_p2p.charter.values import Allowance, Charter, Charters, DeviceClass, SignedCharter, Unit
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger import rules
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import (
    URGENCY_MIN,
    ZERO,
    Allot,
    Body,
    Close,
    Decision,
    Enrol,
    OpenAccount,
    OpenNode,
    Position,
    Receipt,
    Request,
    Voucher,
)
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.wire import Signed, verify
from ubcp_p2p.units import MICROCREDITS

CHARTER: Final = Charter(
    name="synthetic", epoch=1_767_225_600, slice_s=900, period_slices=96 * 7,
    allowance=Allowance(10_000 * MICROCREDITS, 5_000 * MICROCREDITS), allowance_periods=4, earned_periods=12,
    exposure_cap=1_000_000 * MICROCREDITS, grace_slices=96, enrolment_periods_max=52, threshold=0, stewards=(),
    units=(Unit("lab", 1), Unit("school", 2), Unit("village", 1)),
    devices=(DeviceClass("cpu-8", 500), DeviceClass("gpu-24g", 80_000)), purposes=("education", "research"),
)  # fmt: skip
DEVICE: Final = "gpu-24g"
PEAK: Final = 80_000


def secret(seed: int, label: str) -> bytes:
    """The 32 bytes that a key of a World is made from. Anybody can know them: never for a real community."""
    return hashlib.sha256(f"ubcp/synth/1\0{seed}/{label}".encode()).digest()


class World:
    """`entries` in causal order. Times are slices; `now` is the writer's clock."""

    def __init__(
        self,
        seed: int = 0,
        *,
        charter: Charter = CHARTER,
        stewards: int = 3,
        threshold: int = 2,
        trusting: bool = False,
    ) -> None:
        """trusting: signatures that it has just made are not verified."""
        self.seed = seed
        self.trusting = trusting
        self.stewards = [AccountKey(secret(seed, f"steward {i}")) for i in range(stewards)]
        first = Charter(
            **{
                **vars(charter),
                "stewards": tuple(sorted(key.public for key in self.stewards)),
                "threshold": threshold,
            }
        )
        signatures = ((key.public, key.sign("charter", first.id)) for key in self.stewards)
        self.charters = Charters(SignedCharter(first).signed(signatures))
        self.charter = first
        self.ledger = Ledger(self.charters)
        self.entries: list[Signed] = []
        self.now = 0
        self._by_author: dict[bytes, list[Signed]] = {}
        self._paid: dict[tuple[bytes, bytes], Voucher] = {}

    def history(self, author: bytes, wanted: Collection[bytes] | None = None) -> Sequence[Signed]:
        """All applied entries of an author: a state.History."""
        return self._by_author.get(author, [])

    def take(self, signed: Signed) -> Signed:
        """Verify and apply. Raises what rules.apply raises."""
        if not self.trusting:
            verify(signed)
        if rules.apply(self.ledger, signed, self.history):
            self.entries.append(signed)
            self._by_author.setdefault(signed.entry.author, []).append(signed)
        return signed

    def write(self, author: Author, body: Body, cosigners: Iterable[AccountKey | NodeKey] = ()) -> Signed:
        """The author's next entry, now."""
        return self.take(author.write(self.now, body, cosigners))

    # -- people and machines --------------------------------------------------------------------------------------

    def account(self, name: str, *, enrol: bool = True, newcomer: bool = False, recovery: bytes = ZERO) -> Author:
        """A new account, opened, and enrolled for as long as the charter lets it."""
        author = Author(self.charters.network, AccountKey(secret(self.seed, f"account {name}")))
        self.write(author, OpenAccount(recovery))
        if enrol:
            self.enrol(author, name, newcomer=newcomer)
        return author

    def enrol(
        self,
        author: Author,
        person: str,
        *,
        newcomer: bool = False,
        periods: int | None = None,
        unit: str | None = None,
        first: int | None = None,
    ) -> Signed:
        """By default from now on, for as long as the charter lets it, in a unit that follows from the name."""
        first = self.ledger.period(self.now) if first is None else first
        until = first + (periods or self.charter.enrolment_periods_max)
        nullifier = hashlib.sha256(f"ubcp/synth/person/{self.seed}/{person}".encode()).digest()
        units = self.charter.units
        unit = unit or units[int.from_bytes(nullifier[:2], "big") % len(units)].name
        body = Enrol(newcomer, unit, first, until, nullifier)
        return self.write(author, body, self.stewards[: self.charter.threshold])

    def node(self, owner: Author, name: str) -> Author:
        """A new machine of `owner`."""
        node = Author(self.charters.network, NodeKey(secret(self.seed, f"node {name}")))
        assert owner.head is not None
        self.write(node, OpenNode(owner.head), [owner.key])
        return node

    def opening(self, author: Author) -> bytes:
        """The id of the author's OPEN."""
        return self.ledger.chains[author.public][0].opening

    # -- work and pay ---------------------------------------------------------------------------------------------

    def request(
        self,
        author: Author,
        paymaster: Author,
        credits_: int,
        *,
        slices: int = 96,
        income: Iterable[Position] = (),
        closes: Iterable[bytes] = (),
    ) -> Signed:
        body = Request(
            run=f"run {len(self.ledger.requests)}",
            recipe=hashlib.sha256(b"a recipe").digest(),
            purpose=self.charter.purposes[0],
            peers_min=1,
            peers_max=8,
            units=max(1, credits_ // slices),
            credits=credits_,
            expiry=self.now + slices,
            deadline=self.now + slices,
            urgency=URGENCY_MIN,
            paymaster=paymaster.public,
            income=tuple(sorted(income)),
            closes=tuple(sorted(closes)),
        )
        return self.write(author, body)

    def decide(
        self,
        node: Author,
        accepted: Iterable[Signed] = (),
        *,
        slice_: int | None = None,
        budget: int = 10**9,
        refused: dict[str, int] | None = None,
    ) -> Signed:
        """What `node` decides on a slice, by default this one. accepted: REQUESTs. refused: reason → count."""
        ids = tuple(sorted(signed.entry.id for signed in accepted))
        reasons = tuple(sorted((refused or {}).items(), key=lambda row: row[0].encode()))
        on = self.now if slice_ is None else slice_
        return self.write(node, Decision(on, budget, 1, ids, reasons, hashlib.sha256(b"inputs").digest()))

    def allot(self, paymaster: Author, request: Signed, contributor: Author, credits_: int) -> Signed:
        return self.write(paymaster, Allot(request.entry.id, self.opening(contributor), credits_))

    def receipt(self, contributor: Author, paymaster: Author, allot: Signed, credits_: int) -> Signed:
        """A receipt over `credits_` more than the contributor's last one for this REQUEST, with its voucher."""
        fact = self.ledger.allots[allot.entry.id]
        before = self._paid.get((contributor.public, fact.request))
        units = credits_ + (before.units if before else 0)
        voucher = Voucher(
            network=self.charters.network,
            paymaster=paymaster.public,
            request=fact.request,
            allot=fact.id,
            contributor=contributor.public,
            units=units,
            credits=units,
            rounds=1 + (before.rounds if before else 0),
            device=DEVICE,
            seconds=max(-(-units // PEAK), before.seconds if before else 0),
            evidence=hashlib.sha256(fact.id + units.to_bytes(8, "big")).digest(),
        )
        signed = self.write(contributor, Receipt(voucher, paymaster.voucher(voucher).signature))
        self._paid[contributor.public, fact.request] = voucher
        return signed

    def close(self, author: Author, request: Signed) -> Signed:
        """Close a REQUEST with what was paid; its expiry and grace must be over."""
        fact = self.ledger.requests[request.entry.id]
        paid = self.ledger.paid.get(fact.id, {})
        allotted = {a.contributor for a in self.ledger.allots.values() if a.request == fact.id}
        final = tuple(sorted((contributor, paid.get(contributor, 0)) for contributor in allotted))
        return self.write(author, Close(fact.id, final, fact.credits - sum(c for _, c in final)))
