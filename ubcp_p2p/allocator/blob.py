"""Problems and decisions as canonical bytes: what a DECISION's inputs hash names, and what auditors compare. Pure.

`decode_problem` takes bytes from strangers: nothing gets past it that `Problem` does not allow, and one problem has
exactly one encoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from ubcp_p2p.allocator.problem import (
    STANDING,
    AllocatorError,
    Applicant,
    Ask,
    BadProblem,
    Cleaner,
    Problem,
    Reason,
    Rules,
    UnitUse,
)
from ubcp_p2p.codec import MalformedMessage, Value, decode, encode

VERSION: Final = 1
BLOB_BYTES_MAX: Final = 4 << 20  # 10,000 requests of 10,000 users with the longest names take 3.3 MiB

_T = TypeVar("_T")
_STANDING: Final = ("", *STANDING)


class MalformedProblem(AllocatorError):
    """Bytes that are not the canonical encoding of a problem; whoever published them is at fault."""


class _Row(NamedTuple):
    """A list that is read field by field."""

    values: list[Value]
    what: str

    def number(self, place: int) -> int:
        return self._typed(place, int)

    def text(self, place: int) -> str:
        return self._typed(place, str)

    def bytes(self, place: int) -> bytes:
        return self._typed(place, bytes)

    def list(self, place: int) -> list[Value]:
        return self._typed(place, list)

    def _typed(self, place: int, kind: type[_T]) -> _T:
        value = self.values[place]
        if not isinstance(value, kind):
            raise MalformedProblem(f"field {place} of {self.what} is no {kind.__name__}")
        return value


def encode_problem(problem: Problem) -> bytes:
    """Canonical bytes, at most 4 MiB."""
    rules = problem.rules
    purposes: list[Value] = list(rules.purposes)
    frame: list[Value] = [
        VERSION, problem.slice,
        [rules.newcomer_permille, rules.half_life_slices, rules.ageing_slices, rules.slice_s, purposes],
        problem.budget, problem.budget_max, problem.capacity, problem.reserve_carried,
        [] if problem.carbon is None else [problem.carbon],
        [[unit.name, unit.weight, unit.use, unit.stalled] for unit in problem.units],
        [[user.id, user.unit, int(user.newcomer), user.use, user.stalled] for user in problem.applicants],
        [_ask_fields(ask) for ask in problem.asks],
    ]  # fmt: skip
    return encode(frame)


def decode_problem(data: bytes) -> Problem:
    """The inverse. Raises MalformedProblem, also for a problem that breaks a limit."""
    try:
        frame = _row(decode(data, bytes_max=BLOB_BYTES_MAX), 11, "the problem")
        if (version := frame.number(0)) != VERSION:
            raise MalformedProblem(f"version {version} of a problem", hint="use a newer ubcp")
        carbon = frame.list(7)
        return Problem(
            slice=frame.number(1),
            rules=_rules(frame.list(2)),
            budget=frame.number(3),
            budget_max=frame.number(4),
            capacity=frame.number(5),
            reserve_carried=frame.number(6),
            carbon=_row(carbon, 1, "carbon").number(0) if carbon else None,
            units=_rows(frame.list(8), 4, "a unit", _unit),
            applicants=_rows(frame.list(9), 5, "an applicant", _applicant),
            asks=_rows(frame.list(10), 10, "an ask", _ask),
        )
    except MalformedMessage as error:
        raise MalformedProblem(f"a problem's bytes: {error.message}") from None
    except BadProblem as error:
        raise MalformedProblem(error.message, hint=error.hint) from None


def inputs_hash(blob: bytes) -> bytes:
    """What a DECISION names its inputs by: blobs have their plain SHA-256 (ledger/SPEC.md §3.1)."""
    return hashlib.sha256(blob).digest()


def _ask_fields(ask: Ask) -> list[Value]:
    cleaner: list[Value] = [] if ask.cleaner is None else list(ask.cleaner)
    return [
        ask.id, ask.applicant, ask.purpose, ask.units, ask.units_min, ask.waited, ask.urgency, ask.slices_left, cleaner,
        _STANDING.index(ask.standing or ""),
    ]  # fmt: skip


def _rules(values: list[Value]) -> Rules:
    row = _row(values, 5, "the rules")
    purposes = _Row(row.list(4), "the purposes")
    texts = tuple(purposes.text(place) for place in range(len(purposes.values)))
    return Rules(row.number(0), row.number(1), row.number(2), row.number(3), texts)


def _unit(row: _Row) -> UnitUse:
    return UnitUse(row.text(0), row.number(1), row.number(2), row.number(3))


def _applicant(row: _Row) -> Applicant:
    newcomer = _choice(row.number(2), (False, True), "newcomer")
    return Applicant(row.bytes(0), row.text(1), newcomer, row.number(3), row.number(4))


def _ask(row: _Row) -> Ask:
    cleaner = row.list(8)
    fields = _row(cleaner, 2, "a cleaner slice") if cleaner else None
    standing = _choice(row.number(9), _STANDING, "standing")
    return Ask(
        id=row.bytes(0), applicant=row.bytes(1), purpose=row.text(2), units=row.number(3), units_min=row.number(4),
        waited=row.number(5), urgency=row.number(6), slices_left=row.number(7),
        cleaner=Cleaner(fields.number(0), fields.number(1)) if fields else None,
        standing=Reason(standing) if standing else None,
    )  # fmt: skip


def _choice(number: int, choices: tuple[_T, ...], what: str) -> _T:
    if not 0 <= number < len(choices):
        raise MalformedProblem(f"{what} is {number}, not 0 to {len(choices) - 1}")
    return choices[number]


def _rows(values: list[Value], width: int, what: str, make: Callable[[_Row], _T]) -> tuple[_T, ...]:
    return tuple(make(_row(value, width, what)) for value in values)


def _row(value: Value, width: int, what: str) -> _Row:
    if not isinstance(value, list) or len(value) != width:
        raise MalformedProblem(f"{what} is not a list of {width} fields")
    return _Row(value, what)
