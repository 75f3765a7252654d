"""RECEIPTs are decoded by a short way; it accepts the same bytes as the long one, and leads to the same entry."""

from __future__ import annotations

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.story import Story
from ubcp_p2p.ledger import parse
from ubcp_p2p.ledger.entry import Entry, Kind, Receipt, Voucher
from ubcp_p2p.ledger.faults import LedgerError

RECEIPTS = [s.data for s in Story(range(7000, 7060)).scene.entries if s.entry.kind == Kind.RECEIPT][:50]
EDGES = (-1, 0, 1, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53, 2**63, 2**64 - 1)
VALUES = st.one_of(
    st.sampled_from(EDGES), st.binary(max_size=70), st.text(max_size=70), st.none(), st.booleans(), st.floats(),
    st.lists(st.integers(0, 3), max_size=3), st.sampled_from(["", "a\n", "x" * 64, "x" * 65, "é" * 33, "cpu"]),
)  # fmt: skip


def outcome(decode: object, data: bytes) -> tuple[Entry | None, str]:
    assert callable(decode)
    try:
        return decode(data), ""
    except LedgerError as error:
        return None, error.code


@given(st.sampled_from(RECEIPTS), st.integers(0, 7), st.integers(0, 12), VALUES)
@settings(max_examples=400)
def test_with_one_field_changed(data: bytes, outer: int, inner: int, value: object) -> None:
    row = msgpack.unpackb(data)
    if inner < 11:
        row[7][0][inner] = value
    elif inner == 11:
        row[7][1] = value
    else:
        row[outer] = value
    changed = msgpack.packb(row)
    assert outcome(parse.decode, changed) == outcome(parse._decode_any, changed)


@given(st.sampled_from(RECEIPTS), st.data())
@settings(max_examples=400)
def test_with_bytes_changed(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(changed) - 1))
        match draw.draw(st.sampled_from(["set", "cut", "more"])):
            case "set":
                changed[at] = draw.draw(st.integers(0, 255))
            case "cut":
                del changed[at:]
            case _:
                changed[at:at] = draw.draw(st.binary(min_size=1, max_size=4))
        if not changed:
            return
    assert outcome(parse.decode, bytes(changed)) == outcome(parse._decode_any, bytes(changed))


def test_these_take_it() -> None:
    assert RECEIPTS
    assert all(parse.unpack_as(parse._RECEIPT, data) is not None for data in RECEIPTS)
    for data in RECEIPTS:
        short, long = parse.decode(data), parse._decode_any(data)
        assert short == long
        assert type(short.body) is type(long.body) is Receipt  # equal tuples may be of other types
        assert type(short.body.voucher) is type(long.body.voucher) is Voucher
