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

import msgpack

from ubcp_p2p.keys import NodeKey, verify
from ubcp_p2p.swarm.hivemind_parts import RecordValidatorBase

VALUE_BYTES_MAX = 4096
LIFETIME_S_MAX = 3600.0  # nobody may pin a record longer; ours live for two minutes
# A look-up's answer is refused whole if one record in it fails, so a neighbour whose clock is a little late gets this.
EXPIRED_S_MAX = 60.0
# msgpack's 38 bytes: the identity multihash of an Ed25519 public key. Nothing else: one author, one record under a key.
_SUBKEY = re.compile(rb"\xc4\x26\x00\x24\x08\x01\x12\x20(.{32})", re.DOTALL)
_MARK = b"[signature:"
_TAIL_BYTES = len(_MARK) + 64 + 1


class Ed25519Validator(RecordValidatorBase):  # type: ignore[misc]  # hivemind is untyped
    """Signs our own records and refuses every record whose subkey does not name the Ed25519 key that signed it.

    The subkey is a peer id (hivemind's Matchmaking uses it as it is). Signed: key, subkey, value and expiration. The
    value must be plain msgpack: hivemind decodes it outside of any guard, and a look-up that meets bytes which do not
    decode never ends, for whoever asks (measured).
    """

    def __init__(self, key: NodeKey) -> None:
        self._key = key

    @property
    def priority(self) -> int:
        return 10

    def validate(self, record: Any) -> bool:
        left_s = record.expiration_time - time.time()
        if len(record.value) > VALUE_BYTES_MAX or not -EXPIRED_S_MAX < left_s < LIFETIME_S_MAX:
            return False
        owner = _owner(record.subkey)
        tail = record.value[-_TAIL_BYTES:]
        if owner is None or len(tail) != _TAIL_BYTES or not (tail.startswith(_MARK) and tail.endswith(b"]")):
            return False
        value = record.value[:-_TAIL_BYTES]
        return _is_plain(value) and verify(owner, "record", _digest(record, value), tail[len(_MARK) : -1])

    def sign_value(self, record: Any) -> bytes:
        value: bytes = record.value
        if _owner(record.subkey) != self._key.public:
            return value
        return value + _MARK + self._key.sign("record", _digest(record, value)) + b"]"

    def strip_value(self, record: Any) -> bytes:
        value: bytes = record.value
        return value[:-_TAIL_BYTES]


def _owner(subkey: bytes | None) -> bytes | None:
    found = _SUBKEY.fullmatch(subkey or b"")
    return found[1] if found is not None else None


def _is_plain(value: bytes) -> bool:
    """Whether it decodes as msgpack without extensions, which hivemind would turn into objects of its own."""
    try:
        msgpack.unpackb(value, raw=False, ext_hook=_refuse)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError):
        return False
    return True


def _refuse(code: int, data: bytes) -> Any:
    raise ValueError("an extension")


def _digest(record: Any, value: bytes) -> bytes:
    fields = (record.key, record.subkey, value, repr(float(record.expiration_time)).encode())
    return hashlib.sha256(b"ubcp/record/1\0" + b"".join(len(f).to_bytes(4, "big") + f for f in fields)).digest()


@dataclass(frozen=True)
class Claim:
    """What one node claims under a key: `value` is msgpack-decoded and unchecked; `author` is its public key."""

    author: bytes
    value: Any
    expires_s: float
