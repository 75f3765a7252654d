"""`ubcp follow`: a live network's ledger, verified as it comes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ubcp_p2p.cli.output import emit_json, print_error, require_extra, say
from ubcp_p2p.errors import Exit, NetworkError
from ubcp_p2p.log import printable
from ubcp_p2p.units import credits_text

SHORT = 16  # hex digits of a key or id that a line for people shows


def follow(
    addresses: Annotated[
        list[str],
        typer.Argument(
            metavar="MULTIADDR", help="A node of the network, as `ubcp peers` on it prints; others for when it fails."
        ),
    ],
    charter: Annotated[
        Path | None, typer.Option("--charter", metavar="FILE", help="The community's charter: no other is followed.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="FILE", help="Keep the ledger there; the next follow goes on from it."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop when in sync with one node.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines on stdout, a document an event; the last is the summary.")
    ] = False,
) -> None:
    """Follow a live network's ledger and verify it as it comes.

    Every signature and rule is checked here; a fraud is printed the moment its proof is seen. Without --charter the
    first node's word is taken for which community this is. Ctrl-C ends it with a summary; the exit code is 1 when there
    was a fault.
    """
    require_extra("light")
    from ubcp_p2p.charter.document import load_community
    from ubcp_p2p.light.address import parse_node_address

    nodes = [parse_node_address(text) for text in addresses]
    charters = load_community(charter) if charter is not None else None
    from ubcp_p2p.light.follow import Follower  # py-libp2p takes a second or two to load

    follower = Follower(nodes, _tell_json if json else _tell, charters=charters, store=store)
    failure: NetworkError | None = None
    try:
        try:
            follower.run(once=once)
        except NetworkError as error:
            failure = error
        summary = follower.summary()
    finally:
        follower.close()
    if summary and (failure is None or summary["faults"]):
        _tell_json("summary", summary) if json else _print_summary(summary)
    if summary and summary["faults"]:
        if failure is not None:
            print_error(failure)
        raise typer.Exit(Exit.BAD)
    if failure is not None:
        raise failure


def _tell_json(kind: str, values: dict[str, Any]) -> None:
    emit_json({"event": kind, **values})


def _tell(kind: str, values: dict[str, Any]) -> None:
    """What is found on stdout, how it goes on stderr."""
    if kind == "progress":
        if sys.stderr.isatty():
            print(f"\r\x1b[K{values['entries']:,} of {values['of']:,} entries", end="", file=sys.stderr, flush=True)
        return
    lines = {
        "community": _community_lines, "connected": lambda v: [f"connected to {v['address']}"], "lost": _lost_lines,
        "charter": lambda v: [f"charter version {v['number']}, in force from period {v['effective_period']}"],
        "conflict": lambda v: [f"WARNING: {v['message']}; {v['hint']}"],
        "synced": _sync_lines, "fault": _fault_lines, "mended": _mended_lines,
    }[kind](values)  # fmt: skip
    stamp = time.strftime("%H:%M:%S")
    out = sys.stdout if kind in ("synced", "fault", "mended") else sys.stderr
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # the line of progress
    for line in lines:
        print(printable(f"{stamp}  {line}"), file=out, flush=True)
        stamp = " " * len(stamp)


def _community_lines(values: dict[str, Any]) -> list[str]:
    lines = [f"community {values['name']!r}, network {values['network']}"]
    if not values["charter_known"]:
        lines.append(
            "nobody vouches for this charter but the node: compare the network with your community's, or use --charter"
        )
    return lines


def _lost_lines(values: dict[str, Any]) -> list[str]:
    again = f"; trying again in {values['retry_s']:.0f} s" if values["retry_s"] is not None else ""
    return [values["message"] + again]


def _sync_lines(values: dict[str, Any]) -> list[str]:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in values["kinds"].items())
    more = f" (+{values['added']:,}: {kinds})" if kinds else ""
    waiting = f", {values['pending']} missing" if values["pending"] else ""
    heads = f"{values['accounts']:,} accounts, {values['heads']:,} heads"
    lines = [f"in sync: {values['entries']:,} entries{more}, {heads}{waiting}"]
    if values["added"] <= len(values["new"]):
        lines += [line for entry in values["new"] if (line := _entry_line(entry))]
    return lines


def _entry_line(entry: dict[str, Any]) -> str:
    author = _short(entry["author"])
    if entry["kind"] == "REQUEST":
        return f"REQUEST  {author} asks for the run {entry['run']!r}: up to {credits_text(entry['credits'])} credits"
    if entry["kind"] == "RECEIPT":
        return f"RECEIPT  {author} has {credits_text(entry['credits'])} credits for {_short(entry['request'])}"
    return ""


def _fault_lines(values: dict[str, Any]) -> list[str]:
    who = f"by {values['account']}: " if values["account"] else ""
    lines = [f"FAULT {values['code']} (SPEC {values['section']}): {who}{values['message']}"]
    for entry in values.get("entries", ()):
        lines.append(f"one of its two: {entry['kind']}, number {entry['seq']}, slice {entry['slice']}, {entry['id']}")
    if values["entry"] and "entries" not in values:
        lines.append(f"entry {values['entry']}")
    return lines


def _mended_lines(values: dict[str, Any]) -> list[str]:
    return [f"a good copy has come: no fault {values['code']} in the entry {values['entry']}"]


def _print_summary(summary: dict[str, Any]) -> None:
    state = "in sync" if summary["in_sync"] else "NOT in sync"
    print(
        f"entries        {summary['entries']:,} ({summary['valid']:,} valid), {summary['accounts']:,} accounts, {state}"
    )
    print(f"faults         {len(summary['faults'])}")
    for account in summary["frozen"]:
        print(f"frozen         {account}")
    checkpoints = summary["checkpoints"]
    if any(checkpoints.values()):
        print(
            f"checkpoints    {checkpoints['checked']} checked, {checkpoints['not_checkable_here']} not checkable here"
        )
    print(f"balances root  {summary['balances_root']}")
    print(f"entries root   {summary['entries_root']}")
    if not summary["in_sync"]:
        say("not in sync: the roots are of what has come so far")


def _short(hex_: str) -> str:
    return hex_[:SHORT] + "…"
