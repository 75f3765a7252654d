"""Writes wire.json: the exact bytes of every format that peers of today exchange, sign or store.

`python -m tests.vectors.generate` writes the file; `--check` only compares and exits 1 when it differs. A difference is
a change of the wire format: nodes of before and after do not understand each other, so it needs a new format version.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from ubcp_p2p.keys import NodeKey, peer_id_of, to_base58
from ubcp_p2p.models.recipe import run_id
from ubcp_p2p.swarm.exchange import OFFER_DOMAIN
from ubcp_p2p.swarm.hivemind_parts import node, validation
from ubcp_p2p.swarm.membership import Beat, Phase
from ubcp_p2p.swarm.quorum import Card, Certificate, Group, Seat, vote_digest
from ubcp_p2p.swarm.records import Ed25519Validator
from ubcp_p2p.swarm.states import STATE_DOMAIN

FILE = Path(__file__).parent / "wire.json"
SEEDS = [bytes([number]) * 32 for number in (1, 2, 3)]
OFFER = bytes(range(64))
STATE = bytes(range(128))
TRAIL = hashlib.sha256(b"trail").digest()
PAYER = hashlib.sha256(b"request").digest()
BASE = hashlib.sha256(b"base").digest()
RECIPE_HASH = hashlib.sha256(b"recipe").digest()
EXPIRES_S = 2_000_000_000.25


def document() -> dict[str, Any]:
    """The vectors, byte strings as hex."""
    keys = sorted((NodeKey(seed) for seed in SEEDS), key=lambda key: key.public)
    run = run_id("vectors", RECIPE_HASH)
    offer_hash = hashlib.sha256(OFFER_DOMAIN + OFFER).digest()
    state_hash = hashlib.sha256(STATE_DOMAIN + run + (8).to_bytes(8, "big") + STATE).digest()
    card = Card(run, 7, BASE, keys[0].public, 32, offer_hash, len(OFFER), TRAIL, PAYER).signed(keys[0])
    group = Group(run, 7, BASE, tuple(Seat(key.public, 32, offer_hash, TRAIL, PAYER) for key in keys))
    vote = vote_digest(group.digest, state_hash)
    certificate = Certificate(group, state_hash, tuple((key.public, key.sign("vote", vote)) for key in keys[:2]))
    beat = Beat(run, 1_700_000_000_000, 7, Phase.ROUND, BASE, 4, 1234)
    return {
        "node_keys": [
            {"seed": key.seed.hex(), "public": key.public.hex(), "file": key.to_bytes().hex(),
             "peer_id": peer_id_of(key.public).hex(), "peer_id_text": to_base58(peer_id_of(key.public))}
            for key in keys
        ],
        "run_id": {"name": "vectors", "recipe_hash": RECIPE_HASH.hex(), "run_id": run.hex()},
        "offer_hash": {"offer": OFFER.hex(), "hash": offer_hash.hex()},
        "state_hash": {"run_id": run.hex(), "round": 8, "state": STATE.hex(), "hash": state_hash.hex()},
        "card": {
            "run_id": run.hex(), "round": 7, "base_hash": BASE.hex(), "peer": keys[0].public.hex(), "weight": 32,
            "offer_hash": offer_hash.hex(), "offer_bytes": len(OFFER), "trail": TRAIL.hex(), "payer": PAYER.hex(),
            "digest": card.digest().hex(),
            "bytes": card.to_bytes().hex(),
        },
        "group": {
            "members": [
                [seat.peer.hex(), seat.weight, seat.offer.hex(), seat.trail.hex(), seat.payer.hex()]
                for seat in group.members
            ],
            "digest": group.digest.hex(),
        },
        "vote": {"state_hash": state_hash.hex(), "digest": vote.hex(), "signature": keys[0].sign("vote", vote).hex()},
        "certificate": {"signers": [key.public.hex() for key in keys[:2]], "bytes": certificate.to_bytes().hex()},
        "heartbeat": {
            "sequence": beat.sequence, "round": 7, "phase": "ROUND", "base_hash": BASE.hex(), "step": 4,
            "train_ms": 1234, "bytes": beat.to_bytes().hex(),
        },
        "dht_record": _record(keys[0], run),
    }  # fmt: skip


def _record(key: NodeKey, run: bytes) -> dict[str, Any]:
    """A directory entry as it lies in the DHT."""
    place = node.DHTID.generate(source="ubcp/runs/1").to_bytes()
    subkey = node.MSGPackSerializer.dumps(peer_id_of(key.public))
    value = node.MSGPackSerializer.dumps([["vectors", run, "a-recipe", RECIPE_HASH, 7, 50]])
    signed = Ed25519Validator(key).sign_value(validation.DHTRecord(place, subkey, value, EXPIRES_S))
    return {
        "name": "ubcp/runs/1", "key": place.hex(), "subkey": subkey.hex(), "value": value.hex(),
        "expiration_time": EXPIRES_S, "signed_value": signed.hex(),
    }  # fmt: skip


def text() -> str:
    return json.dumps(document(), indent=1) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if FILE.read_text() != text():
            sys.exit(f"{FILE} differs from what the code makes: a changed wire format")
    else:
        FILE.write_text(text())
