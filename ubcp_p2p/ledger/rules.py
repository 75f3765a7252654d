"""The rules: may this entry be added to that ledger? Every check cites the SPEC section that it enforces. Pure.

`apply` either adds the entry or raises and changes nothing. Whether an entry is valid follows from its causal past
alone, so the verdict is the same on every peer and final. Signatures are verified before (wire.verify); which *keys*
signed is checked here, and which branch an entry goes on. What each kind asks for beyond that is in rules_accounts.py
and rules_nodes.py.
"""

from __future__ import annotations

from typing import Final

from ubcp_p2p.ledger import rules_accounts as accounts
from ubcp_p2p.ledger import rules_nodes as nodes
from ubcp_p2p.ledger.chain import AccountChain, Chain, NodeChain, Powers
from ubcp_p2p.ledger.entry import (
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
)
from ubcp_p2p.ledger.faults import MalformedEntry, Pending, RuleViolation
from ubcp_p2p.ledger.forks import Place
from ubcp_p2p.ledger.rules_common import is_answerable, not_before, slice_of
from ubcp_p2p.ledger.state import History, Ledger, OpeningFact
from ubcp_p2p.ledger.wire import ForkProof, Signed

KEPT_MAX: Final = 16  # of one author; whoever forks there again is spared the replay
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
    siblings = ledger.chains.get(entry.author, ())
    is_opening = entry.seq == 0 or type(entry.body) in _OPENINGS
    if len(siblings) == 1 and siblings[0].is_before(entry) and not is_opening:  # nearly always
        chain = siblings[0]
        _check_signers(ledger, chain.powers, signed)
    elif ledger.contains(entry.author, entry.seq, entry.id):
        return False
    elif is_opening:
        chain = _opened(ledger, signed)
        _note_fork(ledger, entry)
    else:
        chain = _extended(ledger, signed, history)
    if entry.slice < chain.slice:  # §5.4
        raise RuleViolation("slice-falls", f"slice {entry.slice} after slice {chain.slice}")
    body = entry.body
    if type(body) is Receipt and type(chain) is NodeChain:  # four fifths of a ledger
        nodes.receipt(ledger, chain, entry, body)
    else:
        _act(ledger, chain, signed, history)
    if chain.is_new:
        ledger.chains.setdefault(entry.author, []).append(chain)
    ledger.append(chain, entry)
    return True


def check_proof(ledger: Ledger, proof: ForkProof) -> None:
    """Freeze the author of a fork proof whose signatures hold (SPEC §7.2).

    Raises RuleViolation when it proves nothing, Pending when the entry before the fork is not here.
    """
    a, b = proof.first.entry, proof.second.entry
    if a.network != ledger.network:
        raise MalformedEntry("network", "a fork proof from another community's ledger")
    openings = [type(entry.body) in _OPENINGS for entry in (a, b)]
    if openings != [a.seq == 0] * 2 or (a.seq == 0) != (a.prev == ZERO):
        raise RuleViolation("freeze", "a fork proof whose entries stand at no place of a chain: OPEN is number 0")
    if a.seq == 0:
        powers = Powers(a.author, ZERO)
    else:
        before = ledger.branch_through(Position(a.author, a.seq - 1, a.prev))
        if before is None:
            raise Pending([a.prev])
        powers = before.powers_at(a.seq - 1)
    if not (is_answerable(powers, proof.first) and is_answerable(powers, proof.second)):
        raise RuleViolation("freeze", "a fork proof that its author did not sign with the key in force")
    place = Place(a.seq, a.prev)
    third = ledger.first_after(a.author, place)
    ledger.forks.note(a.author, place, {a.id, b.id} | ({third} if third is not None else set()))


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
    to = Position(entry.author, entry.seq - 1, entry.prev)
    before = ledger.branch_through(to)
    if before is None:
        found = ledger.index.holder(entry.prev)
        if found is not None and found.author == entry.author:  # §5.2
            raise RuleViolation("sequence", f"number {entry.seq} does not follow from the entry that it names")
        raise Pending([entry.prev])
    _check_signers(ledger, before.powers_at(to.seq), signed)  # before the work: anybody can send a stranger's entry
    holder = before.holder(to.seq)
    if holder.is_before(entry):
        return holder
    _note_fork(ledger, entry)
    return _branch(ledger, holder, to, history)


def _note_fork(ledger: Ledger, entry: Entry) -> None:
    place = Place(entry.seq, entry.prev)
    other = ledger.first_after(entry.author, place)
    if other is not None:
        ledger.forks.note(entry.author, place, (other, entry.id))


def _branch(ledger: Ledger, holder: Chain, to: Position, history: History) -> Chain:
    """A new branch, from the entry `to` on, which `holder` owns.

    What cannot be looked up by number is replayed, from the nearest place on this branch that was forked at before.
    """
    kept = ledger.kept.setdefault(to.author, {})
    branch, first = holder.fork(to.seq), 0
    before = [other for other in kept.values() if branch.has(other.head)]
    if before:
        near = max(before, key=len)
        branch.take_over(near)
        first = len(near)
    numbers = [seq for chain, low, high in branch.stretches(first, to.seq) for seq in chain.own_acts(low, high)]
    wanted = {id_ for seq in numbers if (id_ := branch.id_at(seq)) is not None}
    if wanted:
        past = [signed for signed in history(to.author, wanted) if signed.entry.id in wanted]
        for signed in sorted(past, key=lambda signed: signed.entry.seq):
            _act(ledger, branch, signed, history)
        if len(kept) >= KEPT_MAX:
            del kept[next(iter(kept))]  # the oldest
        kept[to.id] = branch.twin()
    return branch


# -- who signed (§5.3) ------------------------------------------------------------------------------------------------


def _check_signers(ledger: Ledger, powers: Powers, signed: Signed) -> None:
    """Exactly the keys that the kind asks for; how many stewards, and the new key, are checked with the kind."""
    body = signed.entry.body
    if type(body) not in _COSIGNED:
        pairs = signed.signatures  # nearly always there is one: not worth the way through a set
        if len(pairs) != 1 or pairs[0][0] != powers.key:
            raise _wrong_signers()
    elif isinstance(body, Rotate):
        if not is_answerable(powers, signed):
            raise RuleViolation("signer", "signed by neither the key in force nor the recovery key")
    else:
        stewards = frozenset(ledger.charter_at(signed.entry.slice).stewards)
        if powers.key not in signed.signers or not signed.signers - {powers.key} <= stewards:
            raise RuleViolation("signer", "signed by somebody who is neither its author nor a steward")


def _must_sign(signed: Signed, *keys: bytes) -> None:
    if len(signed.signatures) != len(keys) or any(key not in keys for key, _ in signed.signatures):
        raise _wrong_signers()


def _wrong_signers() -> RuleViolation:
    return RuleViolation("signer", "not signed by exactly the key in force of its author, and of the owner for a node")


# -- what each kind asks for (§6) -------------------------------------------------------------------------------------


def _act(ledger: Ledger, chain: Chain, signed: Signed, history: History) -> None:
    """The checks and effects of one kind; when it is replayed on a new branch, what others have of it stays."""
    entry = signed.entry
    match entry.body, chain:
        case Receipt() as body, NodeChain():
            nodes.receipt(ledger, chain, entry, body)
        case Allot() as body, NodeChain():
            nodes.allot(ledger, chain, entry, body)
        case Decision() as body, NodeChain():
            nodes.decision(ledger, entry, body)
        case Checkpoint() as body, NodeChain():
            nodes.checkpoint(chain, entry, body)
        case Close() as body, NodeChain():
            nodes.close_by_paymaster(ledger, chain, entry, body)
        case Close() as body, AccountChain():
            accounts.close_by_account(ledger, chain, entry, body)
        case Request() as body, AccountChain():
            accounts.request(ledger, chain, entry, body)
        case Enrol() as body, AccountChain():
            accounts.enrol(ledger, chain, signed, body)
        case Rotate() as body, AccountChain():
            accounts.rotate(chain, signed, body)
        case Heal() as body, AccountChain():
            accounts.heal(ledger, chain, signed, body, history)
        case OpenAccount(), AccountChain():
            pass
        case OpenNode() as body, NodeChain():
            not_before(entry, slice_of(ledger, body.owner))
            ledger.nodes_of.setdefault(body.owner.author, set()).add(entry.author)
            ledger.openings[entry.id] = OpeningFact(entry.id, entry.author, body.owner.author, entry.slice)
        case _:  # §5.2
            raise RuleViolation("author-kind", "an entry that this kind of author (account or node) cannot write")
