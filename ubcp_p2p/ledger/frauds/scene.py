"""Where frauds happen: a scene of honest people in a valid ledger, and what it takes to write something else.

A *scene* has a payer and its till (the paymaster), and a worker and its rig (the contributor).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger import entry as form
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, Allot, Body, Close, Enrol, Kind, Receipt, Request, Voucher, entry_id
from ubcp_p2p.ledger.faults import FAULTS
from ubcp_p2p.ledger.synth import Community
from ubcp_p2p.ledger.wire import ROLE_ENTRY, Signed
from ubcp_p2p.ledger.world import DEVICE, PEAK
from ubcp_p2p.units import MICROCREDITS

CREDITS: Final = 1000 * MICROCREDITS  # of a Job's REQUEST; its ALLOT is over the half of it, its RECEIPT over a tenth
SLICES: Final = 96  # until a Job's REQUEST expires


class Planted(NamedTuple):
    """What an auditor has to find. entry: its id, or empty. account: who is at fault (blame.py)."""

    entry: bytes
    account: bytes


class Head(NamedTuple):
    """Records of an export that come before its entries."""

    proofs: tuple[bytes, ...] = ()
    frozen: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Fraud:
    """One kind. also: codes of faults that come with it. dependent: how many entries hang on it.

    head: what stands before the first entry of its export.
    """

    name: str
    code: str
    text: str
    plant: Callable[[Scene], Planted]
    also: tuple[str, ...] = ()
    dependent: int = 0
    head: Callable[[Community], Head] | None = None

    @property
    def invariant(self) -> int:
        return FAULTS[self.code].invariant


FRAUDS: Final[dict[str, Fraud]] = {}


def fraud(
    code: str,
    text: str,
    *,
    name: str | None = None,
    also: tuple[str, ...] = (),
    dependent: int = 0,
    head: Callable[[Community], Head] | None = None,
) -> Callable[[Callable[[Scene], Planted]], Callable[[Scene], Planted]]:
    """Register a kind under its code, or under `name` where a code has several."""

    def register(plant: Callable[[Scene], Planted]) -> Callable[[Scene], Planted]:
        key = name or code
        assert key not in FRAUDS and code in FAULTS
        FRAUDS[key] = Fraud(key, code, text, plant, also, dependent, head)
        return plant

    return register


class Job(NamedTuple):
    """A REQUEST with one ALLOT and one RECEIPT so far."""

    payer: Author
    till: Author
    worker: Author
    rig: Author
    request: Signed
    allot: Signed


class Scene:
    """Entries written through `world` are valid; `put` and what ends in it take anything."""

    def __init__(self, world: Community) -> None:
        self.world = world
        # A new period, so that every allowance is whole.
        world.now = (world.ledger.period(max(world.now, world.ledger.slice)) + 1) * world.charter.period_slices

    # -- honest people ------------------------------------------------------------------------------------------

    def person(self, name: str, *, enrol: bool = True) -> tuple[Author, Author]:
        """An account and its node."""
        author = self.world.account(f"fraud {name}", enrol=enrol)
        return author, self.world.node(author, f"fraud {name}")

    def job(self) -> Job:
        """Some work, under way."""
        world = self.world
        payer, till = self.person("payer")
        worker, rig = self.person("worker")
        request = world.request(payer, till, CREDITS, slices=SLICES)
        allot = world.allot(till, request, rig, CREDITS // 2)
        world.now += 1
        world.receipt(rig, till, allot, CREDITS // 10)
        world.now += 1
        return Job(payer, till, worker, rig, request, allot)

    def over(self) -> None:
        """Wait until a Job's REQUEST can be closed."""
        self.world.now += SLICES + self.world.charter.grace_slices + 1

    def request_body(self, till: Author, credits_: int = CREDITS, **changed: Any) -> Request:
        """A good one, but for what is changed."""
        now, charter = self.world.now, self.world.charter
        good = Request(
            "a run", hashlib.sha256(b"a recipe").digest(), charter.purposes[0], 1, 8, 1000, credits_, now + SLICES,
            now + SLICES, form.URGENCY_MIN, till.public, (), (),
        )  # fmt: skip
        return good._replace(**changed)

    def enrol_body(self, **changed: Any) -> Enrol:
        """A good one, but for what is changed."""
        now = self.world.ledger.period(self.world.now)
        nullifier = hashlib.sha256(b"a person").digest()
        return Enrol(False, self.world.charter.units[0].name, now, now + 4, nullifier)._replace(**changed)

    def close_body(self, job: Job, paid: int = CREDITS // 10, returned: int | None = None) -> Close:
        """A good one, unless told otherwise."""
        final = ((self.world.opening(job.rig), paid),)
        return Close(job.request.entry.id, final, CREDITS - paid if returned is None else returned)

    def next_voucher(self, job: Job, **changed: Any) -> Voucher:
        """The next that the till may sign, but for what is changed."""
        credits_ = CREDITS // 5
        good = Voucher(
            job.till.network, job.till.public, job.request.entry.id, job.allot.entry.id, job.rig.public, credits_,
            credits_, 2, DEVICE, credits_ // PEAK + 1, ZERO,
        )  # fmt: skip
        return good._replace(**changed)

    # -- anything else ------------------------------------------------------------------------------------------

    def put(self, signed: Signed) -> Planted:
        """Into the ledger, unchecked."""
        self.world.put(signed.to_bytes())
        return Planted(signed.entry.id, signed.entry.author)

    def bad(self, author: Author, body: Body, *cosigners: AccountKey | NodeKey) -> Planted:
        """The author's next entry, unchecked."""
        return self.put(author.draft(self.world.now, body, cosigners))

    def by_export(self, planted: Planted) -> Planted:
        """What could be the doing of whoever has made the export is held against its log, whoever is named in it."""
        assert self.world.log is not None
        return planted._replace(account=self.world.log)

    def receipt(self, job: Job, rig: Author | None = None, **changed: Any) -> Planted:
        """A RECEIPT for the next voucher, with what is changed in it; unchecked."""
        voucher = self.next_voucher(job, **changed)
        return self.bad(rig or job.rig, Receipt(voucher, job.till.voucher(voucher).signature))

    def first_receipt(self, till: Author, rig: Author, allot: Signed) -> Planted:
        """The rig's first RECEIPT for an ALLOT, unchecked."""
        body = allot.entry.body
        assert isinstance(body, Allot)
        voucher = Voucher(
            till.network, till.public, body.request, allot.entry.id, rig.public, PEAK, PEAK, 1, DEVICE, 1, ZERO
        )
        return self.bad(rig, Receipt(voucher, till.voucher(voucher).signature))

    def raw(self, author: Author, kind: Kind, body: list[Any], *, version: int = 1, header: bytes = b"") -> Planted:
        """An entry that no encoder of ours makes, signed. header: in place of its first byte."""
        assert author.head is not None
        prev = author.head
        row = [version, author.network, author.public, prev.seq + 1, prev.id, self.world.now, int(kind), body]
        packed = form.pack(row)
        data = header + packed[1:] if header else packed
        id_ = entry_id(data)
        self.world.put(form.pack([data, [[author.key.public, author.key.sign(ROLE_ENTRY, id_)]]]))
        return Planted(id_, author.public)
