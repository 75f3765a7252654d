"""The charter as people write it: TOML, with the stewards' signatures in the same file.

Only `values` decides what is a charter; this module reads and writes. Amounts are in credits, times in seconds.
"""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ubcp_p2p.charter.values import (
    CHARTER_BYTES_MAX,
    NO_ID,
    Allowance,
    Charter,
    CharterError,
    Charters,
    DeviceClass,
    SignedCharter,
    Unit,
)
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.files import read_limited
from ubcp_p2p.units import credits_text, parse_credits

DOCUMENT_BYTES_MAX: Final = 4 * CHARTER_BYTES_MAX  # TOML is wordier than the canonical form


def _hex(length: int) -> AfterValidator:
    def check(text: str) -> str:
        if len(text) != 2 * length or text.strip("0123456789abcdef"):
            raise ValueError(f"must be {2 * length} hex digits (0–9, a–f)")
        return text

    return AfterValidator(check)


def _amount(text: str) -> str:
    parse_credits(text)
    return text


Key = Annotated[str, _hex(32)]
Credits = Annotated[str, AfterValidator(_amount)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Allowance(_Table):
    member: Credits
    newcomer: Credits


class _Unit(_Table):
    name: str
    weight: int


class _Device(_Table):
    name: str
    peak_gflops: int


class _Signature(_Table):
    steward: Key
    signature: Annotated[str, _hex(64)]


class _Document(_Table):
    format: Literal["ubcp-charter/1"]
    name: str
    number: int = 1
    previous: Key = NO_ID.hex()
    effective_period: int = 0
    epoch: AwareDatetime
    slice_seconds: int
    period_slices: int
    allowance: _Allowance
    allowance_periods: int
    earned_periods: int
    exposure_cap: Credits
    grace_slices: int
    enrolment_periods_max: int
    purposes: list[str]
    threshold: int
    stewards: list[Key]
    unit: list[_Unit]
    device: list[_Device]
    signature: Annotated[list[_Signature], Field(default_factory=list)]


def load(path: Path) -> SignedCharter:
    """Read a charter and its signatures, which `Charters` checks.

    Raises ConfigError, naming the file, the key and the remedy; LocalIOError when the file cannot be read.
    """
    try:
        text = read_limited(path, bytes_max=DOCUMENT_BYTES_MAX).decode()
    except FileNotFoundError:
        raise ConfigError(f"there is no charter at {path}", hint="ask your community for its charter file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", hint="a charter is a TOML file") from None
    return parse(text, where=str(path))


def load_community(path: Path) -> Charters:
    """A community by its first charter. Raises ConfigError, also when too few stewards signed; LocalIOError."""
    try:
        return Charters(load(path))
    except CharterError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None


def parse(text: str, *, where: str = "charter") -> SignedCharter:
    """As `load`, from text. Raises ConfigError."""
    try:
        document = _Document.model_validate(tomllib.loads(text))
        charter = _charter(document)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{where} is not TOML: {error}", hint="compare it with ledger/charter.toml") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ConfigError(f"{where}: {key}: {first['msg']}", hint="compare it with ledger/charter.toml") from None
    except CharterError as error:
        raise ConfigError(f"{where}: {error.message}", hint="compare it with ledger/charter.toml") from None
    signatures = ((bytes.fromhex(s.steward), bytes.fromhex(s.signature)) for s in document.signature)
    return SignedCharter(charter).signed(signatures)


def _charter(document: _Document) -> Charter:
    return Charter(
        name=document.name,
        number=document.number,
        previous=bytes.fromhex(document.previous),
        effective=document.effective_period,
        epoch=int(document.epoch.timestamp()),
        slice_s=document.slice_seconds,
        period_slices=document.period_slices,
        allowance=Allowance(parse_credits(document.allowance.member), parse_credits(document.allowance.newcomer)),
        allowance_periods=document.allowance_periods,
        earned_periods=document.earned_periods,
        exposure_cap=parse_credits(document.exposure_cap),
        grace_slices=document.grace_slices,
        enrolment_periods_max=document.enrolment_periods_max,
        threshold=document.threshold,
        stewards=tuple(sorted(bytes.fromhex(key) for key in document.stewards)),
        units=tuple(sorted((Unit(u.name, u.weight) for u in document.unit), key=lambda u: u.name.encode())),
        devices=tuple(
            sorted((DeviceClass(d.name, d.peak_gflops) for d in document.device), key=lambda d: d.name.encode())
        ),
        purposes=tuple(sorted(document.purposes, key=str.encode)),
    )


def to_toml(signed: SignedCharter) -> str:
    """The document that `parse` reads back to the same charter and signatures."""
    charter = signed.charter
    epoch = datetime.fromtimestamp(charter.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    rows: list[tuple[str, Any]] = [("format", "ubcp-charter/1"), ("name", charter.name)]
    if charter.number > 1:
        rows += [("number", charter.number), ("previous", charter.previous.hex())]
        rows += [("effective_period", charter.effective)]
    lines = [f"{key} = {_toml(value)}" for key, value in rows]
    lines += [
        f"epoch = {epoch}",
        f"slice_seconds = {charter.slice_s}",
        f"period_slices = {charter.period_slices}",
        f"allowance_periods = {charter.allowance_periods}",
        f"earned_periods = {charter.earned_periods}",
        f"exposure_cap = {_credits(charter.exposure_cap)}",
        f"grace_slices = {charter.grace_slices}",
        f"enrolment_periods_max = {charter.enrolment_periods_max}",
        f"purposes = {_toml(list(charter.purposes))}",
        f"threshold = {charter.threshold}",
        f"stewards = {_toml([key.hex() for key in charter.stewards])}",
        "",
        "[allowance]",
        f"member = {_credits(charter.allowance.member)}",
        f"newcomer = {_credits(charter.allowance.newcomer)}",
    ]
    for unit in charter.units:
        lines += ["", "[[unit]]", f"name = {_toml(unit.name)}", f"weight = {unit.weight}"]
    for device in charter.devices:
        lines += ["", "[[device]]", f"name = {_toml(device.name)}", f"peak_gflops = {device.peak}"]
    for key, signature in signed.signatures:
        lines += ["", "[[signature]]", f'steward = "{key.hex()}"', f'signature = "{signature.hex()}"']
    return "\n".join(lines) + "\n"


def _credits(amount: int) -> str:
    return _toml(credits_text(amount).replace(",", ""))


def _toml(value: str | int | list[str]) -> str:
    """A basic string, integer or array of TOML; a charter's texts have no control characters."""
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, int):
        return str(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
