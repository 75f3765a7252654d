"""The demo's tables: who did what and was paid what for it, everybody's credits, the decisions; and what must hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ubcp_p2p.log import printable
from ubcp_p2p.peer.demo.board import PeerRow
from ubcp_p2p.peer.demo.books import Books, Told
from ubcp_p2p.peer.demo.processes import DemoFailed
from ubcp_p2p.peer.demo.story import ASKER, LATE, Outcome
from ubcp_p2p.peer.demo.villain import HARM_MAX, Caught
from ubcp_p2p.peer.demo.villain import NAME as VILLAIN
from ubcp_p2p.units import credits_text

SHORT = 8  # hex digits of a key
SIGMAS = 3.0


def books_document(books: Books) -> dict[str, Any]:
    """What of the JSON document is the ledger's. Amounts are µcredits, accounts in hex."""
    return {
        "credits": {
            books.accounts[name]: {
                "allowance": after.allowance, "earned": after.earned, "spent": after.spent,
                "available": after.available,
            }
            for name, after in books.after.items()
        },
        "decisions": [told._asdict() for told in books.decisions],
        "audit": {"valid": books.audit.valid, "faults": list(books.audit.faults), "entries": books.audit.entries},
    }  # fmt: skip


def check_books(books: Books) -> None:
    """Raise DemoFailed unless the ledger is clean, everybody's credits add up, and all who worked were paid.

    Clean but for the villain: an audit names it, as it should.
    """
    faults = [fault for fault in books.audit.faults if fault["account"] != books.accounts.get(VILLAIN)]
    if faults:
        raise DemoFailed(f"the audit found {len(faults)} faults: {faults[0]}", hint="a bug: please report it")
    if (books.audit.valid != books.audit.entries and not books.audit.faults) or not books.audit.replayed:
        raise DemoFailed(
            f"{books.audit.valid} of {books.audit.entries} entries are valid, and {books.audit.replayed} decisions "
            "could be made again",
            hint="a bug: please report it",
        )
    asker = books.after[ASKER]
    paid = sum(each.earned for each in books.after.values())
    if asker.spent != paid or asker.allowance != asker.available + asker.reserved + asker.spent:
        raise DemoFailed(
            f"the credits do not add up: {asker} has paid what is not the {paid} that others have earned",
            hint="a bug: please report it",
        )
    unpaid = [name for name in books.promised if not books.after[name].earned]
    if unpaid:
        raise DemoFailed(f"{', '.join(unpaid)} worked and was not paid", hint="is this machine very busy? Try again")


def check_villain(villain: Caught) -> None:
    """Raise DemoFailed unless it was caught, unpaid, and has done no harm that is more than noise."""
    if not villain.caught or villain.paid or villain.harm > HARM_MAX + SIGMAS * villain.noise:
        raise DemoFailed(f"the villain got away with it: {villain_line(villain)}", hint="a bug: please report it")


def villain_line(villain: Caught) -> str:
    """What became of it."""
    caught = "caught" if villain.caught else "NOT CAUGHT"
    harm = (
        "none: nothing of it was in any round"
        if not villain.noise
        else f"{100 * villain.harm:+.1f} ± {100 * villain.noise:.1f} % of the loss of the same run without it"
    )
    return (
        f"The {villain.kind} was {caught}: {villain.how}. It was paid {credits_text(villain.paid)} credits. "
        f"Harm to the model: {harm}."
    )


def villain_document(villain: Caught) -> dict[str, Any]:
    """For --json: paid in µcredits; harm: by how much the held-out loss is higher than without it, relative."""
    return {
        "villain": {
            "kind": villain.kind, "caught": villain.caught, "how": villain.how, "paid": villain.paid,
            "harm": round(villain.harm, 4),
        }
    }  # fmt: skip


def who_did_what(outcome: Outcome) -> Table:
    """One row for each peer."""
    table = _table("Who contributed what", "peer", "rounds", "samples", "received", "retries", "paid, credits")
    table.add_column("came and went")
    for row in outcome.board.peers.values():
        paid = outcome.books.after[row.name].earned
        table.add_row(
            row.name, str(len(row.taken)), f"{row.samples:,}", f"{row.received_bytes / 1e6:.1f} MB", str(row.retries),
            credits_text(paid), _came_and_went(outcome, row),
        )  # fmt: skip
    return table


def show_books(books: Books) -> Iterator[RenderableType]:
    """The credits before and after, and the decisions."""
    table = _table(
        "Credits, by the ledger", "account", "key", "available before", "spent", "earned", "reserved",
        "available now",
    )  # fmt: skip
    for name, after in books.after.items():
        amounts = (books.before[name].available, after.spent, after.earned, after.reserved, after.available)
        table.add_row(name, f"{books.accounts[name][:SHORT]}…", *map(credits_text, amounts))
    yield table
    lines = "\n".join(f"    {line}" for line in decision_lines(books.decisions))
    yield Text(f"The allocators' decisions, in their words:\n{lines}")


def decision_lines(decisions: Sequence[Told]) -> list[str]:
    """A line for each row of slices in which one peer gave one verdict, with the words of the first."""
    found = []
    ordered = sorted(decisions, key=lambda told: (told.node, told.run, told.slice))
    for (node, run, accepted), rows in groupby(ordered, key=lambda told: (told.node, told.run, told.accepted)):
        first, *more = rows
        last = more[-1].slice if more else first.slice
        slices = f"slice {first.slice}" if last == first.slice else f"slices {first.slice} to {last}"
        verdict = "" if accepted else "not accepted; "
        found.append(printable(f"{node}, {slices}, {run}: {verdict}{first.words}"))
    return found


def conclusions(books: Books) -> list[str]:
    """What the ledger says in the end."""
    after, audit = books.after[ASKER], books.audit
    lines = [
        f"{ASKER} has paid {credits_text(after.spent)} credits, which is what the others have earned, to the last one."
    ]
    late = {name: books.promised[name] - books.after[name].earned for name in books.promised}
    for name, rest in late.items():
        if rest > 0:
            lines.append(
                f"{name}'s newest voucher is for {credits_text(rest)} credits more than its last receipt, of which "
                "there is one a slice. They stay promised: the paymaster's CLOSE pays them."
            )
    open_ = [bound for bound in books.requests if bound.credits > bound.paid]
    if after.reserved and open_:
        until = datetime.fromtimestamp(max(bound.until for bound in open_), UTC)
        lines.append(
            f"{credits_text(after.reserved)} credits are still reserved: until {until:%H:%M} UTC contributors may hand "
            "in receipts, and then the paymaster's CLOSE pays what it has promised and returns the rest. The demo does "
            "not wait for that."
        )
    faults = f"{len(audit.faults)} faults, all of the villain" if audit.faults else "no fault"
    lines.append(
        f"An auditor that knows nothing but the exported file: {audit.entries} entries, {audit.valid} valid, "
        f"{audit.replayed} decisions made again from their inputs, {faults}, in {audit.seconds:.1f} s."
    )
    return lines


def _came_and_went(outcome: Outcome, row: PeerRow) -> str:
    if not row.taken:
        return "in no round"
    came = "from the start" if row.taken and row.taken[0] == 0 else f"in from round {row.taken[0]}"
    if row.name == VILLAIN:
        return f"{came}; last in round {row.taken[-1]}"
    if row.name == LATE:
        came = f"late: {came}, took the model from {row.state_source}"
    return f"{came}; {f'killed in round {outcome.kill.round}' if row.killed_s is not None else 'to the end'}"


def _table(title: str, *columns: str) -> Table:
    """Names on the left, numbers on the right."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in ("peer", "account", "key") else "right")
    return table
