"""The wire formats have not moved, and what the vectors hold is read back and verified."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.vectors import generate
from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.keys import NodeKey, public_of, verify
from ubcp_p2p.swarm.hivemind_parts import validation
from ubcp_p2p.swarm.membership import Beat
from ubcp_p2p.swarm.quorum import Card, Certificate

VECTORS: dict[str, Any] = json.loads(generate.FILE.read_text())
RUN = bytes.fromhex(VECTORS["run_id"]["run_id"])


def test_the_code_makes_exactly_the_vectors() -> None:
    """`python -m tests.vectors.generate` rewrites them, after a deliberate change of format."""
    assert generate.text() == generate.FILE.read_text()


def test_no_vector_is_unknown_to_these_tests() -> None:
    assert set(VECTORS) == {
        "node_keys", "run_id", "offer_hash", "state_hash", "card", "group", "vote", "certificate", "heartbeat",
        "dht_record",
    }  # fmt: skip


def test_keys_and_peer_ids() -> None:
    for vector in VECTORS["node_keys"]:
        key = NodeKey.from_bytes(bytes.fromhex(vector["file"]))
        assert key.public.hex() == vector["public"]
        assert public_of(bytes.fromhex(vector["peer_id"])) == key.public
        assert vector["peer_id_text"].startswith("12D3KooW")


def test_the_trainers_hashes_are_those_of_the_swarm() -> None:
    """The two packages are blind to each other and must still hash alike."""
    from ubcp_p2p.training.state import offer_hash, state_hash

    state = memoryview(bytes.fromhex(VECTORS["state_hash"]["state"]))
    offer = memoryview(bytes.fromhex(VECTORS["offer_hash"]["offer"]))
    assert state_hash(RUN, VECTORS["state_hash"]["round"], state).hex() == VECTORS["state_hash"]["hash"]
    assert offer_hash(offer).hex() == VECTORS["offer_hash"]["hash"]


def test_the_card_is_read_back() -> None:
    vector = VECTORS["card"]
    card = Card.from_bytes(bytes.fromhex(vector["bytes"]))
    assert (card.round, card.weight, card.offer_bytes) == (vector["round"], vector["weight"], vector["offer_bytes"])
    assert card.digest().hex() == vector["digest"]


def test_the_certificate_is_read_back_and_its_group_and_vote_fit() -> None:
    certificate = Certificate.from_bytes(bytes.fromhex(VECTORS["certificate"]["bytes"]), RUN)
    assert certificate.group.digest.hex() == VECTORS["group"]["digest"]
    assert [peer.hex() for peer, _ in certificate.signatures] == VECTORS["certificate"]["signers"]
    vote = VECTORS["vote"]
    signer = bytes.fromhex(VECTORS["certificate"]["signers"][0])
    assert verify(signer, "vote", bytes.fromhex(vote["digest"]), bytes.fromhex(vote["signature"]))
    with pytest.raises(MalformedMessage, match="another run"):
        Certificate.from_bytes(bytes.fromhex(VECTORS["certificate"]["bytes"]), b"\0" * 32)


def test_the_heartbeat_is_read_back() -> None:
    vector = VECTORS["heartbeat"]
    beat = Beat.from_bytes(bytes.fromhex(vector["bytes"]))
    assert (beat.sequence, beat.round, beat.phase.name) == (vector["sequence"], vector["round"], vector["phase"])


def test_the_records_signature_holds() -> None:
    from ubcp_p2p.swarm.records import _digest

    vector = VECTORS["dht_record"]
    record = validation.DHTRecord(
        bytes.fromhex(vector["key"]), bytes.fromhex(vector["subkey"]), bytes.fromhex(vector["value"]),
        vector["expiration_time"],
    )  # fmt: skip
    tail = bytes.fromhex(vector["signed_value"])[len(record.value) :]
    assert tail.startswith(b"[signature:")
    assert tail.endswith(b"]")
    author = public_of(bytes.fromhex(vector["subkey"])[2:])
    assert verify(author, "record", _digest(record, record.value), tail[11:-1])
