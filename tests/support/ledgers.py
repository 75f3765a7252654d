"""Ledgers in memory: sets of a World's entries that can be asked and can ask, as a peer's store can."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence

from ubcp_p2p.charter.values import Charters, SignedCharter
from ubcp_p2p.codec import Value, decode, encode
from ubcp_p2p.ledger import rules, sync
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.balances import balances, balances_root, entries_root
from ubcp_p2p.ledger.entry import Decision, Position
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.forks import Place
from ubcp_p2p.ledger.pull import Ask, Take, pull
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.wire import ForkProof, Signed, verify, verify_proof
from ubcp_p2p.ledger.world import World
from ubcp_p2p.units import MICROCREDITS


class MemoryLedger:
    """Both a sync.Source and a pull.Local."""

    def __init__(self, charters: Sequence[SignedCharter], entries: Iterable[Signed] = ()) -> None:
        self.charters = Charters(charters[0])
        for charter in charters[1:]:
            self.charters.add(charter)
        self.ledger = Ledger(self.charters)
        self.order: list[Signed] = []
        self.proofs: dict[bytes, ForkProof] = {}
        self.pending: dict[bytes, tuple[Signed, tuple[bytes, ...]]] = {}
        self.questions: list[int] = []  # kinds, as they were asked of this ledger
        self._by_author: dict[bytes, list[Signed]] = {}
        self._by_id: dict[bytes, Signed] = {}
        self.add(entries)

    def history(self, author: bytes, wanted: Collection[bytes] | None = None) -> Sequence[Signed]:
        return self._by_author.get(author, [])

    def add(self, entries: Iterable[Signed]) -> None:
        """Verified entries, in any order."""
        for signed in entries:
            self._apply(signed)

    def _apply(self, signed: Signed) -> None:
        waiting = [signed]
        while waiting:
            one = waiting.pop()
            self.pending.pop(one.entry.id, None)
            try:
                added = rules.apply(self.ledger, one, self.history)
            except Pending as pending:
                self.pending[one.entry.id] = (one, pending.missing)
                continue
            except LedgerError:
                continue
            if not added:
                continue
            self.order.append(one)
            self._by_author.setdefault(one.entry.author, []).append(one)
            self._by_id[one.entry.id] = one
            here = [self._by_id[id_] for id_ in self.ledger.forks.ids_at(*_place(one)) if id_ in self._by_id]
            for other in here:
                if other.entry.id != one.entry.id:
                    self._note(ForkProof.of(one, other))
            waiting += [held for held, missing in self.pending.values() if one.entry.id in missing]

    def _note(self, proof: ForkProof) -> None:
        try:
            rules.check_proof(self.ledger, proof)
        except (LedgerError, Pending):
            return
        self.proofs[proof.id] = proof

    def roots(self) -> tuple[bytes, bytes, tuple[bytes, ...]]:
        """Entries root, balances root, ids of proofs."""
        rows = balances(self.ledger, self.history)
        return entries_root(self.ledger), balances_root(rows), tuple(sorted(self.proofs))

    # -- sync.Source, pull.Local --------------------------------------------------------------------------------------

    @property
    def network(self) -> bytes:
        return self.charters.network

    @property
    def size(self) -> int:
        return self.ledger.entries

    def charter_ids(self) -> list[bytes]:
        return [signed.charter.id for signed in self.charters.versions]

    def charter(self, number: int) -> bytes | None:
        versions = self.charters.versions
        return versions[number - 1].to_bytes() if 1 <= number <= len(versions) else None

    def proof_ids(self) -> Iterable[bytes]:
        return self.proofs

    def proof(self, id_: bytes) -> bytes | None:
        return self.proofs[id_].to_bytes() if id_ in self.proofs else None

    def heads(self) -> sync.Heads:
        return sync.Heads(self.ledger.heads())

    def range(self, author: bytes, first: int, last: int) -> Iterator[bytes]:
        found = [s for s in self.history(author) if first <= s.entry.seq <= last]
        return (s.to_bytes() for s in sorted(found, key=lambda s: (s.entry.seq, s.entry.id)))

    def entry(self, id_: bytes) -> bytes | None:
        return self._by_id[id_].to_bytes() if id_ in self._by_id else None

    def blob(self, hash_: bytes) -> bytes | None:
        return None

    def log(self, after: int) -> Iterator[tuple[int, bytes]]:
        return ((place, self.order[place - 1].to_bytes()) for place in range(after + 1, len(self.order) + 1))

    def contains(self, author: bytes, seq: int, id_: bytes) -> bool:
        return self.ledger.contains(author, seq, id_)

    def length(self, author: bytes) -> int:
        return max((len(chain) for chain in self.ledger.chains.get(author, ())), default=0)

    def missing(self) -> list[bytes]:
        lacking = {id_ for _, missing in self.pending.values() for id_ in missing}
        return sorted(lacking - self.pending.keys())

    # -- the exchange -------------------------------------------------------------------------------------------------

    def take(self, step: Take) -> None:
        """Verify and take in, as a driver of `pull` must."""
        for signed in step.entries:
            verify(signed)
            self._apply(signed)
        for data in step.data:
            if step.what == sync.CHARTERS:
                self.charters.add(SignedCharter.from_bytes(data))
            else:
                proof = ForkProof.from_bytes(data)
                verify_proof(proof)
                self._note(proof)

    def answer(self, question: Value) -> Value:
        """By way of the wire, where both sides' limits hold."""
        asked = decode(encode(question), bytes_max=sync.QUESTION_BYTES_MAX)
        assert isinstance(asked, list)
        assert isinstance(asked[0], int)
        self.questions.append(asked[0])
        return decode(encode(sync.answer(asked, self)), bytes_max=sync.FRAME_BYTES_MAX)

    def pull(self, other: MemoryLedger) -> int:
        """Take from `other` what it has; returns how many entries were new."""
        steps = pull(self)
        reply: Value | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as done:
                new: int = done.value
                return new
            reply = None
            if isinstance(step, Ask):
                reply = other.answer(step.question)
            else:
                self.take(step)


def _place(signed: Signed) -> tuple[bytes, Place]:
    return signed.entry.author, Place(signed.entry.seq, signed.entry.prev)


def converge(*ledgers: MemoryLedger, rounds_max: int = 8) -> int:
    """Everybody pulls from everybody until nothing is new; returns the rounds that brought something."""
    for number in range(rounds_max):
        before = [ledger.size for ledger in ledgers]
        for one in ledgers:
            for other in ledgers:
                if other is not one:
                    one.pull(other)
        if [ledger.size for ledger in ledgers] == before:
            return number
    raise AssertionError(f"not the same after {rounds_max} rounds")


def at(author: Author, head: Position | None) -> Author:
    """The same writer, back at an earlier place: what it writes there is a fork."""
    twin = copy.copy(author)
    twin.head = head
    return twin


def busy(seed: int, *, people: int = 3, receipts: int = 4, forks: Iterable[tuple[int, int]] = ()) -> World:
    """A World in which every person's node is paid by the next person's.

    forks: (depth, length) each: the node of the person that `seed` and the fork's number pick goes back `depth` entries
    and writes `length` others.
    """
    world = World(seed)
    accounts = [world.account(f"person {n}") for n in range(people)]
    nodes = [world.node(account, f"node {n}") for n, account in enumerate(accounts)]
    allots = []
    for n, account in enumerate(accounts):
        request = world.request(account, nodes[n], 1000 * MICROCREDITS, slices=2_000)
        allots.append(world.allot(nodes[n], request, nodes[(n + 1) % people], 900 * MICROCREDITS))
    for _ in range(receipts):
        world.now += 1
        for n in range(people):
            world.receipt(nodes[(n + 1) % people], nodes[n], allots[n], MICROCREDITS)
    world.now += 1
    for number, (depth, length) in enumerate(forks):
        node = nodes[(seed + number) % people]
        past = [s for s in world.history(node.public) if s.entry.seq <= node.head.seq]  # type: ignore[union-attr]
        back = past[max(0, len(past) - 1 - depth)]
        twin = at(node, back.entry.position)
        for step in range(length):
            inputs = hashlib.sha256(f"{seed}/{number}/{step}".encode()).digest()
            world.write(twin, Decision(world.now, 0, 1, (), (), inputs))
    return world
