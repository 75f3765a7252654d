"""Signed DHT records, checked with hivemind's own record type; a real DHT: tests/integration/test_dht_records.py."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS
from ubcp_p2p.keys import NodeKey, peer_id_of
from ubcp_p2p.swarm.hivemind_parts import node, validation
from ubcp_p2p.swarm.records import EXPIRED_S_MAX, LIFETIME_S_MAX, VALUE_BYTES_MAX, Ed25519Validator

ALICE, BOB = KEYS[:2]
NOBODY = Ed25519Validator(KEYS[9])  # verifies; owns no record here
PLACE = b"k" * 20


def packed(value: Any) -> bytes:
    data: bytes = node.MSGPackSerializer.dumps(value)
    return data


def subkey(owner: NodeKey) -> bytes:
    return packed(peer_id_of(owner.public))


def record(value: bytes, owner: NodeKey = ALICE, left_s: float = 60.0) -> Any:
    return validation.DHTRecord(PLACE, subkey(owner), value, time.time() + left_s)


def signed(made: Any, by: NodeKey = ALICE) -> Any:
    return validation.DHTRecord(made.key, made.subkey, Ed25519Validator(by).sign_value(made), made.expiration_time)


def changed(made: Any, **fields: Any) -> Any:
    old = {name: getattr(made, name) for name in ("key", "subkey", "value", "expiration_time")}
    return validation.DHTRecord(**(old | fields))


GOOD = signed(
    record(packed(["a run", b"\1" * 32, 7, True]), left_s=LIFETIME_S_MAX / 2), ALICE
)  # for all tests of this file


def test_a_signed_record_is_accepted_and_stripped_to_its_value() -> None:
    assert NOBODY.validate(GOOD)
    assert NOBODY.strip_value(GOOD) == packed(["a run", b"\1" * 32, 7, True])


def test_what_is_not_ours_is_not_signed() -> None:
    plain = record(packed([1]), ALICE)
    assert Ed25519Validator(BOB).sign_value(plain) == plain.value
    assert not NOBODY.validate(plain)


@given(st.data())
def test_a_changed_byte_anywhere_is_refused(data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(["key", "subkey", "value"]))
    old = getattr(GOOD, field)
    place, flip = data.draw(st.integers(0, len(old) - 1)), data.draw(st.integers(1, 255))
    assert not NOBODY.validate(changed(GOOD, **{field: old[:place] + bytes([old[place] ^ flip]) + old[place + 1 :]}))


@given(st.integers(0, len(GOOD.value) - 1))
def test_a_cut_value_is_refused(length: int) -> None:
    assert not NOBODY.validate(changed(GOOD, value=GOOD.value[:length]))


def test_another_authors_subkey_is_refused() -> None:
    assert not NOBODY.validate(changed(GOOD, subkey=subkey(BOB)))
    theirs = record(packed([1]), BOB)
    stolen = Ed25519Validator(ALICE).sign_value(changed(theirs, subkey=subkey(ALICE)))
    assert not NOBODY.validate(changed(theirs, value=stolen))


@pytest.mark.parametrize(
    "strange",
    [b"", packed(0), packed("text"), subkey(ALICE) + b"x", b"x" + subkey(ALICE), peer_id_of(ALICE.public),
     packed(b"more " + peer_id_of(ALICE.public)), packed([peer_id_of(ALICE.public)]), subkey(ALICE) * 2,
     packed(peer_id_of(ALICE.public)[:-1])],
)  # fmt: skip
def test_a_subkey_that_is_not_exactly_one_peer_id_is_refused(strange: bytes) -> None:
    """Else one author could fill a key with any number of records of its own."""
    made = changed(record(packed([1])), subkey=strange)
    value = made.value + b"[signature:" + ALICE.sign("record", _digest_of(made)) + b"]"
    assert not NOBODY.validate(changed(made, value=value))
    assert Ed25519Validator(ALICE).sign_value(made) == made.value


def _digest_of(made: Any) -> bytes:
    from ubcp_p2p.swarm.records import _digest

    return _digest(made, made.value)


def test_a_moved_or_extended_record_is_refused() -> None:
    assert not NOBODY.validate(changed(GOOD, key=b"j" * 20))
    assert not NOBODY.validate(changed(GOOD, expiration_time=GOOD.expiration_time + 1.0))


@pytest.mark.parametrize(
    "left_s",
    [-EXPIRED_S_MAX - 1.0, -1e18, LIFETIME_S_MAX + 10.0, 1e18, float("inf"), float("-inf"), float("nan")],
)
def test_an_expired_or_far_record_is_refused(left_s: float) -> None:
    assert not NOBODY.validate(signed(record(packed([1]), left_s=left_s)))


@pytest.mark.parametrize("left_s", [-1.0, 1.0, LIFETIME_S_MAX - 10.0])
def test_clocks_may_differ_a_little(left_s: float) -> None:
    assert NOBODY.validate(signed(record(packed([1]), left_s=left_s)))


def test_an_oversized_record_is_refused() -> None:
    room = VALUE_BYTES_MAX - (len(GOOD.value) - len(NOBODY.strip_value(GOOD)))
    assert NOBODY.validate(signed(record(packed(b"x" * (room - 3)))))
    assert not NOBODY.validate(signed(record(packed(b"x" * (room - 2)))))


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xc1", b"\x92\x01", b"\xdd\xff\xff\xff\xff", b"\xc7\x02\x50\xc1\xc1", b"\xc7\x00\x50", b"\xd4\x40\xc1",
     b"\x91" * 3900, b"\xa2\xff\xff", b"\x81\x90\x01", packed([1]) + b"\0"],
)  # fmt: skip
def test_a_value_on_which_a_look_up_would_hang_is_refused_though_signed(garbage: bytes) -> None:
    assert not NOBODY.validate(signed(record(garbage)))


@given(st.binary(max_size=80))
def test_whatever_is_accepted_is_decoded_by_hivemind(value: bytes) -> None:
    made = signed(record(value))
    if NOBODY.validate(made):
        node.MSGPackSerializer.loads(NOBODY.strip_value(made))
