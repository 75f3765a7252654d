"""What the demo's ledger says: the credits of its people, what was promised, decided and why; and one export of it all.

All of it is read from the nodes' own stores and files, as `ubcp credits`, `ubcp ledger` and an auditor read them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from ubcp_p2p.allocator.blob import decode_problem
from ubcp_p2p.allocator.decide import decide
from ubcp_p2p.allocator.words import explain
from ubcp_p2p.codec import decode
from ubcp_p2p.files import open_atomic, read_limited
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.balances import statement
from ubcp_p2p.ledger.decisions import Decided
from ubcp_p2p.ledger.funds import funds
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.transfer import export_store, import_export
from ubcp_p2p.peer.demo.commands import run
from ubcp_p2p.peer.demo.processes import NodeProcess
from ubcp_p2p.peer.paying.shelf import PROMISE_BYTES_MAX
from ubcp_p2p.peer.paying.wire import Promise
from ubcp_p2p.peer.serving.book import Book

EXPORT_NAME: Final = "demo.ledger"
PART_NAME: Final = "part.ledger"


class Credits(NamedTuple):
    """Of one account, µcredits, by the ledger alone. spent: what its requests have paid. earned: what its nodes were.

    reserved: set aside for its requests and not paid. available: what a new request of it can reserve; what it has
    earned is in it, since that request claims it.
    """

    allowance: int
    earned: int
    spent: int
    reserved: int
    available: int


class Told(NamedTuple):
    """What one node has decided on one request in one slice. words: the allocator's."""

    slice: int
    node: str
    run: str
    accepted: bool
    words: str


class Audit(NamedTuple):
    """What `ubcp audit` found. replayed: decisions that it made again from their inputs. faults: as in its document."""

    entries: int
    valid: int
    faults: Sequence[Mapping[str, Any]]
    replayed: int
    seconds: float


class Bound(NamedTuple):
    """The asker's request, by the ledger. credits: what it reserves; until: Unix time at which it can be closed."""

    id: bytes
    credits: int
    paid: int
    until: int


@dataclass(frozen=True)
class Books:
    """All of it. By name of node: accounts (in hex), credits before and after, and what its newest voucher says."""

    accounts: Mapping[str, str]
    before: Mapping[str, Credits]
    after: Mapping[str, Credits]
    promised: Mapping[str, int]
    requests: Sequence[Bound]
    decisions: Sequence[Told]
    audit: Audit
    export: Path


def credits_by_name(store: Store, nodes: Sequence[NodeProcess]) -> dict[str, Credits]:
    """What the accounts of these nodes have now."""
    now = store.ledger.charters.first.slice_at(time.time())
    return {node.name: _credits(store, node.account, now) for node in nodes}


def _credits(store: Store, account: bytes, now: int) -> Credits:
    ledger = store.ledger
    said, can = statement(ledger, account, store.history, now), funds(ledger, account, store.history, now)
    nodes = ledger.nodes_of.get(account, set())
    earned = spent = 0
    for request, paid in ledger.paid.items():
        if ledger.requests[request].author == account:
            spent += sum(paid.values())
        earned += sum(credits_ for opening, credits_ in paid.items() if ledger.openings[opening].author in nodes)
    available = said.balance.available if can is None else can.available  # who has forked can reserve nothing more
    return Credits(said.purse.issued, earned, spent, said.balance.reserved, available)


def promised(node: NodeProcess) -> int:
    """What the vouchers say that a contributor has on its disk, µcredits. Raises LocalIOError, MalformedMessage."""
    return sum(
        Promise.of(decode(read_limited(path, bytes_max=PROMISE_BYTES_MAX), bytes_max=PROMISE_BYTES_MAX)).voucher.credits
        for path in sorted(node.profile.paying.glob("*.voucher"))
    )


def read(
    directory: Path, asker: NodeProcess, others: Sequence[NodeProcess], before: Mapping[str, Credits],
    members: Sequence[NodeProcess],
) -> Books:  # fmt: skip
    """Bring together what the ended nodes have, export it to `directory`, and have it audited.

    others: whose stores are added to the asker's: each has the inputs of its own decisions alone. members: whose
    accounts are told. Raises UbcpErrors.
    """
    for node in others:
        _add(asker, node, directory / PART_NAME)
    export = directory / EXPORT_NAME
    with Store.open(asker.profile.ledger_store) as store, open_atomic(export) as file:
        export_store(store, file, log=bytes.fromhex(asker.public))
        charter = store.ledger.charters.first
        names = {bytes.fromhex(node.public): node.name for node in members}
        book = Book(bytes.fromhex(asker.public))
        book.read(store, charter.slice_at(time.time()))
        requests = [_bound(store, asked) for asked in book.activity.requests.values() if asked.author == asker.account]
        told = [
            row
            for decided in sorted(book.activity.decisions.values(), key=lambda one: (one.body.slice, one.node))
            for row in _told(store, decided, names, book.activity.requests)
        ]
        after = credits_by_name(store, members)
    return Books(
        accounts={node.name: node.account.hex() for node in members},
        before=before,
        after=after,
        promised={node.name: promised(node) for node in others},
        requests=requests,
        decisions=told,
        audit=audited(export),
        export=export,
    )


def audited(export: Path) -> Audit:
    """`ubcp audit`, in a process of its own: it knows nothing but the file."""
    report = run(("audit", str(export)), codes=(0, 1)).document
    return Audit(
        report["entries"], report["valid"], report["faults"], report["decisions_replayed"], report["seconds"]
    )  # fmt: skip


def _add(asker: NodeProcess, node: NodeProcess, part: Path) -> None:
    """What a node has that the asker lacks: the inputs of its decisions, and what was told too late to arrive."""
    if not node.profile.ledger_store.exists():  # it was ended before it had one
        return
    with Store.open(node.profile.ledger_store) as store, open_atomic(part) as file:
        export_store(store, file, log=bytes.fromhex(node.public))
    opened, _ = import_export(asker.profile.ledger_store, part, now_s=time.time())
    opened.close()
    part.unlink()


def _bound(store: Store, asked: Asked) -> Bound:
    ledger, charter = store.ledger, store.ledger.charter_at(asked.slice)
    closable = asked.body.expiry + charter.grace_slices + 1
    paid = sum(ledger.paid.get(asked.id, {}).values())
    return Bound(asked.id, asked.body.credits, paid, charter.epoch + closable * charter.slice_s)


def _told(
    store: Store, decided: Decided, names: Mapping[bytes, str], requests: Mapping[bytes, Asked]
) -> Sequence[Told]:
    """A decision made again from its inputs, for the words: an audit holds the two against each other."""
    blob = store.blob(decided.body.inputs)
    if blob is None:
        return ()
    problem = decode_problem(blob)
    outcomes = decide(problem).outcomes
    name = names.get(decided.node, decided.node.hex()[:16])
    return [
        Told(
            decided.body.slice, name, requests[ask.id].body.run if ask.id in requests else ask.id.hex()[:16],
            ask.id in decided.body.accepted, explain(problem, ask, outcome),
        )
        for ask, outcome in zip(problem.asks, outcomes, strict=True)
    ]  # fmt: skip
