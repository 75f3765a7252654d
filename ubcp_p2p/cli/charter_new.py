"""`ubcp charter new`: a community's first charter from a few answers, or the next version of one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at, say
from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.log import printable

if TYPE_CHECKING:
    from ubcp_p2p.charter.draft import Answers
    from ubcp_p2p.charter.values import Charter, Unit

T = TypeVar("T")

AHEAD: Final = 2  # periods from now until a new version holds: at least one whole, for all to learn of it
COSTS: Final = ("currency", "tariff", "carbon")


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path("charter.toml"),
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What the community is called.")] = None,
    language: Annotated[
        list[str] | None, typer.Option("--language", metavar="TAG", help="As en, pt-BR (repeatable).")
    ] = None,
    steward: Annotated[
        list[str] | None,
        typer.Option("--steward", metavar="ACCOUNT", help="An account key in hex (repeatable) [default: your own]."),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option("--threshold", metavar="K", help="How many stewards must sign [default: a majority].")
    ] = None,
    allowance: Annotated[
        str | None, typer.Option("--allowance", metavar="CREDITS", help="Of a member, a week [default: 10000].")
    ] = None,
    newcomer_allowance: Annotated[
        str | None, typer.Option("--newcomer-allowance", metavar="CREDITS", help="[default: as a member's].")
    ] = None,
    exposure_cap: Annotated[
        str | None,
        typer.Option("--exposure-cap", metavar="CREDITS", help="One can commit a week [default: 10 allowances]."),
    ] = None,
    newcomer_permille: Annotated[
        int | None, typer.Option("--newcomer-permille", metavar="N", help="Kept for newcomers [default: 150].")
    ] = None,
    purpose: Annotated[
        list[str] | None, typer.Option("--purpose", metavar="PURPOSE", help="That requests may have (repeatable).")
    ] = None,
    refuse: Annotated[
        list[str] | None, typer.Option("--refuse", metavar="PURPOSE", help="That nothing is for (repeatable).")
    ] = None,
    unit: Annotated[
        list[str] | None, typer.Option("--unit", metavar="NAME[=WEIGHT]", help="A school, lab, … (repeatable).")
    ] = None,
    currency: Annotated[str | None, typer.Option("--currency", metavar="CODE", help="As EUR: of the costs.")] = None,
    tariff: Annotated[str | None, typer.Option("--tariff", metavar="MONEY", help="Of a kWh, as 0.30.")] = None,
    carbon: Annotated[
        str | None,
        typer.Option("--carbon", metavar="GRAMS|COUNTRY", help="Of CO2 for a kWh; or the average of a country, as DE."),
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="OLD", help="Make the version that follows this one.")
    ] = None,
    effective: Annotated[
        int | None,
        typer.Option("--effective", metavar="PERIOD", help="With --from: when it begins to hold [default: in two]."),
    ] = None,
    profile: ProfileOption = None,
    json: JsonOption = False,
) -> None:
    """Write a charter, to be read, changed where you like, and signed.

    On a terminal it asks for what the options have not said. Weeks are periods, slices last 15 minutes; the file has
    all of it, with a word on each key. With --from it is the next version of a charter: the same rules from another
    period on, for you to change. An existing file is never overwritten.
    """
    from ubcp_p2p.charter.document import to_toml
    from ubcp_p2p.charter.draft import epoch_at, first
    from ubcp_p2p.charter.values import CharterError, SignedCharter
    from ubcp_p2p.files import create_new

    given = {
        "name": name, "language": language, "steward": steward, "threshold": threshold, "allowance": allowance,
        "newcomer-allowance": newcomer_allowance, "exposure-cap": exposure_cap, "newcomer-permille": newcomer_permille,
        "purpose": purpose, "refuse": refuse, "unit": unit, "currency": currency, "tariff": tariff, "carbon": carbon,
    }  # fmt: skip
    if file.exists():
        raise _exists(file)
    try:
        if from_ is not None:
            charter = _next(from_, effective, given)
        else:
            if effective is not None:
                raise ConfigError("--effective is for a next version", hint="--from OLD names the version before")
            asks = sys.stdin.isatty() and not json
            charter = first(_answers(given, _own_account(profile), asks), epoch=epoch_at(time.time()))
    except CharterError as error:
        raise ConfigError(error.message, hint=f"the key is {error.key}: `ubcp charter new --help`") from None
    try:
        create_new(file, to_toml(SignedCharter(charter)).encode(), mode=0o644)  # a charter is there to be read
    except FileExistsError:
        raise _exists(file) from None
    _tell(file, charter, from_, json)


def _exists(file: Path) -> ConfigError:
    return ConfigError(f"{file} is there already; nothing was changed", hint="name another FILE, or move it away")


def _tell(file: Path, charter: Charter, old: Path | None, json: bool) -> None:
    from ubcp_p2p.charter.dangers import clock_period, dangers
    from ubcp_p2p.charter.words import moment

    found = dangers(charter, now_period=clock_period(charter, time.time()))
    if json:
        emit_json(
            {
                "file": str(file), "name": charter.name, "number": charter.number, "id": charter.id.hex(),
                "effective_period": charter.effective, "threshold": charter.threshold,
                "stewards": [key.hex() for key in charter.stewards],
                "dangers": [danger._asdict() for danger in found],
            }
        )  # fmt: skip
        return
    start = f", to hold from {moment(charter, charter.effective)}" if charter.number > 1 else ""
    print(printable(f"{file}: {charter.name}, version {charter.number}{start}; not signed"))
    previous = f" --previous {old}" if old is not None else ""
    if charter.number > 2:
        previous += " --previous …"  # where the versions before that one are, nobody has said here
    say(f"next: change {file} where you like; `ubcp charter check {file}{previous}` says what is dangerous,")
    say(f"      `ubcp charter sign {file}{previous}` signs it, which any later change undoes")


def _next(old: Path, effective: int | None, given: dict[str, Any]) -> Charter:
    """Raises ConfigError, CharterError."""
    from ubcp_p2p.charter.document import load
    from ubcp_p2p.charter.draft import following
    from ubcp_p2p.charter.values import check_follows

    unused = [option for option, value in given.items() if value is not None]
    if unused:
        raise ConfigError(f"--{unused[0]} does not go with --from", hint="change it in the new file")
    before = load(old).charter
    now = before.period(before.slice_at(time.time()))
    charter = following(before, max(now + AHEAD, before.effective + 1) if effective is None else effective)
    if charter.effective <= before.effective:
        raise ConfigError(
            f"--effective {charter.effective} is not after {before.effective}, when version {before.number} began",
            hint=f"it is period {now} now; choose {now + AHEAD} or later",
        )
    check_follows(charter, before)
    return charter


# -- questions --------------------------------------------------------------------------------------------------------


def _answers(given: dict[str, Any], own: bytes | None, asks: bool) -> Answers:
    """What the options say, and the terminal where they say nothing. Raises ConfigError."""
    from ubcp_p2p.charter.draft import ALLOWANCE, NEWCOMER_PERMILLE, PURPOSES, REFUSED, UNITS, Answers, majority
    from ubcp_p2p.charter.fields import check_threshold
    from ubcp_p2p.units import credits_text, parse_credits

    def answer(option: str, question: str, default: str | None, parse: Callable[[str], T]) -> T:
        """From the option, else from the terminal, else the default; without a default it is asked until it is said."""
        value = given[option]
        if value is not None:
            return _parsed(option, ", ".join(value) if isinstance(value, list) else str(value), parse)
        if asks:
            return _asked(question, default, parse)
        assert default is not None  # refused above, where there is no terminal
        return parse(default)

    if given["name"] is None and not asks:
        raise ConfigError("the community has no name, and there is no terminal to ask on", hint="--name NAME")
    costs = [option for option in COSTS if given[option] is not None]
    if costs and len(costs) < len(COSTS) and not asks:
        missing = next(option for option in COSTS if option not in costs)
        raise ConfigError(f"--{missing} is missing", hint="a cost basis has --currency, --tariff and --carbon")
    stewards_before = [] if own is None else [own.hex()]
    name = answer("name", "Name of the community", None, _name)
    languages = answer("language", "Languages, as en, pt-BR", "en", _languages)
    stewards = answer("steward", "Account keys of the stewards, or none", ", ".join(stewards_before), _keys)

    def enough(text: str) -> int:
        check_threshold(number := _count(text), len(set(stewards)))
        return number

    threshold = answer("threshold", "How many of them must sign", str(majority(len(stewards))), enough)
    member = answer("allowance", "Credits (PFLOP) for each member a week", credits_text(ALLOWANCE), parse_credits)
    purposes = answer("purpose", "Purposes allowed", ", ".join(PURPOSES), _purposes)
    refused = answer("refuse", "Purposes refused, or none", ", ".join(REFUSED), lambda text: _refused(text, purposes))
    has_costs = bool(costs) or asks
    currency = answer("currency", "Currency of the costs, or none", "EUR", _currency) if has_costs else None
    if currency is not None:
        # No defaults: what was guessed would stand in the charter as if somebody had looked it up.
        tariff = answer("tariff", f"What a kWh costs, in {currency}", None, lambda text: _tariff(currency, text))
        carbon_g = answer("carbon", "Grams of CO2 for a kWh, or a country for its average, as DE", None, _carbon)
    else:
        tariff = carbon_g = 0
    newcomer, cap = (
        None if given[option] is None else _parsed(option, given[option], parse_credits)
        for option in ("newcomer-allowance", "exposure-cap")
    )
    permille = given["newcomer-permille"]
    return Answers(
        name=name, languages=languages, stewards=stewards, threshold=threshold, member=member, newcomer=newcomer,
        exposure_cap=cap, newcomer_permille=NEWCOMER_PERMILLE if permille is None else permille, purposes=purposes,
        refused=refused, units=UNITS if given["unit"] is None else [_unit(text) for text in given["unit"]],
        currency=currency, tariff=tariff, carbon_g=carbon_g,
    )  # fmt: skip


def _parsed(option: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"--{option}: {error}", hint="`ubcp charter new --help` says what it takes") from None


def _asked(question: str, default: str | None, parse: Callable[[str], T]) -> T:
    """From the terminal, again until it can be read."""
    while True:
        text = typer.prompt(question, default=default or "", show_default=bool(default), err=True)
        if default is None and not text.strip():
            say("this has no default: an answer is needed")
            continue
        try:
            return parse(text)
        except ValueError as error:
            say(printable(str(error)))
        except UbcpError as error:
            say(printable(error.message if error.hint is None else f"{error.message}: {error.hint}"))


def _name(text: str) -> str:
    from ubcp_p2p.charter.fields import check_name

    if not text.strip() or not text.isprintable():
        raise ValueError("a name is needed, of characters that print")
    check_name(text.strip())
    return text.strip()


def _count(text: str) -> int:
    if not text.strip().isdecimal() or len(text) > 16:
        raise ValueError(f"{text!r:.80} is no number")
    return int(text)


def _currency(text: str) -> str | None:
    from ubcp_p2p.charter.fields import check_energy

    if text.strip().lower() == "none":
        return None
    check_energy(text.strip(), 0, 0)
    return text.strip()


def _tariff(currency: str, text: str) -> int:
    from ubcp_p2p.charter.fields import check_energy
    from ubcp_p2p.units import parse_decimal

    check_energy(currency, found := parse_decimal(text, 6, "money"), 0)
    return found


def _carbon(text: str) -> int:
    """Grams, or those of a country by the table of yearly averages."""
    from ubcp_p2p.carbon.table import find
    from ubcp_p2p.charter.fields import check_energy

    found = find(text).g_per_kwh if text.strip().isalpha() else _count(text)
    check_energy("XXX", 0, found)
    return found


def _languages(text: str) -> list[str]:
    from ubcp_p2p.charter.fields import check_languages

    check_languages(sorted(set(found := _names(text))))
    return found


def _purposes(text: str) -> list[str]:
    from ubcp_p2p.charter.fields import check_purposes

    check_purposes(sorted(set(found := _names(text)), key=str.encode), ())
    return found


def _refused(text: str, purposes: list[str]) -> list[str]:
    from ubcp_p2p.charter.fields import check_purposes

    found = [] if text.strip().lower() == "none" else _names(text)
    check_purposes(*(sorted(set(names), key=str.encode) for names in (purposes, found)))
    return found


def _names(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not all(name.isprintable() for name in names):
        raise ValueError("a character does not print")
    return names


def _keys(text: str) -> list[bytes]:
    keys = []
    for part in _names("" if text.strip().lower() == "none" else text):
        if len(part) != 64 or part.strip("0123456789abcdef"):
            raise ValueError(f"{part!r:.80} is no account key: 64 hex digits, as `ubcp init` prints")
        keys.append(bytes.fromhex(part))
    return keys


def _unit(text: str) -> Unit:
    from ubcp_p2p.charter.values import Unit

    name, equals, weight = text.rpartition("=")
    if not equals:
        return Unit(_parsed("unit", text, _name), 1)
    return Unit(_parsed("unit", name, _name), _parsed("unit", weight, _count))


def _own_account(profile: Path | None) -> bytes | None:
    """The account of the profile, if there is one."""
    from ubcp_p2p.keys import Ownership

    path = profile_at(profile).owner_file
    try:
        return Ownership.load(path).account if path.exists() else None
    except UbcpError:
        return None
