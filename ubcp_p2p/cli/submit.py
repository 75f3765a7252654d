"""`ubcp submit`: shows what a run would cost and whether it can be had, then signs the request for it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ubcp_p2p.cli.account import agreed, sign_draft
from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at, say
from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.log import printable

TIMEOUT_S = 120.0


def submit(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a recipe file (TOML).")],
    run: Annotated[
        str, typer.Option("--run", metavar="NAME", help="The run's name: with the same recipe it is the same run.")
    ],
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="CREDITS", help="The most that it may cost [default: the whole run]."),
    ] = None,
    purpose: Annotated[
        str | None,
        typer.Option("--purpose", metavar="WORD", help="One of the charter's purposes [default: where it has one]."),
    ] = None,
    urgency: Annotated[
        str, typer.Option("--urgency", metavar="1…2", help="Counts for more, and is charged to your share by as much.")
    ] = "1",
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", metavar="TIME", help="12h, 3d, a date or a moment [default: a period from now]."),
    ] = None,
    peers_min: Annotated[int, typer.Option("--peers-min", min=1, metavar="N", help="So many at least.")] = 1,
    peers_max: Annotated[
        int | None, typer.Option("--peers-max", min=1, metavar="N", help="So many at most [default: the recipe's].")
    ] = None,
    part: Annotated[
        bool, typer.Option("--part", help="Pay for a part of the run: others will pay for the rest.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Beside an open request of yours for the same run.")] = False,
    accept_unchecked: Annotated[
        bool, typer.Option("--accept-unchecked", help="Pay for work that nobody can check, or that the recipe lets be.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking.")] = False,
    profile: ProfileOption = None,
    json: JsonOption = False,
) -> None:
    """Ask the community to train a recipe.

    The running node says first what it costs, what the account has, how many peers could serve it and how long it is
    expected to wait. What is impossible is refused before anything is reserved (exit code 1). Then the account key
    signs a REQUEST, which reserves the budget, and the node tells it; it also keeps the recipe for its peers.

    With --json and without --yes nothing is signed: the document is the quote, and its `request` is null.
    """
    from ubcp_p2p.models.recipe import load_recipe
    from ubcp_p2p.peer.control import call

    place = profile_at(profile)
    chosen = load_recipe(recipe)
    wish: dict[str, Any] = {
        "recipe": chosen.to_toml(), "where": recipe, "run": run, "budget": _credits(budget), "purpose": purpose,
        "urgency": _per_mille(urgency), "deadline": deadline, "peers_min": peers_min, "peers_max": peers_max,
        "part": part, "again": again, "accept_unchecked": accept_unchecked,
    }  # fmt: skip
    quote = call(place, "submit-quote", timeout_s=TIMEOUT_S, **wish)
    draft = bytes.fromhex(quote.pop("draft"))
    if not json:
        _print_quote(quote)
    if not yes and (json or not agreed("Sign this request?")):
        if json:
            emit_json({**quote, "request": None, "outcome": None})
        else:
            say("nothing was signed, and nothing is reserved")
        return
    form = _signed(place.account_key, draft, chosen.hash(), quote)
    done = call(
        place, "submit", timeout_s=TIMEOUT_S, entry=form, recipe=wish["recipe"], where=recipe, part=part, again=again,
        accept_unchecked=accept_unchecked,
    )  # fmt: skip
    if json:
        emit_json({**quote, "request": done["id"], "outcome": done["outcome"]})
    else:
        print(f"asked for: request {done['id']}")
        say(printable(f"this node fetches the model by itself: `ubcp runs show {quote['run']}` says how far it is"))


def _signed(path: Any, draft: bytes, recipe: bytes, quote: dict[str, Any]) -> str:
    """The draft with the account key's signature, in hexadecimal: after a look at what it says."""
    from ubcp_p2p.ledger.entry import Request
    from ubcp_p2p.ledger.parse import decode

    entry = decode(draft)
    body = entry.body
    shown = (quote["run"], recipe, quote["purpose"], quote["budget"], quote["account"], quote["deadline_slice"])
    if not isinstance(body, Request) or shown != (
        body.run, body.recipe, body.purpose, body.credits, entry.author.hex(), body.deadline
    ):  # fmt: skip
        raise UbcpError("the node's draft says something else than its quote: nothing was signed")
    return sign_draft(path, draft, quote["signer"])


def _credits(text: str | None) -> int | None:
    from ubcp_p2p.units import parse_credits

    try:
        return None if text is None else parse_credits(text)
    except ValueError as error:
        raise ConfigError(str(error), hint="such as --budget 12.5") from None


def _per_mille(text: str) -> int:
    from ubcp_p2p.ledger.entry import URGENCY_MAX, URGENCY_MIN
    from ubcp_p2p.units import parse_decimal

    try:
        found = parse_decimal(text, 3, "times")
    except ValueError:
        found = 0
    if not URGENCY_MIN <= found <= URGENCY_MAX:
        raise ConfigError(f"the urgency {text!r:.80} is no number from 1 to 2", hint="such as --urgency 1.5")
    return found


def _print_quote(quote: dict[str, Any]) -> None:
    from ubcp_p2p.allocator.words import duration
    from ubcp_p2p.units import credits_text

    def line(label: str, text: str) -> None:
        print(printable(f"{label:<12}{text}"))

    line("run", f"{quote['run']}: {quote['recipe']}, {quote['rounds']:,} rounds, for {quote['purpose']}")
    least, most = quote["price"]["min"], quote["price"]["max"]
    peers = f"{quote['peers_min']} to {quote['peers_max']} peers"
    line("price", f"{credits_text(least)} to {credits_text(most)} credits for the whole run, with {peers}")
    line("", f"{quote['units_per_peer_and_round']:,} GFLOP for a peer's round; 1 credit pays for 1 PFLOP")
    line("budget", f"{credits_text(quote['budget'])} credits at most, of {credits_text(quote['available'])} available")
    if quote.get("unchecked") is not None:
        line("unchecked", f"{quote['unchecked']}; an account earns {credits_text(quote['share'])} credits at most")
    if quote["others"]["accounts"]:
        others = quote["others"]
        line(
            "", f"{others['accounts']} others pay for this run too: {credits_text(others['credits'])} credits are left"
        )
    for row in quote["devices"]:
        cost = f"{row['money']:,.4g} {quote['currency']}, {1000 * row['kwh']:,.4g} Wh, {row['gco2']:,.4g} g CO2"
        line("", f"made on {row['device']} that costs {cost}")
    found = quote["feasibility"]
    if found is None:
        line("peers", "nobody knows: no peer had anything to decide on lately")
    else:
        when = "have decided in the last slices and" if found["recent"] else "have decided in the last period and"
        line("peers", f"{found['peers']} {when} could serve it; it takes {found['slices']:,} slices at least")
    wait = quote["expected_wait_s"]
    expected = "nobody can say" if wait is None else "none" if wait == 0 else f"within {duration(wait)}"
    line("wait", f"{expected}, from the next slice on, by an estimate")
    if quote["queue"] is not None:
        line("queue", f"number {quote['queue']}")
    line("", quote["words"])
    line("deadline", quote["deadline"])
