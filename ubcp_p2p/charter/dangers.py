"""What is valid in a charter and yet likely a mistake, each with its remedy. Pure.

The bounds are opinions: a community that knows better signs all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ubcp_p2p.charter.values import Charter
from ubcp_p2p.charter.words import moment, span
from ubcp_p2p.units import credits_text

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400

SLICE_S: Final = (MINUTE_S, 6 * HOUR_S)
PERIOD_S: Final = (DAY_S, 31 * DAY_S)
HALF_LIFE_S: Final = (DAY_S, 90 * DAY_S)
AGEING_S: Final = (HOUR_S, 14 * DAY_S)
ENROLMENT_MAX_S: Final = 400 * DAY_S  # a year in whole periods of up to a month
GRACE_S_MAX: Final = 31 * DAY_S
BEGIN_S_MAX: Final = 31 * DAY_S  # from now to a first charter's epoch
EFFECTIVE_S_MAX: Final = 365 * DAY_S  # from now until a next version holds
CAP_ALLOWANCES_MAX: Final = 1_000  # ten are usual
ALLOWANCE_PARTS: Final = 2  # one allowance may be half of what the fastest device does in a period
RESERVE_MAX: Final = 500  # per mille


class Danger(NamedTuple):
    """key: where in the document."""

    key: str
    what: str
    remedy: str


def dangers(charter: Charter, *, now_period: int | None = None) -> list[Danger]:
    """In the order of the document. now_period: `clock_period`, to tell what comes too late or is far off."""
    return [*_of_stewards(charter), *_of_epoch(charter, now_period), *_of_times(charter), *_of_credits(charter),
            *_of_sharing(charter), *_of_costs(charter), *_of_version(charter, now_period)]  # fmt: skip


def clock_period(charter: Charter, now_s: float) -> int:
    """The period of a moment in Unix seconds; below 0 before the epoch."""
    return int((now_s - charter.epoch) // (charter.slice_s * charter.period_slices))


def _of_stewards(charter: Charter) -> Iterator[Danger]:
    k, n = charter.threshold, len(charter.stewards)
    if k == 0:
        yield Danger("threshold", "an open network: nobody vouches for persons, and one can enrol as a thousand",
                     "name at least 3 stewards and set threshold = 2")  # fmt: skip
        return
    if k == n == 1:
        yield Danger("threshold", "there is one steward: a thief of that one key can enrol anybody and change the "
                     "charter, and with the key lost nobody is enrolled and no version follows, for ever",
                     "name at least 3 stewards and set threshold = 2")  # fmt: skip
        return
    if k == 1:
        yield Danger("threshold", "one steward alone, or a thief of one key, can enrol anybody and change the charter",
                     "set threshold = 2, with at least 3 stewards")  # fmt: skip
    if k == n:
        yield Danger("threshold", f"all {n} stewards must sign: with one key lost, nobody is enrolled and no version "
                     "follows, for ever", "name more stewards than must sign")  # fmt: skip


def _of_epoch(charter: Charter, now_period: int | None) -> Iterator[Danger]:
    if now_period is not None and -now_period * charter.slice_s * charter.period_slices > BEGIN_S_MAX:
        yield Danger("epoch", f"its time begins on {moment(charter, 0)}: until then nobody can ask for anything",
                     "choose a moment that has been, or comes within days")  # fmt: skip


def _of_times(charter: Charter) -> Iterator[Danger]:
    def outside(key: str, seconds: int, bounds: tuple[int, int], short: str, long: str) -> Iterator[Danger]:
        least, most = bounds
        if not least <= seconds <= most:
            yield Danger(key, f"{span(seconds)}: {short if seconds < least else long}",
                         f"choose {span(least)} to {span(most)}")  # fmt: skip

    slice_s = charter.slice_s
    yield from outside("slice_seconds", slice_s, SLICE_S, "a slice ends before work in it can begin",
                       "who asks waits a whole slice for an answer")  # fmt: skip
    yield from outside("period_slices", slice_s * charter.period_slices, PERIOD_S,
                       "an allowance comes in crumbs", "who has spent an allowance waits weeks for more")  # fmt: skip
    yield from outside("half_life_slices", slice_s * charter.half_life_slices, HALF_LIFE_S,
                       "past use is forgotten at once, and the fastest to ask gets everything",
                       "who has used much once waits for months")  # fmt: skip
    yield from outside("ageing_slices", slice_s * charter.ageing_slices, AGEING_S,
                       "waiting outweighs fair shares at once", "who waits is hardly helped by it")  # fmt: skip
    if charter.grace_slices == 0:
        yield Danger("grace_slices", "a receipt that comes a slice late is void, and its work unpaid",
                     f"set it to {max(1, DAY_S // slice_s)}, a day")  # fmt: skip
    elif charter.grace_slices * slice_s > GRACE_S_MAX:
        yield Danger("grace_slices", f"what a request has not spent stays reserved for "
                     f"{span(charter.grace_slices * slice_s)} after its end",
                     f"set it to {max(1, DAY_S // slice_s)}, a day")  # fmt: skip
    enrolment_s = slice_s * charter.period_slices * charter.enrolment_periods_max
    if enrolment_s > ENROLMENT_MAX_S:
        yield Danger("enrolment_periods_max",
                     f"an enrolment lasts {span(enrolment_s)}: who has left keeps an allowance",
                     "choose shorter periods: an enrolment ends after a year")  # fmt: skip


def _of_credits(charter: Charter) -> Iterator[Danger]:
    member, newcomer = charter.allowance
    most = max(charter.allowance)
    if most > charter.exposure_cap:
        yield Danger("exposure_cap", f"an allowance of {credits_text(most)} is above the cap of "
                     f"{credits_text(charter.exposure_cap)}: it can never be spent whole in its period",
                     "raise exposure_cap, or lower the allowance")  # fmt: skip
    elif charter.exposure_cap > CAP_ALLOWANCES_MAX * most > 0:
        yield Danger("exposure_cap", f"{credits_text(charter.exposure_cap)} are more than {CAP_ALLOWANCES_MAX:,} "
                     "allowances: it caps nothing, and a thief of one key can commit all that its owner has",
                     "choose about ten allowances")  # fmt: skip
    if not most:
        yield Danger("allowance", "nobody is given anything: who has no device can never ask",
                     "give members an allowance")  # fmt: skip
    elif not newcomer:
        yield Danger("allowance.newcomer", "newcomers are given nothing: who comes without a device cannot begin",
                     "give newcomers a part of a member's allowance, or all of it")  # fmt: skip
    if newcomer > member:
        yield Danger("allowance.newcomer", "newcomers get more than members: it pays to come anew",
                     "set allowance.newcomer to at most allowance.member")  # fmt: skip
    speeds = {device.name: device.peak for device in charter.devices}
    speeds |= {device.name: device.sustained for device in charter.cost.devices} if charter.cost else {}
    fastest = max(speeds, key=lambda name: speeds[name])
    possible = speeds[fastest] * charter.slice_s * charter.period_slices
    if most > possible:
        yield Danger("allowance", f"one allowance of {credits_text(most)} is more than a {fastest} can compute in a "
                     f"whole period ({credits_text(possible)}): nobody can be given it",
                     "lower it to a part of what the community's devices deliver in a period")  # fmt: skip
    elif most * ALLOWANCE_PARTS > possible:
        yield Danger("allowance", f"one allowance of {credits_text(most)} is more than half of what a {fastest} can "
                     f"compute in a whole period ({credits_text(possible)}): a person each would need a device",
                     "lower it to a part of what the community's devices deliver in a period")  # fmt: skip
    if charter.earned_periods < charter.allowance_periods:
        yield Danger("earned_periods", "what is earned by work is gone sooner than what is given",
                     "set earned_periods to at least allowance_periods")  # fmt: skip


def _of_sharing(charter: Charter) -> Iterator[Danger]:
    if charter.threshold == 0:
        return  # no reserve there
    if charter.newcomer_permille == 0:
        yield Danger("newcomer_permille", "nothing is kept for newcomers: in a full network they wait longest",
                     "100 to 200 are usual")  # fmt: skip
    elif charter.newcomer_permille > RESERVE_MAX:
        yield Danger("newcomer_permille", "more than half is kept for newcomers: members wait beside idle devices",
                     "100 to 200 are usual")  # fmt: skip


def _of_costs(charter: Charter) -> Iterator[Danger]:
    if charter.cost is None:
        yield Danger("cost", "no cost basis: nobody can tell what a credit costs to make, or emits",
                     "add [cost] and a [[cost.device]] for each device class")  # fmt: skip
        return
    known = {device.name for device in charter.cost.devices}
    missing = [device.name for device in charter.devices if device.name not in known]
    if missing:
        yield Danger("cost.device", f"no cost is said of {', '.join(missing)}",
                     "add a [[cost.device]] for each device class")  # fmt: skip


def _of_version(charter: Charter, now_period: int | None) -> Iterator[Danger]:
    if charter.number == 1 or now_period is None:
        return
    ahead_s = (charter.effective - now_period) * charter.slice_s * charter.period_slices
    if ahead_s > EFFECTIVE_S_MAX:
        yield Danger("effective_period", f"it is in force from {moment(charter, charter.effective)} on alone: no "
                     "version after it can hold sooner, so until then the rules stay as they are",
                     f"set effective_period to {max(0, now_period) + 2}, or some periods later")  # fmt: skip
    if charter.effective <= now_period:
        yield Danger("effective_period", f"it is in force from {moment(charter, charter.effective)}, which is past: "
                     "entries made since are judged again, and some may be dropped",
                     f"set effective_period to {now_period + 2} or later, and publish it at once")  # fmt: skip
