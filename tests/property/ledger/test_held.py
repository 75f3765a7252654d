"""An honest node's inputs are never held against it, whatever it had heard of by then and whatever an auditor has."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ledger import Replica
from tests.vectors.ledger.scene import Key, Scene
from ubcp_p2p.allocator.blob import decode_problem, encode_problem
from ubcp_p2p.allocator.problem import Problem
from ubcp_p2p.carbon.values import Slot
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import Body, Enrol, Heal, Request
from ubcp_p2p.ledger.facts import Facts
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.peer.serving.held import contradictions
from ubcp_p2p.peer.serving.problem import Offer, assemble

pytestmark = pytest.mark.slow
SEEDS = st.integers(0, 2**32 - 1)


class Market:
    """People who enrol in this unit and that, ask, pay, fork and heal; one honest node, which serves."""

    def __init__(self, rng: random.Random, steps: int = 60) -> None:
        self.rng, self.scene = rng, Scene(98, exposure_cap=10**9)
        scene = self.scene
        self.node = scene.node(scene.account("owner"), "server")
        self.pay, self.worker = scene.node(scene.account("p"), "pay"), scene.node(scene.account("b"), "worker")
        self.people = [scene.account(f"a{n}", enrol=False) for n in range(4)]
        for person in self.people:
            self.enrols(person)
        acts = (self.waits, self.enrols, self.asks, self.asks, self.asks, self.works, self.forks, self.heals)
        for _ in range(steps):
            act = rng.choice(acts)
            with suppress(LedgerError, Pending):
                act(rng.choice(self.people))

    def _write(self, writer: Author, body: Body, signers: list[Key] | None = None) -> None:
        signed = self.scene.draft(writer, body, signers or ())
        self.scene.take(signed)
        writer.head = signed.entry.position

    def waits(self, _: Author) -> None:
        self.scene.now += self.rng.randint(1, 4)

    def enrols(self, person: Author) -> None:
        rng, now = self.rng, self.scene.ledger.period(self.scene.now)
        first = now + rng.randint(0, 2)
        body = Enrol(
            rng.random() < 0.5, rng.choice(("lab", "village")), first, first + rng.randint(1, 4), rng.randbytes(32)
        )
        self._write(person, body, [*self.scene.stewards[:2]])

    def asks(self, person: Author) -> None:
        rng, now = self.rng, self.scene.now
        least = rng.randint(1, 3)
        deadline = now + rng.randint(0, 15)
        body = self.scene.ask(
            self.pay, rng.randint(1, 300), units=rng.choice((1, 20, 200)), peers_min=least, deadline=deadline,
            peers_max=least + rng.randint(0, 2), urgency=rng.randint(1000, 2000), expiry=deadline + rng.randint(0, 3),
            purpose=rng.choice(("education", "research")),
        )  # fmt: skip
        self._write(person, body)

    def works(self, _: Author) -> None:
        scene, rng = self.scene, self.rng
        asked = [signed for signed in scene.entries if isinstance(signed.entry.body, Request)]
        if not asked:
            return
        request = rng.choice(asked)
        fact = scene.ledger.requests[request.entry.id]
        allot = scene.allot(self.pay, request, self.worker, fact.credits)
        scene.write(self.worker, scene.pay(self.worker, self.pay, allot, rng.randint(1, fact.credits)))

    def forks(self, person: Author) -> None:
        if self.rng.random() < 0.3:
            self.people.append(self.scene.back(person, self.rng.choice(self.scene.history(person.public)).entry.seq))

    def heals(self, person: Author) -> None:
        chains = self.scene.ledger.chains[person.public]
        heads = sorted((c.head.seq, c.head.id) for c in chains if person.head and not c.has(person.head))
        if heads:
            self._write(person, Heal(tuple(heads), ()), [*self.scene.stewards[:2]])

    def heard(self) -> Replica:
        """Who has all, or all but what a few entries and those after them say; whatever their order."""
        entries, rng = list(self.scene.entries), self.rng
        for signed in rng.sample(entries, rng.choice((0, 0, 1, 2, 5))):
            if signed.entry.author != self.node.public:
                entries.remove(signed)
        if rng.random() < 0.5:
            rng.shuffle(entries)
        replica = Replica(self.scene.charters)
        replica.take(entries)
        return replica

    def decided(self, heard: Replica) -> Problem:
        """What the node decides on by what it has heard, and by what it alone knows."""
        rng, activity, ledger = self.rng, Activity(), heard.ledger
        for author in ledger.chains:
            for signed in heard.history(author):
                activity.add(signed.entry)
        slice_ = max(0, self.scene.now - rng.randint(0, 12))
        charter = ledger.charter_at(slice_)
        begin, length = charter.epoch + slice_ * charter.slice_s, charter.slice_s
        cut = rng.randint(1, 11)
        slots = (Slot(begin, begin + cut * length, 400), Slot(begin + cut * length, begin + 12 * length, 100))
        budget_max = rng.choice((1, 90, 5_000, 10**6))
        offer = Offer(
            node=self.node.public, budget=rng.randint(0, budget_max), budget_max=budget_max,
            first_seen={id_: rng.randint(0, slice_) for id_ in activity.requests if rng.random() < 0.3},
            refuse_purposes=rng.choice(((), ("research",))), carbon=rng.choice((None, 400)), forecast=slots,
            indebted={asked.author for asked in activity.requests.values() if rng.random() < 0.1},
        )  # fmt: skip
        return assemble(ledger, activity, slice_, offer)


@settings(max_examples=2 * settings().max_examples)
@given(SEEDS)
def test_no_honest_node_is_named(seed: int) -> None:
    market = Market(random.Random(seed))
    problem = market.decided(market.heard())
    assert decode_problem(encode_problem(problem)) == problem
    market.scene.now += 1
    for act in (market.enrols, market.heals, market.asks):  # what comes later
        with suppress(LedgerError, Pending):
            act(market.rng.choice(market.people))
    auditor = market.heard()
    found, unknown = contradictions(problem, market.node.public, Facts(auditor.ledger, auditor.history))
    assert found == ()
    assert unknown == len({ask.id for ask in problem.asks} - auditor.ledger.requests.keys())


@given(SEEDS)
def test_a_later_version_of_the_charter_names_nobody(seed: int) -> None:
    """It has other rules, is in force already, and the node had not heard of it."""
    market = Market(random.Random(seed))
    problem = market.decided(market.heard())
    market.scene.amend(1, ageing_slices=3, newcomer_permille=77)
    auditor = market.heard()
    assert contradictions(problem, market.node.public, Facts(auditor.ledger, auditor.history))[0] == ()
