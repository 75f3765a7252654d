"""Evidence that is handed on: who is convinced shuns from one round on; who accuses for nothing costs one check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio

from bench.cheats import KEYS, PEERS, Swarm, Work
from tests.support.trails import certificate_of, evidence_of
from tests.unit.swarm.made import Wires, key
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.peer.checking import accusations as module
from ubcp_p2p.peer.checking.accusations import LATER, LEAD_ROUNDS, LEAD_ROUNDS_MAX, NO, WANTED, Accusations
from ubcp_p2p.swarm.admission import everybody
from ubcp_p2p.swarm.events import Committed, Event
from ubcp_p2p.swarm.quorum import Certificate, Group, Seat, vote_digest
from ubcp_p2p.training.verdict import Claim, Verdict
from ubcp_p2p.training.witness import Witness
from ubcp_p2p.verification.evidence import Evidence, bytes_max

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

RECIPE = load_recipe("digits-tiny")
LIAR, A, B = PEERS
STRANGER = key(9)
ROUND = 2  # that all are in


@pytest.fixture(scope="module")
def swarm() -> Swarm:
    """In its second round: the first that has a certificate."""
    made = Swarm(RECIPE, "evidence")
    made.advance()
    made.advance()
    return made


@pytest.fixture(scope="module")
def lie(swarm: Swarm) -> bytes:
    return evidence_of(swarm, swarm.half_batch(), 2).to_bytes()


@dataclass
class Member:
    """What a RunMember is asked, and told. Everybody is here."""

    public: bytes
    round: int = ROUND
    strangers: set[bytes] = field(default_factory=lambda: {STRANGER.public})
    shunned: dict[bytes, int] = field(default_factory=dict)

    def peers(self) -> list[bytes]:
        return sorted({*PEERS, STRANGER.public} - {self.public})

    def knows(self, peer: bytes) -> bool:
        return peer not in self.strangers

    def shun(self, peer: bytes, from_round: int) -> None:
        self.shunned[peer] = from_round


class Judge:
    """A trainer's check, in this process; says how many it has made."""

    def __init__(self, swarm: Swarm) -> None:
        self._witness = Witness(swarm.recipe, swarm.loop)
        self.checks = 0
        self.done = asyncio.Event()

    async def check(self, claim: Claim, members: tuple[bytes, ...] | None, opening: bytes) -> Verdict:
        self.checks += 1
        verdict = self._witness.check(claim, members, opening)
        self.done.set()
        return verdict


class Node:
    """One peer's accusations, over socket pairs."""

    def __init__(self, peers: Peers, who: NodeKey, recipe: Recipe = RECIPE) -> None:
        self.member, self.judge = Member(who.public), Judge(peers.swarm)
        self.folder = peers.folder / who.public.hex()[:8]
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.accusations = Accusations(
            peers.wires.node(who), "evidence", recipe, self.judge, self.member, everybody, self.folder,
            self.events.put_nowait,
        )  # fmt: skip
        self.serving = asyncio.create_task(self.accusations.serve())


class Peers:
    def __init__(self, folder: Path, swarm: Swarm) -> None:
        self.folder, self.swarm, self.wires = folder, swarm, Wires()
        self.nodes: list[Node] = []

    async def add(self, who: NodeKey, recipe: Recipe = RECIPE) -> Node:
        node = Node(self, who, recipe)
        self.nodes.append(node)
        await asyncio.sleep(0)  # it begins to answer
        return node

    async def accuse(
        self, accuser: NodeKey, of: Node, blob: bytes, *, accused: bytes = LIAR, from_round: int = 4, size: int = -1
    ) -> int:
        """The answer; the evidence follows where it is wanted, and is judged when this returns."""
        (protocol,) = self.wires.node(KEYS[of.member.public]).handlers
        async with self.wires.node(accuser).open(of.member.public, protocol, timeout_s=5.0) as stream:
            await stream.send([accused, from_round, len(blob) if size < 0 else size], timeout_s=5.0)
            (answer,) = await stream.receive(timeout_s=5.0)
            if answer == WANTED:
                await stream.send_block(memoryview(blob), stall_s=5.0)
                await stream.receive(timeout_s=5.0)
        await asyncio.gather(*self.wires.handling)
        return int(answer)


@pytest_asyncio.fixture
async def peers(tmp_path: Path, swarm: Swarm) -> AsyncIterator[Peers]:
    made = Peers(tmp_path, swarm)
    yield made
    for node in made.nodes:
        node.serving.cancel()
    await asyncio.gather(*(node.serving for node in made.nodes), return_exceptions=True)


def found(node: Node, blob: bytes) -> None:
    """This node's own check has found the lie."""
    path = node.folder / "own.evidence"
    path.parent.mkdir()
    path.write_bytes(blob)
    node.accusations.convict(LIAR, path)


async def test_what_one_has_found_all_shun_from_one_round_on(peers: Peers, lie: bytes) -> None:
    first, second = await peers.add(KEYS[A]), await peers.add(KEYS[B])
    found(first, lie)
    event = await second.events.get()
    assert event.data == {"peer": LIAR.hex(), "from_round": ROUND + LEAD_ROUNDS, "source": A.hex()}
    assert first.member.shunned == second.member.shunned == {LIAR: ROUND + LEAD_ROUNDS}
    (kept,) = second.folder.glob("*.evidence")
    assert kept.read_bytes() == lie
    assert (first.judge.checks, second.judge.checks) == (0, 1)


async def test_who_comes_later_hears_it_of_who_was_convinced(peers: Peers, lie: bytes) -> None:
    first, second = await peers.add(KEYS[A]), await peers.add(KEYS[B])
    found(first, lie)
    await second.events.get()
    first.serving.cancel()
    third = await peers.add(STRANGER)
    assert (await third.events.get()).data["source"] == B.hex()
    assert third.member.shunned == {LIAR: ROUND + LEAD_ROUNDS}


def _forged(swarm: Swarm, work: Work) -> Evidence:
    """Honest work, and a certificate of its base by a group that somebody has made up."""
    honest = evidence_of(swarm, work, 1)
    real = certificate_of(swarm)
    assert real is not None
    rows = (Seat(STRANGER.public, 64, real.group.members[0].offer, real.group.members[0].trail),)
    group = Group(swarm.run_id, real.group.round, real.group.base_hash, rows)
    vote = STRANGER.sign("vote", vote_digest(group.digest, real.state_hash))
    return replace(honest, certificate=Certificate(group, real.state_hash, ((STRANGER.public, vote),)))


FALSE: dict[str, Callable[[Swarm], bytes]] = {
    "honest work": lambda swarm: evidence_of(swarm, swarm.works[LIAR], 1).to_bytes(),
    "honest work, another's data": lambda swarm: _forged(swarm, swarm.works[LIAR]).to_bytes(),
    "another's lie": lambda swarm: evidence_of(swarm, swarm.works[B], 1).to_bytes(),
    "noise": lambda swarm: bytes(1000),
}


@pytest.mark.parametrize("what", FALSE)
@pytest.mark.parametrize("was_there", [True, False])
async def test_a_false_accusation_costs_nobody_but_its_maker(
    peers: Peers, swarm: Swarm, lie: bytes, what: str, was_there: bool
) -> None:
    """was_there: in the round before, so that it knows whom the data was cut among."""
    node = await peers.add(KEYS[A])
    base = certificate_of(swarm)
    assert base is not None
    if was_there:
        node.accusations.on_commit(Committed(base, None, ()))
    assert await peers.accuse(KEYS[B], node, FALSE[what](swarm)) == WANTED
    assert (node.member.shunned, list(node.folder.glob("*"))) == ({}, [])
    checks = node.judge.checks
    assert checks <= 1
    for round_ in range(ROUND + 1, ROUND + 20):
        node.member.round = round_
        assert await peers.accuse(KEYS[B], node, lie) == NO  # the truth neither, of this one
    assert node.judge.checks == checks


async def test_data_of_others_convicts_where_the_group_is_known(peers: Peers, swarm: Swarm) -> None:
    work = swarm.works[LIAR]
    lied = swarm.work(LIAR, replace(work.trail, members=(LIAR, B)), work.offer, swarm.loop)
    node = await peers.add(KEYS[A])
    base = certificate_of(swarm)
    assert base is not None
    node.accusations.on_commit(Committed(base, None, ()))
    await peers.accuse(KEYS[B], node, evidence_of(swarm, lied, 1).to_bytes())
    assert node.member.shunned == {LIAR: 4}


async def test_one_accusation_is_looked_at_in_a_round(peers: Peers, swarm: Swarm, lie: bytes) -> None:
    node = await peers.add(KEYS[A])
    false = FALSE["honest work"](swarm)
    node.member.strangers.clear()
    assert await peers.accuse(STRANGER, node, false) == WANTED
    assert await peers.accuse(KEYS[B], node, lie) == LATER
    node.member.round += 1
    assert await peers.accuse(KEYS[B], node, lie) == WANTED
    assert (node.judge.checks, set(node.member.shunned)) == (2, {LIAR})


async def test_who_is_not_to_be_heard_is_not(peers: Peers, lie: bytes) -> None:
    node = await peers.add(KEYS[A])
    assert await peers.accuse(STRANGER, node, lie) == LATER  # it has made no round with this node
    assert await peers.accuse(KEYS[B], node, lie, accused=A) == NO  # itself
    for size in (0, bytes_max(peers.swarm.shape) + 1):
        assert await peers.accuse(KEYS[B], node, lie, size=size) == NO
    private = RECIPE.model_copy(update={"checks": RECIPE.checks.model_copy(update={"rate": 0.0})})
    trusting = await peers.add(KEYS[B], private)
    assert await peers.accuse(KEYS[A], trusting, lie) == NO
    assert node.judge.checks == trusting.judge.checks == 0


async def test_a_round_that_is_far_away_is_not_waited_for(peers: Peers, lie: bytes) -> None:
    """Else an accomplice who is the first to accuse could put a conviction off for ever."""
    node = await peers.add(KEYS[A])
    await peers.accuse(KEYS[B], node, lie, from_round=10**6)
    assert node.member.shunned == {LIAR: ROUND + LEAD_ROUNDS_MAX}
    assert await peers.accuse(KEYS[B], node, lie, from_round=ROUND + 1) == NO
    assert node.member.shunned == {LIAR: ROUND + 1}  # found by two at once: the first round counts
    node.member.round = ROUND + 5
    await peers.accuse(KEYS[B], node, lie, from_round=0)
    assert node.member.shunned == {LIAR: ROUND + 1}


async def test_after_an_hour_another_lie_counts_and_the_old_one_does_not(
    peers: Peers, swarm: Swarm, lie: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await peers.add(KEYS[A])
    monkeypatch.setattr(module, "SHUN_S", 0.0)
    assert await peers.accuse(KEYS[B], node, lie, from_round=3) == WANTED
    node.member.round += 10
    assert await peers.accuse(KEYS[B], node, lie, from_round=20) == WANTED
    assert (node.member.shunned, node.judge.checks) == ({LIAR: 3}, 1)
    node.member.round += 10
    again = evidence_of(swarm, swarm.half_batch(), 1).to_bytes()
    assert await peers.accuse(KEYS[B], node, again, from_round=24) == WANTED
    assert (node.member.shunned, node.judge.checks) == ({LIAR: 24}, 2)
    own = node.folder / "own.evidence"
    own.write_bytes(lie)
    node.accusations.convict(LIAR, own)
    assert node.member.shunned == {LIAR: node.member.round + LEAD_ROUNDS}


async def test_a_lie_of_long_ago_is_not_heard_of(peers: Peers, lie: bytes) -> None:
    node = await peers.add(KEYS[A])
    node.member.round = 1000
    await peers.accuse(KEYS[B], node, lie)
    assert (node.member.shunned, node.judge.checks) == ({}, 0)
