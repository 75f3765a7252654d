"""What an account can reserve now, and what its next REQUEST should claim for that (SPEC §6.3, §8.3 to §8.5). Pure."""

from __future__ import annotations

from typing import NamedTuple

from ubcp_p2p.ledger.balances import StandingReport, standing, statement
from ubcp_p2p.ledger.chain import AccountChain, Enrolment
from ubcp_p2p.ledger.entry import CLAIMS_MAX, URGENCY_MIN, ZERO, Entry, Kind, Position, Request
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.purse import Purse
from ubcp_p2p.ledger.replay import Claims, issue
from ubcp_p2p.ledger.state import History, Ledger


class Funds(NamedTuple):
    """head, key: where the account's chain stands, and who signs what follows. slice: of a REQUEST written now.

    available: µcredits that such a REQUEST can reserve when it claims `income` and `closes`. cap: how much of that the
    charter still lets it reserve in this period. last: the enrolment that ended last, where none holds now.
    """

    account: bytes
    head: Position
    key: bytes
    slice: int
    available: int
    cap: int
    enrolment: Enrolment | None
    last: Enrolment | None
    standing: StandingReport
    income: tuple[Position, ...]
    closes: tuple[bytes, ...]


def funds(ledger: Ledger, account: bytes, history: History, now: int) -> Funds | None:
    """Of an account at slice `now`; None where the ledger does not have it. Raises LedgerError as `statement`."""
    chain = ledger.branch_of(account)
    if not isinstance(chain, AccountChain):
        return None
    slice_ = max(now, chain.slice)
    period = ledger.period(slice_)
    income = tuple(
        claim for claim in _income(ledger, account, history, slice_) if _counts(ledger, chain, slice_, claim)
    )
    closes = _closes(ledger, chain, slice_)
    purse = chain.purse.copy()
    issue(ledger, chain.enrolments, purse, period)
    Claims(ledger, chain, *_claiming(ledger, chain, slice_, income, closes)).put_into(purse)
    purse.expire(period)
    spent = chain.outflow[1] if chain.outflow[0] == period else 0
    return Funds(
        account, chain.head, chain.powers.key, slice_, purse.available,
        max(0, ledger.charter_at(slice_).exposure_cap - spent), chain.enrolled(period),
        max((one for one in chain.enrolments if one.until <= period), key=lambda one: one.until, default=None),
        standing(ledger, account, history, slice_), income, closes,
    )  # fmt: skip


def open_reserves(ledger: Ledger, account: bytes) -> Purse:
    """The purse as the account's chain stands: its `reserves` are the REQUESTs that it has not closed."""
    chain = ledger.branch_of(account)
    return chain.purse if isinstance(chain, AccountChain) else Purse()


def _income(ledger: Ledger, account: bytes, history: History, slice_: int) -> list[Position]:
    """The heads of own nodes that have earned what is not claimed yet, rising by node; those of most income first."""
    earned = statement(ledger, account, history, slice_).income
    rows = sorted(((amount, node) for node, amount in earned.items() if amount), reverse=True)[:CLAIMS_MAX]
    branches = (ledger.branch_of(node) for _, node in rows)
    return sorted(branch.head for branch in branches if branch is not None)


def _counts(ledger: Ledger, chain: AccountChain, slice_: int, claim: Position) -> bool:
    """Whether it may be claimed: that of a node that has forked, or whose clock is ahead, may not."""
    try:
        Claims(ledger, chain, *_claiming(ledger, chain, slice_, (claim,), ()))
    except (LedgerError, Pending):
        return False
    return True


def _closes(ledger: Ledger, chain: AccountChain, slice_: int) -> tuple[bytes, ...]:
    """CLOSEs of own REQUESTs by their paymasters, one for each, that bring back what was not paid."""
    found: dict[bytes, bytes] = {}
    for id_, close in sorted(ledger.closes.items()):
        is_mine = ledger.requests[close.request].author == chain.author != close.author
        is_open = close.request in chain.purse.reserves and close.request not in chain.closed
        if is_mine and is_open and close.slice <= slice_ + 1 and len(found) < CLAIMS_MAX:
            found.setdefault(close.request, id_)
    return tuple(sorted(found.values()))


def _claiming(
    ledger: Ledger, chain: AccountChain, slice_: int, income: tuple[Position, ...], closes: tuple[bytes, ...]
) -> tuple[Entry, Request]:
    """A REQUEST that claims these, as far as `Claims` looks at it."""
    body = Request("", ZERO, "", 1, 1, 1, 1, slice_, slice_, URGENCY_MIN, ZERO, income, closes)
    seq, prev = chain.head.seq + 1, chain.head.id
    return Entry(ledger.network, chain.author, seq, prev, slice_, Kind.REQUEST, body, ZERO), body
