"""Several contributors and validators at one paymaster: who waits for whom."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from tests.unit.peer.test_settling import ASKED, HONEST, LIE, PAYMASTER, RUN, SILENT, A, B, Office
from ubcp_p2p.peer.paying import settling
from ubcp_p2p.peer.paying.report import Report
from ubcp_p2p.peer.paying.tab import NotYet
from ubcp_p2p.peer.paying.wire import PROTOCOL, What, answered, question
from ubcp_p2p.training.verdict import Finding


@pytest.mark.asyncio
async def test_evidence_about_one_round_comes_once_at_a_time(tmp_path: Path) -> None:
    office = await Office(tmp_path).open()
    made = Report(RUN, 0, A.public, Finding.STEPS, hashlib.sha256(b"junk").digest(), 4).signed(B)
    async with office.wires.node(B).open(PAYMASTER.public, PROTOCOL, timeout_s=5.0) as stream:
        await stream.send(question(What.REPORT, ASKED.id, made.to_bytes()), timeout_s=5.0)
        assert answered(await stream.receive(timeout_s=5.0)) == 1
        with pytest.raises(NotYet, match="coming already"):
            await office.report(LIE, b"junk")
        await stream.send_block(memoryview(b"ju"), stall_s=5.0)
    await asyncio.wait(office.wires.handling)  # it has hung up in the middle
    assert (office.state(), office.files()) == (("REPORT", 0), {".bill"})
    await office.report(LIE, b"junk")
    assert office.state() == ("EVIDENCE", 0)


@pytest.mark.asyncio
async def test_a_contributor_that_does_not_answer_holds_up_no_other(tmp_path: Path) -> None:
    office = Office(tmp_path, validator=None)
    office.also_b()
    office.verdict = HONEST
    await office.opens(after=asyncio.Event())
    await office.opens(who=B)
    serving = asyncio.create_task(office.settler.serve(lambda: [office.job], lambda: 1))
    async with asyncio.timeout(10.0):
        await office.owed.wait()
    assert office.state() == ("OWN_LOOK", 0)  # A
    serving.cancel()
    await asyncio.wait([serving])
    assert office.job.users == 0


@pytest.mark.asyncio
async def test_who_is_slow_holds_no_place_of_others_and_gets_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "ASKING_MAX", 1)
    monkeypatch.setattr(settling, "FAST_S", 0.05)
    office = Office(tmp_path, validator=None)
    office.also_b()
    office.verdict, gate = HONEST, asyncio.Event()
    await office.opens(after=gate)
    await office.opens(who=B)
    slow = asyncio.create_task(office.settler._settle_all(office.job, A.public, ending=False))
    await office.asking.wait()
    await office.settler._settle_all(office.job, B.public, ending=False)
    assert (office.owed.is_set(), office.state()) == (True, ("OWN_LOOK", 0))
    assert set(office.settler._slow) == {A.public}
    gate.set()
    await slow
    assert (office.state(), office.settler._slow) == (("owed", 1), {})


@pytest.mark.asyncio
async def test_who_stays_silent_is_asked_twice_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "ASK_S", 0.05)
    monkeypatch.setattr(settling, "LINK_BYTES_PER_S_MIN", 2**50)
    office = Office(tmp_path, validator=None)
    await office.opens(after=asyncio.Event())
    await office.look()
    assert (office.state(), office.judged) == (("withheld", 0), 0)
    account = office.job.tab.accounts[A.public]
    assert (account.unopened, "did not come in time" in account.words) == (1, True)
    assert len(office.wires.node(PAYMASTER).opened) == 2


@pytest.mark.asyncio
async def test_one_judges_at_a_time(tmp_path: Path) -> None:
    office = Office(tmp_path, validator=None)
    office.also_b()
    office.verdict, office.gate = HONEST, asyncio.Event()
    for who in (A, B):
        await office.opens(who=who)
    nodes = [node for node, _ in office.job.tab.holds]
    looks = [asyncio.create_task(office.settler._settle_all(office.job, node, ending=False)) for node in nodes]
    await office.opening.wait()
    office.gate.set()
    await asyncio.gather(*looks)
    assert (office.judged, office.judging_most, office.job.tab.holds) == (2, 1, {})


@pytest.mark.asyncio
async def test_what_was_settled_while_it_waited_for_its_turn_is_not_looked_at(tmp_path: Path) -> None:
    office = await Office(tmp_path).open()
    office.verdict = HONEST
    await office.opens()
    await office.report(SILENT)
    (hold,) = office.job.tab.holds.values()
    async with office.settler._asking, office.settler._asking, office.settler._asking:
        look = asyncio.create_task(office.settler._settle(office.job, A.public, hold, ending=False))
        await asyncio.sleep(0)
        office.job.tab.release(A.public, 0, honest=True)
    await look
    assert (office.judged, office.asked) == (0, set())
