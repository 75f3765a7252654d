"""The one canonical msgpack encoding: what we sign, hash and send.

Values are unsigned integers below 2**64, byte strings, UTF-8 strings, and lists of these: no maps, floats, nil,
booleans or extensions. There is exactly one encoding of a value (msgpack's shortest form); `decode` re-encodes and
compares, so that two peers can never disagree about what was signed.
"""

from __future__ import annotations

from typing import TypeAlias

import msgpack

from ubcp_p2p.errors import UbcpError

Value: TypeAlias = "int | bytes | str | list[Value]"

U64_MAX = 2**64 - 1
DEPTH_MAX = 8  # no message of ours nests deeper than 4; bounds the work on hostile input


class MalformedMessage(UbcpError):
    """Bytes that are not the canonical encoding of a value, or that break a stated limit; the sender is at fault."""


def encode(value: Value) -> bytes:
    """Encode canonically. Raises MalformedMessage for a value outside the model (a float, a negative integer, …)."""
    _check(value, DEPTH_MAX)
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def decode(data: bytes, *, bytes_max: int) -> Value:
    """Decode canonical bytes of at most `bytes_max`; raises MalformedMessage for anything else."""
    if len(data) > bytes_max:
        raise MalformedMessage(f"message of {len(data)} bytes; at most {bytes_max} are allowed")
    try:
        value: Value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=bytes_max,
            max_bin_len=bytes_max,
            max_array_len=bytes_max,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise MalformedMessage(f"not msgpack of our subset: {error}") from None
    _check(value, DEPTH_MAX)
    if msgpack.packb(value, use_bin_type=True) != data:
        raise MalformedMessage("not the canonical encoding")
    return value


# -- reading a decoded message: each names what it refuses, and raises MalformedMessage -------------------------------


def fields(value: Value, count: int) -> list[Value]:
    """`value` as a list of exactly `count` items."""
    if not isinstance(value, list) or len(value) != count:
        raise MalformedMessage(f"expected {count} fields")
    return value


def items(value: Value, count_max: int) -> list[Value]:
    """`value` as a list of at most `count_max` items."""
    if not isinstance(value, list) or len(value) > count_max:
        raise MalformedMessage(f"expected at most {count_max} items")
    return value


def bytes_of(value: Value) -> bytes:
    """`value` as a byte string of any length."""
    if not isinstance(value, bytes):
        raise MalformedMessage("expected bytes")
    return value


def hash_of(value: Value) -> bytes:
    """`value` as a key or hash: 32 bytes."""
    if not isinstance(value, bytes) or len(value) != 32:
        raise MalformedMessage("expected 32 bytes")
    return value


def signature_of(value: Value) -> bytes:
    """`value` as a signature: 64 bytes."""
    if not isinstance(value, bytes) or len(value) != 64:
        raise MalformedMessage("expected a signature of 64 bytes")
    return value


def number(value: Value, largest: int = 2**48) -> int:
    """`value` as an integer of at most `largest`."""
    if not isinstance(value, int) or value > largest:
        raise MalformedMessage(f"expected a number up to {largest}")
    return value


def _check(value: object, depth_left: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | bytes | str | list):
        raise MalformedMessage(f"a {type(value).__name__} is not allowed in a message")
    if isinstance(value, int) and not 0 <= value <= U64_MAX:
        raise MalformedMessage(f"integer {value} is outside 0…2^64−1")
    if isinstance(value, list):
        if depth_left == 0:
            raise MalformedMessage(f"nested deeper than {DEPTH_MAX}")
        for item in value:
            _check(item, depth_left - 1)
