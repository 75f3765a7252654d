"""What every account has, by the set of entries alone, and the roots that peers compare (SPEC §8.6, §9). Pure."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final, NamedTuple

from ubcp_p2p.codec import encode
from ubcp_p2p.ledger.chain import AccountChain, Enrolment, NodeChain
from ubcp_p2p.ledger.faults import LedgerError
from ubcp_p2p.ledger.merkle import root_of, root_of_sorted
from ubcp_p2p.ledger.purse import Purse
from ubcp_p2p.ledger.replay import advance, merge
from ubcp_p2p.ledger.state import Finding, History, Ledger
from ubcp_p2p.units import credits_text

NAMED_MAX: Final = 4  # REQUESTs that the finding of a debt names


class Balance(NamedTuple):
    """One account, in µcredits.

    available: can be reserved now; `uncollected`, its nodes' income not yet claimed, comes on top. reserved: set aside
    by REQUESTs and not yet paid out. debt: what forks and lies overspent; repaid before anything new.
    """

    account: bytes
    available: int
    reserved: int
    uncollected: int
    debt: int


class Statement(NamedTuple):
    """A Balance, and what it consists of: for people.

    purse: at that time, before debt and what is available are set against each other. income: uncollected µcredits per
    node.
    """

    balance: Balance
    purse: Purse
    enrolment: Enrolment | None
    income: dict[bytes, int]
    frozen: bool


def statement(ledger: Ledger, account: bytes, history: History, as_of: int | None = None) -> Statement:
    """What an account has at slice `as_of` (default, and at least: the newest slice in the ledger).

    Raises KeyError for an account that the ledger does not have, LedgerError when sums do not come out as zero.
    """
    period = ledger.period(max(ledger.slice, as_of or 0))
    chain = _replay_of(ledger, account, history)
    advance(ledger, chain, period)
    purse = chain.purse
    purse.check()
    debt, reserved = purse.debt, 0
    for request, final in chain.closed.items():
        limits = dict(final)
        debt += sum(max(0, paid - limits.get(node, 0)) for node, paid in ledger.paid.get(request, {}).items())
    for request, reserve in purse.reserves.items():
        rest = reserve.amount - sum(ledger.paid.get(request, {}).values())
        reserved += max(0, rest)
        debt += max(0, -rest)
    settled = min(debt, purse.available)
    income = {node: _uncollected(ledger, chain, node, period) for node in sorted(ledger.nodes_of.get(account, ()))}
    balance = Balance(account, purse.available - settled, reserved, sum(income.values()), debt - settled)
    return Statement(balance, purse, chain.enrolled(period), income, ledger.is_frozen(account))


class Standing(Enum):
    """How an account stands (SPEC §8.7): allocators serve nobody but who is GOOD."""

    GOOD = "good"
    FROZEN = "frozen"
    INDEBTED = "indebted"
    UNKNOWN = "unknown"


class StandingReport(NamedTuple):
    """A Standing, and why, in words."""

    standing: Standing
    words: str


def standing(ledger: Ledger, account: bytes, history: History, as_of: int | None = None) -> StandingReport:
    """Of an account or a node, at slice `as_of` (default, and at least: the newest slice in the ledger).

    Raises LedgerError when sums do not come out as zero.
    """
    is_account = any(isinstance(chain, AccountChain) for chain in ledger.chains.get(account, ()))
    if ledger.is_frozen(account):
        fork, *more = ledger.open_forks(account)
        others = f", and {len(more)} more" if more else ""
        remedy = "its stewards' HEAL frees it" if is_account else "a node is not healed, but replaced"
        return StandingReport(Standing.FROZEN, f"its chain has forked at number {fork.seq}{others}; {remedy}")
    if account not in ledger.chains:
        return StandingReport(Standing.UNKNOWN, "the ledger has no account and no node with this key")
    if not is_account:
        return StandingReport(Standing.GOOD, "a node that has not forked; what it owes is its payers' debt")
    debt = statement(ledger, account, history, as_of).balance.debt
    if debt:
        return StandingReport(Standing.INDEBTED, f"it owes {credits_text(debt)} credits, which are repaid first")
    return StandingReport(Standing.GOOD, "neither frozen nor in debt")


def debts(ledger: Ledger, rows: Iterable[Balance]) -> list[Finding]:
    """Each account of `rows` that owes, by account, and its REQUESTs that were paid more for than is accounted for."""
    owing = {row.account: row.debt for row in rows if row.debt}
    overpaid: dict[bytes, set[bytes]] = {}
    for id_, paid in ledger.paid.items() if owing else ():
        request = ledger.requests[id_]
        if request.author in owing and sum(paid.values()) > request.credits:
            overpaid.setdefault(request.author, set()).add(id_)
    for close in ledger.closes.values() if owing else ():
        account, final = ledger.requests[close.request].author, dict(close.final)
        if account in owing and any(n > final.get(node, 0) for node, n in ledger.paid.get(close.request, {}).items()):
            overpaid.setdefault(account, set()).add(close.request)
    found = []
    for account, amount in sorted(owing.items()):
        ids = sorted(overpaid.get(account, ()))
        names = ", ".join(id_.hex()[:16] + "…" for id_ in ids[:NAMED_MAX])
        more = f" and {len(ids) - NAMED_MAX} more" if len(ids) > NAMED_MAX else ""
        why = f"more was paid than reserved, or than a CLOSE says: {names}{more}" if ids else "it reserved twice"
        found.append(Finding("debt", b"", account, f"owes {credits_text(amount)} credits; {why}"))
    return found


def balances(ledger: Ledger, history: History, as_of: int | None = None) -> list[Balance]:
    """Of all accounts, sorted by account. Raises LedgerError when sums do not come out as zero."""
    return [statement(ledger, account, history, as_of).balance for account in ledger.accounts()]


def balances_root(rows: Iterable[Balance]) -> bytes:
    """SPEC §9.2: the Merkle root over the canonical rows, sorted by account."""
    return root_of(encode(list(row)) for row in rows)


def entries_root(ledger: Ledger) -> bytes:
    """SPEC §9.1: the Merkle root over the ids of all entries, sorted: the same for the same set."""
    return root_of_sorted(ledger.ids())


def _replay_of(ledger: Ledger, account: bytes, history: History) -> AccountChain:
    """The account's chain, copied; of several branches, all together."""
    branches = [chain for chain in ledger.chains[account] if isinstance(chain, AccountChain)]
    if not branches:
        raise KeyError(account)
    if len(branches) > 1:
        return merge(ledger, account, [chain.head for chain in branches], history)
    chain = copy.copy(branches[0])
    chain.purse, chain.enrolments = chain.purse.copy(), list(chain.enrolments)
    return chain


def _uncollected(ledger: Ledger, chain: AccountChain, node: bytes, period: int) -> int:
    """What a node has earned that its owner has neither claimed nor let lapse."""
    branches = [b for b in ledger.chains[node] if isinstance(b, NodeChain) and b.owner == chain.author]
    after = chain.claimed[node].seq if len(branches) == 1 and node in chain.claimed else -1
    total = 0
    of: dict[bytes, list[Iterator[tuple[int, int, int]]]] = {}  # what the branches with one OPEN own: each RECEIPT once
    for branch in branches:
        of.setdefault(branch.opening, []).append(branch.income.between(after, len(branch)))
    for opening, shares in of.items():
        rows = shares[0] if len(shares) == 1 else iter(sorted(itertools.chain(*shares)))  # of one: rising already
        total += _income_of(ledger, chain, opening, rows, period)
    return total


def _income_of(
    ledger: Ledger, chain: AccountChain, opening: bytes, rows: Iterator[tuple[int, int, int]], period: int
) -> int:
    """The same of the branches with one OPEN, whose receipts are `rows`: (period, REQUEST number, cumulative)."""
    best: dict[int, int] = {}  # REQUEST number → cumulative µcredits
    last, is_lapsed, total = -1, False, 0
    for earned_in, number, credits_ in rows:
        had = best.get(number)
        if had is None:
            had = best[number] = chain.credited.get((opening, ledger.request_ids[number]), 0)
        if earned_in != last:
            last, is_lapsed = earned_in, earned_in + ledger.charters.at(earned_in).earned_periods <= period
        if credits_ > had:
            best[number] = credits_
            if not is_lapsed:
                total += credits_ - had
    for number, reached in best.items():
        if reached != ledger.paid[ledger.request_ids[number]].get(opening):
            raise LedgerError(
                "zero-sum", "a node's income does not add up to what it was paid: a mistake in this program"
            )
    return total
