"""Problems as bytes: read back, and refused when anything is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.slices import RULES, ask, id_of, made_up, problem, user
from ubcp_p2p.allocator.blob import BLOB_BYTES_MAX, MalformedProblem, decode_problem, encode_problem, inputs_hash
from ubcp_p2p.allocator.problem import ASKS_MAX, Applicant, Ask, Cleaner, Problem, Reason, UnitUse, problem_of
from ubcp_p2p.codec import decode, encode
from ubcp_p2p.units import AMOUNT_MAX

FULL = problem(
    [ask(1, 10, cleaner=Cleaner(100, 3), standing=Reason.OWNER_REFUSED), ask(2, 5, user=2)],
    [user(1, newcomer=True, use=3), user(2)],
    carbon=300,
)


@pytest.mark.parametrize("one", [FULL, problem([]), made_up(3, 200)], ids=["all fields", "no asks", "many"])
def test_bytes_are_read_back(one: Problem) -> None:
    blob = encode_problem(one)
    assert decode_problem(blob) == one
    assert encode_problem(decode_problem(blob)) == blob


def test_the_hash_is_plain_sha256() -> None:
    assert inputs_hash(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.slow
def test_the_largest_problem_fits() -> None:
    purposes = tuple(f"{n:064}" for n in range(1024))
    units = [UnitUse(f"{n:064}", 10**6, AMOUNT_MAX // 1024) for n in range(1024)]
    users = [Applicant(id_of(n), units[n % 1024].name, True, AMOUNT_MAX // 2**20) for n in range(ASKS_MAX)]
    asks = [
        Ask(id_of(2**255 + n), id_of(n), purposes[n % 1024], AMOUNT_MAX, AMOUNT_MAX, 2**32 - 1, 2000, 2**32 - 1,
            Cleaner(10**5, 2**32 - 1), Reason.OWNER_REFUSED)
        for n in range(ASKS_MAX)
    ]  # fmt: skip
    largest = problem_of(slice=2**32 - 1, rules=RULES._replace(purposes=purposes), budget=AMOUNT_MAX,
                         carbon=10**5, units=units, applicants=users, asks=asks)  # fmt: skip
    blob = encode_problem(largest)
    assert len(blob) <= BLOB_BYTES_MAX
    assert decode_problem(blob) == largest


def test_every_cut_and_every_flipped_byte_is_refused_or_another_problem() -> None:
    blob = encode_problem(FULL)
    for place in range(len(blob)):
        with pytest.raises(MalformedProblem):
            decode_problem(blob[:place])
        for bit in (1, 0x80):
            other = blob[:place] + bytes([blob[place] ^ bit]) + blob[place + 1 :]
            try:
                found = decode_problem(other)
            except MalformedProblem:
                continue
            assert found != FULL
            assert encode_problem(found) == other


def _frame(**at: Any) -> bytes:
    frame = decode(encode_problem(FULL), bytes_max=BLOB_BYTES_MAX)
    assert isinstance(frame, list)
    for place, value in at.items():
        frame[int(place[1:])] = value
    return encode(frame)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "not msgpack"),
        (encode([]), "the problem is not a list of 11"),
        (encode("x"), "the problem is not a list of 11"),
        (_frame(_0=2), "version 2"),
        (_frame(_3=b"10"), "field 3 of the problem is no int"),
        (_frame(_3=2**53), "budget: must be an integer"),
        (_frame(_7=[1, 2]), "carbon is not a list of 1"),
        (_frame(_2=[1, 2, 3, 4]), "the rules is not a list of 5"),
        (_frame(_2=[0, 672, 96, 900, [1]]), "field 0 of the purposes is no str"),
        (_frame(_8=[["all", 1]]), "a unit is not a list of 4"),
        (_frame(_9=[[id_of(1), "all", 2, 0, 0]]), "newcomer is 2"),
        (_frame(_10=[[id_of(1)] * 10]), "field 8 of an ask is no list"),
        (_frame(_10=[[id_of(1), id_of(1), "x", 1, 1, 0, 1000, 1, [], 6]]), "standing is 6"),
        (_frame(_10=[[id_of(1), id_of(1), "x", 1, 1, 0, 1000, 1, [1], 0]]), "a cleaner slice is not"),
        (bytes(BLOB_BYTES_MAX + 1), "at most"),
    ],
)
def test_what_is_no_problem(blob: bytes, words: str) -> None:
    with pytest.raises(MalformedProblem, match=words):
        decode_problem(blob)
