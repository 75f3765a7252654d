"""What is asked for, and what is known when it is judged. Values, and the reading of what a caller of the node says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ubcp_p2p.charter.values import Charter
from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.balances import StandingReport
from ubcp_p2p.ledger.entry import URGENCY_MAX, URGENCY_MIN
from ubcp_p2p.ledger.funds import Funds
from ubcp_p2p.models.recipe import PEERS_MAX, Recipe
from ubcp_p2p.models.run_name import check_name
from ubcp_p2p.peer.serving.supply import Supply
from ubcp_p2p.units import AMOUNT_MAX

TEXT_MAX: Final = 64  # of a purpose, and of a deadline as people write it
_SPANS: Final = {"h": 3600, "d": 86_400}
_SPAN_MAX: Final = 10_000  # hours or days


class Refused(UbcpError):
    """A request that is impossible, or that nobody may make: nothing was signed, and nothing is reserved.

    `reason` is a word for programs.
    """

    def __init__(self, reason: str, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


@dataclass(frozen=True)
class Wish:
    """What a person asks for; None where the node is to choose. budget: µcredits. urgency: per mille.

    part: others will pay for the rest of the run. again: beside an open request of one's own for the same run.
    accept_unchecked: work that nobody checks is paid for.
    """

    run: str
    recipe: Recipe
    purpose: str | None = None
    budget: int | None = None
    urgency: int = URGENCY_MIN
    deadline: str | None = None
    peers_min: int = 1
    peers_max: int | None = None
    part: bool = False
    again: bool = False
    accept_unchecked: bool = False


@dataclass(frozen=True)
class Known:
    """What the judgement goes by, all of one moment.

    open: the community's open REQUESTs, with the units done of each; none of who is frozen, for nobody serves them.
    paymaster: how this node stands in the ledger, which is to pay the contributors; None where it has no chain there.
    node: its key.
    """

    charter: Charter
    now: int
    funds: Funds
    node: bytes
    paymaster: StandingReport | None
    open: tuple[tuple[Asked, int], ...]
    supply: Supply


def wish_of(request: Mapping[str, Any]) -> Wish:
    """From the fields of a control request. Raises ConfigError for what breaks a limit."""
    run = _text(request, "run", 10**4) or ""
    check_name(run)
    recipe = Recipe.from_toml(str(request["recipe"]), where=str(request.get("where", "the recipe")))
    peers_max = _number(request, "peers_max", 1, PEERS_MAX)
    return Wish(
        run=run,
        recipe=recipe,
        purpose=_text(request, "purpose", TEXT_MAX),
        budget=_number(request, "budget", 1, AMOUNT_MAX),
        urgency=_number(request, "urgency", URGENCY_MIN, URGENCY_MAX) or URGENCY_MIN,
        deadline=_text(request, "deadline", TEXT_MAX),
        peers_min=_number(request, "peers_min", 1, PEERS_MAX) or 1,
        peers_max=peers_max,
        part=bool(request.get("part", False)),
        again=bool(request.get("again", False)),
        accept_unchecked=bool(request.get("accept_unchecked", False)),
    )


def deadline_slice(charter: Charter, text: str, now: int) -> int:
    """The last slice that is over by a moment: `12h` or `3d` from slice `now` on, or a date. Raises ConfigError."""
    number, unit = text[:-1], text[-1:]
    if unit in _SPANS and number.isascii() and number.isdigit() and len(number) < 6 and int(number) <= _SPAN_MAX:
        return now + int(number) * _SPANS[unit] // charter.slice_s
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"the deadline {text!r} is neither a time from now nor a date",
            hint="such as 12h, 3d, 2026-12-24 or 2026-12-24T18:00+01:00",
        ) from None
    unix_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return max(0, charter.slice_at(unix_s) - 1)


def begins_s(charter: Charter, slice_: int) -> int:
    """Unix seconds at which a slice begins."""
    return charter.epoch + slice_ * charter.slice_s


def moment(charter: Charter, slice_: int) -> str:
    """The beginning of a slice, for people: "2026-12-24 18:00 UTC"."""
    try:
        return datetime.fromtimestamp(begins_s(charter, slice_), UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return f"the beginning of slice {slice_}"


def _text(request: Mapping[str, Any], name: str, bytes_max: int) -> str | None:
    value = request.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value or len(value.encode("utf-8", "surrogatepass")) > bytes_max:
        raise ConfigError(f"{name} must be a text of 1 to {bytes_max} bytes", hint="see `ubcp submit --help`")
    if not value.isprintable():
        raise ConfigError(f"{name} has a character that does not print", hint="remove it")
    return value


def _number(request: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = request.get(name)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name} must be a whole number from {low:,} to {high:,}", hint="see `ubcp submit --help`")
    return value
