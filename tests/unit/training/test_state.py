"""Hashes and finiteness of states."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.training.state import BLOCK, blocks, is_finite, offer_hash, state_hash, vector

RUN = bytes(range(32))


def test_hashes_are_as_specified() -> None:
    values = np.array([1.5, -2.0], dtype="<f4")
    data = b"\0\0\xc0\x3f\0\0\0\xc0"
    assert values.tobytes() == data
    assert state_hash(RUN, 7, values.data) == hashlib.sha256(b"ubcp/state/1\0" + RUN + bytes(7) + b"\7" + data).digest()
    assert offer_hash(values.data) == hashlib.sha256(b"ubcp/offer/1\0" + data).digest()


@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_blocks_cover(length: int) -> None:
    assert [i for part in blocks(length) for i in range(part.start, part.stop)] == list(range(length))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_one_bad_value_is_found_anywhere(poison: float) -> None:
    values = np.full(2 * BLOCK + 3, np.finfo(np.float32).max, dtype=np.float32)
    values[::2] *= -1
    assert is_finite(values)
    for at in (0, BLOCK, len(values) - 1):
        spoilt = values.copy()
        spoilt[at] = poison
        assert not is_finite(spoilt)


def test_a_vector_is_the_buffer_itself() -> None:
    with SharedBuffer.create(8) as buffer:
        values = vector(buffer)
        values[1] = 1.0
        assert bytes(buffer.view) == b"\0\0\0\0\0\0\x80\x3f"
        del values
