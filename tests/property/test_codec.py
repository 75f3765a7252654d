"""Properties of the canonical encoding: one encoding a value, one value an encoding, and never another exception."""

from __future__ import annotations

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.codec import U64_MAX, MalformedMessage, Value, decode, encode

LEAVES = st.integers(0, U64_MAX) | st.binary(max_size=300) | st.text(max_size=100)
VALUES: st.SearchStrategy[Value] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=20), max_leaves=30
).filter(lambda value: _depth(value) <= 8)
BYTES_MAX = 1 << 20


def _depth(value: Value) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES)
def test_a_value_survives(value: Value) -> None:
    assert decode(encode(value), bytes_max=BYTES_MAX) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_the_canonical_encoding_or_refused(data: bytes) -> None:
    try:
        value = decode(data, bytes_max=BYTES_MAX)
    except MalformedMessage:
        return
    assert encode(value) == data


@given(VALUES, st.data())
def test_changed_bytes_never_decode_to_the_same_value(value: Value, data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(bytes(encoded), bytes_max=BYTES_MAX)
    except MalformedMessage:
        return
    assert other != value


@given(
    st.recursive(
        LEAVES | st.none() | st.booleans() | st.floats() | st.integers(-(2**63), -1),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
        max_leaves=10,
    )
)
def test_msgpack_beyond_the_subset_is_refused(value: object) -> None:
    data = msgpack.packb(value)
    try:
        decoded = decode(data, bytes_max=BYTES_MAX)
    except MalformedMessage:
        return
    assert encode(decoded) == data
