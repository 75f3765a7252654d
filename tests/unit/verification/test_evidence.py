"""Evidence blobs: what convinces a stranger, and what proves nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.cheats import KEYS, PEERS, Swarm
from tests.support.trails import card_of, evidence_of, in_second_round
from ubcp_p2p.cli.verify import verify
from ubcp_p2p.codec import MalformedMessage, Value, decode, encode
from ubcp_p2p.keys import peer_id_of, to_base58
from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.verdict import Finding, Verdict
from ubcp_p2p.verification.evidence import VERSION, Evidence, bytes_max, claim_of
from ubcp_p2p.verification.verify import verify_evidence

pytestmark = pytest.mark.slow

RECIPE = load_recipe("digits-tiny")
SHAPE = shape_of(RECIPE)


@pytest.fixture(scope="module")
def swarm() -> Swarm:
    return in_second_round(RECIPE, "evidence")


@pytest.fixture(scope="module")
def blob(swarm: Swarm) -> bytes:
    return evidence_of(swarm, swarm.works[PEERS[0]], 1).to_bytes()


def test_honest_work_stays_honest_before_a_stranger(swarm: Swarm) -> None:
    for index in range(4):
        made = evidence_of(swarm, swarm.works[PEERS[1]], index)
        blob = made.to_bytes()
        assert len(blob) <= bytes_max(SHAPE)
        assert Evidence.from_bytes(blob, RECIPE, SHAPE) == made
        verdict = verify_evidence(blob, RECIPE)
        assert (verdict.finding, verdict.distance_ppm) == (Finding.HONEST, 0)


def test_a_lie_is_one_before_a_stranger_each_time(swarm: Swarm) -> None:
    blob = evidence_of(swarm, swarm.half_batch(), 2).to_bytes()
    verdict = verify_evidence(blob, RECIPE)
    assert verdict.finding == Finding.STEPS
    assert verdict == verify_evidence(blob, RECIPE)


def test_a_first_round_needs_no_certificate() -> None:
    first = Swarm(RECIPE, "evidence")
    first.advance()
    made = evidence_of(first, first.works[PEERS[0]], 0)
    assert made.certificate is None
    assert verify_evidence(made.to_bytes(), RECIPE).finding == Finding.HONEST


def test_data_of_others_is_a_lie(swarm: Swarm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The certificate says whom the data is cut among; a card whose trail says otherwise convicts its signer.

    But anybody can make up a group and sign as that, so a stranger is told whose word it is.
    """
    members = (PEERS[0], PEERS[2])
    work = swarm.works[PEERS[0]]
    trail = replace(work.trail, members=members)
    lied = swarm.work(PEERS[0], trail, work.offer, swarm.loop)
    made = evidence_of(swarm, lied, 1)
    assert verify_evidence(made.to_bytes(), RECIPE).finding == Finding.DATA
    path = tmp_path / "evidence"
    path.write_bytes(made.to_bytes())
    with pytest.raises(typer.Exit):
        verify(path, "digits-tiny", "cpu", json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["finding"] == "data"
    assert all(to_base58(peer_id_of(peer)) in said["notes"][-1] for peer in PEERS)


@pytest.mark.parametrize("change", ["name", "offer"])
def test_a_trail_that_hangs_in_the_air_is_a_lie(swarm: Swarm, change: str) -> None:
    work = swarm.works[PEERS[0]]
    place = 0 if change == "name" else len(work.trail.leaves) - 1
    leaves = list(work.trail.leaves)
    leaves[place] = replace(leaves[place], name=bytes(32))
    lied = swarm.work(PEERS[0], replace(work.trail, leaves=tuple(leaves)), work.offer, swarm.loop)
    finding = verify_evidence(evidence_of(swarm, lied, 1).to_bytes(), RECIPE).finding
    assert finding == (Finding.BASE if change == "name" else Finding.OFFER)


@pytest.mark.parametrize("weight", [1, 15, 17, 5 * 16, 2**40])
def test_samples_that_no_steps_make_are_a_lie(swarm: Swarm, blob: bytes, weight: int) -> None:
    card = card_of(swarm.works[PEERS[0]], weight=weight)
    verdict = claim_of(card, RECIPE)
    assert isinstance(verdict, Verdict)
    assert verdict.finding == Finding.COUNT
    made = replace(Evidence.from_bytes(blob, RECIPE, SHAPE), card=card)
    assert verify_evidence(made.to_bytes(), RECIPE) == verdict


def test_nobody_is_framed(swarm: Swarm) -> None:
    """An opening of another trail, under an honest card, convicts nobody."""
    honest = evidence_of(swarm, swarm.works[PEERS[0]], 1)
    lied = evidence_of(swarm, swarm.half_batch(), 1)
    assert verify_evidence(replace(honest, opening=lied.opening).to_bytes(), RECIPE).finding == Finding.UNOPENED


def test_another_key_speaks_for_nobody(swarm: Swarm) -> None:
    made = evidence_of(swarm, swarm.works[PEERS[0]], 1)
    forged = replace(made, card=replace(made.card.signed(KEYS[PEERS[1]]), peer=PEERS[0]))
    with pytest.raises(MalformedMessage, match="signature"):
        verify_evidence(forged.to_bytes(), RECIPE)


FOREIGN: dict[str, Callable[[list[Value]], list[Value]]] = {
    "another version": lambda v: [VERSION + 1, *v[1:]],
    "another run": lambda v: [VERSION, "other", *v[2:]],
    "no name": lambda v: [VERSION, 7, *v[2:]],
    "a long name": lambda v: [VERSION, "x" * 257, *v[2:]],
    "no certificate": lambda v: [*v[:3], b"", v[4]],
    "a long card": lambda v: [*v[:2], bytes(513), *v[3:]],
    "a long certificate": lambda v: [*v[:3], bytes(32 * 1024 + 1), v[4]],
    "a long opening": lambda v: [*v[:4], bytes(SHAPE.bytes_max() + 1)],
    "an opening of numbers": lambda v: [*v[:4], 7],
    "a field less": lambda v: v[:4],
}


@pytest.mark.parametrize("change", FOREIGN)
def test_what_does_not_belong_together_proves_nothing(blob: bytes, change: str) -> None:
    value = decode(blob, bytes_max=len(blob))
    assert isinstance(value, list)
    with pytest.raises(MalformedMessage):
        verify_evidence(encode(FOREIGN[change](value)), RECIPE)


def test_evidence_of_another_recipe_proves_nothing(blob: bytes) -> None:
    other: Recipe = RECIPE.model_copy(update={"seed": 2})
    with pytest.raises(MalformedMessage, match="another run"):
        verify_evidence(blob, other)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_convicts_nobody(blob: bytes, data: st.DataObject) -> None:
    """Of the opening too: what is changed is not what the card commits to."""
    changed = bytearray(blob)
    place = data.draw(st.integers(0, len(blob) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        made = Evidence.from_bytes(bytes(changed), RECIPE, SHAPE)
    except MalformedMessage:
        return
    assert made.card == Evidence.from_bytes(blob, RECIPE, SHAPE).card
    assert made.opening != Evidence.from_bytes(blob, RECIPE, SHAPE).opening


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Evidence.from_bytes(data, RECIPE, SHAPE)
