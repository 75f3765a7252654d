"""The charter in its one canonical form: what every peer of a community shares (SPEC §4). Pure.

The network id is the hash of the first version. Versions chain by number and previous hash; each is signed by enough
stewards of the version before it (the first by its own) and holds from the start of a period.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ubcp_p2p.codec import MalformedMessage, Value, decode, encode
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.keys import verify
from ubcp_p2p.units import AMOUNT_MAX

FORMAT: Final = 1
CHARTER_BYTES_MAX: Final = 64 * 1024
VERSIONS_MAX: Final = 1024
STEWARDS_MAX: Final = 64
ROWS_MAX: Final = 1024  # units, device classes, purposes
TEXT_BYTES_MAX: Final = 64
PERIOD_MAX: Final = 2**32 - 1
SLICE_S_MAX: Final = 86_400
YEAR_S: Final = 366 * 86_400
ENROLMENT_PERIODS_MAX: Final = 1024  # each period of an enrolment is an allowance to add up
EPOCH_MAX: Final = 2**37  # the year 6325: every calendar library can write it
NO_ID: Final = bytes(32)


class CharterError(UbcpError):
    """A charter that is malformed, unsigned, or does not follow from the one before; `code` names the class."""

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class CharterConflict(CharterError):
    """Two signed versions of one number: the community must settle which one holds (SPEC §4.3)."""


class Allowance(NamedTuple):
    """What each enrolled person gets per period, in µcredits."""

    member: int
    newcomer: int


class Unit(NamedTuple):
    """A school, lab, village … whose people share one part of the capacity."""

    name: str
    weight: int


class DeviceClass(NamedTuple):
    """Hardware of one kind. peak: GFLOP/s that no device of this class exceeds."""

    name: str
    peak: int


@dataclass(frozen=True)
class Charter:
    """One version of the rules. Amounts are µcredits, a slice `slice_s` seconds, a period `period_slices` slices."""

    name: str
    epoch: int  # Unix seconds at which slice 0 begins
    slice_s: int
    period_slices: int
    allowance: Allowance
    allowance_periods: int  # how many periods an allowance can be spent in, its own included
    earned_periods: int  # the same for earned credits
    exposure_cap: int  # the most that one account may reserve per period
    grace_slices: int  # after a request's expiry, for receipts
    enrolment_periods_max: int
    threshold: int  # k: how many stewards must sign; 0: an open network
    stewards: tuple[bytes, ...]  # public keys, sorted
    units: tuple[Unit, ...]  # sorted by name
    devices: tuple[DeviceClass, ...]  # sorted by name
    purposes: tuple[str, ...]  # that a request may name, sorted
    number: int = 1
    previous: bytes = NO_ID
    effective: int = 0  # the first period in which it holds

    def __post_init__(self) -> None:
        _check(self)

    def to_bytes(self) -> bytes:
        """The canonical form (SPEC §4.1)."""
        units: list[Value] = [[name, weight] for name, weight in self.units]
        devices: list[Value] = [[name, peak] for name, peak in self.devices]
        return encode(
            [
                FORMAT, self.number, self.previous, self.effective, self.name, self.epoch, self.slice_s,
                self.period_slices, self.allowance.member, self.allowance.newcomer, self.allowance_periods,
                self.earned_periods, self.exposure_cap, self.grace_slices, self.enrolment_periods_max, self.threshold,
                list(self.stewards), units, devices, list(self.purposes),
            ]
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes) -> Charter:
        """Inverse of `to_bytes`. Raises CharterError."""
        try:
            value = decode(data, bytes_max=CHARTER_BYTES_MAX)
        except MalformedMessage as error:
            raise CharterError("charter-encoding", f"not a charter: {error.message}") from None
        rows = _list(value, 20, exactly=True)
        if rows[0] != FORMAT:
            raise CharterError("charter-format", f"a charter of format {rows[0]!r}; this program knows {FORMAT}",
                               hint="a newer ubcp may read it")  # fmt: skip
        number, previous, effective, name, epoch, slice_s, period_slices, member, newcomer = rows[1:10]
        return cls(
            name=_text(name), epoch=_number(epoch), slice_s=_number(slice_s), period_slices=_number(period_slices),
            allowance=Allowance(_number(member), _number(newcomer)), allowance_periods=_number(rows[10]),
            earned_periods=_number(rows[11]), exposure_cap=_number(rows[12]), grace_slices=_number(rows[13]),
            enrolment_periods_max=_number(rows[14]), threshold=_number(rows[15]),
            stewards=tuple(_bytes(key) for key in _list(rows[16], STEWARDS_MAX)),
            units=tuple(Unit(_text(n), _number(w)) for n, w in (_list(r, 2, exactly=True) for r in _list(rows[17]))),
            devices=tuple(
                DeviceClass(_text(n), _number(p)) for n, p in (_list(r, 2, exactly=True) for r in _list(rows[18]))
            ),
            purposes=tuple(_text(text) for text in _list(rows[19])),
            number=_number(number), previous=_bytes(previous), effective=_number(effective),
        )  # fmt: skip

    @property
    def id(self) -> bytes:
        """SHA-256(`"ubcp/charter/1\\0"` ‖ canonical bytes); that of version 1 is the network id."""
        return hashlib.sha256(b"ubcp/charter/1\0" + self.to_bytes()).digest()

    def period(self, slice_: int) -> int:
        """The period that a slice lies in."""
        return slice_ // self.period_slices

    def slice_at(self, unix_s: float) -> int:
        """The slice of a moment; 0 before the epoch."""
        return max(0, int((unix_s - self.epoch) // self.slice_s))

    def allowance_of(self, newcomer: bool) -> int:
        """µcredits per period."""
        return self.allowance.newcomer if newcomer else self.allowance.member

    def peak_of(self, device_class: str) -> int | None:
        """GFLOP/s, or None for a class that the charter does not have."""
        for name, peak in self.devices:
            if name == device_class:
                return peak
        return None

    def has_unit(self, name: str) -> bool:
        return any(unit.name == name for unit in self.units)


@dataclass(frozen=True)
class SignedCharter:
    """A charter and its signatures, sorted by key."""

    charter: Charter
    signatures: tuple[tuple[bytes, bytes], ...] = ()

    def signed(self, keys: Iterable[tuple[bytes, bytes]]) -> SignedCharter:
        """With these (public key, signature) pairs added."""
        return replace(self, signatures=tuple(sorted({**dict(self.signatures), **dict(keys)}.items())))

    def to_bytes(self) -> bytes:
        """The wire form `[bytes, [[key, signature]…]]` (SPEC §4.2)."""
        return encode([self.charter.to_bytes(), [[key, signature] for key, signature in self.signatures]])

    @classmethod
    def from_bytes(cls, data: bytes) -> SignedCharter:
        """Parse; the signatures are checked by `Charters.add`. Raises CharterError."""
        try:
            body, rows = _list(decode(data, bytes_max=CHARTER_BYTES_MAX + 16 * 1024), 2, exactly=True)
        except MalformedMessage as error:
            raise CharterError("charter-encoding", f"not a signed charter: {error.message}") from None
        pairs = tuple(
            (_bytes(key), _bytes(signature, 64))
            for key, signature in (_list(row, 2, exactly=True) for row in _list(rows, STEWARDS_MAX))
        )
        if [key for key, _ in pairs] != sorted({key for key, _ in pairs}):
            raise CharterError("charter-encoding", "a charter's signatures are not sorted by key, or one is doubled")
        return cls(Charter.from_bytes(_bytes(body, None)), pairs)


class Charters:
    """All versions of one community's charter, each checked against the one before."""

    def __init__(self, first: SignedCharter) -> None:
        charter = first.charter
        if charter.number != 1 or charter.previous != NO_ID or charter.effective != 0:
            raise CharterError(
                "charter-chain", "the first charter must have number 1, no previous, and hold from period 0"
            )
        _check_signatures(first, charter)
        self.network = charter.id
        self._versions = [first]
        self._ids = [charter.id]
        self._effective = [0]

    def __len__(self) -> int:
        return len(self._versions)

    @property
    def versions(self) -> Sequence[SignedCharter]:
        return tuple(self._versions)

    @property
    def first(self) -> Charter:
        return self._versions[0].charter

    @property
    def newest(self) -> Charter:
        return self._versions[-1].charter

    def add(self, signed: SignedCharter) -> bool:
        """Take a version in; False when it is known. Raises CharterError, CharterConflict."""
        charter, number = signed.charter, signed.charter.number
        if 1 <= number <= len(self._versions):
            if charter.id == self._ids[number - 1]:
                return False
            if number > 1:
                _check_signatures(signed, self._versions[number - 2].charter)
            raise CharterConflict(
                "charter-conflict", f"two charters of version {number}",
                hint="the stewards must settle which one holds; this node keeps the one that it had",
            )  # fmt: skip
        newest = self.newest
        if number != newest.number + 1 or charter.previous != self._ids[-1] or charter.effective <= newest.effective:
            raise CharterError("charter-chain", f"version {number} does not follow from version {newest.number}")
        if len(self._versions) >= VERSIONS_MAX:
            raise CharterError("charter-chain", f"more than {VERSIONS_MAX} versions of a charter")
        if (charter.epoch, charter.slice_s, charter.period_slices) != (
            newest.epoch, newest.slice_s, newest.period_slices
        ):  # fmt: skip
            raise CharterError("charter-chain", "a charter's epoch, slice and period length never change")
        _check_signatures(signed, newest)
        self._versions.append(signed)
        self._ids.append(charter.id)
        self._effective.append(charter.effective)
        return True

    def at(self, period: int) -> Charter:
        """The version that holds in `period`."""
        if len(self._versions) == 1:
            return self._versions[0].charter
        return self._versions[bisect.bisect_right(self._effective, period) - 1].charter


def _check_signatures(signed: SignedCharter, by: Charter) -> None:
    digest = signed.charter.id
    stewards = set(by.stewards)
    for key, signature in signed.signatures:
        if key not in stewards:
            raise CharterError("charter-signature", "a charter is signed by somebody who is no steward")
        if not verify(key, "charter", digest, signature):
            raise CharterError("charter-signature", "a signature under the charter does not hold")
    if len(signed.signatures) < by.threshold:
        raise CharterError(
            "charter-signature", f"{len(signed.signatures)} stewards signed the charter; {by.threshold} must"
        )


def _check(charter: Charter) -> None:
    """SPEC §4.1, the limits of each field."""

    def need(good: bool, what: str) -> None:
        if not good:
            raise CharterError("charter-field", f"the charter's {what}")

    need(1 <= charter.number <= VERSIONS_MAX, f"number must be 1 to {VERSIONS_MAX}")
    need(0 <= charter.effective <= PERIOD_MAX, f"first period must be 0 to {PERIOD_MAX}")
    need(len(charter.previous) == 32, "previous hash must have 32 bytes")
    need(0 <= charter.epoch <= EPOCH_MAX, f"epoch must be Unix seconds from 0 to {EPOCH_MAX}")
    need(1 <= charter.slice_s <= SLICE_S_MAX, f"slice must last 1 to {SLICE_S_MAX} seconds")
    need(1 <= charter.period_slices <= 2**20, "period must have 1 to 2^20 slices")
    need(all(0 <= amount <= AMOUNT_MAX for amount in (*charter.allowance, charter.exposure_cap)),
         f"amounts must be 0 to {AMOUNT_MAX} µcredits")  # fmt: skip
    need(all(1 <= n <= 1024 for n in (charter.allowance_periods, charter.earned_periods)),
         "expiries must be 1 to 1024 periods")  # fmt: skip
    need(0 <= charter.grace_slices <= 2**20, "grace must be 0 to 2^20 slices")
    year = min(-(-YEAR_S // (charter.slice_s * charter.period_slices)), ENROLMENT_PERIODS_MAX)
    need(
        1 <= charter.enrolment_periods_max <= max(1, year),
        f"longest enrolment must be 1 to {max(1, year)} periods (a year)",
    )
    need(0 <= charter.threshold <= len(charter.stewards) <= STEWARDS_MAX, f"stewards must be k to {STEWARDS_MAX}")
    need(all(len(key) == 32 for key in charter.stewards), "stewards must be keys of 32 bytes")
    names = [unit.name for unit in charter.units], [device.name for device in charter.devices], charter.purposes
    for what, rows in zip(("units", "device classes", "purposes"), names, strict=True):
        need(1 <= len(rows) <= ROWS_MAX, f"{what} must be 1 to {ROWS_MAX}")
        need(list(rows) == sorted(set(rows), key=str.encode), f"{what} must be sorted by name, each once")
    need(list(charter.stewards) == sorted(set(charter.stewards)), "stewards must be sorted, each once")
    for text in (charter.name, *names[0], *names[1], *names[2]):
        need(is_text(text), f"names must have 1 to {TEXT_BYTES_MAX} bytes and no control characters")
    need(all(1 <= unit.weight <= 10**6 for unit in charter.units), "weights must be 1 to 10^6")
    need(all(1 <= device.peak <= 10**12 for device in charter.devices), "device peaks must be 1 to 10^12 GFLOP/s")


def is_text(text: str) -> bool:
    """SPEC §2.2: 1 to 64 bytes of UTF-8 without control characters (code points below 0x20, and 0x7F)."""
    return 0 < len(text.encode()) <= TEXT_BYTES_MAX and all(char >= " " and char != "\x7f" for char in text)


def _list(value: Value, count_max: int = ROWS_MAX, *, exactly: bool = False) -> list[Value]:
    if not isinstance(value, list) or len(value) > count_max or (exactly and len(value) != count_max):
        raise CharterError("charter-encoding", "a charter lacks a field, or has one too many")
    return value


def _number(value: Value) -> int:
    if not isinstance(value, int):
        raise CharterError("charter-encoding", "a charter has something else where a number belongs")
    return value


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise CharterError("charter-encoding", "a charter has something else where a text belongs")
    return value


def _bytes(value: Value, length: int | None = 32) -> bytes:
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise CharterError("charter-encoding", "a charter has something else where a key, hash or signature belongs")
    return value
