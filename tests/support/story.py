"""A community of honest and dishonest people, told step by step from numbers: for property tests and fuzzing.

Every step is a number that decides what is tried; what the rules refuse is kept too, for it is sent to others all the
same. All keys are known to the teller, so that a step can also be a forgery.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable

from hypothesis import strategies as st

from tests.vectors.ledger.scene import Key, Scene
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.chain import NodeChain
from ubcp_p2p.ledger.entry import (
    ZERO,
    Allot,
    Body,
    Checkpoint,
    Close,
    Decision,
    Enrol,
    Heal,
    OpenAccount,
    OpenNode,
    Rotate,
    recovery_hash,
)
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.wire import ForkProof, Signed

ACCOUNTS = 4


def numbers(seed: int, count: int = 120) -> list[int]:
    """The steps of a long story."""
    rng = random.Random(seed)
    return [rng.getrandbits(32) for _ in range(count)]


# Short ones, which shrink well, and long ones, in which more happens: a list of hypothesis has five items, mostly.
STEPS = st.lists(st.integers(0, 2**32 - 1), max_size=60) | st.integers(0, 10**6).map(numbers)


class Story:
    """`scene` holds what is valid, `refused` what was tried and refused or is pending. The first account is honest."""

    def __init__(self, steps: Iterable[int] = (), *, earned_periods: int = 3) -> None:
        self.scene = Scene(99, earned_periods=earned_periods)
        self.refused: list[Signed] = []
        self._refused: set[bytes] = set()
        self._recovery = self.scene.key("recovery")
        self._recovery_hash = recovery_hash(self._recovery.public)
        self.accounts = [
            self.scene.account(f"a{n}", newcomer=n == 3, recovery=self._recovery_hash) for n in range(ACCOUNTS)
        ]
        self.nodes = [self.scene.node(account, f"n{n}") for n, account in enumerate(self.accounts)]
        self.honest = self.accounts[0].public, self.nodes[0].public
        self._keys: dict[bytes, Key] = {}  # after each entry: the key in force
        for writer in (*self.accounts, *self.nodes):
            for signed in self.scene.history(writer.public):
                self._keys[signed.entry.id] = writer.key
        for step in steps:
            self.step(step)

    @property
    def told(self) -> list[Signed]:
        """Everything, valid or not."""
        return [*self.scene.entries, *self.refused]

    def step(self, number: int) -> None:
        """What `number` decides."""
        rng = random.Random(number)
        acts = (
            self._wait, self._request, self._request, self._request, self._allot, self._allot, self._allot,
            self._receipt, self._receipt, self._receipt, self._spend_twice,
            self._receipt, self._close, self._fork, self._heal, self._enrol, self._rotate, self._node, self._reopen,
            self._write_by_node, self._forge, self._backdate, self._pay_twice, self._crowd,
            self._take_back,
        )  # fmt: skip
        rng.choice(acts)(rng)

    def proofs(self) -> list[ForkProof]:
        """Of every two entries that follow one entry, whoever signed them."""
        found = []
        told = self.told
        for n, one in enumerate(told):
            for other in told[:n]:
                same = (one.entry.author, one.entry.seq, one.entry.prev)
                if same == (other.entry.author, other.entry.seq, other.entry.prev) and one.entry.id != other.entry.id:
                    found.append(ForkProof.of(one, other))
        return found

    def _write(self, writer: Author, body: Body, cosigners: Iterable[Key] = ()) -> Signed | None:
        """Try it; the writer goes on from there when it is valid."""
        try:
            signed = writer.draft(self.scene.now, body, cosigners)
        except LedgerError:
            return None
        if signed.entry.id in self._refused:
            return None
        try:
            self.scene.take(signed)
        except (LedgerError, Pending):
            if writer.public not in self.honest:  # who are honest do not send what they can see to be refused
                self._refuse(signed)
            return None
        writer.head = signed.entry.position
        if isinstance(body, Rotate):
            writer.key = next(key for key in cosigners if key.public == body.key)
        self._keys[signed.entry.id] = writer.key
        return signed

    def _refuse(self, signed: Signed) -> None:
        """One copy of each: whether enough keys signed is a matter of the copy, and not of the entry (SPEC §5.1)."""
        known = any(signed.entry.id == other.entry.id for other in self.scene.history(signed.entry.author))
        if not known and signed.entry.id not in self._refused:
            self._refused.add(signed.entry.id)
            self.refused.append(signed)

    def _wait(self, rng: random.Random) -> None:
        self.scene.now += rng.choice((1, 1, 1, 1, 2, 3))

    def _request(self, rng: random.Random) -> None:
        scene, writer = self.scene, rng.choice(self.accounts)
        mine = [node for node in self.nodes if node.head and rng.random() < 0.7]
        income = {node.public: rng.choice(scene.history(node.public)).entry.position for node in mine
                  if writer.public in self._owners(node) or rng.random() < 0.05}  # fmt: skip
        closes = [id_ for id_ in scene.ledger.closes if rng.random() < 0.3]
        credits_, expiry = rng.choice((1, 50, 400, 1000, 1500)), scene.now + rng.randint(0, 8)
        body = scene.ask(rng.choice(self.nodes), credits_, expiry=expiry, deadline=scene.now)
        self._write(writer, body._replace(income=tuple(sorted(income.values())), closes=tuple(sorted(closes))[:3]))

    def _owners(self, node: Author) -> set[bytes]:
        return {c.owner for c in self.scene.ledger.chains[node.public] if isinstance(c, NodeChain)}

    def _allot(self, rng: random.Random) -> None:
        scene = self.scene
        if scene.ledger.requests:
            request = rng.choice(sorted(scene.ledger.requests.values()))
            payers = [node for node in self.nodes if node.public == request.paymaster]
            opening = rng.choice(sorted(scene.ledger.openings))
            self._write(rng.choice(payers), Allot(request.id, opening, rng.choice((10, 100, 400, request.credits))))

    def _receipt(self, rng: random.Random) -> None:
        scene = self.scene
        if scene.ledger.allots:
            allot = rng.choice(sorted(scene.ledger.allots.values()))
            author = scene.ledger.openings[allot.contributor].author
            earners = [node for node in self.nodes if node.public == author]
            payers = [node for node in self.nodes if node.public == allot.paymaster]
            signed = next(s for s in scene.history(allot.paymaster) if s.entry.id == allot.id)
            amount = rng.choice((1, 5, 10, 50, 100, 300, allot.credits))
            earner = rng.choice(earners)
            self._write(earner, scene.pay(earner, rng.choice(payers), signed, amount, rounds=amount, seconds=amount))

    def _close(self, rng: random.Random) -> None:
        scene = self.scene
        if scene.ledger.requests:
            request = rng.choice(sorted(scene.ledger.requests.values()))
            scene.now = max(scene.now, request.expiry + 5) if rng.random() < 0.2 else scene.now
            by_payer = rng.random() < 0.6
            writers = self.nodes if by_payer else self.accounts
            author = request.paymaster if by_payer else request.author
            writer = rng.choice([w for w in writers if w.public == author])
            paid = scene.ledger.paid.get(request.id, {})
            openings = sorted({a.contributor for a in scene.ledger.allots.values() if a.request == request.id})
            final = tuple((o, paid.get(o, 0) if rng.random() < 0.6 else rng.choice((0, 10))) for o in openings)
            returned = request.credits - sum(amount for _, amount in final)
            if returned >= 0:
                self._write(writer, Close(request.id, final, returned))

    def _fork(self, rng: random.Random) -> None:
        """Somebody who is not honest goes on from an earlier entry, also as another writer."""
        writers = rng.choice((self.accounts, self.nodes))
        writer = rng.choice([w for w in writers if w.public not in self.honest])
        other = copy.copy(writer)
        signed = rng.choice(self.scene.history(writer.public))
        other.head, other.key = signed.entry.position, self._keys[signed.entry.id]
        writers.append(other)

    def _spend_twice(self, rng: random.Random) -> None:
        """Somebody who is not honest reserves nearly all on each of two branches."""
        writer = rng.choice([w for w in self.accounts if w.public not in self.honest])
        other = copy.copy(writer)
        for one in (writer, other):
            credits_ = rng.choice((700, 900, 1500))
            self._write(
                one, self.scene.ask(rng.choice(self.nodes), credits_, expiry=self.scene.now + rng.randint(0, 8))
            )
        self.accounts.append(other)

    def _backdate(self, rng: random.Random) -> None:
        """Somebody writes as if it were an earlier slice."""
        now = self.scene.now
        self.scene.now = rng.randint(max(0, now - 40), now)
        rng.choice((self._request, self._allot, self._receipt, self._close, self._enrol))(rng)
        self.scene.now = now

    def _pay_twice(self, rng: random.Random) -> None:
        """A paymaster that is not honest allots all of a REQUEST on each of two branches, and signs for all of it."""
        scene = self.scene
        mine = [r for r in sorted(scene.ledger.requests.values()) if r.paymaster not in self.honest]
        if mine:
            request = rng.choice(mine)
            payer = rng.choice([node for node in self.nodes if node.public == request.paymaster])
            for opening in rng.sample(sorted(scene.ledger.openings), k=2):
                twin = copy.copy(payer)
                self.nodes.append(twin)
                allot = self._write(twin, Allot(request.id, opening, request.credits))
                earners = [n for n in self.nodes if n.public == scene.ledger.openings[opening].author]
                if allot is not None:
                    earner, amount = rng.choice(earners), request.credits
                    self._write(earner, scene.pay(earner, twin, allot, amount, rounds=amount, seconds=amount))

    def _take_back(self, rng: random.Random) -> None:
        """Who has paid says that nothing was paid, once it may be said."""
        scene = self.scene
        mine = [r for r in sorted(scene.ledger.requests.values()) if r.author not in self.honest]
        paid = [r for r in mine if scene.ledger.paid.get(r.id)]
        if paid:
            request = rng.choice(paid)
            scene.now = max(scene.now, request.expiry + 5)
            for writer in [w for w in self.accounts if w.public == request.author]:
                self._write(writer, Close(request.id, (), request.credits))

    def _crowd(self, rng: random.Random) -> None:
        """Many entries after one, some of which keep no rule."""
        writer = rng.choice([w for w in (*self.accounts, *self.nodes) if w.public not in self.honest])
        for number in range(rng.randint(2, 5)):
            twin = copy.copy(writer)
            body: Body = Checkpoint(rng.randint(0, 20), ZERO, bytes([number]) * 32)
            if any(w.public == twin.public for w in self.accounts):
                body = self.scene.ask(rng.choice(self.nodes), rng.choice((1, 10, 5000)), expiry=self.scene.now + number)
            self._write(twin, body)

    def _heal(self, rng: random.Random) -> None:
        writer = rng.choice(self.accounts)
        chains = self.scene.ledger.chains[writer.public]
        heads = [(chain.head.seq, chain.head.id) for chain in chains if writer.head and not chain.has(writer.head)]
        refused = sorted(s.entry.id for s in self.refused if s.entry.author == writer.public)
        abandoned = tuple(sorted(heads if rng.random() < 0.8 else heads[:1]))
        self._write(
            writer, Heal(abandoned, tuple(refused[: rng.randint(0, 3)])), self.scene.stewards[: rng.randint(1, 3)]
        )

    def _enrol(self, rng: random.Random) -> None:
        now = self.scene.ledger.period(self.scene.now)
        first = now + rng.randint(0, 6)
        body = Enrol(rng.random() < 0.5, "lab", first, first + rng.randint(1, 6), bytes([rng.randint(1, 2)]) * 32)
        self._write(rng.choice(self.accounts), body, self.scene.stewards[: rng.randint(1, 3)])

    def _rotate(self, rng: random.Random) -> None:
        """By the key in force, or by the recovery key, which may also set another."""
        new, writer = self.scene.key(f"key {rng.randint(0, 5)}"), rng.choice(self.accounts)
        recovery = rng.choice((self._recovery_hash, self._recovery_hash, ZERO))
        old = writer.key
        writer.key = rng.choice((old, old, self._recovery))
        if not self._write(writer, Rotate(new.public, recovery), [new]):
            writer.key = old

    def _reopen(self, rng: random.Random) -> None:
        """Somebody who is not honest opens a second chain with its first key, as an account or as a node."""
        known = [w for w in (*self.accounts, *self.nodes) if w.public not in self.honest]
        public = rng.choice(known).public
        first = self.scene.history(public)[0].entry
        writer = Author(self.scene.charters.network, self._keys[first.id])
        owner = rng.choice(self.accounts)
        if rng.random() < 0.5:
            if self._write(writer, OpenAccount(rng.choice((ZERO, self._recovery_hash)))):
                self.accounts.append(writer)
        elif owner.head and self._write(writer, OpenNode(owner.head), [owner.key]):
            self.nodes.append(writer)

    def _node(self, rng: random.Random) -> None:
        """A new node, or a node's key once more, for the same owner or another."""
        owner = rng.choice(self.accounts)
        known = [node for node in self.nodes if node.public not in self.honest]
        key = rng.choice(known).key if rng.random() < 0.5 else NodeKey(self.scene.key(f"n {rng.randint(4, 6)}").seed)
        writer = Author(self.scene.charters.network, key)
        if owner.head and self._write(writer, OpenNode(owner.head), [owner.key]):
            self.nodes.append(writer)

    def _write_by_node(self, rng: random.Random) -> None:
        ids = sorted(id_ for id_ in self.scene.ledger.requests if rng.random() < 0.3)[:3]
        now = self.scene.now
        body: Body = Checkpoint(rng.randint(0, 9), ZERO, ZERO)
        if rng.random() < 0.5:
            body = Decision(now + rng.randint(0, 3), 1, 1, tuple(ids), (), ZERO)
        self._write(rng.choice(self.nodes), body)

    def _forge(self, rng: random.Random) -> None:
        """An entry in somebody's name, after any of its entries, signed by keys that are not its own."""
        scene = self.scene
        victim = rng.choice((*self.accounts, *self.nodes))
        after = rng.choice(scene.history(victim.public)).entry
        thieves = [scene.key("thief"), rng.choice(scene.stewards), rng.choice(self.nodes[1:]).key]
        bodies: tuple[Body, ...] = (
            scene.ask(victim, 1), Rotate(thieves[0].public, ZERO), OpenAccount(ZERO), Checkpoint(9, ZERO, ZERO),
            Heal((), (bytes(32),)), Enrol(False, "lab", 0, 1, ZERO), OpenNode(after.position),
        )  # fmt: skip
        body = rng.choice(bodies)
        opening = isinstance(body, OpenAccount | OpenNode)
        seq, prev = (0, ZERO) if opening else (after.seq + 1, after.id)
        signers = {key.public: key for key in thieves[: rng.randint(1, 3)] if key.public != victim.public}
        signed = scene.raw(victim.public, seq, prev, body, signers.values())
        try:
            scene.take(signed)
        except (LedgerError, Pending):
            self._refuse(signed)
