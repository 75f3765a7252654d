"""Entries with their signatures, vouchers and fork proofs as bytes, and their signatures (SPEC §3, §5.3, §7.2).

Whether a signature holds needs no ledger: `signatures_of` lists all that must be verified, so that it can be done in
parallel and once. Whether the right keys signed is for rules.py.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from ubcp_p2p import keys
from ubcp_p2p.ledger.entry import ENTRY_BYTES_MAX, Entry, Key, Receipt, Signature, Voucher, pack, voucher_digest
from ubcp_p2p.ledger.faults import BadSignature, MalformedEntry
from ubcp_p2p.ledger.parse import (
    UNPACK_AGAIN,
    decode,
    decode_again,
    parse_voucher,
    unpack,
    unpack_as,
)

SIGNATURES_MAX: Final = 66  # the author, its new key, and 64 stewards
SIGNED_BYTES_MAX: Final = ENTRY_BYTES_MAX + SIGNATURES_MAX * 102 + 16
PROOF_BYTES_MAX: Final = 2 * SIGNED_BYTES_MAX + 16
VOUCHER_BYTES_MAX: Final = 1024
ROLE_ENTRY: Final = "entry"
ROLE_VOUCHER: Final = "voucher"

_ENTRY_PREFIX: Final = keys.signed_prefix(ROLE_ENTRY)
_VOUCHER_PREFIX: Final = keys.signed_prefix(ROLE_VOUCHER)
_SIGNED_ONCE: Final = msgspec.msgpack.Decoder(tuple[bytes, tuple[tuple[Key, Signature]]])

Check: TypeAlias = tuple[bytes, str, bytes, bytes]  # the arguments of keys.verify: key, role, digest, signature


class Signed(NamedTuple):
    """An entry, its canonical bytes, and (key, signature) pairs sorted by key."""

    entry: Entry
    data: bytes
    signatures: tuple[tuple[bytes, bytes], ...]

    @property
    def signers(self) -> frozenset[bytes]:
        return frozenset(key for key, _ in self.signatures)

    def to_bytes(self) -> bytes:
        """The wire form `[bytes, [[key, signature]…]]`."""
        return pack([self.data, [[key, signature] for key, signature in self.signatures]])


class SignedVoucher(NamedTuple):
    """A voucher and the paymaster's signature, as it travels from paymaster to contributor."""

    voucher: Voucher
    signature: bytes

    def to_bytes(self) -> bytes:
        return pack([list(self.voucher), self.signature])

    @classmethod
    def from_bytes(cls, data: bytes) -> SignedVoucher:
        """Parse and verify. Raises MalformedEntry, BadSignature."""
        row = unpack(data, VOUCHER_BYTES_MAX)
        if type(row) is not list or len(row) != 2 or type(row[1]) is not bytes or len(row[1]) != 64:
            raise MalformedEntry("field", "a signed voucher has a voucher and a signature")
        signed = cls(parse_voucher(row[0]), row[1])
        if not keys.verify(signed.voucher.paymaster, ROLE_VOUCHER, voucher_digest(signed.voucher), signed.signature):
            raise BadSignature("signature", "the paymaster's signature under a voucher does not hold")
        return signed


class ForkProof(NamedTuple):
    """Two entries of one author that follow one entry (SPEC §7.2). first.id < second.id."""

    first: Signed
    second: Signed

    @property
    def author(self) -> bytes:
        return self.first.entry.author

    @property
    def id(self) -> bytes:
        """SHA-256(`"ubcp/fork/1\\0"` ‖ the two entry ids): one fork has one id, whoever proves it."""
        return hashlib.sha256(b"ubcp/fork/1\0" + self.first.entry.id + self.second.entry.id).digest()

    def to_bytes(self) -> bytes:
        return pack([self.first.to_bytes(), self.second.to_bytes()])

    @classmethod
    def of(cls, one: Signed, other: Signed) -> ForkProof:
        return cls(*sorted((one, other), key=lambda signed: signed.entry.id))

    @classmethod
    def from_bytes(cls, data: bytes) -> ForkProof:
        """Parse, and check the form: signatures are for `verify_proof`. Raises MalformedEntry."""
        row = unpack(data, PROOF_BYTES_MAX)
        if type(row) is not list or len(row) != 2 or not all(type(part) is bytes for part in row):
            raise MalformedEntry("field", "a fork proof has two signed entries")
        proof = cls(decode_signed(row[0]), decode_signed(row[1]))
        a, b = proof.first.entry, proof.second.entry
        if (a.network, a.author, a.seq, a.prev) != (b.network, b.author, b.seq, b.prev) or not a.id < b.id:
            raise MalformedEntry("freeze", "a fork proof whose two entries are no fork")
        return proof


def sign(entry: Entry, data: bytes, signers: Iterable[keys.AccountKey | keys.NodeKey]) -> Signed:
    """The entry with the signatures of all `signers`."""
    return Signed(entry, data, tuple(sorted((key.public, key.sign(ROLE_ENTRY, entry.id)) for key in signers)))


def decode_signed(data: bytes) -> Signed:
    """The signed entry with these wire bytes; signatures are not verified here. Raises MalformedEntry."""
    once = unpack_as(_SIGNED_ONCE, data) if len(data) <= SIGNED_BYTES_MAX else None
    if once is not None:  # nearly always
        body, pairs = once
        return Signed(decode(body), body, pairs)
    row = unpack(data, SIGNED_BYTES_MAX)
    if type(row) is not list or len(row) != 2:
        raise MalformedEntry("encoding", "a signed entry has an entry and its signatures")
    body, rows = row
    if type(body) is not bytes or type(rows) is not list or not 0 < len(rows) <= SIGNATURES_MAX:
        raise MalformedEntry("encoding", f"a signed entry has 1 to {SIGNATURES_MAX} signatures")
    signatures = tuple([_pair(pair) for pair in rows])
    if any(one[0] >= other[0] for one, other in itertools.pairwise(signatures)):
        raise MalformedEntry("encoding", "signatures must be sorted by key, each once")
    return Signed(decode(body), body, signatures)


def decode_signed_again(data: bytes, id_: bytes) -> Signed:
    """The same for bytes that `decode_signed` has accepted before, and the entry's id: nothing is checked."""
    try:
        body, pairs = _SIGNED_ONCE.decode(data)
    except msgspec.ValidationError:  # with several signatures
        body, rows = UNPACK_AGAIN(data)
        return Signed(decode_again(body, id_), body, tuple([(key, signature) for key, signature in rows]))
    return Signed(decode_again(body, id_), body, pairs)


def _pair(value: Any) -> tuple[bytes, bytes]:
    if type(value) is list and len(value) == 2:
        key, signature = value
        if type(key) is type(signature) is bytes and len(key) == 32 and len(signature) == 64:
            return key, signature
    raise MalformedEntry("encoding", "a signature is a key and 64 bytes")


def signatures_of(signed: Signed) -> list[Check]:
    """All that keys.verify must find to hold for this entry, the voucher's signature in a RECEIPT included."""
    digest = signed.entry.id
    checks = [(key, ROLE_ENTRY, digest, signature) for key, signature in signed.signatures]
    body = signed.entry.body
    if type(body) is Receipt:
        voucher, signature = body
        checks.append((voucher.paymaster, ROLE_VOUCHER, voucher_digest(voucher), signature))
    return checks


def signatures_of_all(entries: Iterable[Signed]) -> tuple[list[bytes], list[bytes]]:
    """The same for all of `entries`, which were decoded, as keys.verify_each takes it: keys, and what they signed."""
    publics, signed = [], []
    for entry, _, pairs in entries:
        digest = _ENTRY_PREFIX + entry.id
        for public, signature in pairs:
            publics.append(public)
            signed.append(signature + digest)
        body = entry.body
        if type(body) is Receipt:
            voucher, signature = body
            publics.append(voucher.paymaster)
            signed.append(signature + _VOUCHER_PREFIX + voucher_digest(voucher))
    return publics, signed


def verify(signed: Signed) -> None:
    """Verify all its signatures. Raises BadSignature."""
    for public, role, digest, signature in signatures_of(signed):
        if not keys.verify(public, role, digest, signature):
            whose = "the voucher" if role == ROLE_VOUCHER else "the entry"
            raise BadSignature("signature", f"a signature under {whose} does not hold (key {public.hex()[:16]}…)")


def verify_proof(proof: ForkProof) -> None:
    """Verify the signatures of both entries. Raises BadSignature."""
    verify(proof.first)
    verify(proof.second)
