"""A World with a small charter and shorthands, for vectors and tests: drafts that are right but for one thing."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ubcp_p2p.charter.values import Allowance, Charter, DeviceClass, SignedCharter, Unit
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, Body, Position, Receipt, Request, Voucher, references
from ubcp_p2p.ledger.parse import make
from ubcp_p2p.ledger.wire import Signed, sign
from ubcp_p2p.ledger.world import World, secret

Key = AccountKey | NodeKey

# 10 slices a period; 1000 (400) µcredits a period, good for 2 periods, earned ones for 3; at most 1500 in a period.
SMALL = Charter(
    name="small", epoch=1_767_225_600, slice_s=86_400, period_slices=10, allowance=Allowance(1000, 400),
    allowance_periods=2, earned_periods=3, exposure_cap=1500, grace_slices=4, enrolment_periods_max=6, threshold=0,
    stewards=(), units=(Unit("lab", 1), Unit("village", 2)),
    devices=(DeviceClass("cpu-8", 500), DeviceClass("gpu-24g", 80_000)), purposes=("education", "research"),
    half_life_slices=70, ageing_slices=10,
)  # fmt: skip


class Scene(World):
    """Names people; `ask` and `pay` make bodies, `draft` signs without applying."""

    def __init__(self, seed: int = 0, *, stewards: int = 3, threshold: int = 2, **changes: Any) -> None:
        super().__init__(seed, charter=replace(SMALL, **changes), stewards=stewards, threshold=threshold)
        self.names: dict[str, Author] = {}

    def account(self, name: str, *, enrol: bool = True, newcomer: bool = False, recovery: bytes = ZERO) -> Author:
        author = super().account(name, enrol=enrol, newcomer=newcomer, recovery=recovery)
        self.names[name] = author
        return author

    def request(
        self,
        author: Author,
        paymaster: Author,
        credits_: int,
        *,
        slices: int = 10,
        income: Iterable[Position] = (),
        closes: Iterable[bytes] = (),
    ) -> Signed:
        return super().request(author, paymaster, credits_, slices=slices, income=income, closes=closes)

    def key(self, label: str) -> AccountKey:
        """Some key of nobody."""
        return AccountKey(secret(self.seed, f"key {label}"))

    def amend(self, effective: int, **changes: Any) -> None:
        """A next version of the charter, in force from this period on."""
        newest = self.charters.newest
        version = replace(newest, number=newest.number + 1, previous=newest.id, effective=effective, **changes)
        self.charters.add(
            SignedCharter(version).signed((key.public, key.sign("charter", version.id)) for key in self.stewards)
        )

    def draft(self, author: Author, body: Body, cosigners: Iterable[Key] = (), *, slice_: int | None = None) -> Signed:
        """The author's next entry, not applied."""
        return author.draft(self.now if slice_ is None else slice_, body, cosigners)

    def raw(
        self, author: bytes, seq: int, prev: bytes, body: Body, signers: Iterable[Key], *, network: bytes | None = None
    ) -> Signed:
        """Any entry at all, now."""
        entry, data = make(network or self.charters.network, author, seq, prev, self.now, body)
        return sign(entry, data, signers)

    def ask(self, paymaster: Author, credits_: int, **changes: Any) -> Request:
        """A REQUEST until the end of the slice after the next, with `changes`."""
        body = Request(
            run="run", recipe=bytes(32), purpose="education", peers_min=1, peers_max=8, units=1, credits=credits_,
            expiry=self.now + 2, deadline=self.now + 2, urgency=1000, paymaster=paymaster.public, income=(), closes=(),
        )  # fmt: skip
        return body._replace(**changes)

    def pay(self, contributor: Author, paymaster: Author, allot: Signed, credits_: int, /, **changes: Any) -> Receipt:
        """A RECEIPT over a voucher of `credits_` in all, signed by the paymaster, with `changes` of the voucher."""
        fact = self.ledger.allots[allot.entry.id]
        voucher = Voucher(
            network=self.charters.network, paymaster=paymaster.public, request=fact.request, allot=fact.id,
            contributor=contributor.public, units=credits_, credits=credits_, rounds=1, device="cpu-8", seconds=1000,
            evidence=bytes(32),
        )._replace(**changes)  # fmt: skip
        return Receipt(voucher, paymaster.voucher(voucher).signature)

    def id_at(self, author: Author, seq: int) -> bytes:
        """The id of an author's entry on its first branch."""
        id_ = self.ledger.chains[author.public][0].id_at(seq)
        assert id_ is not None
        return id_

    def back(self, author: Author, seq: int) -> Author:
        """The same writer, who knows of its own entries only those up to `seq` of the first branch: a fork begins."""
        other = copy.copy(author)
        other.head = next(s.entry.position for s in self.history(author.public) if s.entry.seq == seq)
        return other

    def past(self, signed: Signed) -> list[Signed]:
        """What of this world the entry depends on, in causal order."""
        by_id = {other.entry.id: other for other in self.entries}
        found: set[bytes] = set()
        todo = [signed]
        while todo:
            entry = todo.pop().entry
            for id_ in (entry.prev, *references(entry)):
                if id_ in by_id and id_ not in found:
                    found.add(id_)
                    todo.append(by_id[id_])
        return [other for other in self.entries if other.entry.id in found]
