"""The rules of what nodes write: DECISION, ALLOT, RECEIPT, CLOSE, CHECKPOINT (SPEC §6.4 to §6.8). Pure.

Each function checks one entry at the head of `chain`, and then lets it act: the last check comes before the first
effect.
"""

from __future__ import annotations

from ubcp_p2p.ledger.chain import NodeChain, Paid
from ubcp_p2p.ledger.entry import CONTRIBUTORS_MAX, Allot, Checkpoint, Close, Decision, Entry, Position, Receipt
from ubcp_p2p.ledger.faults import Replay, RuleViolation
from ubcp_p2p.ledger.rules_common import check_close, missing, not_before, note_close, request_of
from ubcp_p2p.ledger.state import AllotFact, Ledger


def decision(ledger: Ledger, entry: Entry, body: Decision) -> None:
    if not entry.slice <= body.slice <= entry.slice + ledger.charters.first.period_slices:
        raise RuleViolation("decision", f"decides about slice {body.slice} in slice {entry.slice}")
    requests = [ledger.requests.get(id_) for id_ in body.accepted]
    for id_, request in zip(body.accepted, requests, strict=True):
        if request is None:
            raise missing(ledger, id_, "a REQUEST")
        not_before(entry, request.slice)
        if body.slice > request.expiry:
            raise RuleViolation("decision", "accepts a REQUEST that has expired")


def allot(ledger: Ledger, chain: NodeChain, entry: Entry, body: Allot) -> None:
    request = request_of(ledger, entry, body.request)
    opening = ledger.openings.get(body.contributor)
    if opening is None:
        raise missing(ledger, body.contributor, "the OPEN of a node")
    not_before(entry, opening.slice)
    if request.paymaster != entry.author:
        raise RuleViolation("allot", "an ALLOT by another node than the REQUEST's paymaster")
    if entry.slice > request.expiry or body.request in chain.closed:
        raise RuleViolation("allot", "an ALLOT after the REQUEST has expired or was closed")
    allots = chain.allots.get(body.request, {})
    before = allots.get(body.contributor, 0)
    if body.credits <= before:
        raise RuleViolation("allot", f"{body.credits} µcredits where {before} were allotted before")
    if sum(allots.values()) - before + body.credits > request.credits:
        raise RuleViolation("allot-sum", f"ALLOTs above the {request.credits} µcredits that the REQUEST reserved")
    if not before and len(allots) >= CONTRIBUTORS_MAX:
        raise RuleViolation("allot", f"more than {CONTRIBUTORS_MAX} contributors of one REQUEST")
    chain.note_event(entry.seq)
    chain.allots.setdefault(body.request, {})[body.contributor] = body.credits
    ledger.allots[entry.id] = AllotFact(
        entry.id, body.request, entry.author, chain.owner, body.contributor, body.credits, entry.slice, entry.seq
    )


def voucher_allot(ledger: Ledger, chain: NodeChain, entry: Entry, body: Receipt) -> AllotFact:
    """The ALLOT under a voucher. Raises what its RECEIPT is refused with, whatever RECEIPTs came before."""
    network, paymaster, request_id, allot_id, contributor, units, credits_, _, device, seconds, _ = body.voucher
    allot = ledger.allots.get(allot_id)
    if allot is None:
        raise missing(ledger, allot_id, "an ALLOT")
    if not (
        network == entry.network
        and request_id == allot.request
        and paymaster == allot.paymaster
        and contributor == entry.author
        and allot.contributor == chain.opening
    ):
        raise RuleViolation("receipt-allot", "a voucher that does not belong to its ALLOT or its receiver")
    request, slice_ = ledger.requests[request_id], entry.slice
    not_before(entry, allot.slice)
    if chain.owner in (allot.owner, request.author):
        raise RuleViolation("receipt-self", "a RECEIPT from a node, or for a REQUEST, of the same owner")
    charter = ledger.charter_at(request.slice)
    if slice_ > request.expiry + charter.grace_slices:
        raise RuleViolation("receipt-late", f"in slice {slice_} for a REQUEST that expired in {request.expiry}")
    if credits_ != units:  # the price is 1 for everybody
        raise RuleViolation("price", f"{credits_} µcredits for {units} units")
    peak = charter.peak_of(device)
    if peak is None or units > peak * seconds:
        raise RuleViolation("device", f"{units} units in {seconds} s by a {device!r:.70}")
    if credits_ > allot.credits:
        raise RuleViolation("receipt-limit", f"a voucher over {credits_} µcredits; {allot.credits} were allotted")
    return allot


def receipt(ledger: Ledger, chain: NodeChain, entry: Entry, body: Receipt) -> None:
    allot = voucher_allot(ledger, chain, entry, body)
    _, _, request_id, allot_id, _, units, credits_, rounds, _, seconds, _ = body.voucher
    request, slice_ = ledger.requests[request_id], entry.slice
    before = chain.paid.get(request_id)
    if before is not None:
        if slice_ <= before.slice:
            raise RuleViolation("receipt-slice", f"a second RECEIPT for one REQUEST in slice {slice_}")
        if credits_ <= before.credits or rounds < before.rounds or seconds < before.seconds:
            raise RuleViolation("receipt-grows", "a voucher that does not grow over the one before")
        if before.allot != allot_id and not on_one_branch(ledger, ledger.allots[before.allot], allot):  # §7.3
            raise RuleViolation("two-branches", "takes vouchers from two branches of a paymaster that has forked")
    elif credits_ == 0:
        raise RuleViolation("receipt-grows", "a RECEIPT over nothing")
    chain.paid[request_id] = Paid(units, credits_, rounds, seconds, slice_, allot_id)
    if entry.seq >= chain.start:  # else another branch owns it, and this one is being made
        chain.income.append(entry.seq, ledger.period(slice_), request.number, credits_)
    paid = ledger.paid.setdefault(request_id, {})
    if credits_ > paid.get(chain.opening, 0):
        paid[chain.opening] = credits_


def on_one_branch(ledger: Ledger, one: AllotFact, other: AllotFact) -> bool:
    low, high = sorted((one, other), key=lambda fact: fact.seq)
    branch = ledger.branch_through(Position(high.paymaster, high.seq, high.id))
    return branch is not None and branch.has(Position(low.paymaster, low.seq, low.id))


def close_by_paymaster(ledger: Ledger, chain: NodeChain, entry: Entry, body: Close) -> None:
    request = check_close(ledger, entry, body)
    if request.paymaster != entry.author:
        raise RuleViolation("close", "a CLOSE by a node that is not the REQUEST's paymaster")
    allots = chain.allots.get(body.request, {})
    if [contributor for contributor, _ in body.final] != sorted(allots) or any(
        credits_ > allots[contributor] for contributor, credits_ in body.final
    ):
        raise RuleViolation("close", "not of exactly the contributors that it allotted to, or above an ALLOT")
    if body.request in chain.closed:
        raise Replay("close-again", "a second CLOSE of one REQUEST")
    chain.note_event(entry.seq)
    chain.closed.add(body.request)
    note_close(ledger, entry, body)


def checkpoint(chain: NodeChain, entry: Entry, body: Checkpoint) -> None:
    if body.size <= chain.checkpoint_size:  # §9.3; whether it recomputes is for the audit of its author's own log
        raise RuleViolation("checkpoint-falls", f"{body.size} entries after a CHECKPOINT of {chain.checkpoint_size}")
    chain.note_checkpoint(entry.seq, body.size)
