"""Signed DHT records: every value is signed by the node key named in its subkey, or it is refused.

A record's value is a claim of its author, never a fact. hivemind calls the validator on what others ask us to store
and on what look-ups return, so a record that fails here neither lives on this node nor reaches its callers.
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass
from typing import Any

from ubcp_p2p.keys import NodeKey, verify
from ubcp_p2p.swarm.hivemind_parts import RecordValidatorBase

VALUE_BYTES_MAX = 4096
LIFETIME_S_MAX = 3600.0  # nobody may pin a record longer; ours live for two minutes
_PEER_ID = re.compile(rb"\x00\x24\x08\x01\x12\x20(.{32})", re.DOTALL)  # identity multihash of an Ed25519 public key
_MARK = b"[signature:"
_TAIL_BYTES = len(_MARK) + 64 + 1


class Ed25519Validator(RecordValidatorBase):  # type: ignore[misc]  # hivemind is untyped
    """Signs our own records and refuses every record whose subkey does not name the Ed25519 key that signed it.

    The subkey is a peer id (hivemind's Matchmaking uses it as it is). Signed: key, subkey, value and expiration.
    """

    def __init__(self, key: NodeKey) -> None:
        self._key = key

    @property
    def priority(self) -> int:
        return 10

    def validate(self, record: Any) -> bool:
        if len(record.value) > VALUE_BYTES_MAX or not 0 < record.expiration_time < time.time() + LIFETIME_S_MAX:
            return False
        owner = _owner(record.subkey)
        tail = record.value[-_TAIL_BYTES:]
        if owner is None or len(tail) != _TAIL_BYTES or not (tail.startswith(_MARK) and tail.endswith(b"]")):
            return False
        return verify(owner, "record", _digest(record, record.value[:-_TAIL_BYTES]), tail[len(_MARK) : -1])

    def sign_value(self, record: Any) -> bytes:
        value: bytes = record.value
        if _owner(record.subkey) != self._key.public:
            return value
        return value + _MARK + self._key.sign("record", _digest(record, value)) + b"]"

    def strip_value(self, record: Any) -> bytes:
        value: bytes = record.value
        return value[:-_TAIL_BYTES]


def _owner(subkey: bytes | None) -> bytes | None:
    found = _PEER_ID.findall(subkey or b"")
    return found[0] if len(found) == 1 else None


def _digest(record: Any, value: bytes) -> bytes:
    fields = (record.key, record.subkey, value, repr(float(record.expiration_time)).encode())
    return hashlib.sha256(b"ubcp/record/1\0" + b"".join(len(f).to_bytes(4, "big") + f for f in fields)).digest()


@dataclass(frozen=True)
class Claim:
    """What one node claims under a key: `value` is msgpack-decoded and unchecked; `author` is its public key."""

    author: bytes
    value: Any
    expires_s: float
