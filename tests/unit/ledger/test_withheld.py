"""What a node shows to peers of its own chain: nothing, while it does not know whether the chain went another way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.community import Community, community, new_store
from ubcp_p2p.keys import AccountKey
from ubcp_p2p.ledger.shared import Shared
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.world import secret
from ubcp_p2p.ledger.writer import Standing, Writer

ALL = 10**6


@pytest.fixture(scope="module")
def town() -> Community:
    return community()


@pytest.fixture
def store(tmp_path: Path, town: Community) -> Iterator[Store]:
    with new_store(tmp_path / "ledger.sqlite3", town.world) as made:
        made.append(town.entries)
        yield made


def _shown(shared: Shared, town: Community) -> set[bytes]:
    """The ids that every way of asking gives."""
    heads = {head.id for head in shared.heads()}
    by_id = {signed.entry.id for signed in town.entries if shared.entry(signed.entry.id) is not None}
    authors = {signed.entry.author for signed in town.entries}
    ranges = {data for author in authors for data in shared.range(author, 0, ALL)}
    assert ranges == {signed.to_bytes() for signed in town.entries if signed.entry.id in by_id}
    assert {data for _, data in shared.log(0)} == ranges
    assert heads <= by_id
    return by_id


def test_a_chain_is_shown_when_it_is_confirmed(store: Store, town: Community) -> None:
    key = AccountKey(secret(town.world.seed, "account ann"))
    shared, writer = Shared(store), Writer(store, key)
    everything = {signed.entry.id for signed in town.entries}
    mine = {signed.entry.id for signed in store.history(key.public)}
    assert _shown(shared, town) == everything
    shared.guard(writer)
    assert _shown(shared, town) == everything - mine
    assert list(shared.range(key.public, 0, ALL)) == []
    assert shared.contains(*store.history(key.public)[0].entry.position)  # for itself it knows them all the same
    assert writer.head is not None and shared.length(key.public) == writer.head.seq + 1
    assert shared.proof_ids() == [town.proof.id] and shared.proof(town.proof.id) is not None
    writer.confirm([[writer.head]])
    assert _shown(shared, town) == everything


def test_nothing_of_an_own_fork_is_shown(store: Store, town: Community) -> None:
    key = AccountKey(secret(town.world.seed, "account eve"))
    assert key.public == town.forker
    shared, writer = Shared(store), Writer(store, key)
    shared.guard(writer)
    assert writer.standing is Standing.FORKED
    assert not _shown(shared, town) & {signed.entry.id for signed in store.history(key.public)}
    assert shared.proof_ids() == []
    assert shared.proof(town.proof.id) is None
