"""Evidence that is handed on: who is convinced shuns from one round on; who accuses for nothing costs one check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio

from bench.cheats import KEYS, PEERS, Swarm, Work
from tests.support.trails import certificate_of, evidence_of, in_second_round
from tests.unit.swarm.made import Wires, key
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.peer.checking import accusations as module
from ubcp_p2p.peer.checking.accusations import AGAIN_ROUNDS, LEAD_ROUNDS, LEAD_ROUNDS_MAX, UPLOADS_MAX, Accusations
from ubcp_p2p.peer.checking.telling import LATER, NEARLY_S, NO, WANTED
from ubcp_p2p.swarm.admission import everybody
from ubcp_p2p.swarm.events import Committed, Event
from ubcp_p2p.swarm.quorum import Certificate, Group, Seat, vote_digest
from ubcp_p2p.training.verdict import Claim, Finding, Verdict
from ubcp_p2p.training.witness import Witness
from ubcp_p2p.verification.evidence import Evidence, bytes_max

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

RECIPE = load_recipe("digits-tiny")
LIAR, A, B = PEERS
STRANGER = key(9)
ROUND = 2  # that all are in


@pytest.fixture(scope="module")
def swarm() -> Swarm:
    return in_second_round(RECIPE, "evidence")


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
    left_s: dict[bytes, float] = field(default_factory=dict)
    struck: list[bytes] = field(default_factory=list)

    def peers(self) -> list[bytes]:
        return sorted({*PEERS, STRANGER.public} - {self.public})

    def knows(self, peer: bytes) -> bool:
        return peer not in self.strangers

    def shun(self, peer: bytes, from_round: int, left_s: float) -> None:
        self.shunned[peer], self.left_s[peer] = from_round, left_s

    def strike(self, peer: bytes) -> None:
        self.struck.append(peer)


class Judge:
    """A trainer's check, in this process; says how many it has made."""

    def __init__(self, swarm: Swarm) -> None:
        self._witness = Witness(swarm.recipe, swarm.loop)
        self.checks = 0
        self.says: Verdict | None = None  # as another device would have it

    async def check(self, claim: Claim, members: tuple[bytes, ...] | None, opening: bytes) -> Verdict:
        self.checks += 1
        return self.says or self._witness.check(claim, members, opening)


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
        self, accuser: NodeKey, of: Node, blob: bytes, *, accused: bytes = LIAR, from_round: int = 4, size: int = -1,
        left: int = 3600, gather: bool = True,
    ) -> int:  # fmt: skip
        """The answer; the evidence follows where it is wanted, and is judged when this returns (or later: gather)."""
        (protocol,) = self.wires.node(KEYS[of.member.public]).handlers
        async with self.wires.node(accuser).open(of.member.public, protocol, timeout_s=5.0) as stream:
            await stream.send([accused, from_round, left, len(blob) if size < 0 else size], timeout_s=5.0)
            (answer,) = await stream.receive(timeout_s=5.0)
            if answer == WANTED:
                await stream.send_block(memoryview(blob), stall_s=5.0)
                await stream.receive(timeout_s=5.0)
        if gather:
            await asyncio.gather(*self.wires.handling)
        return int(answer)


@pytest_asyncio.fixture
async def peers(tmp_path: Path, swarm: Swarm) -> AsyncIterator[Peers]:
    made = Peers(tmp_path, swarm)
    yield made
    for node in made.nodes:
        node.serving.cancel()
    await asyncio.gather(*(node.serving for node in made.nodes), return_exceptions=True)


FAR = Verdict(Finding.STEPS, 440_000, "half of each batch", 20_000)


def found(node: Node, blob: bytes, verdict: Verdict = FAR) -> None:
    """This node's own check has found the lie."""
    path = node.folder / "own.evidence"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(blob)
    node.accusations.convict(LIAR, path, verdict)


async def test_what_one_has_found_all_shun_from_one_round_on(peers: Peers, lie: bytes) -> None:
    first, second = await peers.add(KEYS[A]), await peers.add(KEYS[B])
    found(first, lie)
    event = await second.events.get()
    assert event.data == {"peer": LIAR.hex(), "from_round": ROUND + LEAD_ROUNDS, "source": A.hex()}
    event = await first.events.get()  # once the other has said that it is convinced
    assert event.data == {"peer": LIAR.hex(), "from_round": ROUND + LEAD_ROUNDS, "source": None}
    assert first.member.shunned == second.member.shunned == {LIAR: ROUND + LEAD_ROUNDS}
    assert first.member.struck == second.member.struck == []
    (kept,) = second.folder.glob("*.evidence")
    assert kept.read_bytes() == lie
    assert (first.judge.checks, second.judge.checks) == (0, 1)


async def test_who_comes_later_hears_it_of_who_was_convinced(peers: Peers, lie: bytes) -> None:
    first, second = await peers.add(KEYS[A]), await peers.add(KEYS[B])
    found(first, lie)
    await second.events.get()
    first.serving.cancel()
    third = await peers.add(STRANGER)
    third.member.strangers.add(A)  # it has gone
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
    assert (node.member.shunned, node.member.struck, list(node.folder.glob("*"))) == ({}, [], [])
    checks = node.judge.checks
    assert checks <= 1
    if what == "honest work, another's data" and not was_there:  # the accused may have lied: this node cannot know
        assert checks == 0
        node.member.round += 2 * AGAIN_ROUNDS
        assert await peers.accuse(KEYS[B], node, lie) == WANTED
        assert node.member.shunned == {LIAR: 4}
        return
    for round_ in range(ROUND + 1, ROUND + 20):
        node.member.round = round_
        assert await peers.accuse(KEYS[B], node, lie) == NO  # the truth neither, of this one
    assert node.judge.checks == checks


@pytest.mark.parametrize("was_there", [True, False])
async def test_data_of_others_splits_no_group_and_makes_nobody_deaf(
    peers: Peers, swarm: Swarm, lie: bytes, was_there: bool
) -> None:
    """Who came later does not know whom the data was cut among: all who shun have to see the same."""
    work = swarm.works[LIAR]
    lied = swarm.work(LIAR, replace(work.trail, members=(LIAR, B)), work.offer, swarm.loop)
    node = await peers.add(KEYS[A])
    base = certificate_of(swarm)
    assert base is not None
    if was_there:
        node.accusations.on_commit(Committed(base, None, ()))
    assert await peers.accuse(KEYS[B], node, evidence_of(swarm, lied, 1).to_bytes()) == WANTED
    assert (node.member.shunned, node.member.struck) == ({}, [LIAR] if was_there else [])
    node.member.round += 2 * AGAIN_ROUNDS
    assert await peers.accuse(KEYS[B], node, lie) == WANTED
    assert node.member.shunned == {LIAR: 4}


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(Finding.STEPS, 39_999, "near", 20_000),
        Verdict(Finding.STEPS, 239_999, "near, where rounding may explain a tenth", 120_000),
        Verdict(Finding.DATA, 10**12, "the data was cut otherwise", 20_000),
    ],
)
async def test_of_what_others_may_not_be_convinced_none_is_told(peers: Peers, lie: bytes, verdict: Verdict) -> None:
    first, second = await peers.add(KEYS[A]), await peers.add(KEYS[B])
    found(first, lie, verdict)
    assert (first.member.struck, first.member.shunned) == ([LIAR], {})
    found(first, lie, verdict._replace(finding=Finding.STEPS, distance_ppm=2 * verdict.allowed_ppm))
    await second.events.get()
    assert second.judge.checks == 1


async def test_evidence_that_is_too_long_to_hand_over_leaves_its_finder_in_all_groups(
    peers: Peers, lie: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVIDENCE_BYTES_MAX", len(lie) - 1)
    node = await peers.add(KEYS[A])
    found(node, lie)
    assert (node.member.struck, node.member.shunned) == ([LIAR], {})


async def test_who_convinces_nobody_shuns_nobody(peers: Peers, lie: bytes) -> None:
    """The others do not hear it, as those of an older version, or come to another verdict: alone it is out itself."""
    node = await peers.add(KEYS[A])
    found(node, lie)
    assert (node.member.struck, node.member.shunned) == ([], {})
    node.member.round += LEAD_ROUNDS
    node.accusations._weigh(LIAR)
    node.accusations._weigh(LIAR)
    assert (node.member.struck, node.member.shunned) == ([LIAR], {})
    assert await peers.accuse(KEYS[B], node, lie) == NO  # it has found it too
    assert node.member.shunned == {LIAR: ROUND + LEAD_ROUNDS}


@pytest.mark.parametrize(
    "says", [Verdict(Finding.HONEST, 10_001, "near", 20_000), Verdict(Finding.DROWNED, 0, "drowned")]
)
async def test_who_may_have_seen_it_on_another_device_is_heard_again(peers: Peers, lie: bytes, says: Verdict) -> None:
    """Later each time: it may be an accomplice of the accused."""
    node = await peers.add(KEYS[A])
    pause = AGAIN_ROUNDS
    for checks in range(1, 4):
        node.judge.says = says
        assert await peers.accuse(KEYS[B], node, lie) == WANTED
        assert (node.judge.checks, node.member.shunned, node.member.struck) == (checks, {}, [])
        pause *= 2
        node.member.round += pause - 1
        assert await peers.accuse(KEYS[B], node, lie) == LATER
        node.member.round += 1
    node.judge.says = None
    assert await peers.accuse(KEYS[B], node, lie) == WANTED
    assert set(node.member.shunned) == {LIAR}


@pytest.mark.parametrize(
    "says",
    [
        Verdict(Finding.HONEST, 0, "the same bits"),
        Verdict(Finding.HONEST, 10_000, "half of what is allowed", 20_000),
        Verdict(Finding.HONEST, 19_000, "rounding may explain far more", 120_000),
    ],
)
async def test_who_accuses_where_no_device_finds_a_lie_is_not_heard_again(
    peers: Peers, lie: bytes, says: Verdict
) -> None:
    node = await peers.add(KEYS[A])
    node.judge.says = says
    assert await peers.accuse(KEYS[B], node, lie) == WANTED
    node.member.round += 2 * AGAIN_ROUNDS
    assert await peers.accuse(KEYS[B], node, lie) == NO


async def test_who_sends_drop_by_drop_keeps_nobody_else_from_being_heard(peers: Peers, lie: bytes) -> None:
    node = await peers.add(KEYS[A])
    (protocol,) = peers.wires.node(KEYS[A]).handlers
    ours = peers.wires.node(KEYS[LIAR])
    for number in (1, 2):  # the second is one too many
        async with ours.open(A, protocol, timeout_s=5.0) as stream:
            await stream.send([B, 4, 3600, 1000], timeout_s=5.0)
            assert await stream.receive(timeout_s=5.0) == [WANTED]
            await stream.send_block(memoryview(b"."), stall_s=5.0)
            assert await peers.accuse(KEYS[LIAR], node, lie, accused=B, gather=False) == LATER  # one at a time
            if number == 1:
                assert await peers.accuse(KEYS[B], node, b"." * 100, accused=LIAR, size=100, gather=False) == WANTED
        await asyncio.gather(*peers.wires.handling)
        node.member.round += AGAIN_ROUNDS
    assert await peers.accuse(KEYS[LIAR], node, lie, accused=B) == NO
    assert node.judge.checks == 0


async def test_whose_evidence_comes_after_anothers_is_heard_in_the_next_round(peers: Peers, lie: bytes) -> None:
    node = await peers.add(KEYS[A])
    node.member.strangers.clear()
    (protocol,) = peers.wires.node(KEYS[A]).handlers
    async with peers.wires.node(KEYS[B]).open(A, protocol, timeout_s=5.0) as stream:
        await stream.send([LIAR, 4, 3600, len(lie)], timeout_s=5.0)
        assert await stream.receive(timeout_s=5.0) == [WANTED]
        assert await peers.accuse(STRANGER, node, bytes(1000), gather=False) == WANTED
        await stream.send_block(memoryview(lie), stall_s=5.0)
        assert await stream.receive(timeout_s=5.0) == [LATER]
    await asyncio.gather(*peers.wires.handling)
    assert node.judge.checks == 0
    node.member.round += 1
    assert await peers.accuse(KEYS[B], node, lie) == WANTED
    assert node.judge.checks == 1


async def test_so_many_uploads_at_once_and_no_more(peers: Peers, lie: bytes) -> None:
    node = await peers.add(KEYS[A])
    node.member.strangers.clear()
    (protocol,) = peers.wires.node(KEYS[A]).handlers
    async with AsyncExitStack() as stack:
        for number in range(20, 20 + UPLOADS_MAX):
            stream = await stack.enter_async_context(peers.wires.node(key(number)).open(A, protocol, timeout_s=5.0))
            await stream.send([LIAR, 4, 3600, 1000], timeout_s=5.0)
            assert await stream.receive(timeout_s=5.0) == [WANTED]
        assert await peers.accuse(KEYS[B], node, lie, gather=False) == LATER
    await asyncio.gather(*peers.wires.handling)
    assert await peers.accuse(KEYS[B], node, lie) == WANTED
    assert node.judge.checks == 1


async def test_the_hour_ends_for_all_at_once(peers: Peers, lie: bytes) -> None:
    """Who hears of an old lie goes by what is left; few can neither renew the hour nor end it."""
    node = await peers.add(KEYS[A])
    node.member.strangers.clear()
    node.member.round = 100
    assert await peers.accuse(KEYS[B], node, lie, left=int(NEARLY_S) - 1) == NO
    assert await peers.accuse(KEYS[B], node, lie, left=100) == WANTED
    assert await peers.accuse(KEYS[B], node, lie, left=3600) == NO  # it has said it
    assert node.member.left_s == {}  # two of four, the liar counted
    assert await peers.accuse(STRANGER, node, lie, left=3600) == NO
    assert 90 < node.member.left_s[LIAR] <= 100
    fresh = await peers.add(KEYS[B])
    fresh.member.strangers.clear()
    assert await peers.accuse(KEYS[A], fresh, lie, left=100) == WANTED
    assert await peers.accuse(STRANGER, fresh, lie, left=3600) == NO
    assert 3500 < fresh.member.left_s[LIAR] <= 3600


async def test_one_accusation_is_looked_at_in_a_round(peers: Peers, swarm: Swarm, lie: bytes) -> None:
    node = await peers.add(KEYS[A])
    false = FALSE["honest work"](swarm)
    node.member.strangers.clear()
    assert await peers.accuse(STRANGER, node, false) == WANTED
    assert await peers.accuse(KEYS[B], node, lie) == LATER
    node.member.round += 1
    assert await peers.accuse(KEYS[B], node, lie) == WANTED
    assert (node.judge.checks, node.member.shunned) == (2, {})  # two of four, the liar counted
    node.member.strangers.add(STRANGER.public)
    node.accusations._weigh(LIAR)
    assert set(node.member.shunned) == {LIAR}


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
    monkeypatch.undo()
    found(node, lie)
    assert node.member.shunned == {LIAR: 24}  # not before another says that it does
    assert await peers.accuse(KEYS[B], node, lie, from_round=100) == NO
    assert node.member.shunned == {LIAR: node.member.round + LEAD_ROUNDS}


async def test_a_lie_of_long_ago_is_not_heard_of(peers: Peers, lie: bytes) -> None:
    node = await peers.add(KEYS[A])
    node.member.round = 1000
    await peers.accuse(KEYS[B], node, lie)
    assert (node.member.shunned, node.judge.checks) == ({}, 0)
