"""The loop that serves: slice after slice over a real store, with restarts, drafts, full disks and late requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.served import Serving, StoreLedger, serving
from tests.support.serving import CREDIT, SLICE, Scene
from ubcp_p2p.allocator.problem import Reason
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger.database import StoreError
from ubcp_p2p.ledger.entry import Body, Decision
from ubcp_p2p.ledger.leases import SETTLE_S
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.peer.serving import seen, service

NETWORK = bytes(range(32))


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def node(scene: Scene, tmp_path: Path) -> Iterator[Serving]:
    """Cid's, when Ann has asked for three peers at most."""
    scene.asks(scene.ann, scene.ann_pc, at=SLICE - 1, peers=(1, 3), units=20 * CREDIT)
    with serving(scene, tmp_path, SLICE) as made:
        yield made


def test_every_slice_is_decided_once_and_settled_after_a_minute(node: Serving, scene: Scene) -> None:
    asyncio.run(node.run(SLICE, after_s=SETTLE_S - 1))
    assert [body.slice for body in node.decisions()] == [SLICE]
    status = node.service.status()
    assert (status["slice"], status["settled"], len(status["leases"])) == (SLICE, False, 1)
    assert status["words"] == "decided: 1 of 1 accepted"
    asyncio.run(node.run(SLICE + 2, after_s=SETTLE_S + 1))
    assert [body.slice for body in node.decisions()] == [SLICE, SLICE + 1, SLICE + 2]
    status = node.service.status()
    request = scene.world.entries[-1].entry.id
    assert (status["slice"], status["settled"], status["held"]) == (SLICE + 2, True, [request.hex()])
    for body in node.decisions():
        assert body.accepted == (request,)
        assert [ask.id for ask in node.problem(body).asks] == [request]


def test_who_comes_after_the_minute_waits_for_the_next_slice(node: Serving) -> None:
    node.time.now_s += SETTLE_S
    asyncio.run(node.run(SLICE, after_s=800))
    assert node.decisions() == []
    assert node.service.status()["slice"] is None
    asyncio.run(node.run(SLICE + 1, after_s=SETTLE_S))
    assert [body.slice for body in node.decisions()] == [SLICE + 1]


def test_a_node_that_is_started_again_goes_on_with_what_it_has_said(node: Serving, scene: Scene) -> None:
    asyncio.run(node.run(SLICE, after_s=SETTLE_S - 5))
    (first,) = node.decisions()
    node.store.append(
        [scene.asks(scene.ben, scene.ben_pc, at=SLICE, units=20 * CREDIT)]
    )  # decided now, it would be taken
    node.time.now_s = node.begins_s(SLICE) + 1
    asyncio.run(node.run(SLICE, after_s=SETTLE_S + 1))
    assert node.decisions() == [first]
    status = node.service.status()
    assert status["words"] == "decided before this node was started again"
    assert len(status["held"]) == len(status["leases"]) == 1


def test_parts_that_were_not_told_before_a_stop_are_told_after_it(
    node: Serving, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ACCEPTED_MAX", 1)
    node.store.append([scene.asks(scene.ben, scene.ben_pc, at=SLICE, units=20 * CREDIT)])

    class Filling(StoreLedger):
        """Its disk is full after the first part."""

        async def write(self, body: Body, /) -> Signed | None:
            if node.decisions():
                raise StoreError("the disk is full")
            return await super().write(body)

    full = node.ledger(Filling)
    asyncio.run(node.run(SLICE, full, after_s=SETTLE_S - 5))
    assert len(node.decisions()) == 1
    assert node.service.status()["words"] == "nothing is decided: the disk is full"
    node.time.now_s = node.begins_s(SLICE) + 1
    asyncio.run(node.run(SLICE, after_s=SETTLE_S + 1))
    one, two = node.decisions()
    assert one._replace(accepted=()) == two._replace(accepted=())
    assert len({*one.accepted, *two.accepted}) == 2
    assert len(node.service.status()["held"]) == 2


def test_a_disk_that_is_full_costs_one_slice(node: Serving, scene: Scene) -> None:
    class Full(StoreLedger):
        """Until the second slice."""

        async def keep(self, blob: bytes, /) -> bytes:
            if self.time.now_s < node.begins_s(SLICE + 1):
                raise StoreError("no room")
            return await super().keep(blob)

    asyncio.run(node.run(SLICE + 1, node.ledger(Full), after_s=SETTLE_S))
    assert [body.slice for body in node.decisions()] == [SLICE + 1]


def test_an_unconfirmed_node_decides_and_does_not_tell(node: Serving) -> None:
    asyncio.run(node.run(SLICE, node.ledger(confirmed=False), after_s=SETTLE_S + 1))
    assert node.decisions() == []
    assert "may not sign yet" in node.service.status()["words"]


def test_a_draft_that_is_signed_while_a_node_decides_is_its_decision(node: Serving, scene: Scene) -> None:
    """A node that stopped unconfirmed had a draft of this slice; peers confirm its chain just before it would tell."""
    draft = Decision(SLICE, 7, 1, (), (), bytes(32))

    class Confirmed(StoreLedger):
        async def may_write(self) -> bool:
            self.confirm()
            return await super().may_write()

    ledger = node.ledger(Confirmed, confirmed=False)
    assert ledger.writer.write(draft, now_s=node.time.now_s, offsets_s=[]) is None
    asyncio.run(node.run(SLICE, ledger, after_s=SETTLE_S + 1))
    assert node.decisions() == [draft]


def test_a_node_of_somebody_who_is_not_enrolled_decides_nothing(scene: Scene, tmp_path: Path) -> None:
    scene.asks(scene.ann, scene.ann_pc)
    eve = scene.world.account("eve", enrol=False)
    scene.cid_pc = scene.world.node(eve, "eve")
    with serving(scene, tmp_path, SLICE) as node:
        asyncio.run(node.run(SLICE, after_s=SETTLE_S + 1))
        assert node.decisions() == []
        assert "is not enrolled" in node.service.status()["words"]
        scene.world.now = SLICE
        node.store.append([scene.world.enrol(eve, "eve")])
        asyncio.run(node.run(SLICE + 1, after_s=SETTLE_S + 1))
        assert [body.slice for body in node.decisions()] == [SLICE + 1]


def test_the_owner_pauses_and_nobody_is_served(node: Serving) -> None:
    asyncio.run(node.keeper.pause(None, False))
    asyncio.run(node.run(SLICE, after_s=SETTLE_S + 1))
    assert node.decisions() == []
    assert node.service.status()["words"].startswith("serves nobody now: ")


# -- when requests came -----------------------------------------------------------------------------------------------


def waited(node: Serving, request: Signed) -> list[tuple[int, int]]:
    """(slice, how long the request has waited) of each decision that has weighed it."""
    asks = [(body.slice, ask) for body in node.decisions() for ask in node.problem(body).asks]
    return [(slice_, ask.waited) for slice_, ask in asks if ask.id == request.entry.id]


def test_waits_go_on_over_restarts(node: Serving, scene: Scene) -> None:
    """A request that says an early slice came late: it does not gain by a stop of the node."""
    late = scene.asks(scene.ben, scene.ben_pc, at=SLICE, peers=(3, 3))
    came = SLICE + 8
    node.at(came, lambda: node.store.append([late]), after_s=0.5)
    asyncio.run(node.run(came, after_s=SETTLE_S + 1))
    assert seen.read_seen(node.profile.seen_file, scene.world.charters.network) == {late.entry.id: came}
    asyncio.run(node.run(came + 2, after_s=SETTLE_S + 1))
    assert waited(node, late) == [(came, 0), (came + 1, 1), (came + 2, 2)]
    (ask,) = [ask for ask in node.problem(node.decisions()[-1]).asks if ask.id == late.entry.id]
    assert ask.standing is Reason.TOO_FEW_PEERS
    node.profile.seen_file.unlink()
    asyncio.run(node.run(came + 3, after_s=SETTLE_S + 1))
    assert waited(node, late)[-1] == (came + 3, 11)  # nobody has noted it


def test_a_damaged_file_costs_what_it_held_and_no_slice(node: Serving, caplog: pytest.LogCaptureFixture) -> None:
    node.profile.seen_file.write_text("{")
    asyncio.run(node.run(SLICE, after_s=SETTLE_S + 1))
    assert len(node.decisions()) == 1
    assert "is damaged, or of another version" in caplog.text


def test_what_was_seen_is_kept_by_community(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seen.json"
    assert seen.read_seen(path, NETWORK) == {}
    rows = {bytes([n]) * 32: n for n in range(5)}
    seen.keep_seen(path, NETWORK, rows)
    assert seen.read_seen(path, NETWORK) == rows
    assert seen.read_seen(path, bytes(32)) == {}
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(seen, "SEEN_MAX", 2)
    seen.keep_seen(path, NETWORK, rows)
    assert seen.read_seen(path, NETWORK) == {bytes([n]) * 32: n for n in (3, 4)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "ubcp/seen/2", "network": "N", "requests": {}}',
        '{"format": "ubcp/seen/1", "network": "00", "requests": {}}',
        '{"format": "ubcp/seen/1", "network": "N", "requests": {"ab": 1}}',
        '{"format": "ubcp/seen/1", "network": "N", "requests": {"N": -1}}',
        '{"format": "ubcp/seen/1", "network": "N", "requests": {"N": 1.0}}',
        '{"format": "ubcp/seen/1", "network": "N", "requests": {}, "more": 1}',
    ],
)
def test_a_file_that_is_none_of_ours(tmp_path: Path, text: str) -> None:
    path = tmp_path / "seen.json"
    path.write_text(text.replace("N", NETWORK.hex()))
    with pytest.raises(ConfigError, match="is damaged, or of another version"):
        seen.read_seen(path, NETWORK)


def test_a_purpose_that_is_refused_and_that_the_charter_lacks_is_told(node: Serving) -> None:
    known = next(iter(node.ledger().charters.newest.purposes))
    node.keeper.rules = replace(node.keeper.rules, purposes_refused=frozenset({known, known.title()}))
    asyncio.run(node.run(SLICE, after_s=SETTLE_S - 1))
    (note,) = node.service.status()["notes"]
    assert f"has {known.title()!r}, which the charter does not" in note
