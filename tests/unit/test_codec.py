"""The canonical encoding: known bytes, and what is refused."""

from __future__ import annotations

import msgpack
import pytest

from ubcp_p2p.codec import DEPTH_MAX, U64_MAX, MalformedMessage, Value, decode, encode


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "cc80"),
        (U64_MAX, "cf" + "ff" * 8),
        (b"", "c400"),
        (b"\x01\x02", "c4020102"),
        ("", "a0"),
        ("é", "a2c3a9"),
        ([], "90"),
        ([1, [b"a", "a"]], "920192c40161a161"),
    ],
)
def test_known_bytes(value: Value, encoded: str) -> None:
    assert encode(value).hex() == encoded
    assert decode(bytes.fromhex(encoded), bytes_max=100) == value


@pytest.mark.parametrize(
    "value", [1.0, -1, U64_MAX + 1, None, True, False, {}, {1: 2}, (1,), bytearray(b"x"), [[1.5]], [None]]
)
def test_values_outside_the_model_are_not_encoded(value: object) -> None:
    with pytest.raises(MalformedMessage):
        encode(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00",  # trailing bytes
        b"\xcc\x01",  # 1, not in its shortest form
        b"\xc5\x00\x01a",  # one byte under a 16-bit length
        b"\xd9\x01a",  # a short string under an 8-bit length
        b"\xdc\x00\x01\x00",  # a short array under a 16-bit length
        b"\xff",  # −1
        b"\xc0",  # nil
        b"\xc2",  # false
        b"\x80",  # a map
        b"\x81\x01\x01",
        b"\xca\x00\x00\x00\x00",  # a float
        b"\xd4\x01\x00",  # an extension
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\xa1\xff",  # not UTF-8
        b"\xa3\xed\xa0\x80",  # a surrogate in UTF-8
        b"\xc1",  # never used
        b"\xc6\xff\xff\xff\xff",  # claims 4 GiB
        b"\xdd\xff\xff\xff\xff",  # claims 4 Gi items
        b"\x91" * 50 + b"\x00",
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(data, bytes_max=100)


def test_very_deep_nesting_is_refused_without_harm() -> None:
    with pytest.raises(MalformedMessage):
        decode(b"\x91" * 1_000_000, bytes_max=1_000_000)


def test_the_depth_limit() -> None:
    fits: Value = 0
    for _ in range(DEPTH_MAX):
        fits = [fits]
    assert decode(encode(fits), bytes_max=100) == fits
    with pytest.raises(MalformedMessage):
        encode([fits])
    with pytest.raises(MalformedMessage):
        decode(msgpack.packb([fits]), bytes_max=100)


def test_the_size_limit() -> None:
    data = encode(b"x" * 50)
    assert decode(data, bytes_max=len(data)) == b"x" * 50
    with pytest.raises(MalformedMessage, match="at most 51"):
        decode(data, bytes_max=len(data) - 1)
