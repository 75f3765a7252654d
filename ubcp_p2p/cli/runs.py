"""`ubcp runs`, `ubcp runs show`, `ubcp runs stop`: what is trained and what was asked for; an end of paying."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ubcp_p2p.cli.account import agreed, sign_draft
from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at, say
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.log import printable

runs = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

TIMEOUT_S = 120.0
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The run's name.")]


@runs.callback(invoke_without_command=True)
def list_(context: typer.Context, profile: ProfileOption = None, json: JsonOption = False) -> None:
    """List the runs that the network knows: this node's own, what other peers claim, and what is paid for.

    Of a community with a ledger also the open requests, and those of this account that it has not closed: what is
    reserved and paid, who holds leases, and how long each is expected to wait.
    """
    if context.invoked_subcommand is not None:
        return
    from ubcp_p2p.cli.node import describe_run
    from ubcp_p2p.peer.control import call

    document = call(profile_at(profile), "runs", timeout_s=TIMEOUT_S)
    if json:
        emit_json(document)
        return
    for own in document["own"]:
        print(f"here     {describe_run(own)}")
    here = {own["run_id"] for own in document["own"]}
    for claim in document["claimed"]:
        if claim["run_id"] not in here:
            print(printable(_claimed(claim)))
    for request in document["requests"]:
        print(printable(f"asked    {_asked(request)}"))
    if not any(document.values()):
        print("no runs; `ubcp train RECIPE --run NAME` begins one")


@runs.command()
def show(name: NameArgument, profile: ProfileOption = None, json: JsonOption = False) -> None:
    """Show all that is known of the runs of one name: here, elsewhere, and each request that pays for it."""
    from ubcp_p2p.cli.node import describe_run
    from ubcp_p2p.peer.control import call

    found = call(profile_at(profile), "runs", timeout_s=TIMEOUT_S, run=name)
    document = {key: [row for row in found[key] if _name(row) == name] for key in ("own", "claimed", "requests")}
    if not any(document.values()):
        names = sorted({_name(row) for rows in found.values() for row in rows})
        raise UbcpError(f"nobody knows a run called {name!r}", hint=f"known: {', '.join(names) or 'none'}")
    if json:
        emit_json(document)
        return
    for own in document["own"]:
        print(f"here     {describe_run(own)}")
    for claim in document["claimed"]:
        print(printable(_claimed(claim)))
    for request in document["requests"]:
        print(printable(f"asked    {_asked(request)}"))
        for line in _details(request):
            print(printable(f"         {line}"))


@runs.command()
def stop(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking.")] = False,
    profile: ProfileOption = None,
    json: JsonOption = False,
) -> None:
    """Close this account's requests for a run: what was not paid returns.

    A ledger lets a request be closed when its expiry and the charter's grace are over, for until then contributors may
    hand in receipts; earlier it is refused, with when (exit code 1). The account key signs a CLOSE for each.
    """
    from ubcp_p2p.ledger.entry import Close
    from ubcp_p2p.ledger.parse import decode
    from ubcp_p2p.peer.control import call
    from ubcp_p2p.units import credits_text

    place = profile_at(profile)
    done: list[dict[str, Any]] = []
    while True:
        found = call(place, "close-draft", timeout_s=TIMEOUT_S, run=name)
        draft = bytes.fromhex(found["draft"])
        entry = decode(draft)
        body, shown = entry.body, (found["request"], found["returned"], found["account"])
        if not isinstance(body, Close) or shown != (body.request.hex(), body.returned, entry.author.hex()):
            raise UbcpError("the node's draft says something else than it shows: nothing was signed")
        words = f"{credits_text(found['returned'])} credits return, {credits_text(found['paid'])} were paid"
        if not yes:
            say(printable(f"request {found['request'][:16]}… for {name}: {words}"))
            if not agreed("Sign this CLOSE?"):
                break
        form = sign_draft(place.account_key, draft, found["signer"])
        call(place, "close", timeout_s=TIMEOUT_S, entry=form)
        done.append({"request": found["request"], "returned": found["returned"], "paid": found["paid"]})
        if not json:
            print(printable(f"closed {found['request'][:16]}… for {name}: {words}"))
        if not found["more"]:
            break
    if json:
        emit_json({"run": name, "closed": done})


def _name(row: dict[str, Any]) -> str:
    """A run's name: requests have it as `run`."""
    return str(row.get("name", row.get("run")))


def _claimed(claim: dict[str, Any]) -> str:
    return f"claimed  {claim['name']} ({claim['recipe']}): round {claim['round']}, by {claim['peers']} peers"


def _asked(request: dict[str, Any]) -> str:
    from ubcp_p2p.units import credits_text

    who = "you" if request["mine"] else f"{request['account'][:16]}…"
    money = f"{credits_text(request['paid'])} of {credits_text(request['reserved'])} credits paid"
    return f"{request['run']}, by {who}: {_STATES[request['state']]}, {money}; until {request['deadline']}"


_STATES = {
    "waiting": "waiting",
    "served": "being served",
    "done": "all of it paid",
    "over": "its deadline has passed",
    "closed": "closed by its paymaster",
}


def _details(request: dict[str, Any]) -> list[str]:
    from ubcp_p2p.allocator.words import duration

    lines = [
        f"request {request['request']}",
        f"recipe {request['recipe'] or 'that no peer could show'} ({request['recipe_hash']})",
        f"for {request['purpose']}, {request['peers_min']} to {request['peers_max']} peers, asked {request['asked']}",
    ]
    leases = request["leases"]
    if leases is not None:
        lines.append(f"slice {leases['slice']} is held by {', '.join(node[:16] + '…' for node in leases['nodes'])}")
    if request["words"] is not None:
        wait = request["expected_wait_s"]
        said = "nobody can say" if wait is None else "none" if wait == 0 else f"within {duration(wait)}"
        place = f", number {request['queue']} in the queue" if request["queue"] else ""
        lines += [f"expected wait for the next slice: {said}{place}", request["words"]]
    lines += [line for found in request.get("checks", ()) for line in _checks(found)]
    if request["mine"]:
        lines.append(f"`ubcp runs stop` can close it from {request['closable']} on")
    return lines


def _checks(found: dict[str, Any]) -> list[str]:
    """What checks led to for one contributor, where there is something to say."""
    lines = []
    if found["waiting"] or found["withheld"] or found["words"]:
        parts = [f"{found['waiting']} rounds wait for a check"] if found["waiting"] else []
        parts += [f"{found['withheld']} are not paid"] if found["withheld"] else []
        parts += ["nothing more is paid"] if found["barred"] else []
        lines.append(f"contributor {found['node'][:16]}…: {', '.join(parts) or 'paid'}")
        lines += [f"  {found['words']}"] if found["words"] else []
        lines += [f"  `ubcp verify {found['evidence']} RECIPE` shows it to anyone"] if found["evidence"] else []
    return lines
