"""The charter as people write it: TOML, with the stewards' signatures in the same file.

Only `values` decides what is a charter; this module reads and writes. Amounts are in credits, times in seconds.
"""

from __future__ import annotations

import difflib
import tomllib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ubcp_p2p.charter.values import (
    CHARTER_BYTES_MAX,
    NO_ID,
    Allowance,
    Charter,
    CharterError,
    Charters,
    CostBasis,
    DeviceClass,
    DeviceCost,
    SignedCharter,
    Unit,
)
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.files import read_limited
from ubcp_p2p.units import decimal_text, parse_credits, parse_decimal

DOCUMENT_BYTES_MAX: Final = 4 * CHARTER_BYTES_MAX  # TOML is wordier than the canonical form

# What each key means, written beside it: whoever is given a charter can read it.
NOTES: Final = {
    "epoch": "slice 0 begins here",
    "slice_seconds": "one decision in each slice",
    "period_slices": "one allowance in each period of so many slices",
    "allowance_periods": "an allowance can be spent for so many periods, then it is gone",
    "earned_periods": "the same for what one has earned",
    "exposure_cap": "credits that one account may reserve in one period",
    "grace_slices": "after a request's end, to hand in receipts",
    "enrolment_periods_max": "then the stewards look again",
    "newcomer_permille": "of each slice is kept for newcomers",
    "half_life_slices": "after so many slices past use counts half",
    "ageing_slices": "waiting so many slices doubles a request's weight",
    "purposes": "a request names one of these",
    "purposes_refused": "nothing here is for these",
    "threshold": "so many stewards must sign; 0: an open network",
    "stewards": "account keys",
    "tariff_per_kwh": "of the currency",
    "sustained_gflops": "in training, not the peak",
    "watts": "of the whole machine while it trains",
    "price": "of the currency, new",
}
_NOTE_COLUMN: Final = 34


def _hex(length: int) -> AfterValidator:
    def check(text: str) -> str:
        if len(text) != 2 * length or text.strip("0123456789abcdef"):
            raise ValueError(f"must be {2 * length} hex digits (0–9, a–f)")
        return text

    return AfterValidator(check)


def _written(value: object) -> object:
    """A number as it was written, exactly: `tomllib` makes a Decimal of what has a point."""
    return str(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value


def _decimal(places: int, what: str) -> AfterValidator:
    def check(text: str) -> str:
        parse_decimal(text, places, what)
        return text

    return AfterValidator(check)


Key = Annotated[str, _hex(32)]
Credits = Annotated[str, BeforeValidator(_written), _decimal(6, "credits")]
Money = Annotated[str, BeforeValidator(_written), _decimal(6, "money")]
Watts = Annotated[str, BeforeValidator(_written), _decimal(3, "watts")]


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


class _DeviceCost(_Table):
    name: str
    sustained_gflops: int
    watts: Watts
    price: Money
    lifetime_hours: int


class _Cost(_Table):
    currency: str
    tariff_per_kwh: Money
    gco2_per_kwh: int
    device: list[_DeviceCost]


class _Signature(_Table):
    steward: Key
    signature: Annotated[str, _hex(64)]


class _Document(_Table):
    format: Literal["ubcp-charter/1"]
    name: str
    languages: list[str] = Field(default_factory=list)
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
    newcomer_permille: int
    half_life_slices: int
    ageing_slices: int
    purposes: list[str]
    purposes_refused: list[str] = Field(default_factory=list)
    threshold: int
    stewards: list[Key]
    unit: list[_Unit]
    device: list[_Device]
    cost: _Cost | None = None
    signature: list[_Signature] = Field(default_factory=list)


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
        document = _Document.model_validate(tomllib.loads(text, parse_float=Decimal))
        charter = _charter(document)
    except ValidationError as error:
        raise _explained(error, where) from None
    except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
        raise ConfigError(f"{where} is not TOML: {error}", hint="compare it with ledger/charter.toml") from None
    except CharterError as error:
        place = f"{error.key}: " if error.key else ""
        raise ConfigError(f"{where}: {place}{error.message}", hint=f"correct it in {where}") from None
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
        languages=tuple(sorted(document.languages)),
        newcomer_permille=document.newcomer_permille,
        half_life_slices=document.half_life_slices,
        ageing_slices=document.ageing_slices,
        refused=tuple(sorted(document.purposes_refused, key=str.encode)),
        cost=None if document.cost is None else _cost(document.cost),
    )


def _cost(table: _Cost) -> CostBasis:
    def money(text: str) -> int:
        return parse_decimal(text, 6, "money")

    devices = (
        DeviceCost(d.name, d.sustained_gflops, parse_decimal(d.watts, 3, "watts"), money(d.price), d.lifetime_hours)
        for d in table.device
    )
    return CostBasis(
        table.currency, money(table.tariff_per_kwh), table.gco2_per_kwh,
        tuple(sorted(devices, key=lambda device: device.name.encode())),
    )  # fmt: skip


def _explained(error: ValidationError, where: str) -> ConfigError:
    """The first fault in words. An unknown key is often a misspelt one, and then why another is missing."""
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    key = ".".join(f"number {part + 1}" if isinstance(part, int) else part for part in fault["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        known = list(_table_of(fault["loc"]).model_fields)
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        advice = f"did you mean {near[0]!r}? " if near else "remove it; "
        return ConfigError(f"{where}: {key}: unknown key{more}", hint=f"{advice}known here: {', '.join(known)}")
    if fault["type"] == "missing":
        return ConfigError(
            f"{where}: {key}: this key is required{more}", hint=f"add it to {where}; ledger/charter.toml has an example"
        )
    reason = fault["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    return ConfigError(f"{where}: {key}: {reason}{more}", hint=f"correct it in {where}")


def _table_of(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The table whose key the last part is."""
    tables: dict[tuple[str, ...], type[BaseModel]] = {
        (): _Document, ("allowance",): _Allowance, ("unit",): _Unit, ("device",): _Device, ("cost",): _Cost,
        ("cost", "device"): _DeviceCost, ("signature",): _Signature,
    }  # fmt: skip
    return tables[tuple(part for part in location[:-1] if isinstance(part, str))]


# -- writing ----------------------------------------------------------------------------------------------------------


def to_toml(signed: SignedCharter) -> str:
    """The document that `parse` reads back to the same charter and signatures."""
    charter = signed.charter
    lines = [_line("format", "ubcp-charter/1"), _line("name", charter.name)]
    lines.append(_line("languages", list(charter.languages)))
    if charter.number > 1:
        lines.append(_line("number", charter.number))
        lines.append(_line("previous", charter.previous.hex()))
        lines.append(_line("effective_period", charter.effective))
    lines.append(_noted(f"epoch = {datetime.fromtimestamp(charter.epoch, UTC):%Y-%m-%dT%H:%M:%SZ}", "epoch"))
    rows: dict[str, str | int | list[str]] = {
        "slice_seconds": charter.slice_s, "period_slices": charter.period_slices,
        "allowance_periods": charter.allowance_periods, "earned_periods": charter.earned_periods,
        "exposure_cap": _number(charter.exposure_cap, 6), "grace_slices": charter.grace_slices,
        "enrolment_periods_max": charter.enrolment_periods_max, "newcomer_permille": charter.newcomer_permille,
        "half_life_slices": charter.half_life_slices, "ageing_slices": charter.ageing_slices,
        "purposes": list(charter.purposes), "purposes_refused": list(charter.refused), "threshold": charter.threshold,
        "stewards": [key.hex() for key in charter.stewards],
    }  # fmt: skip
    lines += [_line(key, value) for key, value in rows.items()]
    lines += ["", "[allowance]  # credits per period; 1 credit = 1 PFLOP of training compute"]
    lines.append(_line("member", _number(charter.allowance.member, 6)))
    lines.append(_line("newcomer", _number(charter.allowance.newcomer, 6)))
    for unit in charter.units:
        lines += ["", "[[unit]]", _line("name", unit.name), _line("weight", unit.weight)]
    for device in charter.devices:
        lines += ["", "[[device]]", _line("name", device.name), _line("peak_gflops", device.peak)]
    if charter.cost is not None:
        lines += _cost_lines(charter.cost)
    lines += [signature_table(key, signature) for key, signature in signed.signatures]
    return "\n".join(lines) + "\n"


def to_json(signed: SignedCharter) -> dict[str, Any]:
    """The document's tables with all keys, as JSON types."""
    return _Document.model_validate(tomllib.loads(to_toml(signed))).model_dump(mode="json", exclude={"signature"})


def signature_table(steward: bytes, signature: bytes) -> str:
    """A signature as the end of a document, without the last line feed."""
    return f'\n[[signature]]\nsteward = "{steward.hex()}"\nsignature = "{signature.hex()}"'


def _cost_lines(cost: CostBasis) -> list[str]:
    lines = ["", "[cost]  # what the price of a credit stands on", _line("currency", cost.currency)]
    lines.append(_line("tariff_per_kwh", _number(cost.tariff, 6)))
    lines.append(_line("gco2_per_kwh", cost.carbon_g))
    for device in cost.devices:
        lines += ["", "[[cost.device]]", _line("name", device.name), _line("sustained_gflops", device.sustained)]
        lines.append(_line("watts", _number(device.power_mw, 3)))
        lines.append(_line("price", _number(device.price, 6)))
        lines.append(_line("lifetime_hours", device.lifetime_h))
    return lines


def _line(key: str, value: str | int | list[str]) -> str:
    return _noted(f"{key} = {_toml(value)}", key)


def _noted(line: str, key: str) -> str:
    return f"{line:<{_NOTE_COLUMN}}  # {NOTES[key]}" if key in NOTES else line


def _number(amount: int, places: int) -> str:
    return decimal_text(amount, places).replace(",", "")


def _toml(value: str | int | list[str]) -> str:
    """A basic string, integer or array of TOML; a charter's texts have no control characters."""
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, int):
        return str(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
