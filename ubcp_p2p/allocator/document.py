"""A slice's problem as JSON that people write (`ubcp allocate`), and its decision as JSON.

Only `problem` decides what is allowed; this module reads and writes. Every number is an integer: 1.0 is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ubcp_p2p.allocator.decide import Decision
from ubcp_p2p.allocator.problem import (
    ASKS_MAX,
    CARBON_MAX,
    ID_BYTES,
    PURPOSES_MAX,
    RESERVE_PERMILLE_MAX,
    SLICE_MAX,
    SLICE_S_MAX,
    SPAN_MAX,
    TEXT_BYTES_MAX,
    UNITS_MAX,
    URGENCY_MAX,
    URGENCY_MIN,
    USERS_MAX,
    WEIGHT_MAX,
    Applicant,
    Ask,
    BadProblem,
    Cleaner,
    Problem,
    Reason,
    Rules,
    UnitUse,
    problem_of,
)
from ubcp_p2p.allocator.words import explain
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.units import AMOUNT_MAX

FORMAT: Final = "ubcp-allocate/1"
DOCUMENT_BYTES_MAX: Final = 16 << 20  # JSON is four times as wordy as the canonical form
_HINT: Final = "docs/allocator.md describes the file; `ubcp allocate --schema` prints its JSON schema"
_VALUE_CHARS_MAX: Final = 60
_ROW: Final = re.compile(r"(units|applicants|asks)\[([0-9]+)\]\.(.+)")  # as BadProblem names a field of a sorted row
_FIELDS: Final = {  # of a Problem → of the file, where they differ
    "applicant": "user", "waited": "waited_slices", "urgency": "urgency_permille", "stalled": "stalled_slices",
    "carbon": "carbon_g_per_kwh", "rules.slice_s": "rules.slice_seconds",
}  # fmt: skip


def _hex(text: str) -> str:
    if len(text) != 2 * ID_BYTES or text.strip("0123456789abcdef"):
        raise ValueError(f"must be {2 * ID_BYTES} hex digits (0–9, a–f)")
    return text


Id = Annotated[str, AfterValidator(_hex)]
Text = Annotated[str, Field(min_length=1, max_length=TEXT_BYTES_MAX)]
Amount = Annotated[int, Field(ge=0, le=AMOUNT_MAX)]
Work = Annotated[int, Field(ge=1, le=AMOUNT_MAX)]
Slices = Annotated[int, Field(ge=0, le=SLICE_MAX)]
Span = Annotated[int, Field(ge=1, le=SPAN_MAX)]
Carbon = Annotated[int, Field(ge=0, le=CARBON_MAX)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Rules(_Table):
    """The community's rules."""

    newcomer_permille: int = Field(default=0, ge=0, le=RESERVE_PERMILLE_MAX, description="reserved for newcomers")
    half_life_slices: Span = Field(default=672, description="use counts half after so many slices")
    ageing_slices: Span = Field(default=96, description="waiting so many slices doubles a request's value")
    slice_seconds: int = Field(default=900, ge=1, le=SLICE_S_MAX)
    purposes: list[Text] = Field(min_length=1, max_length=PURPOSES_MAX, description="those allowed")


Stalled = Annotated[int, Field(ge=0, le=SLICE_MAX, description="slices since its first request became the first")]


class _Unit(_Table):
    """A school, lab, village …"""

    name: Text
    weight: int = Field(default=1, ge=1, le=WEIGHT_MAX)
    use: Amount | None = Field(default=None, description="decayed, GFLOP; by default that of its users together")
    stalled_slices: Stalled = SLICE_MAX


class _User(_Table):
    """Somebody with use or with a request."""

    id: Id
    unit: Text
    newcomer: bool = False
    use: Amount = Field(default=0, description="decayed, GFLOP")
    stalled_slices: Stalled = SLICE_MAX


class _Cleaner(_Table):
    """The cleanest slice before a request's deadline."""

    g_per_kwh: Carbon
    slices_ahead: int = Field(ge=1, le=SLICE_MAX)


class _Request(_Table):
    """What competes for the slice."""

    id: Id
    user: Id
    purpose: Text
    units: Work = Field(description="GFLOP that it would use of this slice")
    units_min: Work | None = Field(default=None, description="the least that is of use; by default all of `units`")
    waited_slices: Slices = 0
    urgency_permille: int = Field(default=URGENCY_MIN, ge=URGENCY_MIN, le=URGENCY_MAX)
    slices_left: int = Field(default=1, ge=1, le=SLICE_MAX, description="that the job still needs, this one included")
    cleaner: _Cleaner | None = None
    standing: Literal["frozen", "not-enrolled", "owner-refused", "indebted", "too-few-peers"] | None = None


class _Document(_Table):
    """A slice's problem. Amounts are GFLOP."""

    format: Literal["ubcp-allocate/1"]
    slice: Slices = 0
    rules: _Rules
    budget: Amount = Field(description="of this slice")
    budget_max: Amount | None = Field(default=None, description="of the best slice; by default the budget")
    capacity: Amount | None = Field(default=None, description="of the whole network; by default the budget")
    reserve_carried: Amount = 0
    carbon_g_per_kwh: Carbon | None = None
    units: list[_Unit] = Field(max_length=UNITS_MAX)
    users: list[_User] = Field(max_length=USERS_MAX)
    requests: list[_Request] = Field(max_length=ASKS_MAX)


def parse(data: bytes, *, where: str) -> Problem:
    """The problem of a JSON document. Raises ConfigError, naming the field and what is wrong with it."""
    plain = _without_doubled_keys(data, where)
    try:
        document = _Document.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"]) or "the document"
        reason = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        value = repr(fault["input"])
        if not isinstance(fault["input"], dict | list | bytes) and fault["type"] != "json_invalid":
            reason += f" (it is {value if len(value) <= _VALUE_CHARS_MAX else value[:_VALUE_CHARS_MAX] + '…'})"
        raise ConfigError(f"{where}: {field}: {reason}{_whose(plain, fault['loc'])}", hint=_HINT) from None
    _refuse_doubled_rows(document, where)
    try:
        return _problem(document)
    except BadProblem as error:
        raise ConfigError(f"{where}: {_in_the_file(error, document)}", hint=error.hint or _HINT) from None


def schema() -> dict[str, Any]:
    """The JSON schema of the document."""
    return _Document.model_json_schema()


def to_json(problem: Problem, decision: Decision) -> dict[str, Any]:
    """What `ubcp allocate --json` prints."""
    asks = {ask.id: ask for ask in problem.asks}
    rows = []
    for one in decision.outcomes:
        least, most = one.displaces or (None, None)
        rows.append({
            "id": one.id.hex(), "accepted": one.accepted, "reason": str(one.reason),
            "explain": explain(problem, asks[one.id], one), "displaces_permille": least,
            "displaces_permille_most": most, "expected_wait_s": one.wait_s, "queue": one.queue,
            "units": one.units, "cost": one.cost, "value": one.value, "use_permille": one.use_permille,
        })  # fmt: skip
    return {
        "accepted": [request.hex() for request in decision.accepted], "value": decision.value,
        "budget_used": decision.used, "budget": decision.budget, "granule": decision.granule,
        "reserve_unused": decision.reserve_unused, "refused": dict(decision.refused), "decisions": rows,
    }  # fmt: skip


class _Doubled(Exception):
    """A key that stands twice in one object; `fields` are all that the object has."""

    def __init__(self, key: str, fields: dict[str, Any]) -> None:
        self.key, self.fields = key, fields


def _without_doubled_keys(data: bytes, where: str) -> Any:
    """What the JSON says, None where it is none. Raises ConfigError for a key that stands twice in one object.

    Of two values of one key a parser takes either: what a person wrote must not hang on which.
    """

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise _Doubled(key, dict(pairs))
            found[key] = value
        return found

    try:
        return json.loads(data, object_pairs_hook=checked)
    except _Doubled as doubled:
        row = next((doubled.fields[key] for key in ("id", "name") if key in doubled.fields), None)
        place = f" of {row[: 2 * ID_BYTES]!r}" if isinstance(row, str) and doubled.key not in ("id", "name") else ""
        raise ConfigError(
            f"{where}: the key {doubled.key[:_VALUE_CHARS_MAX]!r} stands twice in one object{place}",
            hint="take one of the two out",
        ) from None
    except (ValueError, RecursionError):
        return None  # the parser of the document tells what is wrong with it


def _whose(plain: Any, place: tuple[int | str, ...]) -> str:
    """The id or name of the row that a field lies in, for who cannot count to it; "" where there is none."""
    match place:
        case ("units" | "users" | "requests" as rows, int(number), _, *_):
            key = plain[rows][number].get("name" if rows == "units" else "id")
            known = isinstance(key, str) and 0 < len(key) <= 2 * ID_BYTES and key.isprintable()
            return f" (the {rows.removesuffix('s')} {key})" if known else ""
    return ""


def _rows(document: _Document) -> dict[str, tuple[str, str, Sequence[str]]]:
    """By the list's name in a Problem: its name in the file, what names one row there, and those of all rows."""
    return {
        "units": ("units", "name", [unit.name for unit in document.units]),
        "applicants": ("users", "id", [user.id for user in document.users]),
        "asks": ("requests", "id", [request.id for request in document.requests]),
    }


def _refuse_doubled_rows(document: _Document, where: str) -> None:
    """Raises ConfigError for two rows of one id or name."""
    for name, what, keys in _rows(document).values():
        first: dict[str, int] = {}
        for place, key in enumerate(keys):
            if key in first:
                raise ConfigError(
                    f"{where}: {name}.{place}.{what}: {key!r} is that of {name}.{first[key]} too", hint=_HINT
                )
            first[key] = place


def _in_the_file(error: BadProblem, document: _Document) -> str:
    """The words of an error with the file's own names: a Problem has its rows sorted, and calls some otherwise."""
    reason = error.message.removeprefix(f"{error.field}: ").replace("the applicants", "the users")
    match = _ROW.fullmatch(error.field)
    if match is None:
        return f"{_FIELDS.get(error.field, error.field)}: {reason}"
    name, _, keys = _rows(document)[match[1]]
    in_order = sorted(range(len(keys)), key=lambda place: keys[place].encode("utf-8", "surrogatepass"))
    place = in_order[int(match[2])]
    return f"{name}.{place}.{_FIELDS.get(match[3], match[3])}: {reason} (the {name.removesuffix('s')} {keys[place]})"


def _problem(document: _Document) -> Problem:
    rules = document.rules
    used: dict[str, int] = {}
    for user in document.users:
        used[user.unit] = used.get(user.unit, 0) + user.use
    return problem_of(
        slice=document.slice,
        rules=Rules(
            rules.newcomer_permille, rules.half_life_slices, rules.ageing_slices, rules.slice_seconds,
            tuple(rules.purposes),
        ),
        budget=document.budget,
        budget_max=document.budget_max,
        capacity=document.capacity,
        reserve_carried=document.reserve_carried,
        carbon=document.carbon_g_per_kwh,
        units=[
            UnitUse(
                unit.name, unit.weight, used.get(unit.name, 0) if unit.use is None else unit.use, unit.stalled_slices
            )
            for unit in document.units
        ],
        applicants=[
            Applicant(bytes.fromhex(user.id), user.unit, user.newcomer, user.use, user.stalled_slices)
            for user in document.users
        ],
        asks=[_ask(request) for request in document.requests],
    )  # fmt: skip


def _ask(request: _Request) -> Ask:
    return Ask(
        id=bytes.fromhex(request.id),
        applicant=bytes.fromhex(request.user),
        purpose=request.purpose,
        units=request.units,
        units_min=request.units if request.units_min is None else request.units_min,
        waited=request.waited_slices,
        urgency=request.urgency_permille,
        slices_left=request.slices_left,
        cleaner=None if request.cleaner is None else Cleaner(request.cleaner.g_per_kwh, request.cleaner.slices_ahead),
        standing=None if request.standing is None else Reason(request.standing),
    )
