"""Any order, any repetition, any division into batches, any restart in between: the same store in the end."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.community import Community, community, known, new_store
from ubcp_p2p.ledger.balances import balances, balances_root, entries_root
from ubcp_p2p.ledger.store import Outcome, Store

pytestmark = pytest.mark.slow

TOWN: Community = community(seed=4, receipts=3)
ROOTS = (
    entries_root(TOWN.world.ledger),
    balances_root(balances(TOWN.world.ledger, TOWN.world.history)),
)
COUNT = len(TOWN.entries)


@given(data=st.data())
@settings(max_examples=60)
def test_any_delivery_ends_in_the_same_state(data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(COUNT)))
    doubled = data.draw(st.lists(st.integers(0, COUNT - 1), max_size=COUNT))
    arrivals = [TOWN.entries[i] for i in (*order, *doubled)]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(arrivals) - 1), max_size=6)))
    restarts = data.draw(st.sets(st.integers(0, len(cuts)), max_size=3))
    proof_at = data.draw(st.integers(0, len(cuts)))
    with tempfile.TemporaryDirectory() as folder:
        store = new_store(Path(folder) / "ledger.sqlite3", TOWN.world)
        outcomes: dict[bytes, Outcome] = {}
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(arrivals)], strict=True)):
            if number == proof_at:
                store.add_proof(TOWN.proof)
            for verdict in store.append(arrivals[start:end]):
                if verdict.outcome is not Outcome.KNOWN:
                    outcomes[verdict.id] = verdict.outcome
            if number in restarts:
                store.close()
                store = Store.open(store.path)
        outcomes.pop(TOWN.proof.id, None)
        assert outcomes == {signed.entry.id: Outcome.ADDED for signed in TOWN.entries}
        found = known(store)
        assert (found.entries_root, found.balances_root) == ROOTS
        assert found.frozen == (TOWN.forker,)
        assert found.proofs == (TOWN.proof.id,)
        assert found.missing == ()
        store.close()


@given(cut=st.integers(0, COUNT), tail=st.integers(0, COUNT))
@settings(max_examples=30)
def test_what_is_left_out_is_asked_for_and_nothing_else_is(cut: int, tail: int) -> None:
    """Without some entries, those that are here and those that wait are together what came."""
    without = TOWN.entries[cut : cut + tail]
    arrived = [signed for signed in TOWN.entries if signed not in without]
    with tempfile.TemporaryDirectory() as folder, new_store(Path(folder) / "ledger.sqlite3", TOWN.world) as store:
        verdicts = store.append(arrived)
        waiting = {verdict.id for verdict in verdicts if verdict.outcome is Outcome.PENDING}
        here = {row.id for row in store.after(0, COUNT)}
        assert here | waiting == {signed.entry.id for signed in arrived} and not here & waiting
        lacking = set(store.pending_missing())
        assert bool(lacking) == bool(waiting)
        assert lacking <= {signed.entry.id for signed in without} | waiting
        store.append(without)
        assert store.pending_missing() == []
        assert entries_root(store.ledger) == ROOTS[0]
