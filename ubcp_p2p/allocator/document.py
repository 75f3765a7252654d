"""A slice's problem as JSON that people write (`ubcp allocate`), and its decision as JSON.

Only `problem` decides what is allowed; this module reads and writes. Every number is an integer: 1.0 is refused.
"""

from __future__ import annotations

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
    try:
        document = _Document.model_validate_json(data)
        return _problem(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"]) or "the document"
        reason = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        value = repr(fault["input"])
        if not isinstance(fault["input"], dict | list | bytes) and fault["type"] != "json_invalid":
            reason += f" (it is {value if len(value) <= _VALUE_CHARS_MAX else value[:_VALUE_CHARS_MAX] + '…'})"
        raise ConfigError(f"{where}: {field}: {reason}", hint=_HINT) from None
    except BadProblem as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint or _HINT) from None


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
