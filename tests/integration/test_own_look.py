"""A paymaster's own look at real work and a real cheat's: a real judge's process, from what is on its disk alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cheats import KEYS, PEERS, Swarm, Work
from tests.support.trails import card_of, certificate_of, in_second_round
from tests.unit.peer.test_verifier import Directory
from tests.unit.swarm.made import Wires, digest, key
from ubcp_p2p.models.recipe import load_recipe, run_id
from ubcp_p2p.models.task import build_task
from ubcp_p2p.peer.config import TrainingConfig
from ubcp_p2p.peer.paying.bill import Bill
from ubcp_p2p.peer.paying.cabinet import Cabinet, Place
from ubcp_p2p.peer.paying.job import Job
from ubcp_p2p.peer.paying.settling import UNSURE_S_MAX, Settler
from ubcp_p2p.peer.paying.tab import Account, Tab, Terms
from ubcp_p2p.peer.paying.verifier import Verifier
from ubcp_p2p.swarm.openings import Openings
from ubcp_p2p.swarm.quorum import Certificate, Group, Seat, vote_digest
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.verdict import Finding
from ubcp_p2p.verification.draw import Draw
from ubcp_p2p.verification.verify import verify_evidence

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
RECIPE = load_recipe("digits-tiny")
REQUEST = digest("request")
DATA = bytes.fromhex(build_task(RECIPE).data_sha256)
ME, OTHER = PEERS[:2]


@pytest.fixture(scope="module")
def swarm() -> Swarm:
    return in_second_round(RECIPE, "plays")


def billed(swarm: Swarm, work: Work) -> Bill:
    """What the peer sends, with its card."""
    works = {**swarm.works, ME: work}
    cards = {peer: replace(card_of(works[peer]), payer=REQUEST).signed(KEYS[peer]) for peer in PEERS}
    seats = tuple(Seat(peer, card.weight, card.offer_hash, card.trail, card.payer) for peer, card in cards.items())
    group = Group(swarm.run_id, swarm.round, swarm.base_hash, seats)
    vote = vote_digest(group.digest, digest("state"))
    votes = tuple((peer, KEYS[peer].sign("vote", vote)) for peer in PEERS)
    return Bill(Certificate(group, digest("state"), votes), cards[ME], certificate_of(swarm))


async def looked_at(
    swarm: Swarm, work: Work, folder: Path, claims: dict[bytes, bytes] | None, now_s: int = 0
) -> tuple[Account, Path]:
    """The account after a paymaster that has just begun has asked the contributor, and where a proof would lie."""
    assert swarm.run_id == run_id("plays", RECIPE.hash())
    bill, place = billed(swarm, work), Place(REQUEST, ME, swarm.round)
    before = Tab(Terms(REQUEST, swarm.run_id, 1, 10**6, 8, 50, 1000))
    before.welcome(ME, digest("opening"), "cpu", 0)
    before.meter(ME, bill.certificate, frozenset(PEERS), Draw(ME, None, (2,)), 0)
    Cabinet(folder / "evidence").put_bill(place, bill.to_bytes())

    tab, cabinet, wires = Tab.from_bytes(before.to_bytes(), before.terms), Cabinet(folder / "evidence"), Wires()
    job = Job(tab.terms, RECIPE, tab, {}, 100, "plays")
    blobs: list[bytes] = []

    async def keep(blob: bytes) -> None:
        blobs.append(blob)

    async def settled(job: Job, node: bytes) -> None:
        pass

    async def opened(trail: bytes, stretch: int, end: bytes) -> bytes:
        found = work.open(stretch)
        assert found is not None
        return found.to_bytes()

    directory: Any = Directory(claims, swarm.run_id)
    ledger: Any = SimpleNamespace(keep=keep)
    node: Any = wires.node(KEYS[ME])
    await Openings(node, swarm.run_id, shape_of(RECIPE).bytes_max(), opened, lambda *asked: True).open()
    verifier = Verifier(directory, TrainingConfig(), folder / "verifying")
    settler = Settler(wires.node(key(9)), ledger, verifier, cabinet, settled, clock=lambda: now_s)
    await settler._settle_all(job, ME, ending=False)
    assert tab.holds == {}
    return tab.accounts[ME], cabinet.kept(tab.accounts[ME].proof)


@pytest.mark.asyncio
async def test_a_cheat_is_convicted_and_anybody_can_see_why(swarm: Swarm, tmp_path: Path) -> None:
    account, proof = await looked_at(swarm, swarm.half_batch(), tmp_path, {ME: digest("other data"), OTHER: DATA})
    assert "no honest work (steps)" in account.barred
    assert account.rounds == 0
    assert verify_evidence(proof.read_bytes(), RECIPE).finding == Finding.STEPS


@pytest.mark.asyncio
@pytest.mark.full
async def test_a_directory_that_stays_silent_convicts_nobody(swarm: Swarm, tmp_path: Path) -> None:
    account, proof = await looked_at(swarm, swarm.half_batch(), tmp_path, None, UNSURE_S_MAX)
    assert (account.barred, account.rounds, proof.exists()) == ("", 1, False)
    assert "nobody can be asked now" in account.words


@pytest.mark.asyncio
@pytest.mark.full
async def test_honest_work_is_owed(swarm: Swarm, tmp_path: Path) -> None:
    account, _ = await looked_at(swarm, swarm.works[ME], tmp_path, None)
    assert (account.barred, account.words, account.rounds) == ("", "", 1)
