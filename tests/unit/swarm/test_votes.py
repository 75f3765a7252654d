"""The vote between real streams: who hears what, and what a liar, a mute or a flooding member can do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.unit.swarm.made import KEYS, RUN, Wires, digest, group
from ubcp_p2p.codec import Value
from ubcp_p2p.errors import RoundFailed
from ubcp_p2p.swarm.frames import Stream
from ubcp_p2p.swarm.quorum import Certificate, vote_digest
from ubcp_p2p.swarm.votes import BALLOTS_KEPT, EARLY_VOTES_MAX, Polls

PROTOCOL = f"/ubcp/vote/1/{RUN.hex()[:32]}"
STATE, OTHER = digest("state"), digest("other state")
LONG_S = 20.0
A, B, C = KEYS[:3]


class Room:
    """Three members of one group, of which some vote."""

    def __init__(self) -> None:
        self.wires = Wires()
        self.group = group(k.public for k in KEYS[:3])
        self.polls = [Polls(self.wires.node(key), RUN) for key in KEYS[:3]]

    async def vote(
        self, n: int, state: bytes = STATE, seconds: float = LONG_S, gone: set[bytes] | None = None
    ) -> Certificate:
        return await self.polls[n].collect(
            self.group, state, deadline_s=time.monotonic() + seconds, gone=lambda: gone or set()
        )

    def signed(self, n: int, state: bytes) -> bytes:
        return KEYS[n].sign("vote", vote_digest(self.group.digest, state))

    async def tell(
        self, n: int, to: int, state: bytes, signature: bytes | None = None, about: bytes | None = None
    ) -> object:
        message = [about or self.group.digest, state, signature or self.signed(n, state)]
        return await self.wires.node(KEYS[n]).request(KEYS[to].public, PROTOCOL, [*message], timeout_s=LONG_S)


@pytest_asyncio.fixture
async def room() -> AsyncIterator[Room]:
    made = Room()
    for polls in made.polls:
        await polls.open()
    yield made
    for polls in made.polls:
        await polls.close()


@pytest.mark.asyncio
async def test_all_agree_and_all_hold_the_certificate(room: Room) -> None:
    certificates = await asyncio.gather(*(room.vote(n) for n in range(3)))
    for certificate in certificates:
        certificate.check(RUN)
        assert certificate.state_hash == STATE
        assert len(certificate.signatures) == 3


@pytest.mark.asyncio
async def test_a_majority_suffices_when_the_silent_are_gone(room: Room) -> None:
    certificates = await asyncio.gather(*(room.vote(n, gone={C.public}) for n in range(2)))
    assert [len(c.signatures) for c in certificates] == [2, 2]


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_majority_suffices_at_the_deadline_and_not_before(room: Room) -> None:
    started_s = time.monotonic()
    await asyncio.gather(*(room.vote(n, seconds=0.5) for n in range(2)))
    assert time.monotonic() - started_s >= 0.5


@pytest.mark.asyncio
async def test_a_dissenter_learns_what_the_majority_signed(room: Room) -> None:
    certificates = await asyncio.gather(room.vote(0), room.vote(1), room.vote(2, OTHER))
    assert {c.state_hash for c in certificates} == {STATE}


@pytest.mark.asyncio
async def test_without_a_majority_the_round_fails_and_names_the_silent(room: Room) -> None:
    with pytest.raises(RoundFailed) as failed:
        await room.vote(0, seconds=0.05)
    assert set(failed.value.missing) == {B.public, C.public}


@pytest.mark.asyncio
async def test_a_split_fails_at_once_and_names_the_dissenters(room: Room) -> None:
    results = await asyncio.gather(
        room.vote(0), room.vote(1, OTHER), room.vote(2, digest("third")), return_exceptions=True
    )
    assert all(isinstance(r, RoundFailed) and "differ" in r.message for r in results)
    assert isinstance(results[0], RoundFailed)
    assert set(results[0].missing) == {B.public, C.public}


@pytest.mark.asyncio
async def test_a_vote_that_came_before_the_group_was_known_counts(room: Room) -> None:
    assert await room.tell(2, 0, STATE) == []
    assert await room.tell(1, 0, STATE) == []
    certificate = await room.vote(0)
    assert len(certificate.signatures) == 3


@pytest.mark.asyncio
async def test_an_answer_with_more_votes_than_members_is_not_read(room: Room) -> None:
    rows: list[Value] = [[KEYS[n].public, STATE, room.signed(n, STATE)] for n in (0, 1, 2, 2)]

    async def tells_too_much(stream: Stream) -> None:
        await stream.receive(timeout_s=LONG_S)
        await stream.send(rows, timeout_s=LONG_S)

    for n in (1, 2):
        room.wires.node(KEYS[n]).handlers[PROTOCOL] = tells_too_much
    with pytest.raises(RoundFailed):
        await room.vote(0, seconds=0.05)
    rows.pop()
    assert len((await room.vote(0)).signatures) == 3


@pytest.mark.asyncio
async def test_a_forged_vote_does_not_count(room: Room) -> None:
    await room.tell(2, 0, STATE, signature=room.signed(1, STATE))  # signed by another
    await room.tell(5, 0, STATE)  # no member
    with pytest.raises(RoundFailed) as failed:
        await room.vote(0, seconds=0.05)
    assert set(failed.value.missing) == {B.public, C.public}


@pytest.mark.asyncio
async def test_only_the_first_of_two_votes_counts(room: Room) -> None:
    await room.tell(2, 0, OTHER)
    voting = asyncio.ensure_future(room.vote(0))
    await room.tell(2, 0, STATE)
    await room.tell(1, 0, STATE)
    certificate = await voting
    assert [peer for peer, _ in certificate.signatures] == sorted([A.public, B.public])


@pytest.mark.asyncio
async def test_who_missed_the_end_gets_all_votes_in_one_answer(room: Room) -> None:
    await asyncio.gather(room.vote(0, gone={C.public}), room.vote(1, gone={C.public}))
    certificate = await room.vote(2)
    assert len(certificate.signatures) == 3
    assert room.polls[0].certificate(room.group.digest) is not None
    assert room.polls[0].certificate(digest("unknown")) is None


@pytest.mark.asyncio
async def test_a_stranger_learns_no_votes(room: Room) -> None:
    await asyncio.gather(*(room.vote(n) for n in range(3)))
    assert await room.tell(5, 0, STATE) == []


@pytest.mark.asyncio
async def test_old_ballots_and_early_votes_are_bounded(room: Room) -> None:
    for number in range(BALLOTS_KEPT + 3):
        room.group = group((A.public,), round_=number)
        await room.vote(0)
    assert len(room.polls[0]._ballots) == BALLOTS_KEPT
    for number in range(EARLY_VOTES_MAX + 5):
        await room.tell(2, 0, STATE, about=digest(f"group {number}"))
    assert len(room.polls[0]._early) <= EARLY_VOTES_MAX


@pytest.mark.asyncio
async def test_a_flood_of_early_votes_does_not_push_out_those_of_others(room: Room) -> None:
    await room.tell(1, 0, STATE)
    for number in range(EARLY_VOTES_MAX + 5):
        await room.tell(2, 0, STATE, about=digest(f"group {number}"))
    assert any(peer == B.public for _, peer in room.polls[0]._early)


@pytest.mark.asyncio
@pytest.mark.parametrize("message", [7, [], [b"x" * 32], [b"x" * 32, b"y" * 31, b"z" * 64], ["a", "b", "c"]])
async def test_a_malformed_vote_is_answered_by_hanging_up(room: Room, message: object) -> None:
    from ubcp_p2p.swarm.frames import Unreachable

    with pytest.raises(Unreachable):
        await room.wires.node(C).request(A.public, PROTOCOL, message, timeout_s=LONG_S)
