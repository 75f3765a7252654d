"""The rules of what accounts write: ENROL, REQUEST, CLOSE, ROTATE, HEAL (SPEC §6.2, §6.3, §6.7, §6.9, §6.10). Pure.

Each function checks one entry at the head of `chain`, and then lets it act: the last check comes before the first
effect.
"""

from __future__ import annotations

from ubcp_p2p.ledger.chain import AccountChain, Enrolment, Powers
from ubcp_p2p.ledger.entry import Close, Enrol, Entry, Heal, Position, Request, Rotate, recovery_hash
from ubcp_p2p.ledger.faults import Overdraft, Pending, Replay, RuleViolation
from ubcp_p2p.ledger.forks import Healing
from ubcp_p2p.ledger.replay import Claims, issue, merge
from ubcp_p2p.ledger.rules_common import check_close, enough_stewards, not_before, note_close, slice_of
from ubcp_p2p.ledger.state import History, Ledger, RequestFact
from ubcp_p2p.ledger.wire import Signed


def enrol(ledger: Ledger, chain: AccountChain, signed: Signed, body: Enrol) -> None:
    entry = signed.entry
    enough_stewards(ledger, signed)
    charter, now = ledger.charter_at(entry.slice), ledger.period(entry.slice)
    if not charter.has_unit(body.unit):
        raise RuleViolation("enrolment", f"the charter has no unit {body.unit!r}")
    earliest = max(now, chain.enrolments[-1].until if chain.enrolments else 0)
    if not earliest <= body.first <= now + charter.enrolment_periods_max:
        raise RuleViolation("enrolment", f"begins in period {body.first}, signed in period {now}")
    if not body.first < body.until <= body.first + charter.enrolment_periods_max:
        raise RuleViolation("enrolment", f"lasts {body.until - body.first} periods of {charter.enrolment_periods_max}")
    chain.note_event(entry.seq)
    chain.enrolments.append(Enrolment(body.newcomer, body.unit, body.first, body.until, body.first))
    uses = ledger.nullifiers.setdefault(body.nullifier, {})
    use = (entry.slice, entry.id, signed.signers)
    uses[entry.author] = min(uses.get(entry.author, use), use, key=lambda u: u[:2])  # whatever the order they came in


def request(ledger: Ledger, chain: AccountChain, entry: Entry, body: Request) -> None:
    charter, now = ledger.charter_at(entry.slice), ledger.period(entry.slice)
    # A REQUEST of an old slice may spend allowances that have expired since: it must not live on for long.
    latest = entry.slice + charter.allowance_periods * charter.period_slices
    if not (body.peers_min <= body.peers_max and entry.slice <= body.deadline <= body.expiry <= latest):
        raise RuleViolation("request", "peers or dates that do not fit together")
    if body.purpose not in charter.purposes:
        raise RuleViolation("request", f"the charter has no purpose {body.purpose!r}")
    if chain.enrolled(now) is None:  # §8.3
        raise RuleViolation("not-enrolled", f"its author is not enrolled in period {now}")
    spent = body.credits + (chain.outflow[1] if chain.outflow[0] == now else 0)
    if spent > charter.exposure_cap:  # §8.4
        raise RuleViolation("exposure", f"{spent} µcredits reserved in one period; the cap is {charter.exposure_cap}")
    claims = Claims(ledger, chain, entry, body)

    purse = chain.purse.copy()
    enrolments = issue(ledger, chain.enrolments, purse, now)
    claims.put_into(purse)
    burned = purse.expire(now)
    if purse.available < body.credits:
        if purse.available + burned >= body.credits:  # §8.2
            raise Overdraft("expired", f"asks for {body.credits} µcredits, of which {burned} have expired")
        raise Overdraft("overdraft", f"asks for {body.credits} µcredits where {purse.available} are available")
    purse.reserve(entry.id, body.credits)
    purse.check()

    chain.note_event(entry.seq)
    chain.purse, chain.enrolments, chain.outflow = purse, enrolments, (now, spent)
    claims.note_on(chain)
    if entry.id not in ledger.requests:
        ledger.requests[entry.id] = RequestFact(
            entry.id, entry.author, entry.slice, body.credits, body.expiry, body.paymaster, len(ledger.request_ids)
        )
        ledger.request_ids.append(entry.id)


def rotate(chain: AccountChain, signed: Signed, body: Rotate) -> None:
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


def heal(ledger: Ledger, chain: AccountChain, signed: Signed, body: Heal, history: History) -> None:
    """§7.4: all payments on the abandoned branches count; the account goes on with what that leaves it."""
    entry = signed.entry
    enough_stewards(ledger, signed)
    positions = [Position(entry.author, seq, id_) for seq, id_ in body.abandoned]
    missing = [position.id for position in positions if ledger.branch_through(position) is None]
    if missing:
        raise Pending(missing)
    if not positions and not body.refused:
        raise RuleViolation("heal", "a HEAL that names no other branch")
    if any(chain.has(position) for position in positions):
        raise RuleViolation("heal", "a HEAL that abandons the branch it continues")
    for position in positions:
        not_before(entry, slice_of(ledger, position))
    before = Position(entry.author, entry.seq - 1, entry.prev)
    merged = merge(ledger, entry.author, (before, *positions), history)
    chain.purse, chain.enrolments, chain.outflow = merged.purse, merged.enrolments, merged.outflow
    chain.claimed, chain.credited, chain.closed = merged.claimed, merged.credited, merged.closed
    earlier = frozenset(id_ for position in (before, *positions) if (id_ := _newest_heal(ledger, position)))
    key, refused = chain.powers_at(before.seq).key, frozenset(body.refused)
    ledger.forks.heal(Healing(entry.position, key, before, tuple(positions), refused, earlier))
    chain.note_heal(entry.seq, entry.id)


def _newest_heal(ledger: Ledger, position: Position) -> bytes:
    branch = ledger.branch_through(position)
    return branch.heal_at(position.seq) if isinstance(branch, AccountChain) else b""


def close_by_account(ledger: Ledger, chain: AccountChain, entry: Entry, body: Close) -> None:
    request = check_close(ledger, entry, body)
    if request.author != entry.author:
        raise RuleViolation("close", "a CLOSE by an account that did not write the REQUEST")
    if body.request not in chain.purse.reserves:
        raise Replay("close-again", "a CLOSE of a REQUEST that was closed before, or is on another branch")
    chain.purse.close(body.request, body.returned)
    chain.purse.check()
    chain.note_event(entry.seq)
    chain.closed[body.request] = body.final
    note_close(ledger, entry, body)
