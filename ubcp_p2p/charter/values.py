"""The charter in its one canonical form: what every peer of a community shares (SPEC §4). Pure.

The network id is the hash of the first version. Versions chain by number and previous hash; each is signed by enough
stewards of the version before it (the first by its own) and holds from the start of a period.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ubcp_p2p.charter.fields import (
    CHARTER_BYTES_MAX,
    FORMAT,
    LANGUAGES_MAX,
    NO_ID,
    ROWS_MAX,
    STEWARDS_MAX,
    VERSIONS_MAX,
    Allowance,
    CharterError,
    CostBasis,
    DeviceClass,
    DeviceCost,
    Unit,
    check,
)
from ubcp_p2p.codec import MalformedMessage, Value, decode, encode
from ubcp_p2p.keys import verify

__all__ = [
    "CHARTER_BYTES_MAX",
    "NO_ID",
    "VERSIONS_MAX",
    "Allowance",
    "Charter",
    "CharterConflict",
    "CharterError",
    "Charters",
    "CostBasis",
    "DeviceClass",
    "DeviceCost",
    "SignedCharter",
    "Unit",
    "check_follows",
    "check_signatures",
]


class CharterConflict(CharterError):
    """Two signed versions of one number: the community must settle which one holds (SPEC §4.3)."""


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
    languages: tuple[str, ...] = ()  # BCP 47 tags, sorted: for people
    newcomer_permille: int = 150  # ρ: the part of each slice that is kept for newcomers' requests
    half_life_slices: int = 672  # H: after which past use counts half; a week of the usual slices
    ageing_slices: int = 96  # A: waiting this long doubles a request's weight; a day of the usual slices
    refused: tuple[str, ...] = ()  # purposes that nothing here is for, sorted: for people
    cost: CostBasis | None = None  # what the price of a credit stands on
    number: int = 1
    previous: bytes = NO_ID
    effective: int = 0  # the first period in which it holds

    def __post_init__(self) -> None:
        check(self)
        if len(self.to_bytes()) > CHARTER_BYTES_MAX:
            raise CharterError("charter-encoding", f"a charter has at most {CHARTER_BYTES_MAX} bytes")

    def to_bytes(self) -> bytes:
        """The canonical form (SPEC §4.1)."""
        units: list[Value] = [[name, weight] for name, weight in self.units]
        devices: list[Value] = [[name, peak] for name, peak in self.devices]
        return encode(
            [
                FORMAT, self.number, self.previous, self.effective, self.name, self.epoch, self.slice_s,
                self.period_slices, self.allowance.member, self.allowance.newcomer, self.allowance_periods,
                self.earned_periods, self.exposure_cap, self.grace_slices, self.enrolment_periods_max, self.threshold,
                list(self.stewards), units, devices, list(self.purposes), list(self.languages), self.newcomer_permille,
                self.half_life_slices, self.ageing_slices, list(self.refused), _cost_value(self.cost),
            ]
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes) -> Charter:
        """Inverse of `to_bytes`. Raises CharterError."""
        try:
            value = decode(data, bytes_max=CHARTER_BYTES_MAX)
        except MalformedMessage as error:
            raise CharterError("charter-encoding", f"not a charter: {error.message}") from None
        rows = _list(value, 26, exactly=True)
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
            units=tuple(Unit(_text(n), _number(w)) for n, w in _rows(rows[17], 2)),
            devices=tuple(DeviceClass(_text(n), _number(p)) for n, p in _rows(rows[18], 2)),
            purposes=_texts(rows[19]), languages=_texts(rows[20], LANGUAGES_MAX), newcomer_permille=_number(rows[21]),
            half_life_slices=_number(rows[22]), ageing_slices=_number(rows[23]), refused=_texts(rows[24]),
            cost=_cost(rows[25]),
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

    def cost_of(self, device_class: str) -> DeviceCost | None:
        """What such a device takes, or None where the charter says nothing of it."""
        rows = self.cost.devices if self.cost is not None else ()
        return next((row for row in rows if row.name == device_class), None)

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
        check_signatures(first, charter)
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
            if number == 1:  # what the network's id is made of
                raise CharterConflict(
                    "charter-conflict", f"{charter.name!r} is another community's charter: that of the network "
                    f"{charter.id.hex()[:16]}…, not {self.network.hex()[:16]}…",
                    hint="a next version of a community's own charter is made with `ubcp charter new --from`",
                )  # fmt: skip
            check_signatures(signed, self._versions[number - 2].charter)
            raise CharterConflict(
                "charter-conflict", f"two charters of version {number}",
                hint="the stewards must settle which one holds; this node keeps the one that it had",
            )  # fmt: skip
        check_follows(charter, self.newest)
        check_signatures(signed, self.newest)
        self._versions.append(signed)
        self._ids.append(charter.id)
        self._effective.append(charter.effective)
        return True

    def at(self, period: int) -> Charter:
        """The version that holds in `period`."""
        if len(self._versions) == 1:
            return self._versions[0].charter
        return self._versions[bisect.bisect_right(self._effective, period) - 1].charter


def check_follows(charter: Charter, before: Charter) -> None:
    """SPEC §4.2: whether `charter` may be the version after `before`, signatures apart. Raises CharterError."""
    if (charter.number, charter.previous) != (before.number + 1, before.id) or charter.effective <= before.effective:
        raise CharterError(
            "charter-chain", f"version {charter.number} does not follow from version {before.number}",
            hint="`ubcp charter new --from` fills in its number, the hash before and the first period",
        )  # fmt: skip
    if (charter.epoch, charter.slice_s, charter.period_slices) != (before.epoch, before.slice_s, before.period_slices):
        raise CharterError("charter-chain", "a charter's epoch, slice and period length never change")


def check_signatures(signed: SignedCharter, by: Charter, *, least: int | None = None) -> None:
    """SPEC §4.2: all hold and are by stewards of `by`, at least its threshold (or `least`). Raises CharterError."""
    digest = signed.charter.id
    stewards = set(by.stewards)
    for key, signature in signed.signatures:
        if key not in stewards:
            raise CharterError(
                "charter-signature", f"a charter is signed by somebody who is no steward: {key.hex()}",
                hint="take that signature out",
            )  # fmt: skip
        if not verify(key, "charter", digest, signature):
            raise CharterError(
                "charter-signature", f"a signature under the charter does not hold: that of {key.hex()}",
                hint="the charter was changed after it was signed: take that signature out, and ask for it anew",
            )  # fmt: skip
    least = by.threshold if least is None else least
    if len(signed.signatures) < least:
        count = len(signed.signatures)
        who = f"{count} steward{'' if count == 1 else 's'}"
        raise CharterError(
            "charter-signature", f"{who} signed the charter; {least} must", hint="more of them `ubcp charter sign` it"
        )


def _cost_value(cost: CostBasis | None) -> Value:
    if cost is None:
        return []
    return [cost.currency, cost.tariff, cost.carbon_g, [list(device) for device in cost.devices]]


def _cost(value: Value) -> CostBasis | None:
    if value == []:
        return None
    currency, tariff, carbon_g, rows = _list(value, 4, exactly=True)
    return CostBasis(
        _text(currency), _number(tariff), _number(carbon_g),
        tuple(
            DeviceCost(_text(name), _number(sustained), _number(power), _number(price), _number(lifetime))
            for name, sustained, power, price, lifetime in _rows(rows, 5)
        ),
    )  # fmt: skip


def _rows(value: Value, fields: int) -> list[list[Value]]:
    return [_list(row, fields, exactly=True) for row in _list(value)]


def _texts(value: Value, count_max: int = ROWS_MAX) -> tuple[str, ...]:
    return tuple(_text(text) for text in _list(value, count_max))


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
