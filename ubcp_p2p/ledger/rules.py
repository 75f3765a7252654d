"""The rules: may this entry be added to that ledger? Every check cites the SPEC section that it enforces. Pure.

`apply` either adds the entry or raises and changes nothing. Whether an entry is valid follows from its causal past
alone, so the verdict is the same on every peer and final. Signatures are verified before (wire.verify); which *keys*
signed is checked here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ubcp_p2p.ledger.chain import AccountChain, Chain, Enrolment, NodeChain, Paid, Powers
from ubcp_p2p.ledger.entry import (
    CONTRIBUTORS_MAX,
    ZERO,
    Allot,
    Checkpoint,
    Close,
    Decision,
    Enrol,
    Entry,
    Heal,
    OpenAccount,
    OpenNode,
    Position,
    Receipt,
    Request,
    Rotate,
    recovery_hash,
)
from ubcp_p2p.ledger.faults import MalformedEntry, Overdraft, Pending, Replay, RuleViolation
from ubcp_p2p.ledger.purse import ALLOWANCE, EARNED, Purse, Vintage
from ubcp_p2p.ledger.state import (
    AllotFact,
    CloseFact,
    Fork,
    Healing,
    History,
    Ledger,
    OpeningFact,
    RequestFact,
)
from ubcp_p2p.ledger.wire import ForkProof, Signed

_OPENINGS: Final = frozenset({OpenAccount, OpenNode})
_COSIGNED: Final = frozenset({Rotate, Enrol, Heal})


def apply(ledger: Ledger, signed: Signed, history: History) -> bool:
    """Add a signed entry whose signatures hold; False when it is there already.

    Raises RuleViolation or MalformedEntry when it is invalid, for ever; Pending when entries that it refers to are not
    here. An entry that makes a fork is noted as such even when it is itself refused.
    """
    entry = signed.entry
    if entry.network != ledger.network:  # §5.1
        raise MalformedEntry("network", f"an entry of another community's ledger ({entry.network.hex()[:16]}…)")
    siblings = ledger.chains.get(entry.author, [])
    is_opening = entry.seq == 0 or type(entry.body) in _OPENINGS
    if len(siblings) == 1 and siblings[0].is_before(entry) and not is_opening:  # nearly always
        chain = siblings[0]
        _check_signers(ledger, chain.powers, signed)
    elif ledger.contains(entry.author, entry.seq, entry.id):
        return False
    elif is_opening:
        chain = _opened(ledger, signed)
        _note_fork(ledger, entry, (other.id_at(0) for other in siblings))
    else:
        chain = _extended(ledger, signed, history)
    _extend(ledger, chain, signed, history)
    if chain not in siblings:
        ledger.chains.setdefault(entry.author, []).append(chain)
    chain.append(entry)
    ledger.entries += 1
    if entry.slice > ledger.slice:
        ledger.slice = entry.slice
    return True


def check_proof(ledger: Ledger, proof: ForkProof) -> None:
    """Freeze the author of a fork proof whose signatures hold (SPEC §7.2).

    Raises RuleViolation when it proves nothing, Pending when the entry before the fork is not here.
    """
    a, b = proof.first.entry, proof.second.entry
    if a.network != ledger.network:
        raise MalformedEntry("network", "a fork proof from another community's ledger")
    if a.seq == 0:
        powers = Powers(a.author, ZERO)
    else:
        before = ledger.branch_through(Position(a.author, a.seq - 1, a.prev))
        if before is None:
            raise Pending([a.prev])
        powers = before.powers_at(a.seq - 1)
    if not (_is_answerable(powers, proof.first) and _is_answerable(powers, proof.second)):
        raise RuleViolation("freeze", "a fork proof that its author did not sign with the key in force")
    ledger.forks.setdefault(proof.author, set()).add(Fork(a.seq, a.id, b.id))


def _is_answerable(powers: Powers, signed: Signed) -> bool:
    """§7.2: whether the author signed, and not somebody who holds none of its keys."""
    is_rotate = isinstance(signed.entry.body, Rotate)
    return powers.key in signed.signers or (is_rotate and powers.recovery in map(recovery_hash, signed.signers))


# -- the chain (§5) ---------------------------------------------------------------------------------------------------


def _opened(ledger: Ledger, signed: Signed) -> Chain:
    """§5.2: a chain begins with OPEN, and only there is one."""
    entry = signed.entry
    body = entry.body
    if entry.seq != 0 or entry.prev != ZERO or not isinstance(body, OpenAccount | OpenNode):
        raise RuleViolation("opening", "a chain begins with OPEN, number 0, which follows nothing")
    if isinstance(body, OpenAccount):
        _must_sign(signed, entry.author)
        return AccountChain(entry.author, body.recovery)
    owner = ledger.branch_through(body.owner)
    if owner is None:
        raise Pending([body.owner.id])
    if not isinstance(owner, AccountChain):  # §6.1
        raise RuleViolation("reference", "the owner of a node is an account")
    _must_sign(signed, *{entry.author, owner.powers_at(body.owner.seq).key})
    return NodeChain(entry.author, owner.author)


def _extended(ledger: Ledger, signed: Signed, history: History) -> Chain:
    """The branch that the entry extends, or a new one when it makes a fork (§7.2)."""
    entry = signed.entry
    siblings = ledger.chains.get(entry.author, [])
    chain = next((c for c in siblings if c.is_before(entry)), None)
    if chain is not None:
        _check_signers(ledger, chain.powers, signed)
        return chain
    to = Position(entry.author, entry.seq - 1, entry.prev)
    before = ledger.branch_through(to)
    if before is None:
        if any(c.seq_of(entry.prev) is not None for c in siblings):  # §5.2
            raise RuleViolation("sequence", f"number {entry.seq} does not follow from the entry that it names")
        raise Pending([entry.prev])
    _check_signers(ledger, before.powers_at(to.seq), signed)  # before the work: anybody can send a stranger's entry
    _note_fork(ledger, entry, (c.id_at(entry.seq) for c in siblings if c.id_at(to.seq) == to.id))
    return _replayed(ledger, entry.author, to, history)


def _note_fork(ledger: Ledger, entry: Entry, others: Iterable[bytes | None]) -> None:
    for other in others:
        if other is not None and other != entry.id:
            ledger.forks.setdefault(entry.author, set()).add(Fork(entry.seq, *sorted((other, entry.id))))


def _replayed(ledger: Ledger, author: bytes, to: Position, history: History) -> Chain:
    """The branch that ends at `to`, built anew from its entries."""
    by_id = {signed.entry.id: signed for signed in history(author)}
    path = []
    id_ = to.id
    while id_ != ZERO:
        path.append(by_id[id_])
        id_ = path[-1].entry.prev
    chain = _opened(ledger, path[-1])
    for signed in reversed(path):
        _extend(ledger, chain, signed, history)
        chain.append(signed.entry)
    return chain


def _check_signers(ledger: Ledger, powers: Powers, signed: Signed) -> None:
    """§5.3: exactly the keys that the kind asks for; how many stewards, and the new key, are checked with the kind."""
    body = signed.entry.body
    if type(body) not in _COSIGNED:
        _must_sign(signed, powers.key)
    elif isinstance(body, Rotate):
        if not _is_answerable(powers, signed):
            raise RuleViolation("signer", "signed by neither the key in force nor the recovery key")
    else:
        stewards = frozenset(ledger.charter_at(signed.entry.slice).stewards)
        if powers.key not in signed.signers or not signed.signers - {powers.key} <= stewards:
            raise RuleViolation("signer", "signed by somebody who is neither its author nor a steward")


def _must_sign(signed: Signed, *keys: bytes) -> None:
    if len(signed.signatures) != len(keys) or any(key not in keys for key, _ in signed.signatures):  # §5.3
        raise RuleViolation(
            "signer", "not signed by exactly the key in force of its author, and of the owner for a node"
        )


def _enough_stewards(ledger: Ledger, signed: Signed) -> None:
    charter = ledger.charter_at(signed.entry.slice)
    count = len(signed.signers & frozenset(charter.stewards))
    if count < charter.threshold:  # §6.2, §6.10
        raise RuleViolation("stewards", f"{count} stewards signed; the charter asks for {charter.threshold}")


def _extend(ledger: Ledger, chain: Chain, signed: Signed, history: History) -> None:
    """All checks and effects of an entry at the head of `chain`; the last check comes before the first effect."""
    entry = signed.entry
    if entry.slice < chain.slice:  # §5.4
        raise RuleViolation("slice-falls", f"slice {entry.slice} after slice {chain.slice}")
    match entry.body, chain:
        case Receipt() as body, NodeChain():
            _receipt(ledger, chain, entry, body)
        case Allot() as body, NodeChain():
            _allot(ledger, chain, entry, body)
        case Decision() as body, NodeChain():
            _decision(ledger, entry, body)
        case Checkpoint() as body, NodeChain():
            _checkpoint(chain, body)
        case Close() as body, NodeChain():
            _close_by_paymaster(ledger, chain, entry, body)
        case Close() as body, AccountChain():
            _close_by_account(ledger, chain, entry, body)
        case Request() as body, AccountChain():
            _request(ledger, chain, entry, body)
        case Enrol() as body, AccountChain():
            _enrol(ledger, chain, signed, body)
        case Rotate() as body, AccountChain():
            _rotate(chain, signed, body)
        case Heal() as body, AccountChain():
            _heal(ledger, chain, signed, body, history)
        case OpenAccount(), AccountChain():
            pass
        case OpenNode() as body, NodeChain():
            _not_before(entry, _slice_of(ledger, body.owner))
            ledger.nodes_of.setdefault(body.owner.author, set()).add(entry.author)
            ledger.openings[entry.id] = OpeningFact(entry.id, entry.author, body.owner.author, entry.slice)
        case _:  # §5.2
            raise RuleViolation("author-kind", "an entry that this kind of author (account or node) cannot write")


def _slice_of(ledger: Ledger, position: Position) -> int:
    branch = ledger.branch_through(position)
    if branch is None:
        raise Pending([position.id])
    return branch.slice_at(position.seq)


def _not_before(entry: Entry, slice_: int) -> None:
    if entry.slice + 1 < slice_:  # §5.4
        raise RuleViolation("slice-reference", f"slice {entry.slice} refers to an entry of slice {slice_}")


def _request_of(ledger: Ledger, entry: Entry, id_: bytes) -> RequestFact:
    fact = ledger.requests.get(id_)
    if fact is None:
        raise _missing(ledger, id_, "a REQUEST")
    _not_before(entry, fact.slice)
    return fact


def _missing(ledger: Ledger, id_: bytes, what: str) -> Exception:
    """§7.1: another kind of entry than must be there, or none yet."""
    if ledger.contains_id(id_):
        return RuleViolation("reference", f"refers to something else where {what} belongs")
    return Pending([id_])


# -- accounts (§6.2, §6.3, §6.9, §6.10) -------------------------------------------------------------------------------


def _enrol(ledger: Ledger, chain: AccountChain, signed: Signed, body: Enrol) -> None:
    entry = signed.entry
    _enough_stewards(ledger, signed)
    charter, now = ledger.charter_at(entry.slice), ledger.period(entry.slice)
    if not charter.has_unit(body.unit):
        raise RuleViolation("enrolment", f"the charter has no unit {body.unit!r}")
    earliest = max(now, chain.enrolments[-1].until if chain.enrolments else 0)
    if not earliest <= body.first <= now + charter.enrolment_periods_max:
        raise RuleViolation("enrolment", f"begins in period {body.first}, signed in period {now}")
    if not body.first < body.until <= body.first + charter.enrolment_periods_max:
        raise RuleViolation("enrolment", f"lasts {body.until - body.first} periods of {charter.enrolment_periods_max}")
    chain.enrolments.append(Enrolment(body.newcomer, body.unit, body.first, body.until, body.first))
    uses = ledger.nullifiers.setdefault(body.nullifier, {})
    use = (entry.slice, entry.id, signed.signers)
    uses[entry.author] = min(uses.get(entry.author, use), use, key=lambda u: u[:2])  # whatever the order they came in


def _request(ledger: Ledger, chain: AccountChain, entry: Entry, body: Request) -> None:
    charter, now = ledger.charter_at(entry.slice), ledger.period(entry.slice)
    longest = charter.enrolment_periods_max * charter.period_slices
    if not (body.peers_min <= body.peers_max and entry.slice <= body.deadline <= body.expiry <= entry.slice + longest):
        raise RuleViolation("request", "peers or dates that do not fit together")
    if body.purpose not in charter.purposes:
        raise RuleViolation("request", f"the charter has no purpose {body.purpose!r}")
    if chain.enrolled(now) is None:  # §8.3
        raise RuleViolation("not-enrolled", f"its author is not enrolled in period {now}")
    spent = body.credits + (chain.outflow[1] if chain.outflow[0] == now else 0)
    if spent > charter.exposure_cap:  # §8.4
        raise RuleViolation("exposure", f"{spent} µcredits reserved in one period; the cap is {charter.exposure_cap}")
    claims = _Claims(ledger, chain, entry, body)

    purse = chain.purse.copy()
    enrolments = _issue(ledger, chain.enrolments, purse, now)
    claims.put_into(purse)
    burned = purse.expire(now)
    if purse.available < body.credits:
        if purse.available + burned >= body.credits:  # §8.2
            raise Overdraft("expired", f"asks for {body.credits} µcredits, of which {burned} have expired")
        raise Overdraft("overdraft", f"asks for {body.credits} µcredits where {purse.available} are available")
    purse.reserve(entry.id, body.credits)
    purse.check()

    chain.purse, chain.enrolments, chain.outflow = purse, enrolments, (now, spent)
    claims.note_on(chain)
    if entry.id not in ledger.requests:
        ledger.requests[entry.id] = RequestFact(
            entry.id, entry.author, entry.slice, body.credits, body.expiry, body.paymaster, len(ledger.request_ids)
        )
        ledger.request_ids.append(entry.id)


def _issue(ledger: Ledger, enrolments: Iterable[Enrolment], purse: Purse, now: int) -> list[Enrolment]:
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


class _Claims:
    """The income and closes that a REQUEST claims, checked (§8.3, §8.5), and then what they change."""

    def __init__(
        self, ledger: Ledger, chain: AccountChain, entry: Entry, body: Request, *, strict: bool = True
    ) -> None:
        self._income: list[tuple[Vintage, int]] = []
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
            _not_before(entry, close.slice)
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
        _not_before(entry, node.slice_at(claim.seq))
        before = chain.claimed.get(claim.author)
        after = -1
        if before is not None and strict:
            if claim.seq <= before.seq:
                raise Replay("claim", "claims the income of a node backwards")
            if not any(c.has(before) and c.has(claim) for c in ledger.chains[claim.author]):  # §7.3
                raise RuleViolation("two-branches", "claims the income of two branches of a node that has forked")
            after = before.seq
        for period, number, credits_ in node.income.between(after, claim.seq):
            key = (node.opening, ledger.request_ids[number])
            had = self._credited.get(key, chain.credited.get(key, 0))
            if credits_ > had:
                vintage = Vintage(period + ledger.charters.at(period).earned_periods, period, EARNED)
                self._income.append((vintage, credits_ - had))
                self._credited[key] = credits_
        self._claimed[claim.author] = claim

    def put_into(self, purse: Purse) -> None:
        for vintage, amount in self._income:
            purse.add(vintage, amount)
        for close in self._closes:
            purse.close(close.request, close.returned)

    def note_on(self, chain: AccountChain) -> None:
        chain.credited.update(self._credited)
        chain.claimed.update(self._claimed)
        chain.closed.update((close.request, close.final) for close in self._closes)


def _rotate(chain: AccountChain, signed: Signed, body: Rotate) -> None:
    """§6.9: the old key sets a new key; only the recovery key sets a new recovery key."""
    powers = chain.powers
    others = signed.signers - {body.key}
    if body.key not in signed.signers or len(others) != 1 or body.key == powers.key:
        raise RuleViolation("rotation", "a ROTATE is signed by its new key and by the old or the recovery key")
    is_recovery = powers.recovery in map(recovery_hash, others)
    if not is_recovery and powers.key not in others:
        raise RuleViolation("signer", "signed by neither the key in force nor the recovery key")
    if not is_recovery and body.recovery != powers.recovery:
        raise RuleViolation("rotation", "only the recovery key may set another recovery key")
    chain.rotate(signed.entry.seq, Powers(body.key, body.recovery))


def _heal(ledger: Ledger, chain: AccountChain, signed: Signed, body: Heal, history: History) -> None:
    """§7.4: all payments on the abandoned branches count; the account goes on with what that leaves it."""
    entry = signed.entry
    _enough_stewards(ledger, signed)
    positions = [Position(entry.author, seq, id_) for seq, id_ in body.abandoned]
    missing = [position.id for position in positions if ledger.branch_through(position) is None]
    if missing:
        raise Pending(missing)
    if not positions and not body.refused:
        raise RuleViolation("heal", "a HEAL that names no other branch")
    if any(chain.has(position) for position in positions):
        raise RuleViolation("heal", "a HEAL that abandons the branch it continues")
    for position in positions:
        _not_before(entry, _slice_of(ledger, position))
    before = Position(entry.author, entry.seq - 1, entry.prev)
    merged = merge(ledger, entry.author, (before, *positions), history)
    chain.purse, chain.enrolments, chain.outflow = merged.purse, merged.enrolments, merged.outflow
    chain.claimed, chain.credited, chain.closed = merged.claimed, merged.credited, merged.closed
    healing = Healing((before, *positions), frozenset(body.refused))
    ledger.healings.setdefault(entry.author, set()).add(healing)


def merge(ledger: Ledger, author: bytes, tips: Iterable[Position], history: History) -> AccountChain:
    """§8.6: all branches of an account that end at `tips`, replayed together by (slice, number, id).

    With the branches that earlier HEALs on them have abandoned: else a second HEAL would forget what those had spent.
    What no vintage covers becomes debt. The result is for its purse and claims; it is no branch.
    """
    by_id = {signed.entry.id: signed.entry for signed in history(author)}
    wanted: dict[bytes, Entry] = {}
    ends = [tip.id for tip in tips]
    while ends:
        id_ = ends.pop()
        while id_ != ZERO and id_ not in wanted:
            entry = wanted[id_] = by_id[id_]
            if isinstance(entry.body, Heal):
                ends += [abandoned for _, abandoned in entry.body.abandoned]
            id_ = entry.prev
    merged = AccountChain(author, ZERO)
    for entry in sorted(wanted.values(), key=lambda e: (e.slice, e.seq, e.id)):
        body, now = entry.body, ledger.period(entry.slice)
        if isinstance(body, Enrol):
            first = max(body.first, merged.enrolments[-1].until if merged.enrolments else 0)
            if first < body.until:
                merged.enrolments.append(Enrolment(body.newcomer, body.unit, first, body.until, first))
        elif isinstance(body, Request):
            claims = _Claims(ledger, merged, entry, body, strict=False)
            merged.enrolments = _issue(ledger, merged.enrolments, merged.purse, now)
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


def advance(ledger: Ledger, chain: AccountChain, period: int) -> None:
    """Bring an account's purse to `period`: allowances issued, debt repaid, what expired burned (§8.2, §8.3)."""
    chain.enrolments = _issue(ledger, chain.enrolments, chain.purse, period)
    chain.purse.expire(period)


# -- nodes (§6.4 to §6.8) ---------------------------------------------------------------------------------------------


def _decision(ledger: Ledger, entry: Entry, body: Decision) -> None:
    if not entry.slice <= body.slice <= entry.slice + ledger.charters.first.period_slices:
        raise RuleViolation("decision", f"decides about slice {body.slice} in slice {entry.slice}")
    requests = [ledger.requests.get(id_) for id_ in body.accepted]
    for id_, request in zip(body.accepted, requests, strict=True):
        if request is None:
            raise _missing(ledger, id_, "a REQUEST")
        _not_before(entry, request.slice)
        if body.slice > request.expiry:
            raise RuleViolation("decision", "accepts a REQUEST that has expired")


def _allot(ledger: Ledger, chain: NodeChain, entry: Entry, body: Allot) -> None:
    request = _request_of(ledger, entry, body.request)
    opening = ledger.openings.get(body.contributor)
    if opening is None:
        raise _missing(ledger, body.contributor, "the OPEN of a node")
    _not_before(entry, opening.slice)
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
    chain.allots.setdefault(body.request, {})[body.contributor] = body.credits
    ledger.allots[entry.id] = AllotFact(
        entry.id, body.request, entry.author, chain.owner, body.contributor, body.credits, entry.slice, entry.seq
    )


def _receipt(ledger: Ledger, chain: NodeChain, entry: Entry, body: Receipt) -> None:
    network, paymaster, request_id, allot_id, contributor, units, credits_, rounds, device, seconds, _ = body.voucher
    allot = ledger.allots.get(allot_id)
    if allot is None:
        raise _missing(ledger, allot_id, "an ALLOT")
    if not (
        network == entry.network
        and request_id == allot.request
        and paymaster == allot.paymaster
        and contributor == entry.author
        and allot.contributor == chain.opening
    ):
        raise RuleViolation("receipt-allot", "a voucher that does not belong to its ALLOT or its receiver")
    request, slice_ = ledger.requests[request_id], entry.slice
    _not_before(entry, allot.slice)
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
    before = chain.paid.get(request_id)
    if before is not None:
        if slice_ <= before.slice:
            raise RuleViolation("receipt-slice", f"a second RECEIPT for one REQUEST in slice {slice_}")
        if credits_ <= before.credits or rounds < before.rounds or seconds < before.seconds:
            raise RuleViolation("receipt-grows", "a voucher that does not grow over the one before")
        if before.allot != allot_id and not _on_one_branch(ledger, ledger.allots[before.allot], allot):  # §7.3
            raise RuleViolation("two-branches", "takes vouchers from two branches of a paymaster that has forked")
    elif credits_ == 0:
        raise RuleViolation("receipt-grows", "a RECEIPT over nothing")
    chain.paid[request_id] = Paid(units, credits_, rounds, seconds, slice_, allot_id)
    chain.income.append(entry.seq, ledger.period(slice_), request.number, credits_)
    paid = ledger.paid.setdefault(request_id, {})
    if credits_ > paid.get(chain.opening, 0):
        paid[chain.opening] = credits_


def _on_one_branch(ledger: Ledger, one: AllotFact, other: AllotFact) -> bool:
    return any(
        chain.id_at(one.seq) == one.id and chain.id_at(other.seq) == other.id for chain in ledger.chains[one.paymaster]
    )


def _check_close(ledger: Ledger, entry: Entry, body: Close) -> RequestFact:
    request = _request_of(ledger, entry, body.request)
    if entry.slice <= request.expiry + ledger.charter_at(request.slice).grace_slices:
        raise RuleViolation("close", "a CLOSE before the REQUEST's expiry and grace are over")
    if sum(credits_ for _, credits_ in body.final) + body.returned != request.credits:  # §8.1
        raise RuleViolation("zero-sum", f"its parts do not sum to the {request.credits} µcredits that were reserved")
    return request


def _close_by_paymaster(ledger: Ledger, chain: NodeChain, entry: Entry, body: Close) -> None:
    request = _check_close(ledger, entry, body)
    if request.paymaster != entry.author:
        raise RuleViolation("close", "a CLOSE by a node that is not the REQUEST's paymaster")
    allots = chain.allots.get(body.request, {})
    if [contributor for contributor, _ in body.final] != sorted(allots) or any(
        credits_ > allots[contributor] for contributor, credits_ in body.final
    ):
        raise RuleViolation("close", "not of exactly the contributors that it allotted to, or above an ALLOT")
    if body.request in chain.closed:
        raise Replay("close-again", "a second CLOSE of one REQUEST")
    chain.closed.add(body.request)
    _note_close(ledger, entry, body)


def _close_by_account(ledger: Ledger, chain: AccountChain, entry: Entry, body: Close) -> None:
    request = _check_close(ledger, entry, body)
    if request.author != entry.author:
        raise RuleViolation("close", "a CLOSE by an account that did not write the REQUEST")
    if body.request not in chain.purse.reserves:
        raise Replay("close-again", "a CLOSE of a REQUEST that was closed before, or is on another branch")
    chain.purse.close(body.request, body.returned)
    chain.purse.check()
    chain.closed[body.request] = body.final
    _note_close(ledger, entry, body)


def _note_close(ledger: Ledger, entry: Entry, body: Close) -> None:
    ledger.closes[entry.id] = CloseFact(entry.id, entry.author, body.request, body.final, body.returned, entry.slice)


def _checkpoint(chain: NodeChain, body: Checkpoint) -> None:
    if body.size <= chain.checkpoint_size:  # §9.3; whether it recomputes is for the audit of its author's own log
        raise RuleViolation("checkpoint-falls", f"{body.size} entries after a CHECKPOINT of {chain.checkpoint_size}")
    chain.checkpoint_size = body.size
