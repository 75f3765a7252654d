"""Bytes made from bytes: changed, cut, joined, and with the lengths and types of msgpack put where they hurt."""

from __future__ import annotations

import random
from collections.abc import Sequence

# Heads of msgpack values: numbers, longer forms, huge lengths, types that are not in the model, deep nesting.
HEADS = (
    b"\x00", b"\x7f", b"\xcc\xff", b"\xcd\xff\xff", b"\xce\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8, b"\xff",
    b"\xd0\x80", b"\xc0", b"\xc1", b"\xc2", b"\xc3", b"\xca\x7f\xc0\x00\x00", b"\xcb" + b"\xff" * 8, b"\x80",
    b"\xde\xff\xff",
    b"\xdf\xff\xff\xff\xff", b"\xd4\x00\x00", b"\xc7\x00\x00", b"\xc9\xff\xff\xff\xff\x00", b"\x90", b"\x91", b"\x9f",
    b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xa0", b"\xbf", b"\xd9\xff", b"\xdb\xff\xff\xff\xff", b"\xc4\x00",
    b"\xc4\x20", b"\xc5\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 600, b"\x91" * 1100,
)  # fmt: skip


def mutated(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One of the corpus, changed one to four times."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randint(0, len(data))
        match rng.randint(0, 7):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randint(0, 7)
            case 1 if data:
                data[at % len(data)] = rng.randint(0, 255)
            case 2:
                data[at:at] = rng.choice(HEADS)
            case 3:
                head = rng.choice(HEADS)
                data[at : at + len(head)] = head
            case 4:
                del data[at : at + rng.choice((1, 1, 2, 4, 33, len(data)))]
            case 5:
                other = rng.choice(corpus)
                start = rng.randint(0, len(other))
                data[at : at + rng.choice((0, 32, 64))] = other[
                    start : start + rng.choice((1, 8, 32, 34, 66, len(other)))
                ]
            case 6:
                data[at : at + 4] = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(data))).to_bytes(4, "big")
            case _:
                size = rng.choice((1, 2, 34, 68))
                data[at:at] = data[at : at + size] * rng.choice((1, 2, 40))
    return bytes(data)
