"""Branches of an account replayed together, and what a REQUEST claims (SPEC §7.4, §8.3 to §8.6). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ubcp_p2p.ledger.chain import AccountChain, Chain, Enrolment, NodeChain
from ubcp_p2p.ledger.entry import ZERO, Close, Enrol, Entry, Position, Request
from ubcp_p2p.ledger.faults import Pending, Replay, RuleViolation
from ubcp_p2p.ledger.purse import ALLOWANCE, EARNED, Purse, Vintage
from ubcp_p2p.ledger.rules_common import not_before
from ubcp_p2p.ledger.state import CloseFact, History, Ledger


def issue(ledger: Ledger, enrolments: Iterable[Enrolment], purse: Purse, now: int) -> list[Enrolment]:
    """§8.3: allowances of all periods up to `now` that were not issued yet; returns the enrolments as they are then."""
    result = []
    for enrolment in enrolments:
        end = min(enrolment.until, now + 1)
        for period in range(enrolment.issued, end):
            charter = ledger.charters.at(period)
            vintage = Vintage(period + charter.allowance_periods, period, ALLOWANCE)
            purse.add(vintage, charter.allowance_of(enrolment.newcomer))
        result.append(enrolment._replace(issued=max(enrolment.issued, end)))
    return result


class Claims:
    """The income and closes that a REQUEST claims, checked (§8.3, §8.5), and then what they change."""

    def __init__(
        self, ledger: Ledger, chain: AccountChain, entry: Entry, body: Request, *, strict: bool = True
    ) -> None:
        self._income: dict[Vintage, int] = {}
        self._credited: dict[tuple[bytes, bytes], int] = {}
        self._claimed: dict[bytes, Position] = {}
        self._closes: list[CloseFact] = []
        missing = [claim.id for claim in body.income if ledger.branch_through(claim) is None]
        missing += [id_ for id_ in body.closes if id_ not in ledger.closes and not ledger.contains_id(id_)]
        if missing:
            raise Pending(missing)
        for claim in body.income:
            self._claim(ledger, chain, entry, claim, strict)
        for id_ in body.closes:
            close = ledger.closes.get(id_)
            if close is None or close.author == chain.author or ledger.requests[close.request].author != chain.author:
                raise RuleViolation("reference", "claims something else than a paymaster's CLOSE of its own REQUEST")
            not_before(entry, close.slice)
            taken = {fact.request for fact in self._closes} | chain.closed.keys()
            if close.request in taken or close.request not in chain.purse.reserves:
                if strict:
                    raise Replay("close-again", "claims a CLOSE of a REQUEST that was closed before")
                continue
            self._closes.append(close)

    def _claim(self, ledger: Ledger, chain: AccountChain, entry: Entry, claim: Position, strict: bool) -> None:
        node = ledger.branch_through(claim)
        if not isinstance(node, NodeChain) or node.owner != chain.author:
            raise RuleViolation("claim", "claims the income of a node that is not its own")
        not_before(entry, node.slice_at(claim.seq))
        before = chain.claimed.get(claim.author)
        after = -1
        if before is not None and strict:
            if claim.seq <= before.seq:
                raise Replay("claim", "claims the income of a node backwards")
            if not node.has(before):  # §7.3
                raise RuleViolation("two-branches", "claims the income of two branches of a node that has forked")
            after = before.seq
        opening, ids = node.opening, ledger.request_ids
        credited: dict[int, int] = {}  # by the REQUEST's number
        income: dict[int, int] = {}  # by period
        for period, number, credits_ in node.earned(after, claim.seq):
            had = credited.get(number)
            if had is None:
                had = chain.credited.get((opening, ids[number]), 0)
            if credits_ > had:
                credited[number] = credits_
                income[period] = income.get(period, 0) + credits_ - had
        self._credited.update({(opening, ids[number]): credits_ for number, credits_ in credited.items()})
        for period, amount in income.items():
            vintage = Vintage(period + ledger.charters.at(period).earned_periods, period, EARNED)
            self._income[vintage] = self._income.get(vintage, 0) + amount
        self._claimed[claim.author] = claim

    def put_into(self, purse: Purse) -> None:
        for vintage, amount in self._income.items():
            purse.add(vintage, amount)
        for close in self._closes:
            purse.close(close.request, close.returned)

    def note_on(self, chain: AccountChain) -> None:
        chain.credited.update(self._credited)
        chain.claimed.update(self._claimed)
        chain.closed.update((close.request, close.final) for close in self._closes)


def merge(ledger: Ledger, author: bytes, tips: Iterable[Position], history: History) -> AccountChain:
    """§8.6: all branches of an account that end at `tips`, replayed together by (slice, number, id).

    With the branches that earlier HEALs on them have abandoned: else a second HEAL would forget what those had spent.
    What no vintage covers becomes debt. The result is for its purse and claims; it is no branch.
    """
    wanted = _acts(ledger, tips)
    past = [signed.entry for signed in history(author, wanted) if signed.entry.id in wanted] if wanted else []
    merged = AccountChain(author, ZERO)
    for entry in sorted(past, key=lambda e: (e.slice, e.seq, e.id)):
        body, now = entry.body, ledger.period(entry.slice)
        if isinstance(body, Enrol):
            first = max(body.first, merged.enrolments[-1].until if merged.enrolments else 0)
            if first < body.until:
                merged.enrolments.append(Enrolment(body.newcomer, body.unit, first, body.until, first))
        elif isinstance(body, Request):
            claims = Claims(ledger, merged, entry, body, strict=False)
            merged.enrolments = issue(ledger, merged.enrolments, merged.purse, now)
            claims.put_into(merged.purse)
            merged.purse.expire(now)
            merged.purse.reserve(entry.id, body.credits, overdraw=True)
            claims.note_on(merged)
            spent = body.credits + (merged.outflow[1] if merged.outflow[0] == now else 0)
            merged.outflow = (now, spent)
        elif isinstance(body, Close) and body.request in merged.purse.reserves:
            merged.purse.close(body.request, body.returned)
            merged.closed[body.request] = body.final
        merged.purse.check()
    return merged


def _acts(ledger: Ledger, tips: Iterable[Position]) -> set[bytes]:
    """The ids of all ENROLs, REQUESTs and CLOSEs up to `tips`, and on what the HEALs there have abandoned."""
    wanted: set[bytes] = set()
    reached: dict[Chain, int] = {}  # up to which number of those that it owns
    todo = list(tips)
    while todo:
        tip = todo.pop()
        branch = ledger.branch_through(tip)
        assert branch is not None  # a HEAL is pending until all that it abandons is here
        for chain, first, last in branch.stretches(0, tip.seq):
            known = reached.get(chain, -1)
            if last <= known or not isinstance(chain, AccountChain):  # who is both has no account on a node's branch
                break
            first = max(first, known + 1)
            wanted.update(id_ for seq in chain.own_events(first, last) if (id_ := chain.id_at(seq)) is not None)
            for _, heal in chain.own_heals(first, last):
                todo += ledger.forks.healings[tip.author][heal].abandoned
            reached[chain] = last
    return wanted


def advance(ledger: Ledger, chain: AccountChain, period: int) -> None:
    """Bring an account's purse to `period`: allowances issued, debt repaid, what expired burned (§8.2, §8.3)."""
    chain.enrolments = issue(ledger, chain.enrolments, chain.purse, period)
    chain.purse.expire(period)
