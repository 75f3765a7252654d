"""What several rules ask: references, stewards, the parts of a CLOSE (SPEC §5.4, §6.7, §7.1). Pure."""

from __future__ import annotations

from ubcp_p2p.ledger.chain import Powers
from ubcp_p2p.ledger.entry import Close, Entry, Position, Rotate, recovery_hash
from ubcp_p2p.ledger.faults import Pending, RuleViolation
from ubcp_p2p.ledger.state import CloseFact, Ledger, RequestFact
from ubcp_p2p.ledger.wire import Signed


def is_answerable(powers: Powers, signed: Signed) -> bool:
    """§7.2: whether the author signed, and not somebody who holds none of its keys."""
    is_rotate = isinstance(signed.entry.body, Rotate)
    return powers.key in signed.signers or (is_rotate and powers.recovery in map(recovery_hash, signed.signers))


def enough_stewards(ledger: Ledger, signed: Signed) -> None:
    charter = ledger.charter_at(signed.entry.slice)
    count = len(signed.signers & frozenset(charter.stewards))
    if count < charter.threshold:  # §6.2, §6.10
        raise RuleViolation("stewards", f"{count} stewards signed; the charter asks for {charter.threshold}")


def slice_of(ledger: Ledger, position: Position) -> int:
    branch = ledger.branch_through(position)
    if branch is None:
        raise Pending([position.id])
    return branch.slice_at(position.seq)


def not_before(entry: Entry, slice_: int) -> None:
    if entry.slice + 1 < slice_:  # §5.4
        raise RuleViolation("slice-reference", f"slice {entry.slice} refers to an entry of slice {slice_}")


def request_of(ledger: Ledger, entry: Entry, id_: bytes) -> RequestFact:
    fact = ledger.requests.get(id_)
    if fact is None:
        raise missing(ledger, id_, "a REQUEST")
    not_before(entry, fact.slice)
    return fact


def missing(ledger: Ledger, id_: bytes, what: str) -> Exception:
    """§7.1: another kind of entry than must be there, or none yet."""
    if ledger.contains_id(id_):
        return RuleViolation("reference", f"refers to something else where {what} belongs")
    return Pending([id_])


def check_close(ledger: Ledger, entry: Entry, body: Close) -> RequestFact:
    request = request_of(ledger, entry, body.request)
    if entry.slice <= request.expiry + ledger.charter_at(request.slice).grace_slices:
        raise RuleViolation("close", "a CLOSE before the REQUEST's expiry and grace are over")
    if sum(credits_ for _, credits_ in body.final) + body.returned != request.credits:  # §8.1
        raise RuleViolation("zero-sum", f"its parts do not sum to the {request.credits} µcredits that were reserved")
    return request


def note_close(ledger: Ledger, entry: Entry, body: Close) -> None:
    ledger.closes[entry.id] = CloseFact(entry.id, entry.author, body.request, body.final, body.returned, entry.slice)
