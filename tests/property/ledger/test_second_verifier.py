"""Two verifiers without common code, the second written from the specification alone, agree on whatever is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings

from tests.support import second_verifier as second
from tests.support.ledger import Replica
from tests.support.story import STEPS, Story
from ubcp_p2p.ledger.balances import balances, balances_root, debts, entries_root
from ubcp_p2p.ledger.entry import ZERO


def _outcome(act: Callable[[bytes], object], data: bytes) -> str:
    """Codes are not compared: where several apply, any may be given (SPEC §1)."""
    try:
        act(data)
    except second.Pending:
        return "pending"
    except second.Refused:
        return "refused"
    return "ok"


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 5)
@given(STEPS)
def test_every_verdict_and_every_number(steps: list[int]) -> None:
    story = Story(steps)
    ours = Replica(story.scene.charters)
    ours.take(story.told, story.proofs())
    theirs = second.Ledger(second.Charters(version.to_bytes() for version in story.scene.charters.versions))
    for signed in story.told:
        verdict = _outcome(lambda data: theirs.take(second.signed_entry_from(data)), signed.to_bytes())
        assert verdict == _verdict(ours, signed.entry.id), signed
    for proof in story.proofs():
        assert _outcome(theirs.take_proof, proof.to_bytes()) == _verdict(ours, proof.id), proof
    rows = balances(ours.ledger, ours.history)
    assert [tuple(row) for row in rows] == [tuple(row) for row in theirs.rows(theirs.newest)]
    assert entries_root(ours.ledger) == theirs.entries_root()
    assert balances_root(rows) == theirs.balances_root()
    assert ours.ledger.frozen() == theirs.frozen()
    said = [*ours.ledger.findings(), *debts(ours.ledger, rows)]
    found = {(finding.code, finding.entry or ZERO, finding.author) for finding in said}
    assert found == {(fault.code, fault.entry, fault.author) for fault in theirs.findings()}


def _verdict(replica: Replica, id_: bytes) -> str:
    return "refused" if id_ in replica.refused else "pending" if id_ in replica.pending else "ok"
