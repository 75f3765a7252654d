"""ed25519.json: the strict rule, one case for each way in which libraries differ (SPEC §3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

from tests.vectors.ledger.files import Vectors
from ubcp_p2p.keys import AccountKey

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
I = pow(2, (P - 1) // 4, P)  # noqa: E741 a square root of −1
Point = tuple[int, int]
NEUTRAL = (0, 1)


def _x_of(y: int, sign: int) -> int | None:
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * I % P
    if (x * x - square) % P:
        return None
    return P - x if x and x & 1 != sign else x


def _add(a: Point, b: Point) -> Point:
    product = D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, P - 2, P)
    return x % P, (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, P - 2, P) % P


def _times(scalar: int, point: Point) -> Point:
    total = NEUTRAL
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point = _add(point, point)
        scalar >>= 1
    return total


def _encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def _base() -> Point:
    y = 4 * pow(5, P - 2, P) % P
    return _x_of(y, 0) or 0, y


def _torsion() -> Point:
    """A point of order 8."""
    for y in range(2, 100):
        x = _x_of(y, 0)
        if x is not None:
            point = _times(L, (x, y))
            if _times(4, point) != NEUTRAL:
                return point
    raise AssertionError


BASE, TORSION = _base(), _torsion()


class Add(Protocol):
    """Adds a vector to the file."""

    def __call__(
        self, name: str, shows: str, key: bytes, digest: bytes, r: bytes, s: int, expected: str = ..., role: str = ...
    ) -> None: ...


def _message(role: str, digest: bytes) -> bytes:
    return f"ubcp/sign/{role}/1\0".encode() + digest


def _k(r: bytes, a: bytes, digest: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + a + _message("entry", digest)).digest(), "little") % L


def _digests() -> Iterator[bytes]:
    for n in range(1000):
        yield hashlib.sha256(n.to_bytes(4, "big")).digest()


def vectors() -> Vectors:
    file = Vectors("ed25519")

    def add(name: str, shows: str, key: bytes, digest: bytes, r: bytes, s: int, expected: str = "signature",
            role: str = "entry") -> None:  # fmt: skip
        file.add(name, shows, "3.2", key=key.hex(), role=role, digest=digest.hex(),
                 signature=(r + s.to_bytes(32, "little")).hex(), expected=expected)  # fmt: skip

    secret, nonce = 0x1234567890ABCDEF << 100, 0xFEDCBA0987654321 << 90
    digest = next(_digests())
    a, r = _times(secret, BASE), _times(nonce, BASE)
    key, point = _encoded(a), _encoded(r)
    s = (nonce + _k(point, key, digest) * secret) % L
    add("a signature", "made from the curve's arithmetic", key, digest, point, s, "ok")
    own = AccountKey(bytes([1]) * 32)
    made = own.sign("entry", digest)
    add("a signature of a seed", "as RFC 8032 makes it", own.public, digest, made[:32],
        int.from_bytes(made[32:], "little"), "ok")  # fmt: skip
    add("another role", "the role is part of what is signed", own.public, digest, made[:32],
        int.from_bytes(made[32:], "little"), role="voucher")  # fmt: skip
    add("another digest", "", key, hashlib.sha256(b"x").digest(), point, s)
    add("another key", "", own.public, digest, point, s)
    add("S + L", "rule 1: S is below L", key, digest, point, s + L)
    add("S + 8 L", "rule 1, in 256 bits", key, digest, point, s + 8 * L)
    add("S one more", "", key, digest, point, (s + 1) % L)
    add("S negated", "", key, digest, point, (L - s) % L)
    add("R negated", "the sign bit of R flipped", key, digest, point[:31] + bytes([point[31] ^ 0x80]), s)
    zero = _encoded(NEUTRAL)
    add("S = 0 and R neutral with a neutral key", "holds for any message without rules 2 and 3", zero, digest,
        zero, 0)  # fmt: skip
    _small_keys(add)
    _small_r(add, secret)
    _torsion_cases(add, secret, nonce)
    off = next(y for y in range(2, 100) if _x_of(y, 0) is None)
    add("a key off the curve", "no point has this y", off.to_bytes(32, "little"), digest, point, s)
    return file


def _small_keys(add: Add) -> None:
    """Rule 2: eight keys of small order, and their other encodings; [S]B − [k]A = R by choice of the message."""
    encodings = [(f"order {order}", _encoded(_times(m, TORSION)), m) for m, order in
                 ((0, 1), (4, 2), (2, 4), (6, 4), (1, 8), (3, 8), (5, 8), (7, 8))]  # fmt: skip
    encodings += [
        ("order 1, y = P + 1", (P + 1).to_bytes(32, "little"), 0), ("order 4, y = P", P.to_bytes(32, "little"), 2),
        ("order 4, y = P, sign bit", (P | 1 << 255).to_bytes(32, "little"), 6),
        ("order 1, sign bit of x = 0", (1 | 1 << 255).to_bytes(32, "little"), 0),
        ("order 1, y = P + 1, sign bit", (P + 1 | 1 << 255).to_bytes(32, "little"), 0),
        ("order 2, sign bit of x = 0", (P - 1 | 1 << 255).to_bytes(32, "little"), 4),
    ]  # fmt: skip
    nonce = 0xABCDEF << 200
    r = _encoded(_times(nonce, BASE))
    for number, (name, key, m) in enumerate(encodings):
        digest = next(d for d in _digests() if _k(r, key, d) * m % 8 == 0)
        add(f"a key of small order {number}: {name}", "rule 2: [k]A is neutral, so [S]B = R with no secret at all", key,
            digest, r, nonce % L)  # fmt: skip


def _small_r(add: Add, secret: int) -> None:
    """Rule 3: with A = [a]B + T, S = k a: [S]B − [k]A = −[k]T is a point of small order."""
    key = _encoded(_add(_times(secret, BASE), TORSION))
    for m in range(8):
        r = _encoded(_times(m, TORSION))
        digest = next(d for d in _digests() if -_k(r, key, d) % 8 == m)
        add(f"R of small order {m}", "rule 3: the equation holds", key, digest, r, _k(r, key, digest) * secret % L)
    plain = _encoded(_times(secret, BASE))
    for name, r in (("y = P + 1", (P + 1).to_bytes(32, "little")),
                    ("sign bit of x = 0", (1 | 1 << 255).to_bytes(32, "little"))):  # fmt: skip
        digest = next(_digests())
        add(f"R neutral, {name}", "rules 3 and 4: bytes are compared", plain, digest, r,
            _k(r, plain, digest) * secret % L)  # fmt: skip


def _torsion_cases(add: Add, secret: int, nonce: int) -> None:
    """Rule 4: no cofactor. A of mixed order is a key like any other where [k]T is neutral."""
    a, r = _times(secret, BASE), _times(nonce, BASE)
    mixed, point = _encoded(_add(a, TORSION)), _encoded(r)
    for wanted in range(8):
        digest = next(d for d in _digests() if _k(point, mixed, d) % 8 == wanted)
        s = (nonce + _k(point, mixed, digest) * secret) % L
        add(f"a key of mixed order, k = {wanted} mod 8", "only verification with the cofactor accepts all eight", mixed,
            digest, point, s, "signature" if wanted else "ok")  # fmt: skip
    digest = next(_digests())
    key = _encoded(a)
    for m in range(1, 8):
        shifted = _encoded(_add(r, _times(m, TORSION)))
        s = (nonce + _k(shifted, key, digest) * secret) % L
        add(f"R plus torsion {m}", "only verification with the cofactor accepts", key, digest, shifted, s)
