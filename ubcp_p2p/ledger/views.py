"""What people want to see of a ledger, as JSON documents: an account, a node, and the history behind a balance.

Amounts are µcredits, keys and ids hexadecimal, moments ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from ubcp_p2p.ledger.balances import standing, statement
from ubcp_p2p.ledger.chain import AccountChain, Chain, NodeChain
from ubcp_p2p.ledger.decisions import Decided
from ubcp_p2p.ledger.entry import (
    Allot,
    Checkpoint,
    Close,
    Decision,
    Enrol,
    Entry,
    Heal,
    Kind,
    OpenAccount,
    OpenNode,
    Receipt,
    Request,
    Rotate,
)
from ubcp_p2p.ledger.purse import ALLOWANCE
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.units import credits_text

RECENT: Final = 10
SHORT: Final = 16  # hex digits of a key or id where there is no room for 64


def account_view(store: Store, account: bytes) -> dict[str, Any]:
    """What an account is: keys, enrolments, nodes, forks. Raises KeyError."""
    ledger = store.ledger
    branches = [chain for chain in ledger.chains[account] if isinstance(chain, AccountChain)]
    chain = branches[0]
    return {
        "what": "account", "account": account.hex(), "key": chain.powers.key.hex(),
        "enrolments": [
            {"class": _class(e.newcomer), "unit": e.unit, "first": e.first, "until": e.until} for e in chain.enrolments
        ],
        "nodes": [node.hex() for node in sorted(ledger.nodes_of.get(account, ()))],
        **_chain_facts(store, account, branches),
    }  # fmt: skip


def node_view(store: Store, node: bytes) -> dict[str, Any]:
    """What a node is: its owner, what it has earned in all, forks. Raises KeyError."""
    ledger = store.ledger
    branches = [chain for chain in ledger.chains[node] if isinstance(chain, NodeChain)]
    return {
        "what": "node", "node": node.hex(), "owner": branches[0].owner.hex(), "earned": _earned(ledger, node),
        **_chain_facts(store, node, branches),
    }  # fmt: skip


def credits_view(store: Store, account: bytes, now: int) -> dict[str, Any]:
    """What an account has at slice `now` (at least the newest in the ledger), and why. Raises KeyError."""
    ledger = store.ledger
    now = max(now, ledger.slice)
    said = statement(ledger, account, store.history, now)
    balance, purse, enrolment = said.balance, said.purse, said.enrolment
    return {
        "account": account.hex(), "slice": now, "period": ledger.period(now), "available": balance.available,
        "reserved": balance.reserved, "uncollected": balance.uncollected, "debt": balance.debt, "frozen": said.frozen,
        "standing": standing(ledger, account, store.history, now).standing.value,
        "enrolment": enrolment and {
            "class": _class(enrolment.newcomer), "unit": enrolment.unit, "first": enrolment.first,
            "until": enrolment.until, "ends": _period_begins(ledger, enrolment.until),
        },
        "totals": {
            "issued": purse.issued, "claimed": purse.earned, "paid": purse.released, "burned": purse.burned,
        },
        "vintages": [
            {
                "source": "allowance" if vintage.source == ALLOWANCE else "earned", "period": vintage.period,
                "amount": amount, "expires": _period_begins(ledger, vintage.expires),
            }
            for vintage, amount in sorted(purse.vintages.items())
        ],
        "reserves": [
            {
                "request": id_.hex(), "run": _run(store, id_), "amount": reserve.amount,
                "paid": sum(ledger.paid.get(id_, {}).values()),
                "expires": _slice_begins(ledger, ledger.requests[id_].expiry + 1),
            }
            for id_, reserve in purse.reserves.items()
        ],
        "income": [
            {"node": node.hex(), "uncollected": amount, "earned": _earned(ledger, node, account)}
            for node, amount in said.income.items()
        ],
        "recent": _recent(store, [account, *said.income]),
    }  # fmt: skip


def entry_view(ledger: Ledger, position: int, signed: Signed) -> dict[str, Any]:
    """One entry in a list of them. position: in the order in which they came to a store."""
    entry = signed.entry
    return {
        "position": position, "id": entry.id.hex(), "kind": Kind(entry.kind).name, "author": entry.author.hex(),
        "seq": entry.seq, "slice": entry.slice, "time": _slice_begins(ledger, entry.slice),
        "words": entry_words(entry), "form": signed.to_bytes().hex(),
    }  # fmt: skip


def decision_view(ledger: Ledger, decided: Decided) -> dict[str, Any]:
    """What a node has decided, parts joined."""
    body = decided.body
    refused = sum(count for _, count in body.refused)
    return {
        "id": decided.id.hex(), "node": decided.node.hex(), "told": decided.told, "slice": body.slice,
        "begins": _slice_begins(ledger, body.slice), "budget": body.budget, "granule": body.granule,
        "accepted": [id_.hex() for id_ in body.accepted], "refused": dict(body.refused), "inputs": body.inputs.hex(),
        "words": f"slice {body.slice}: {len(body.accepted)} accepted, {refused} refused",
    }  # fmt: skip


def entry_words(entry: Entry) -> str:
    """One line on what an entry does."""
    match entry.body:
        case OpenAccount():
            return "opened the account"
        case OpenNode() as body:
            return f"opened the node; its owner is {_short(body.owner.author)}"
        case Enrol() as body:
            return f"enrolled as {_class(body.newcomer)} of {body.unit}, periods {body.first} to {body.until - 1}"
        case Request() as body:
            return f"reserved {credits_text(body.credits)} credits for the run {body.run!r}"
        case Decision() as body:
            refused = sum(count for _, count in body.refused)
            return f"decided about slice {body.slice}: {len(body.accepted)} accepted, {refused} refused"
        case Allot() as body:
            opened = _short(body.contributor)
            return (
                f"allotted up to {credits_text(body.credits)} credits of {_short(body.request)} to the node of {opened}"
            )
        case Receipt() as body:
            voucher = body.voucher
            return f"received {credits_text(voucher.credits)} credits in all for {_short(voucher.request)}"
        case Close() as body:
            return f"closed {_short(body.request)}: {credits_text(body.returned)} credits return"
        case Checkpoint() as body:
            return f"checkpoint of {body.size} entries"
        case Rotate() as body:
            return f"changed the key to {_short(body.key)}"
        case Heal() as body:
            return f"healed a fork: {len(body.abandoned)} branches abandoned, {len(body.refused)} ids refused"


def when(ledger: Ledger, slice_: int) -> str:
    """The beginning of a slice, for people: to the minute."""
    return _slice_begins(ledger, slice_)[:16].replace("T", " ")


def _recent(store: Store, authors: Iterable[bytes]) -> list[dict[str, Any]]:
    found: list[Signed] = [signed for author in authors for signed in store.newest(author, RECENT)]
    found.sort(key=lambda signed: (signed.entry.slice, signed.entry.seq), reverse=True)
    return [
        {
            "entry": signed.entry.id.hex(), "author": signed.entry.author.hex(), "slice": signed.entry.slice,
            "time": _slice_begins(store.ledger, signed.entry.slice), "kind": Kind(signed.entry.kind).name,
            "words": entry_words(signed.entry),
        }
        for signed in found[:RECENT]
    ]  # fmt: skip


def _chain_facts(store: Store, author: bytes, branches: Iterable[Chain]) -> dict[str, Any]:
    forks = store.ledger.open_forks(author)
    return {
        "heads": [{"seq": chain.head.seq, "id": chain.head.id.hex(), "slice": chain.slice} for chain in branches],
        "entries": {Kind(kind).name: count for kind, count in sorted(store.kinds(author).items())},
        "frozen": bool(forks),
        "forks": [{"seq": fork.seq, "first": fork.first.hex(), "second": fork.second.hex()} for fork in forks],
        "recent": _recent(store, [author]),
    }


def _earned(ledger: Ledger, node: bytes, owner: bytes | None = None) -> int:
    """µcredits that a node has ever been paid; those on its branches of one owner, where one is given."""
    chains = [chain for chain in ledger.chains[node] if isinstance(chain, NodeChain) and owner in (None, chain.owner)]
    openings = {chain.opening for chain in chains}
    return sum(paid.get(opening, 0) for paid in ledger.paid.values() for opening in openings)


def _run(store: Store, request: bytes) -> str | None:
    signed = store.entry(request)
    return signed.entry.body.run if signed is not None and isinstance(signed.entry.body, Request) else None


def _class(newcomer: bool) -> str:
    return "newcomer" if newcomer else "member"


def _short(data: bytes) -> str:
    return data.hex()[:SHORT] + "…"


def _slice_begins(ledger: Ledger, slice_: int) -> str:
    charter = ledger.charters.first
    try:
        return datetime.fromtimestamp(charter.epoch + slice_ * charter.slice_s, UTC).isoformat()
    except (ValueError, OverflowError):
        return "9999-12-31T23:59:59+00:00"  # a slice number may lie thousands of years ahead


def _period_begins(ledger: Ledger, period: int) -> str:
    return _slice_begins(ledger, period * ledger.charters.first.period_slices)
