"""A charter in plain language, for who decides whether to join and for stewards before they sign. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from ubcp_p2p.charter.fields import RESERVE_PERMILLE_MAX
from ubcp_p2p.charter.prices import Price, prices
from ubcp_p2p.charter.values import Charter
from ubcp_p2p.units import credits_text, decimal_text

DIGITS: Final = 3  # of a figure of the cost table: the basis is hardly known better


class Line(NamedTuple):
    """One thing that the charter says, under its heading."""

    heading: str
    text: str


def lines(charter: Charter) -> list[Line]:
    """All that the charter says, but for signatures."""
    return [
        *_who(charter),
        *_credits(charter),
        *_sharing(charter),
        *(Line("a credit", text) for text in cost_lines(charter)),
    ]


def changes(charter: Charter, before: Charter) -> list[Line]:
    """What it says otherwise than the version before; what is gone begins with "no longer: "."""
    new, old = ([line for line in lines(one) if line.heading != "version"] for one in (charter, before))
    return [
        *(line for line in new if line not in old),
        *(Line(line.heading, f"no longer: {line.text}") for line in old if line not in new),
    ]


def cost_lines(charter: Charter) -> list[str]:
    """What one credit costs to make, on each device, and why."""
    said = ["1 PFLOP of training compute, at one price for everybody, whoever computes it on whatever device"]
    basis = charter.cost
    if basis is None:
        return [*said, "no cost basis: what it costs to make is not said"]
    said.append(f"its cost, at {decimal_text(basis.tariff, 6)} {basis.currency} and {basis.carbon_g:,} g CO2 per kWh:")
    by_name = {device.name: device for device in basis.devices}
    for price in prices(basis):
        device = by_name[price.device]
        said.append(f"{price.device}: {made(price, basis.currency)}")
        said.append(
            f"  by {figure(price.seconds)} s at {device.sustained:,} GFLOP/s, {decimal_text(device.power_mw, 3)} W, "
            f"{decimal_text(device.price, 6)} {basis.currency} for {device.lifetime_h:,} hours"
        )
    return said


def made(price: Price, currency: str) -> str:
    """What it costs to make."""
    return (
        f"{figure(price.total)} {currency}, of it {figure(price.energy)} for energy and {figure(price.hardware)} for "
        f"hardware; {figure(1000 * price.kwh)} Wh, {figure(price.gco2)} g CO2"
    )


def figure(value: Fraction) -> str:
    """Three significant digits at the most, without an exponent."""
    context = Context(prec=DIGITS)
    rounded = context.divide(Decimal(value.numerator), Decimal(value.denominator)) if value else Decimal(0)
    text = f"{rounded:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def span(seconds: int) -> str:
    """A duration: the largest unit of which there are at least two, or that fits once exactly."""
    for unit, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * unit or seconds == unit:
            number = figure(Fraction(seconds, unit)) if seconds % unit else f"{seconds // unit:,}"
            return f"{number} {name}{'' if number == '1' else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def period_start(charter: Charter, period: int) -> datetime | None:
    """When a period begins; None beyond the last year of calendars."""
    try:
        return datetime.fromtimestamp(charter.epoch + period * charter.period_slices * charter.slice_s, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def moment(charter: Charter, period: int) -> str:
    """The same in words."""
    start = period_start(charter, period)
    return f"{start:%Y-%m-%d %H:%M} UTC" if start else f"the start of period {period}"


def _periods(charter: Charter, count: int) -> str:
    return span(count * charter.period_slices * charter.slice_s)


def _who(charter: Charter) -> list[Line]:
    first = "it makes the network's id" if charter.number == 1 else f"it follows {charter.previous.hex()}"
    said = [
        Line("name", charter.name),
        Line("version", f"{charter.number}, in force from {moment(charter, charter.effective)}; {first}"),
    ]
    if charter.languages:
        said.append(Line("languages", ", ".join(charter.languages)))
    if not charter.threshold:
        said.append(Line("stewards", "nobody has to sign: an open network, where nobody vouches for persons"))
    else:
        said.append(
            Line(
                "stewards",
                f"{charter.threshold} of {len(charter.stewards)} must sign each enrolment and each new version",
            )
        )
    said += [Line("stewards", key.hex()) for key in charter.stewards]
    enrolment = charter.enrolment_periods_max
    said.append(Line("enrolment", f"for at most {_periods(charter, enrolment)} ({enrolment} periods), then anew"))
    units = ", ".join(f"{unit.name} (weight {unit.weight:,})" for unit in charter.units)
    said.append(Line("units", f"each has its share of the capacity: {units}"))
    return said


def _credits(charter: Charter) -> list[Line]:
    member, newcomer = (f"{credits_text(amount)} credits" for amount in charter.allowance)
    each = _periods(charter, 1)
    return [
        Line("allowance", f"every {each} a member gets {member}, a newcomer {newcomer}"),
        Line("allowance", f"what is not spent within {_periods(charter, charter.allowance_periods)} is gone; "
                          f"of what was earned, within {_periods(charter, charter.earned_periods)}"),
        Line("allowance", f"nobody can commit more than {credits_text(charter.exposure_cap)} credits in {each}"),
    ]  # fmt: skip


def _sharing(charter: Charter) -> list[Line]:
    def slices(count: int) -> str:
        return span(count * charter.slice_s)

    reserve = decimal_text(min(charter.newcomer_permille, RESERVE_PERMILLE_MAX), 1)
    kept = f"{reserve} % of each slice are kept for newcomers" if charter.threshold else "nothing is kept for newcomers"
    if charter.threshold and charter.newcomer_permille > RESERVE_PERMILLE_MAX:
        kept += f" (the most that can be; the charter says {decimal_text(charter.newcomer_permille, 1)} %)"
    refused = f"; never for {', '.join(charter.refused)}" if charter.refused else ""
    return [
        Line("sharing", f"a decision every {slices(1)}"),
        Line("sharing", kept),
        Line("sharing", f"past use counts half after {slices(charter.half_life_slices)}; "
                        f"a request that has waited {slices(charter.ageing_slices)} weighs double"),
        Line("sharing", f"receipts are taken until {slices(charter.grace_slices)} after a request's end"),
        Line("purposes", f"AI research and development for {', '.join(charter.purposes)}{refused}"),
    ]  # fmt: skip
