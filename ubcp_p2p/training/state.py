"""The state of a run as bytes: its layout, its hash, and the check that every value is finite. numpy only.

State = float32 little-endian vector: P parameters in the order of `model.named_parameters()`, then P values of the
outer optimizer's momentum (none for plain SGD). Offer = P float32 little-endian values, θ_round_start − θ_local.

P: number of parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ubcp_p2p.buffers import SharedBuffer

Vector: TypeAlias = NDArray[np.float32]

RUN_ID_BYTES = 32
DIGEST_BYTES = 32
ITEM_BYTES = 4
FLOAT32_LE = np.dtype("<f4")
BLOCK = 1 << 16  # elements: 256 KiB, so that a block of each operand stays in the second-level cache


@dataclass(frozen=True)
class InnerState:
    """An inner optimizer's memory on the CPU: the number of steps taken, and vectors of P values by name."""

    steps: int
    vectors: dict[str, Vector]


def vector(buffer: SharedBuffer) -> Vector:
    """The whole buffer as a writable float32 vector, without a copy; let it go before the buffer is closed.

    The size must be a multiple of 4 (the caller has checked it).
    """
    return np.frombuffer(buffer.view, dtype=FLOAT32_LE)


def blocks(length: int, size: int | None = None) -> Iterator[slice]:
    """Slices that cover 0…length in steps of `size`, or of BLOCK."""
    step = BLOCK if size is None else size
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def state_hash(run_id: bytes, round: int, state: memoryview) -> bytes:
    """SHA-256 that names a state: the run, the round it is the start of, and every bit of it. 32 bytes."""
    assert len(run_id) == RUN_ID_BYTES
    digest = hashlib.sha256(b"ubcp/state/1\0" + run_id + round.to_bytes(8, "big"))
    digest.update(state)
    return digest.digest()


def offer_hash(offer: memoryview) -> bytes:
    """SHA-256 of an offer's bytes under its own tag. 32 bytes."""
    digest = hashlib.sha256(b"ubcp/offer/1\0")
    digest.update(offer)
    return digest.digest()


def vectors_hash(tag: bytes, steps: int, vectors: Mapping[str, Vector]) -> bytes:
    """SHA-256 under `tag` of an inner optimizer's memory, as InnerState has it. 32 bytes."""
    digest = hashlib.sha256(tag + steps.to_bytes(8, "big"))
    for name in sorted(vectors):
        digest.update(name.encode() + b"\0")
        digest.update(vectors[name].data)
    return digest.digest()


def within(values: Vector, bound: float) -> bool:
    """Whether every value is finite and its magnitude at most `bound`; no temporaries.

    Minimum and maximum are exact in any order, and both carry a NaN through, so this is the same on every machine.
    """
    for part in blocks(len(values)):
        block = values[part]
        if not (float(block.min()) >= -bound and float(block.max()) <= bound):
            return False
    return True


def is_finite(values: Vector) -> bool:
    """Whether no value is infinite or NaN."""
    return within(values, float(np.finfo(np.float32).max))


def peak(vector: Vector) -> float:
    """The largest magnitude in a finite vector, exact; 0.0 for an empty one."""
    return max(
        (max(float(vector[part].max()), -float(vector[part].min())) for part in blocks(len(vector))), default=0.0
    )
