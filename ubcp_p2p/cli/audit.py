"""`ubcp audit`, `ubcp ledger synth` and `ubcp ledger verify-entry`: proving a ledger right, or naming who cheated."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ubcp_p2p.cli.output import JsonOption, emit_json, print_error, say
from ubcp_p2p.errors import ConfigError, Exit, LocalIOError, UbcpError
from ubcp_p2p.log import printable
from ubcp_p2p.units import credits_text

if TYPE_CHECKING:
    from ubcp_p2p.charter.values import Charter
    from ubcp_p2p.ledger.report import Report

JOBS_MAX: Final = 256
JOBS_USEFUL: Final = 12  # beyond, one process cannot apply the rules as fast as the others verify (bench/audit.py)
SHOWN_MAX: Final = 50  # faults in words; --json has them all
INPUT_BYTES_MAX: Final = 1 << 20  # of verify-entry


def audit(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An export file, or a node's ledger.sqlite3.")],
    json: JsonOption = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", help="Cores to use [default: all, at most 12].")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="Go on from this snapshot of an earlier audit; write it."),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="SLICE|DATE", help="Leave out later entries."),
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", metavar="HEX", help="Refuse another community's ledger.")
    ] = None,
) -> None:
    """Verify every signature and every rule of a ledger, and name who cheated.

    Needs no network and no account. Exit code 0: no fault; 1: faults, each with its author; 2: the file is unreadable.

    --checkpoint FILE: where FILE is a snapshot of the beginning of this ledger, only what comes after is verified. Who
    can write FILE decides what such an audit says: use none but your own.

    --as-of takes a slice, a date (2026-11-22) or a moment (2026-11-22T12:00+00:00).
    """
    from ubcp_p2p.cli.decisions import replay
    from ubcp_p2p.ledger.audit import audit as run
    from ubcp_p2p.ledger.sources import open_source

    count = min(_cores(), JOBS_USEFUL) if jobs is None else jobs
    if not 1 <= count <= JOBS_MAX:
        raise ConfigError(f"--jobs {count} is not between 1 and {JOBS_MAX}")
    if checkpoint is not None and as_of is not None:
        raise ConfigError("--checkpoint and --as-of do not go together", hint="what is left out would stay left out")
    with open_source(path) as source:
        found = source.charters.network.hex()
        if network is not None and not set(network.lower()) <= set("0123456789abcdef"):
            raise ConfigError(f"--network {network!r:.80} is no network id", hint="it has 64 hexadecimal digits")
        if network is not None and network.lower() != found:
            raise ConfigError(f"{path} is the ledger of the network {found}, not of {network}")
        charter = source.charters.first
        limit = None if as_of is None else slice_of(charter, as_of)
        unsaved: list[UbcpError] = []
        with _progress(source.first, source.last) as progress:
            report = run(
                source,
                jobs=count,
                clock=charter.slice_at(time.time()),
                as_of=limit,
                checkpoint=checkpoint,
                progress=progress,
                say=say,
                unsaved=unsaved.append,
                replay=replay,
            )
    if json:
        emit_json(report.to_json())
    else:
        _print(report)
    for error in unsaved:
        print_error(type(error)(f"the snapshot was not written: {error.message}", hint=error.hint))
    raise typer.Exit(Exit.BAD if report.faults else Exit.IO if unsaved else Exit.OK)


def synth(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to write the export.")] = None,
    accounts: Annotated[int, typer.Option("--accounts", metavar="N", help="People; each has a node or two.")] = 50,
    entries: Annotated[int, typer.Option("--entries", metavar="M", help="Valid entries, before the fraud.")] = 5000,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Other seeds, other ledgers.")] = 0,
    plant: Annotated[
        str | None, typer.Option("--plant", metavar="KIND", help="Add one fraud; `--plant list` lists the kinds.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a synthetic ledger, valid or with one fraud, to try an auditor on.

    The same options give the same bytes. All its keys come from the seed: never use them for anything else.

    KIND, by the invariant that it breaks:

    \b
     1  encoding, version, length, field, network
     2  signature, signature-voucher, signer, rotation
     3  opening, sequence, slice-falls, slice-reference, slice-ahead,
        author-kind
     4  fork, fork-proved, heal
     5  unknown-reference, reference, two-branches
     6  zero-sum
     7  not-enrolled, expired
     8  stewards, enrolment, nullifier
     9  overdraft, exposure, request, claim, debt, debt-closed
    10  allot, allot-sum, receipt-allot, receipt-limit, receipt-late,
        receipt-grows, receipt-slice, receipt-self
    11  price, device
    12  close, close-again, close-voucher
    13  checkpoint-falls, checkpoint-root, checkpoint-state
    14  decision, decision-twice, decision-inputs,
        decision-claims
    15  freeze, freeze-proof
    """
    from ubcp_p2p.cli.decisions import synthetic
    from ubcp_p2p.ledger.frauds import FRAUDS
    from ubcp_p2p.ledger.plant import write_synthetic
    from ubcp_p2p.ledger.targets import check_export_target

    if plant == "list":
        _list_frauds(json)
        return
    if out is None:
        raise ConfigError("--out FILE is missing", hint="ubcp ledger synth --out ledger.ubcp")
    if plant is not None and plant not in FRAUDS:
        raise ConfigError(f"there is no kind of fraud {plant!r}", hint="`ubcp ledger synth --plant list` lists them")
    fraud = FRAUDS[plant] if plant is not None else None
    check_export_target(out, force=force)
    written = write_synthetic(out, accounts=accounts, entries=entries, seed=seed, fraud=fraud, deciding=synthetic)
    document: dict[str, Any] = {
        "file": str(out), "network": written.network.hex(), "entries": written.entries, "accounts": accounts,
        "seed": seed, "planted": None,
    }  # fmt: skip
    if fraud is not None and written.planted is not None:
        document["planted"] = {
            "kind": fraud.name, "invariant": fraud.invariant, "code": fraud.code, "also": list(fraud.also),
            "dependent": fraud.dependent, "entry": written.planted.entry.hex(),
            "account": written.planted.account.hex(),
        }  # fmt: skip
    if json:
        emit_json(document)
        return
    print(f"{out}: {written.entries} entries")
    if fraud is not None and written.planted is not None:
        print(f"planted: {fraud.name}, {fraud.text}; by {written.planted.account.hex()}")


def verify_entry(
    what: Annotated[str, typer.Argument(metavar="FILE|-|HEX", help="Where the bytes are; - is stdin.")],
    json: JsonOption = False,
) -> None:
    """Check the form and the signatures of one signed entry, voucher or fork proof, and say what it is.

    Whether it keeps the rules depends on the ledger that it is in: that is for `ubcp audit`.
    """
    from ubcp_p2p.ledger.explain import explain
    from ubcp_p2p.ledger.faults import LedgerError

    try:
        facts = explain(_bytes_of(what))
    except LedgerError as error:
        if json:
            emit_json({"valid": False, "code": error.code, "section": error.section, "message": error.message})
            raise typer.Exit(Exit.BAD) from None
        raise
    if json:
        emit_json({"valid": True, **facts})
        return
    for name, value in facts.items():
        print(f"{name:<14}{_words(value)}")


# -- audit ------------------------------------------------------------------------------------------------------------


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slice_of(charter: Charter, text: str) -> int:
    """A slice, or the slice of a date or moment; without a zone it is UTC."""
    from datetime import UTC, datetime

    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--as-of {text!r} is neither a slice nor a date", hint="a date is 2026-11-22") from None
    return charter.slice_at((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


@contextmanager
def _progress(first: int, last: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr, when it is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("audit"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # Drawn from here, not from a thread: one that takes turns with this would slow it.
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("audit", total=max(1, last - first))
        drawn_s = 0.0

        def update(offset: int) -> None:
            nonlocal drawn_s
            if (now_s := time.monotonic()) - drawn_s > 0.2:
                drawn_s = now_s
                bar.update(task, completed=offset - first, refresh=True)

        yield update


def _print(report: Report) -> None:
    counts = report.counts
    print(f"entries        {counts.read}, {counts.valid} valid; {report.accounts} accounts; up to slice {report.slice}")
    for name, number, text in (
        ("dependent", counts.dependent, "not judged: they refer to a faulty or missing entry"),
        ("duplicate", counts.duplicate, "there twice"),
        ("later", counts.later, "after the slice of --as-of: left out"),
        ("checkpoints", counts.uncheckable, "of nodes whose order this is not: not checkable here"),
        ("decisions", counts.replayed, "decided again from their inputs"),
        ("requests", counts.unknown_asks, "in those inputs are not in the file: nothing can be said of them"),
        ("blobs", report.blobs_missing, "that decisions name are not in the file"),
        ("resumed", report.resumed, "were audited before, as the snapshot says"),
    ):
        if number:
            print(f"{name:<15}{number} {text}")
    totals = report.totals
    print(
        f"credits        {credits_text(totals.available)} available, {credits_text(totals.reserved)} reserved, "
        f"{credits_text(totals.uncollected)} not claimed yet, {credits_text(totals.debt)} owed"
    )
    print(f"entries root   {report.roots.entries.hex()}")
    print(f"balances root  {report.roots.balances.hex()}")
    print(f"time           {report.seconds:.2f} s, {report.signatures} signatures verified")
    if report.is_open:
        print("open network   no steward need sign (k = 0): whoever forks can free itself, so no freeze lasts")
    for account in report.frozen:
        print(f"frozen         {account.hex()}")
    for account, debt in report.debts:
        print(f"indebted       {account.hex()} owes {credits_text(debt)} credits")
    for fault in report.faults[:SHOWN_MAX]:
        print(printable(fault.line()))
    if len(report.faults) > SHOWN_MAX:
        print(f"… and {len(report.faults) - SHOWN_MAX} more; --json has them all")
    print("no fault" if not report.faults else f"{len(report.faults)} fault{'s' if len(report.faults) > 1 else ''}")


# -- the others -------------------------------------------------------------------------------------------------------


def _list_frauds(json: bool) -> None:
    from ubcp_p2p.ledger.frauds import FRAUDS

    if json:
        emit_json(
            [
                {"kind": f.name, "invariant": f.invariant, "code": f.code, "also": list(f.also), "text": f.text}
                for f in FRAUDS.values()
            ]
        )
        return
    for fraud in FRAUDS.values():
        print(f"{fraud.name:<20}{fraud.invariant:>3}  {fraud.text}")


def _bytes_of(what: str) -> bytes:
    """From hex digits, or from a file or stdin that has the bytes or their hex digits."""
    if what == "-":
        data = sys.stdin.buffer.read(INPUT_BYTES_MAX + 1)
    elif (given := _unhex(what.encode())) is not None:
        data = given
    else:
        try:
            with Path(what).open("rb") as file:
                data = file.read(INPUT_BYTES_MAX + 1)
        except FileNotFoundError:
            raise ConfigError(f"{what!r:.80} is neither a file nor hex digits") from None
        except OSError as error:
            raise LocalIOError(f"cannot read {what:.80}: {error.strerror}") from None
    if len(data) > INPUT_BYTES_MAX:
        raise ConfigError(f"more than {INPUT_BYTES_MAX} bytes: not one entry", hint="`ubcp audit` reads whole ledgers")
    return _unhex(data) or data


def _unhex(data: bytes) -> bytes | None:
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        return None


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_words(item) for item in value) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{name} {_words(item)}" for name, item in value.items())
    return printable(str(value))
