"""`ubcp ledger export`, `import`, `show` and `ubcp credits`: what is in a store, also beside a running node."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at, say
from ubcp_p2p.errors import ConfigError, Exit
from ubcp_p2p.log import printable

SHOWN_MAX: Final = 20  # refused entries in words; --json has up to 1000

StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="FILE", help="The ledger store [default: that of the profile].")
]


def export(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write it [default: stdout].")
    ] = None,
    profile: ProfileOption = None,
    store: StoreOption = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="SLICE|DATE", help="Leave out later entries, and what needs them.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    json: JsonOption = False,
) -> None:
    """Write the whole ledger to a file that anybody can audit: `ubcp audit FILE`.

    It has all entries in the order in which this node has got them, the charters, fork proofs and evidence. The node
    may be running. --json needs --out.
    """
    from ubcp_p2p.cli.audit import slice_of
    from ubcp_p2p.files import open_atomic
    from ubcp_p2p.ledger.database import files_of
    from ubcp_p2p.ledger.store import Store
    from ubcp_p2p.ledger.targets import check_export_target
    from ubcp_p2p.ledger.transfer import export_store

    if out is None and (json or sys.stdout.isatty()):
        raise ConfigError("an export is no text: it goes to a file", hint="--out FILE, or redirect stdout")
    path = _store_path(profile, store)
    if out is not None:
        check_export_target(out, inputs=files_of(path), force=force)
    until = None if as_of is None else lambda charter: slice_of(charter, as_of)
    with Store.open(path, read_only=True, until=until) as opened:
        log = _log_of(profile, path)
        if out is None:
            done = export_store(opened, sys.stdout.buffer, log=log)
            sys.stdout.buffer.flush()
        else:
            with open_atomic(out) as file:
                done = export_store(opened, file, log=log)
        network, later = opened.ledger.network.hex(), len(opened.ahead.ids) + len(opened.ahead.dependent)
    if done.proofs_left_out or done.frozen_left_out:
        say(
            f"an export has no room for so many forks: {done.proofs_left_out} proofs and {done.frozen_left_out} frozen "
            "authors were left out"
        )
    if out is None:
        return
    if json:
        emit_json(
            {
                "file": str(out), "network": network, "entries": done.entries, "log": log and log.hex(),
                "later": later, "proofs_left_out": done.proofs_left_out, "frozen_left_out": done.frozen_left_out,
            }
        )  # fmt: skip
    else:
        print(f"{out}: {done.entries} entries" + (f"; {later} later ones left out" if later else ""))


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `ubcp ledger export` has written.")],
    profile: ProfileOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Take an export into the store, and make the store when there is none.

    All signatures and rules are checked; what is refused is left out and named, and the exit code is 1. So it is for
    entries of the future. A file that is damaged anywhere changes nothing. The same file again changes nothing. Stop
    the node first.
    """
    from ubcp_p2p.ledger.ahead import CLOCK_HINT
    from ubcp_p2p.ledger.transfer import import_export

    opened, done = import_export(_store_path(profile, store), file, now_s=time.time())
    with opened:
        total, path = opened.ledger.entries, opened.path
        early = f"{done.ahead.words(opened.ledger.charters.first)}, hence left out; {CLOCK_HINT}"
    if json:
        emit_json(
            {
                "store": str(path), "created": done.created, "entries": total, "entries_read": done.entries_read,
                "entries_added": done.entries_added, "proofs_read": done.proofs_read,
                "proofs_added": done.proofs_added, "charters_added": done.charters_added,
                "blobs_read": done.blobs_read, "waiting": done.waiting, "early": len(done.ahead.ids),
                "refused": done.refused,
                "faults": [
                    {"entry": id_.hex(), "code": error.code, "section": error.section, "message": error.message}
                    for id_, error in done.faults
                ],
            }
        )  # fmt: skip
    else:
        print(f"{path}{' (new)' if done.created else ''}: {total} entries, {done.entries_added} of them new")
        for number, what in (
            (done.proofs_added, "new fork proofs"),
            (done.charters_added, "new charter versions"),
            (done.waiting, "entries that are referred to are missing"),
        ):
            if number:
                print(f"{number} {what}")
        if done.ahead:
            print(early)
        for id_, error in done.faults[:SHOWN_MAX]:
            print(printable(f"refused {id_.hex() or '(no entry)'}: {error.message} ({error.code}, §{error.section})"))
        if done.refused > SHOWN_MAX:
            print(f"… {done.refused} refused in all")
    if done.refused or done.ahead:
        raise typer.Exit(Exit.BAD)


def show(
    what: Annotated[
        str,
        typer.Argument(metavar="ENTRY|ACCOUNT", help="The first 4 or more hex digits of an entry, account or node."),
    ],
    profile: ProfileOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show one entry, account or node. A node may also be given by its peer id (12D3KooW…)."""
    from ubcp_p2p.ledger.finding import shown
    from ubcp_p2p.ledger.store import Store
    from ubcp_p2p.ledger.views import when

    with Store.open(_store_path(profile, store), read_only=True) as opened:
        document = shown(opened, what)
        moment = when(opened.ledger, document["slice"]) if "id" in document else ""
    if json:
        emit_json(document)
    elif moment:
        _print_entry(document, moment)
    else:
        _print_author(document)


def credits_(
    account: Annotated[
        str | None,
        typer.Argument(metavar="ACCOUNT", help="Its first 4 or more hex digits [default: the profile's account]."),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="SLICE|DATE", help="At that time, not before the newest entry [default: now]."),
    ] = None,
    profile: ProfileOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show what an account can spend, and the history behind the number.

    Credits are spent oldest first; what is not spent by the date shown is gone. What the account's nodes have earned
    counts once a request of the account claims it. Amounts in --json are µcredits: millionths of a credit.
    """
    from ubcp_p2p.cli.audit import slice_of
    from ubcp_p2p.ledger.ahead import CLOCK_HINT, by_clock
    from ubcp_p2p.ledger.finding import credits_of, find
    from ubcp_p2p.ledger.store import Store

    path = _store_path(profile, store)
    wanted = None if account is not None else _own_account(profile)
    clock_s = time.time()
    with Store.open(path, read_only=True, until=by_clock(clock_s)) as opened:
        key = wanted or find(opened, account or "")
        charter = opened.ledger.charters.first
        now = slice_of(charter, as_of) if as_of is not None else charter.slice_at(clock_s)
        if opened.ahead:
            say(f"{opened.ahead.words(charter)}, hence not counted; {CLOCK_HINT}")
        document = credits_of(opened, key, now)
    if json:
        emit_json(document)
    else:
        _print_credits(document)


# -- finding ----------------------------------------------------------------------------------------------------------


def _store_path(profile: Path | None, store: Path | None) -> Path:
    return store if store is not None else profile_at(profile).ledger_store


def _own_account(profile: Path | None) -> bytes:
    from ubcp_p2p.keys import Ownership

    place = profile_at(profile)
    place.require()
    return Ownership.load(place.owner_file).account


def _log_of(profile: Path | None, path: Path) -> bytes | None:
    """The node whose append order a store has: that of the profile which it is in."""
    from ubcp_p2p.keys import Ownership

    place = profile_at(profile)
    if path.absolute() != place.ledger_store or not place.owner_file.exists():
        return None
    return Ownership.load(place.owner_file).node


# -- words ------------------------------------------------------------------------------------------------------------


def _print_entry(document: dict[str, Any], moment: str) -> None:
    print(f"{document['what']}  {document['id']}")
    print(printable(document["words"]))
    print(f"author    {document['author']}  (number {document['seq']})")
    print(f"time      slice {document['slice']}, from {moment} UTC")
    print(f"after     {document['prev']}")
    for key in document["signed by"]:
        print(f"signed    {key}")
    for name, value in document["body"].items():
        print(printable(f"{name:<14}{_plain(value)}"))


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value) or "none"
    return str(value)


def _print_author(document: dict[str, Any]) -> None:
    from ubcp_p2p.units import credits_text

    print(f"{document['what']:<10}{document[document['what']]}")
    if document["what"] == "account":
        print(f"key       {document['key']}")
        for enrolment in document["enrolments"]:
            until = enrolment["until"] - 1
            words = f"{enrolment['class']} of {enrolment['unit']}, periods {enrolment['first']} to {until}"
            print(printable(f"enrolled  {words}"))
        for node in document["nodes"]:
            print(f"node      {node}")
    else:
        print(f"owner     {document['owner']}")
        print(f"earned    {credits_text(document['earned'])} credits in all")
    print("entries   " + ", ".join(f"{count} {kind}" for kind, count in document["entries"].items()))
    for head in document["heads"]:
        print(f"head      {head['id']}  (number {head['seq']})")
    for fork in document["forks"]:
        print(f"FROZEN    two entries with number {fork['seq']}: {fork['first']} and {fork['second']}")
    _print_recent(document["recent"])


def _print_credits(document: dict[str, Any]) -> None:
    from ubcp_p2p.units import credits_text

    def row(amount: int, text: str) -> None:
        print(printable(f"{credits_text(amount):>18}  {text}"))

    print(f"account {document['account']}")
    row(document["available"], "credits available")
    for vintage in document["vintages"]:
        what = "allowance of" if vintage["source"] == "allowance" else "earned in"
        row(vintage["amount"], f"  {what} period {vintage['period']}; gone from {vintage['expires'][:10]}")
    if document["debt"]:
        row(document["debt"], "debt: repaid before anything new; nothing is allocated until then")
    row(document["reserved"], "reserved")
    for reserve in document["reserves"]:
        paid = f", {credits_text(reserve['paid'])} of it paid" if reserve["paid"] else ""
        row(reserve["amount"], f"  for the run {reserve['run']!r}, until {reserve['expires'][:10]}{paid}")
    row(document["uncollected"], "earned and not claimed yet")
    for income in document["income"]:
        row(income["uncollected"], f"  by the node {income['node'][:16]}…, of {credits_text(income['earned'])} in all")
    words = {"issued": "allowances", "claimed": "income claimed", "paid": "paid out", "burned": "expired unused"}
    totals = ", ".join(f"{words[name]} {credits_text(amount)}" for name, amount in document["totals"].items())
    print(f"so far: {totals}")
    enrolment = document["enrolment"]
    if enrolment is None:
        print("not enrolled now: no allowance, and no requests")
    else:
        print(printable(f"enrolled as {enrolment['class']} of {enrolment['unit']} until {enrolment['ends'][:10]}"))
    if document["frozen"]:
        print("FROZEN: its chain has forked; `ubcp ledger show` says where")
    _print_recent(document["recent"])


def _print_recent(recent: list[dict[str, Any]]) -> None:
    for entry in recent:
        time_ = entry["time"][:16].replace("T", " ")
        print(printable(f"{time_}  {entry['entry'][:16]}…  {entry['author'][:8]}… {entry['words']}"))
