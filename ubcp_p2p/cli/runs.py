"""`ubcp runs`, `runs show`, `fetch`, `stop`: what is trained and asked for; a trained model; an end of paying."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ubcp_p2p.cli.account import agreed, sign_draft
from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at, say
from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.log import printable

runs = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

TIMEOUT_S = 120.0
_BLOCK: Final = 1 << 20
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
    for copy in document["fetched"]:
        print(printable(f"fetched  {_copy(copy)}"))
    if not any(document.values()):
        print("no runs; `ubcp train RECIPE --run NAME` begins one")


@runs.command()
def show(name: NameArgument, profile: ProfileOption = None, json: JsonOption = False) -> None:
    """Show all that is known of the runs of one name: here, elsewhere, and each request that pays for it."""
    from ubcp_p2p.cli.node import describe_run
    from ubcp_p2p.peer.control import call

    document = call(profile_at(profile), "run", timeout_s=TIMEOUT_S, run=name)
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
    for copy in document["fetched"]:
        print(printable(f"fetched  {_copy(copy)}"))
    for words in document["fetch_troubles"]:
        print(printable(f"fetched  not the newest: {words}"))


@runs.command()
def fetch(
    name: NameArgument,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write it there, where no file is.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="RECIPE", help="The run's recipe, where peers cannot show it: name or file."),
    ] = None,
    profile: ProfileOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch the model of a run: the newest round that its peers have committed.

    The running node downloads it from peers of the run, checks it against what more than half of the round's group
    signed, and keeps it in the profile (safetensors). Nobody need train for that, and no torch is needed. Of a run that
    is paid for, those are asked who earn with it. When nobody is there, it is the copy that the node has kept.
    """
    from ubcp_p2p.models.recipe import load_recipe
    from ubcp_p2p.peer.control import stream

    if out is not None and out.exists():
        raise ConfigError(f"{out} is there already; nothing was fetched", hint="name another FILE, or move it away")
    more: dict[str, Any] = {} if recipe is None else {"recipe": load_recipe(recipe).to_toml(), "where": recipe}
    found: dict[str, Any] = {}
    for message in stream(profile_at(profile), "fetch", run=name, **more):
        if "ok" in message:
            found = message["ok"]
        else:
            _show(message["event"])
    if found["words"]:
        say(printable(found["words"]))
    if out is not None:
        _write(Path(found["path"]), out)
    if json:
        emit_json(found)
    else:
        print(printable(_copy({**found, "path": str(out) if out is not None else found["path"]})))


def _show(event: dict[str, Any]) -> None:
    """One line a happening on stderr; progress only on a terminal, in place."""
    terminal = sys.stderr.isatty()
    if event["kind"] == "progress":
        if terminal:
            text = f"{event['bytes']:,} of {event['of']:,} bytes"
            print(
                f"\r\x1b[K{text}{chr(10) if event['bytes'] == event['of'] else ''}", end="", file=sys.stderr, flush=True
            )
    elif event["kind"] == "asking":
        say(f"asking {event['peers']} peer{'' if event['peers'] == 1 else 's'} what they stand on")
    elif event["kind"] == "downloading":
        say(f"round {event['round']}, {event['of']:,} bytes, from {event['peer'][:16]}…")
    elif event["kind"] == "passed over":
        say(printable(f"passed over {event['peer'][:16]}…: {event['reason']}"))


def _write(path: Path, out: Path) -> None:
    """Raises LocalIOError."""
    from ubcp_p2p.files import open_atomic, open_input

    with open_input(path) as source, open_atomic(out) as target:
        while block := source.read(_BLOCK):
            target.write(block)


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


def _claimed(claim: dict[str, Any]) -> str:
    return f"claimed  {claim['name']} ({claim['recipe']}): round {claim['round']}, by {claim['peers']} peers"


def _copy(copy: dict[str, Any]) -> str:
    return f"{copy['name']} ({copy['recipe']}): round {copy['round']} of {copy['rounds']}, in {copy['path']}"


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
    lines += [f"unchecked: {request['unchecked']}"] if request.get("unchecked") else []
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
