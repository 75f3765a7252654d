"""What one peer knows when it decides on one slice, as frozen values with a limit on each field. Pure.

Amounts are units (1 unit = 1 GFLOP = 1 µcredit), times are whole slices; nothing here is a float. Rows are sorted by
id or name, so that one problem has one form; `problem_of` sorts them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final, NamedTuple

from ubcp_p2p.charter import fields
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.units import AMOUNT_MAX

ASKS_MAX: Final = 10_000
USERS_MAX: Final = 10_000
UNITS_MAX: Final = 1024  # as many as a charter has
PURPOSES_MAX: Final = 1024
TEXT_BYTES_MAX: Final = 64
ID_BYTES: Final = 32
WEIGHT_MAX: Final = 10**6
SLICE_MAX: Final = 2**32 - 1
SLICE_S_MAX: Final = 86_400
SPAN_MAX: Final = 2**20  # slices of a half-life or of ageing: 30 years of quarter hours
RESERVE_PERMILLE_MAX: Final = fields.RESERVE_PERMILLE_MAX
URGENCY_MIN, URGENCY_MAX = 1000, 2000  # per mille
CARBON_MAX: Final = 10**5  # g CO₂ per kWh; coal has 1000
GRANULES_MAX: Final = 10_000


class AllocatorError(UbcpError):
    """The allocator was asked something that has no answer."""


class BadProblem(AllocatorError):
    """A field of a problem breaks a limit, or two fields contradict each other; `field` says which."""

    def __init__(self, field: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{field}: {message}", hint=hint)
        self.field = field


class Reason(StrEnum):
    """Why a request got what it got: these words stand in DECISION entries."""

    ACCEPTED = "accepted"
    FROZEN = "frozen"
    INDEBTED = "indebted"
    TOO_FEW_PEERS = "too-few-peers"
    NOT_ENROLLED = "not-enrolled"
    OWNER_REFUSED = "owner-refused"
    PURPOSE = "purpose-not-allowed"
    TOO_LARGE = "too-large"
    HELD = "held-for-cleaner-power"
    SMALL_SLICE = "slice-too-small"
    FULL = "full"


# What is known before anything is weighed.
STANDING: Final = (Reason.FROZEN, Reason.NOT_ENROLLED, Reason.OWNER_REFUSED, Reason.INDEBTED, Reason.TOO_FEW_PEERS)


class Rules(NamedTuple):
    """The community's, from its charter. purposes: those allowed, sorted."""

    newcomer_permille: int  # of the budget: the newcomers' reserve
    half_life_slices: int
    ageing_slices: int  # waiting so long doubles a request's value
    slice_s: int
    purposes: tuple[str, ...]


class UnitUse(NamedTuple):
    """A school, lab, village … with its weight, and the decayed use of all its people.

    stalled: for how many slices the first of its requests has been the first: how long nobody moved up.
    """

    name: str
    weight: int
    use: int
    stalled: int = SLICE_MAX


class Applicant(NamedTuple):
    """A user with decayed use or with a request in the queue. stalled: as of a unit."""

    id: bytes
    unit: str
    newcomer: bool
    use: int
    stalled: int = SLICE_MAX


class Cleaner(NamedTuple):
    """The cleanest slice that a request can wait for without missing its deadline."""

    g_per_kwh: int
    slices_ahead: int


class Ask(NamedTuple):
    """One request, as this slice sees it. units: the quantum of a peer and slice; units_min: the least that is of use.

    waited counts the slices since it was first seen or last served, whichever is later: what runs does not grow on.
    slices_left counts the slices that the job still needs, this one included. cleaner: None without slack, or where
    nothing is known of the power. standing: one of `STANDING` when the request is out before anything is weighed.
    """

    id: bytes
    applicant: bytes
    purpose: str
    units: int
    units_min: int
    waited: int
    urgency: int = URGENCY_MIN
    slices_left: int = 1
    cleaner: Cleaner | None = None
    standing: Reason | None = None


@dataclass(frozen=True)
class Problem:
    """One peer's slice. Raises BadProblem for whatever breaks a limit.

    budget: what the owner's rules and the hardware allow in this slice; budget_max: in the best slice of all.
    capacity: of the whole network in a slice. reserve_carried: what newcomers left unused of the last slice's
    reserve. carbon: g CO₂ per kWh now, None where unknown.
    """

    slice: int
    rules: Rules
    budget: int
    budget_max: int
    capacity: int
    reserve_carried: int
    carbon: int | None
    units: tuple[UnitUse, ...]
    applicants: tuple[Applicant, ...]
    asks: tuple[Ask, ...]

    def __post_init__(self) -> None:
        _check_frame(self)
        _check_people(self)
        _check_asks(self)

    @property
    def total_use(self) -> int:
        """Û_total: the network's decayed use."""
        return sum(unit.use for unit in self.units)


def problem_of(
    *,
    slice: int,
    rules: Rules,
    budget: int,
    budget_max: int | None = None,
    capacity: int | None = None,
    reserve_carried: int = 0,
    carbon: int | None = None,
    units: Iterable[UnitUse],
    applicants: Iterable[Applicant],
    asks: Iterable[Ask],
) -> Problem:
    """A problem from rows in any order; what is not given is as the budget. Raises BadProblem."""
    return Problem(
        slice=slice,
        rules=rules._replace(purposes=tuple(sorted(rules.purposes, key=_utf8))),
        budget=budget,
        budget_max=budget if budget_max is None else budget_max,
        capacity=budget if capacity is None else capacity,
        reserve_carried=reserve_carried,
        carbon=carbon,
        units=tuple(sorted(units, key=lambda unit: _utf8(unit.name))),
        applicants=tuple(sorted(applicants, key=lambda one: one.id)),
        asks=tuple(sorted(asks, key=lambda ask: ask.id)),
    )


class Grid(NamedTuple):
    """A budget in granules. fits: the largest quantum, in units, that the newcomers' own reserve leaves room for."""

    granule: int
    capacity: int
    reserve: int

    @property
    def fits(self) -> int:
        return (self.capacity - self.reserve) * self.granule

    def cost(self, units: int) -> int:
        """In granules, rounded up."""
        return -(-units // self.granule)


def grid(budget: int, newcomer_permille: int) -> Grid:
    """g = ceil(B ∕ 10,000) and what it makes of the budget and of the reserve, both rounded down."""
    granule = max(1, -(-budget // GRANULES_MAX))
    return Grid(granule, budget // granule, budget * newcomer_permille // 1000 // granule)


# -- limits -----------------------------------------------------------------------------------------------------------


def _need(good: bool, field: str, message: str) -> None:
    if not good:
        raise BadProblem(field, message)


def _between(value: int, low: int, high: int, field: str) -> None:
    # By type, not by isinstance: True is no number of units, and a double that is whole is a double all the same.
    if type(value) is not int or not low <= value <= high:
        raise BadProblem(field, f"must be an integer from {low} to {high}")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _is_text(text: object) -> bool:
    """As ledger/SPEC.md §2.2: 1 to 64 bytes of UTF-8 without control characters."""
    return (
        isinstance(text, str)
        and 0 < len(_utf8(text)) <= TEXT_BYTES_MAX
        and all(char >= " " and char != "\x7f" and not "\ud800" <= char <= "\udfff" for char in text)
    )


def _rising(keys: list[bytes]) -> bool:
    return all(first < second for first, second in pairwise(keys))


def _check_frame(problem: Problem) -> None:
    rules = problem.rules
    _between(problem.slice, 0, SLICE_MAX, "slice")
    _between(rules.newcomer_permille, 0, RESERVE_PERMILLE_MAX, "rules.newcomer_permille")
    _between(rules.half_life_slices, 1, SPAN_MAX, "rules.half_life_slices")
    _between(rules.ageing_slices, 1, SPAN_MAX, "rules.ageing_slices")
    _between(rules.slice_s, 1, SLICE_S_MAX, "rules.slice_s")
    _need(1 <= len(rules.purposes) <= PURPOSES_MAX, "rules.purposes", f"must be 1 to {PURPOSES_MAX}")
    _need(
        all(map(_is_text, rules.purposes)), "rules.purposes", f"each has 1 to {TEXT_BYTES_MAX} bytes, no control ones"
    )
    _need(_rising([_utf8(text) for text in rules.purposes]), "rules.purposes", "must be sorted, each once")
    _between(problem.budget, 0, AMOUNT_MAX, "budget")
    _between(problem.budget_max, problem.budget, AMOUNT_MAX, "budget_max")
    _between(problem.capacity, 0, AMOUNT_MAX, "capacity")
    reserve_max = problem.budget_max * rules.newcomer_permille // 1000
    _between(problem.reserve_carried, 0, reserve_max, "reserve_carried")
    if problem.carbon is not None:
        _between(problem.carbon, 0, CARBON_MAX, "carbon")


def _check_people(problem: Problem) -> None:
    _need(len(problem.units) <= UNITS_MAX, "units", f"{len(problem.units)}; at most {UNITS_MAX} are allowed")
    for place, unit in enumerate(problem.units):
        _need(_is_text(unit.name), f"units[{place}].name", f"must have 1 to {TEXT_BYTES_MAX} bytes, no control ones")
        _between(unit.weight, 1, WEIGHT_MAX, f"units[{place}].weight")
        _between(unit.use, 0, AMOUNT_MAX, f"units[{place}].use")
        _between(unit.stalled, 0, SLICE_MAX, f"units[{place}].stalled")
    _need(_rising([_utf8(unit.name) for unit in problem.units]), "units", "must be sorted by name, each once")
    _need(problem.total_use <= AMOUNT_MAX, "units", f"together they used more than {AMOUNT_MAX} units")
    users = problem.applicants
    _need(len(users) <= USERS_MAX, "applicants", f"{len(users)}; at most {USERS_MAX} are allowed")
    left = {unit.name: unit.use for unit in problem.units}
    for place, user in enumerate(users):
        _check_id(user.id, f"applicants[{place}].id")
        _need(user.unit in left, f"applicants[{place}].unit", f"{user.unit!r} is not one of the units")
        _need(isinstance(user.newcomer, bool), f"applicants[{place}].newcomer", "must be true or false")
        _between(user.use, 0, AMOUNT_MAX, f"applicants[{place}].use")
        _between(user.stalled, 0, SLICE_MAX, f"applicants[{place}].stalled")
        left[user.unit] -= user.use
    _need(_rising([user.id for user in users]), "applicants", "must be sorted by id, each once")
    for name, rest in left.items():
        _need(rest >= 0, "units", f"{name!r} used less than its people together")


def _check_asks(problem: Problem) -> None:
    asks = problem.asks
    _need(len(asks) <= ASKS_MAX, "asks", f"{len(asks)}; at most {ASKS_MAX} are allowed in one slice")
    known = {user.id for user in problem.applicants}
    for place, ask in enumerate(asks):
        where = f"asks[{place}]"
        _check_id(ask.id, f"{where}.id")
        _need(ask.applicant in known, f"{where}.applicant", "is not one of the applicants")
        _need(_is_text(ask.purpose), f"{where}.purpose", f"must have 1 to {TEXT_BYTES_MAX} bytes, no control ones")
        _between(ask.units, 1, AMOUNT_MAX, f"{where}.units")
        _between(ask.units_min, 1, ask.units, f"{where}.units_min")
        _between(ask.waited, 0, SLICE_MAX, f"{where}.waited")
        _between(ask.urgency, URGENCY_MIN, URGENCY_MAX, f"{where}.urgency")
        _between(ask.slices_left, 1, SLICE_MAX, f"{where}.slices_left")
        if ask.cleaner is not None:
            _between(ask.cleaner.g_per_kwh, 0, CARBON_MAX, f"{where}.cleaner.g_per_kwh")
            _between(ask.cleaner.slices_ahead, 1, SLICE_MAX, f"{where}.cleaner.slices_ahead")
        words = ", ".join(STANDING)
        _need(ask.standing is None or ask.standing in STANDING, f"{where}.standing", f"must be one of {words}, or none")
    _need(_rising([ask.id for ask in asks]), "asks", "must be sorted by id, each once")


def _check_id(value: object, field: str) -> None:
    _need(isinstance(value, bytes) and len(value) == ID_BYTES, field, f"must have {ID_BYTES} bytes")
