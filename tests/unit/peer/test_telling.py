"""Evidence is handed to a few at once, read when it is wanted, and offered again later each time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.unit.swarm.made import Wires, key
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.peer.checking.conviction import PAUSE_S, PAUSE_S_MAX, TRIES_MAX, VOICES_MAX, Conviction, Told
from ubcp_p2p.peer.checking.telling import AT_ONCE, LATER, NEARLY_S, NO, WANTED, Telling
from ubcp_p2p.swarm.frames import Stream

pytestmark = pytest.mark.asyncio

ME, LIAR, OTHERS = key(0), key(1), [key(number) for number in range(2, 8)]
BLOB = bytes(range(256)) * 8
PROTOCOL = "/accuse"


class Member:
    round = 5

    def peers(self) -> list[bytes]:
        return [LIAR.public, *(one.public for one in OTHERS)]

    def knows(self, peer: bytes) -> bool:
        return peer != min(one.public for one in OTHERS)

    def shun(self, peer: bytes, from_round: int, left_s: float) -> None:
        raise AssertionError

    def strike(self, peer: bytes) -> None:
        raise AssertionError


class Hearer:
    """A peer that gives one answer, when it may."""

    def __init__(self, answer: int, last: int = NO) -> None:
        self.answer, self.last = answer, last
        self.heard: list[Any] = []
        self.may = asyncio.Event()
        self.may.set()

    async def hear(self, stream: Stream) -> None:
        self.heard.append(await stream.receive(timeout_s=5.0))
        await self.may.wait()
        await stream.send([self.answer], timeout_s=5.0)
        if self.answer == WANTED:
            blob = bytearray(len(BLOB))
            await stream.receive_block(memoryview(blob), stall_s=5.0)
            self.heard.append(bytes(blob))
            await stream.send([self.last], timeout_s=5.0)


class Office:
    def __init__(self, folder: Path) -> None:
        self.wires, self.woken = Wires(), asyncio.Event()
        self.path = folder / "a.evidence"
        self.path.write_bytes(BLOB)
        self.network = self.wires.node(ME)
        self.telling = Telling(self.network, PROTOCOL, Member(), self.woken.set)
        self.conviction = Conviction(self.path, 7, None, {ME.public: asyncio.get_running_loop().time() + 1000.0})

    async def seat(self, who: NodeKey, hearer: Hearer) -> Hearer:
        await self.wires.node(who).handle(PROTOCOL, hearer.hear)
        return hearer

    def begin(self, now_s: float) -> None:
        self.telling.begin({LIAR.public: self.conviction}, now_s)

    async def until_nothing_is_due(self, now_s: float) -> None:
        """As the caller does: again whenever one has been told."""
        self.begin(now_s)
        while self.telling._tasks:
            self.woken.clear()
            await self.woken.wait()
            self.begin(now_s)


@pytest_asyncio.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = Office(tmp_path)
    yield made
    await made.telling.close()
    await asyncio.gather(*made.wires.handling)


async def test_all_but_the_liar_are_told_once(office: Office) -> None:
    hearers = [await office.seat(one, Hearer(WANTED)) for one in [LIAR, *OTHERS]]
    now_s = asyncio.get_running_loop().time()
    await office.until_nothing_is_due(now_s)
    for hearer in hearers[1:]:
        (accused, from_round, left, size), blob = hearer.heard
        assert (accused, from_round, size, blob) == (LIAR.public, 7, len(BLOB), BLOB)
        assert 990 < left <= 1000
    await office.until_nothing_is_due(now_s + 500.0)
    assert [len(hearer.heard) for hearer in hearers] == [0] + [2] * len(OTHERS)


async def test_evidence_is_read_when_it_is_wanted_and_not_before(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who answers "later" for ever has it read for ever."""
    hearers = [await office.seat(one, Hearer(LATER)) for one in OTHERS]
    monkeypatch.setattr("ubcp_p2p.peer.checking.telling.read_limited", None)  # it is not called
    now_s = asyncio.get_running_loop().time()
    pause_s = PAUSE_S
    for asked in range(1, 4):
        await office.until_nothing_is_due(now_s)
        assert [len(hearer.heard) for hearer in hearers] == [asked] * len(OTHERS)
        pause_s *= 2.0
        told = office.conviction.told.values()
        assert {one.pause_s for one in told} == {pause_s}
        office.begin(min(one.next_s for one in told) - 0.001)
        assert not office.telling._tasks
        now_s = max(one.next_s for one in told)


async def test_who_takes_evidence_and_had_no_time_for_it_is_asked_again(office: Office) -> None:
    hearer = await office.seat(OTHERS[0], Hearer(WANTED, LATER))
    await office.until_nothing_is_due(asyncio.get_running_loop().time())
    told = office.conviction.told[OTHERS[0].public]
    assert (told.is_done, told.tries, len(hearer.heard)) == (False, 0, 2)


async def test_a_few_at_once_and_members_of_groups_first(office: Office) -> None:
    hearers = {one.public: await office.seat(one, Hearer(WANTED)) for one in OTHERS}
    for hearer in hearers.values():
        hearer.may.clear()
    now_s = asyncio.get_running_loop().time()
    office.begin(now_s)
    office.begin(now_s)
    assert len(office.telling._tasks) == AT_ONCE
    stranger = min(hearers)
    assert stranger not in office.telling._tasks
    for hearer in hearers.values():
        hearer.may.set()
    await office.until_nothing_is_due(now_s)
    assert stranger in office.network.opened[-AT_ONCE:]


async def test_what_is_nearly_over_is_not_handed_on(office: Office) -> None:
    office.begin(office.conviction.over_s - NEARLY_S + 0.5)
    assert not office.telling._tasks
    office.begin(office.conviction.over_s - NEARLY_S - 0.5)
    assert office.telling._tasks


async def test_who_is_not_reached_is_given_up(office: Office) -> None:
    now_s = asyncio.get_running_loop().time()
    for tries in range(1, TRIES_MAX + 1):
        await office.until_nothing_is_due(now_s)
        assert len(office.network.opened) == tries * len(OTHERS)
        now_s = max(told.next_s for told in office.conviction.told.values())
        office.conviction.ends = {ME.public: now_s + 1000.0}
    await office.until_nothing_is_due(now_s)
    assert len(office.network.opened) == TRIES_MAX * len(OTHERS)


async def test_evidence_that_has_gone_is_offered_to_nobody(office: Office) -> None:
    office.path.unlink()
    await office.until_nothing_is_due(asyncio.get_running_loop().time())
    assert office.network.opened == []
    assert all(told.is_done for told in office.conviction.told.values())


async def test_the_pause_doubles_to_a_limit() -> None:
    told = Told()
    for number in range(10):
        told.put_off(0.0)
        assert told.next_s == min(PAUSE_S * 2.0**number, PAUSE_S_MAX)


async def test_of_the_end_few_decide_nothing_and_nobody_twice() -> None:
    made = Conviction(Path("a"), 3, None, {b"a": 100.0})
    made.backed(b"b", 50.0)
    assert made.over_s == 50.0  # of two the sooner
    made.backed(b"c", 100.0)
    assert made.over_s == 100.0
    made.backed(b"b", 1000.0)
    made.backed(b"a", 1000.0)
    assert sorted(made.ends.values()) == [50.0, 100.0, 100.0]
    for number in range(2 * VOICES_MAX):
        made.backed(b"%d" % number, 1.0)
    assert len(made.ends) == VOICES_MAX
