"""The store: verdicts, pending, forks, charters, blobs, limits; what it knows is what it knows after a new start."""

from __future__ import annotations

import copy
import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.community import (
    Community,
    community,
    disk_that_ends_at,
    fresh_charters,
    known,
    new_store,
    same_after_reopening,
    second_charter,
)
from ubcp_p2p.charter.values import CharterConflict, CharterError, SignedCharter
from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.ledger import disk, pending, rules
from ubcp_p2p.ledger import store as store_module
from ubcp_p2p.ledger.balances import entries_root
from ubcp_p2p.ledger.database import StoreError
from ubcp_p2p.ledger.entry import ZERO, Checkpoint, Kind, OpenAccount, Request, Rotate, recovery_hash
from ubcp_p2p.ledger.state import History, Ledger
from ubcp_p2p.ledger.store import Outcome, Store
from ubcp_p2p.ledger.wire import Signed, sign
from ubcp_p2p.ledger.world import World
from ubcp_p2p.units import MICROCREDITS

ALL = 10**6


@pytest.fixture(scope="module")
def town() -> Community:
    return community()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def store(path: Path, town: Community) -> Iterator[Store]:
    with new_store(path, town.world) as made:
        yield made


def _outcomes(store: Store, batch: list[Signed]) -> list[Outcome]:
    return [verdict.outcome for verdict in store.append(batch)]


# -- adding -----------------------------------------------------------------------------------------------------------


def test_what_was_added_is_there_and_is_there_after_a_new_start(store: Store, town: Community) -> None:
    assert _outcomes(store, town.entries) == [Outcome.ADDED] * len(town.entries)
    assert [row.data for row in store.after(0, ALL)] == [signed.to_bytes() for signed in town.entries]
    assert [row.position for row in store.after(3, 2)] == [4, 5]
    assert list(store.entries()) == [signed.to_bytes() for signed in town.entries]
    assert sorted(store.ledger.heads()) == sorted(town.world.ledger.heads())
    assert store.entry(town.entries[4].entry.id) == town.entries[4]
    assert store.entry(bytes(32)) is None
    author = town.entries[0].entry.author
    assert sorted(store.history(author)) == sorted(town.world.history(author))
    assert [signed.entry.seq for signed in store.chain(author, 1, 2)] == [1, 2]
    assert store.newest(author, 1)[0].entry.seq == len(store.history(author)) - 1
    assert store.kinds(author) == {Kind.OPEN: 1, Kind.ENROL: 1, Kind.REQUEST: 1}
    same_after_reopening(store).close()


def test_a_second_copy_changes_nothing(store: Store, town: Community) -> None:
    store.append(town.entries)
    before = known(store)
    assert set(_outcomes(store, town.entries)) == {Outcome.KNOWN}
    assert known(store) == before


def test_entries_that_refer_to_what_is_not_here_wait_for_it(store: Store, town: Community) -> None:
    opened = [signed for signed in town.entries if isinstance(signed.entry.body, OpenAccount)]
    others = [signed for signed in town.entries if signed not in opened]
    assert set(_outcomes(store, others[::-1])) == {Outcome.PENDING}
    assert {signed.entry.id for signed in opened} <= set(store.pending_missing())
    assert store.ledger.entries == 0
    store = same_after_reopening(store)
    settled = {verdict.id: verdict.outcome for signed in opened for verdict in store.append([signed])}
    assert settled == {signed.entry.id: Outcome.ADDED for signed in town.entries}
    assert store.pending_missing() == []
    assert known(store).entries_root == entries_root(town.world.ledger)
    same_after_reopening(store).close()


def test_one_batch_in_any_order_is_settled_at_once(store: Store, town: Community) -> None:
    assert set(_outcomes(store, town.entries[::-1])) == {Outcome.ADDED}
    assert store.pending_missing() == []
    same_after_reopening(store).close()


def test_a_bad_signature_is_refused_and_the_rest_goes_on(store: Store, town: Community) -> None:
    first, second = town.entries[:2]
    broken = first._replace(signatures=tuple((key, bytes(64)) for key, _ in first.signatures))
    verdicts = store.append([broken, first, second])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.REFUSED, Outcome.ADDED, Outcome.ADDED]
    assert verdicts[0].error is not None and verdicts[0].error.code == "signature"


def test_an_entry_against_the_rules_is_refused_and_forgotten(path: Path) -> None:
    world = World(5)
    ann = world.account("ann")
    request = ann.draft(world.now, _request(world, ann.public, credits_=10**12))
    with new_store(path, world) as store:
        store.append(world.entries)
        (verdict,) = store.append([request])
        assert verdict.outcome is Outcome.REFUSED
        assert verdict.error is not None and verdict.error.code == "overdraft"
        assert store.entry(request.entry.id) is None
        same_after_reopening(store).close()


def _request(world: World, paymaster: bytes, credits_: int) -> Request:
    purpose, now = world.charter.purposes[0], world.now
    return Request("run", bytes(32), purpose, 1, 1, 1, credits_, now, now, 1000, paymaster, (), ())


def test_a_copy_by_a_stranger_keeps_no_good_copy_out(store: Store, town: Community) -> None:
    """Anybody can sign an entry's id: such a copy waits under its own bytes, not under the id."""
    *before, last = town.world.history(town.entries[0].entry.author)
    stranger = sign(last.entry, last.data, [World(99).stewards[0]])
    assert _outcomes(store, [stranger]) == [Outcome.PENDING]
    assert _outcomes(store, [last]) == [Outcome.PENDING]
    outcomes = {(verdict.id, verdict.outcome) for verdict in store.append(before)}
    assert (last.entry.id, Outcome.ADDED) in outcomes
    assert store.entry(last.entry.id) == last
    assert store.pending_missing() == []


def test_another_community_is_refused(store: Store) -> None:
    (verdict,) = store.append(community(seed=2).entries[:1])
    assert verdict.error is not None and verdict.error.code == "network"


def test_what_waits_is_bounded_and_the_oldest_goes_first(
    store: Store, town: Community, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "COUNT_MAX", 3)
    waiting = [signed for signed in town.entries if signed.entry.seq > 0][:5]
    for signed in waiting:
        store.append([signed])
    assert store.pending_missing() == sorted({signed.entry.prev for signed in waiting[2:]})
    monkeypatch.setattr(pending, "COUNT_MAX", 100)
    monkeypatch.setattr(pending, "BYTES_MAX", len(waiting[4].to_bytes()))
    store.append(waiting[4:])
    assert store.pending_missing() == [waiting[4].entry.prev]
    same_after_reopening(store).close()


# -- forks ------------------------------------------------------------------------------------------------------------


def test_a_fork_is_proven_and_stays_so(store: Store, town: Community) -> None:
    store.append(town.entries)
    assert store.ledger.frozen() == [town.forker]
    assert store.proofs() == [town.proof]
    assert store.proof_ids() == [town.proof.id]
    assert store.proof(town.proof.id) == town.proof.to_bytes()
    assert store.proof(bytes(32)) is None
    same_after_reopening(store).close()


def test_a_proof_that_comes_first_waits_for_the_chain_and_freezes(store: Store, town: Community) -> None:
    assert store.add_proof(town.proof).outcome is Outcome.PENDING
    assert store.pending_missing() == [town.proof.first.entry.prev]
    store = same_after_reopening(store)
    fork = {town.proof.first.entry.id, town.proof.second.entry.id}
    verdicts = store.append([signed for signed in town.entries if signed.entry.id not in fork])
    assert (verdicts[-1].id, verdicts[-1].outcome) == (town.proof.id, Outcome.ADDED)
    assert store.ledger.frozen() == [town.forker]
    assert store.add_proof(town.proof).outcome is Outcome.KNOWN
    same_after_reopening(store).close()


def test_a_proof_that_proves_nothing_is_refused(store: Store, town: Community) -> None:
    store.append(town.entries)
    first, second = (
        sign(signed.entry, signed.data, [World(99).stewards[0]]) for signed in (town.proof.first, town.proof.second)
    )
    verdict = store.add_proof(type(town.proof)(first, second))
    assert verdict.error is not None and verdict.error.code == "freeze"
    broken = town.proof.first._replace(signatures=tuple((key, bytes(64)) for key, _ in town.proof.first.signatures))
    verdict = store.add_proof(type(town.proof)(broken, town.proof.second))
    assert verdict.error is not None and verdict.error.code == "signature"


def test_a_refused_entry_that_forks_freezes_its_author_for_good(path: Path) -> None:
    world = World(5)
    ann = world.account("ann")
    pc = world.node(ann, "pc")
    too_much = ann.draft(world.now, _request(world, pc.public, credits_=10**12))
    world.request(ann, pc, 100 * MICROCREDITS)
    with new_store(path, world) as store:
        store.append(world.entries)
        (verdict,) = store.append([too_much])
        assert verdict.outcome is Outcome.REFUSED
        assert store.ledger.frozen() == [ann.public]
        same_after_reopening(store).close()


def test_a_fork_by_the_recovery_key_is_proven_too(path: Path) -> None:
    """One side is signed by the recovery key, the other by the lost key."""
    world = World(5)
    recovery, new = World(6).stewards[:2]
    ann = world.account("ann", recovery=recovery_hash(recovery.public))
    pc = world.node(ann, "pc")
    thief = copy.copy(ann)
    ann.key = recovery
    rotation = ann.write(world.now, Rotate(new.public, recovery_hash(recovery.public)), [new])
    stolen = thief.write(world.now, _request(world, pc.public, credits_=MICROCREDITS))
    with new_store(path, world) as store:
        store.append(world.entries)
        assert set(_outcomes(store, [rotation, stolen])) == {Outcome.ADDED}
        assert store.ledger.frozen() == [ann.public]
        (proof,) = store.proofs()
        assert {proof.first, proof.second} == {rotation, stolen}
        same_after_reopening(store).close()


def test_many_forks_at_one_place(path: Path) -> None:
    """A free account that forks as often as it likes: a few proofs are kept, and the rest is noted."""
    world = World(5, trusting=True)
    node = world.node(world.account("stranger", enrol=False), "node")
    before = list(world.entries)
    crowd = [world.write(copy.copy(node), Checkpoint(1, n.to_bytes(32, "big"), ZERO)) for n in range(200)]
    with new_store(path, world) as store:
        store.append(before)
        verdicts = store.append(crowd)
        assert {verdict.outcome for verdict in verdicts} == {Outcome.ADDED}
        kept = [verdict.proof for verdict in verdicts if verdict.proof is not None]
        assert sorted(kept) == store.proof_ids()
        assert len(kept) == store_module.PROOFS_PER_AUTHOR_MAX
        assert store.proofs_of(node.public) == store.proofs() and store.proofs_of(bytes(32)) == []
        assert all(crowd[0] in proof for proof in store.proofs())
        assert store.ledger.frozen() == [node.public]
        assert len(store.ledger.open_forks(node.public)) == 199
        assert store.append(crowd[:2])[0].proof is None
        same_after_reopening(store).close()


def test_proofs_of_one_author_are_bounded(store: Store, town: Community, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PROOFS_PER_AUTHOR_MAX", 0)
    store.append(town.entries)
    assert store.proofs() == []
    assert store.ledger.frozen() == [town.forker]


# -- charters ---------------------------------------------------------------------------------------------------------


def test_a_new_charter_is_kept(store: Store, town: Community) -> None:
    second = second_charter(town.world.charters, town.world, effective=9, grace_slices=5)
    assert store.add_charter(second)
    assert not store.add_charter(second)
    with pytest.raises(CharterConflict):
        store.add_charter(second_charter(town.world.charters, town.world, effective=9, grace_slices=6))
    with pytest.raises(CharterError):
        store.add_charter(SignedCharter(replace(second.charter, number=3, previous=second.charter.id, effective=10)))
    store = same_after_reopening(store)
    assert store.ledger.charters.newest.grace_slices == 5
    store.close()


def test_a_charter_that_comes_late_judges_again(path: Path) -> None:
    """What it refuses is forgotten, what depended on that waits, the others close ranks; and it opens again."""
    world = World(3)
    ann, ben = world.account("ann"), world.account("ben")
    world.now = world.charter.period_slices  # period 1
    pc = world.node(ann, "pc")
    first = world.request(ann, pc, 600 * MICROCREDITS)
    allot = world.allot(pc, first, world.node(ben, "pc 2"), 5)
    small = world.request(ben, pc, 10 * MICROCREDITS)
    with new_store(path, world) as store:
        store.append(world.entries)
        late = second_charter(world.charters, world, effective=1, exposure_cap=100 * MICROCREDITS)
        assert store.add_charter(late)
        assert store.entry(first.entry.id) is None
        assert store.entry(allot.entry.id) is None
        assert first.entry.id in store.pending_missing()
        assert store.entry(small.entry.id) == small
        assert [row.position for row in store.after(0, ALL)] == list(range(1, store.ledger.entries + 1))
        (verdict,) = store.append([first])
        assert verdict.error is not None and verdict.error.code == "exposure"
        same_after_reopening(store).close()


def test_a_proof_whose_past_a_late_charter_refuses_waits(path: Path) -> None:
    world = World(3)
    ann = world.account("ann")
    world.now = world.charter.period_slices
    pc = world.node(ann, "pc")
    first = world.request(ann, pc, 600 * MICROCREDITS)
    twin = copy.copy(ann)
    world.request(ann, pc, 1 * MICROCREDITS)
    world.request(twin, pc, 2 * MICROCREDITS)
    with new_store(path, world) as store:
        store.append(world.entries)
        assert store.ledger.frozen() == [ann.public] and len(store.proofs()) == 1
        store.add_charter(second_charter(world.charters, world, effective=1, exposure_cap=100 * MICROCREDITS))
        assert store.ledger.frozen() == [] and store.proofs() == []
        assert first.entry.id in store.pending_missing()
        same_after_reopening(store).close()


# -- blobs ------------------------------------------------------------------------------------------------------------


def test_blobs_by_hash(store: Store) -> None:
    hash_ = store.put_blob(b"evidence")
    assert hash_ == hashlib.sha256(b"evidence").digest() == store.put_blob(b"evidence")
    assert store.blob(hash_) == b"evidence"
    assert store.blob(bytes(32)) is None
    store = same_after_reopening(store)
    assert store.blob_hashes() == [hash_]
    store.close()


def test_blobs_are_bounded_each_and_in_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BLOB_BYTES_MAX", 10)
    monkeypatch.setattr(store_module, "BLOBS_BYTES_MAX", 16)
    with pytest.raises(StoreError, match="no room for a blob of 11 bytes"):
        store.put_blob(bytes(11))
    store.put_blob(bytes(10))
    with pytest.raises(StoreError, match="no room for a blob of 7 bytes"):
        store.put_blob(bytes(7))
    store.put_blob(bytes(6))


# -- a full disk ------------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_memory_and_disk_as_they_were(store: Store, town: Community) -> None:
    store.append(town.entries[:5])
    before, ledger = known(store), store.ledger
    with disk_that_ends_at(32 * 1024), pytest.raises(StoreError, match="cannot be used"):
        store.append(town.entries[5:])
    assert known(store) == before
    assert store.ledger is not ledger
    store.append(town.entries[5:])
    assert store.ledger.entries == len(town.entries)
    same_after_reopening(store).close()


def test_a_full_disk_is_told_as_such(store: Store, town: Community) -> None:
    store.append(town.entries[:5])
    before = known(store)
    pages = store._disk.rows("PRAGMA page_count")[0][0]
    store._disk.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="the disk is full") as caught:
        store.append(town.entries[5:])
    assert "nothing that was acknowledged is lost" in str(caught.value.hint)
    assert known(store) == before
    second = second_charter(town.world.charters, town.world, effective=9)
    for _ in range(2):  # the failed one is forgotten, or the second time it would be known
        with pytest.raises(StoreError, match="the disk is full"):
            store.add_charter(
                second_charter(town.world.charters, town.world, effective=9, purposes=_many_purposes(second))
            )
    store._disk.rows("PRAGMA max_page_count = 1000000")
    assert store.add_charter(second)
    store.append(town.entries)
    same_after_reopening(store).close()


def test_a_mistake_in_the_middle_of_a_batch_keeps_nothing_of_it(
    store: Store, town: Community, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(town.entries[:2])
    before, apply = known(store), rules.apply

    def fails_late(ledger: Ledger, signed: Signed, history: History) -> bool:
        if signed == town.entries[7]:
            raise ZeroDivisionError
        return apply(ledger, signed, history)

    monkeypatch.setattr(rules, "apply", fails_late)
    with pytest.raises(ZeroDivisionError):
        store.append(town.entries)
    monkeypatch.undo()
    assert known(store) == before
    store.append(town.entries)
    same_after_reopening(store).close()


def _many_purposes(charter: SignedCharter) -> tuple[str, ...]:
    return tuple(sorted({*charter.charter.purposes, *(f"purpose {i:04}" + "x" * 40 for i in range(500))}))


# -- files that are not what they should be ---------------------------------------------------------------------------


def test_the_file_is_private(store: Store, path: Path, town: Community) -> None:
    store.append(town.entries)
    assert {found.stat().st_mode & 0o777 for found in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) == 4  # the file, its WAL, their index, the lock


def test_there_is_none(path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no ledger store in") as caught:
        Store.open(path)
    assert "ubcp ledger import" in str(caught.value.hint)


def test_there_is_one_already(store: Store, path: Path, town: Community) -> None:
    store.close()
    with pytest.raises(ConfigError, match="already; nothing was changed"):
        new_store(path, town.world)
    Store.open(path).close()  # it holds no lock


def test_a_blank_file_is_one_whose_making_was_cut_off(path: Path, town: Community) -> None:
    path.touch()
    new_store(path, town.world).close()
    Store.open(path).close()


def test_no_folder(tmp_path: Path, town: Community) -> None:
    with pytest.raises(LocalIOError, match="No such file or directory"):
        new_store(tmp_path / "none" / "x", town.world)


@pytest.mark.parametrize("read_only", [False, True])
def test_something_else(path: Path, read_only: bool) -> None:
    path.write_bytes(b"not a database, but long enough to look at " * 100)
    with pytest.raises(StoreError, match="damaged: file is not a database"):
        Store.open(path, read_only=read_only)
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE other (x)")
    db.close()
    with pytest.raises(ConfigError, match="is no ledger store"):
        Store.open(path, read_only=read_only)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 1")
    db.close()
    with pytest.raises(ConfigError, match="is no ledger store"):
        Store.open(path, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_format_is_refused_untouched(store: Store, path: Path, read_only: bool) -> None:
    store.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 3")
    db.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="of format 3; this program reads format 2") as caught:
        Store.open(path, read_only=read_only)
    assert str(caught.value.hint) == "a newer ubcp may read it"
    assert path.read_bytes() == before


def test_another_communitys_store(store: Store, path: Path, town: Community) -> None:
    store.close()
    with pytest.raises(ConfigError, match="of another community"):
        Store.open(path, network=bytes(32))
    Store.open(path, network=town.world.charters.network).close()  # and the refused one holds no lock


DAMAGE = {
    "an entry's bytes": "UPDATE entries SET bytes = zeroblob(length(bytes)) WHERE position = 3",
    "an entry's id": "UPDATE entries SET id = zeroblob(32) WHERE position = 3",
    "an entry is gone": "DELETE FROM entries WHERE position = 3",
    "an entry is there twice": "INSERT INTO entries SELECT 900, zeroblob(32), author, seq, slice, kind, bytes"
    " FROM entries WHERE position = 3",
    "no charter": "DELETE FROM charters",
    "another charter": "UPDATE charters SET bytes = zeroblob(5)",
    "a proof": "UPDATE proofs SET bytes = zeroblob(5)",
    "no table": "DROP TABLE proofs",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_refused_in_words(store: Store, path: Path, town: Community, what: str) -> None:
    store.append(town.entries)
    store.close()
    db = sqlite3.connect(path)
    db.execute(DAMAGE[what])
    db.commit()
    db.close()
    for _ in range(2):  # the first attempt holds no lock
        with pytest.raises(StoreError) as caught:
            Store.open(path)
        assert "\n" not in caught.value.message
        assert caught.value.hint


def test_overwritten_pages_are_seen(store: Store, path: Path, town: Community) -> None:
    store.append(town.entries)
    store.close()
    data = bytearray(path.read_bytes())
    data[4096 * 2 :] = bytes(len(data) - 4096 * 2)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged"):
        Store.open(path)


def test_a_signature_that_went_bad_is_found_on_demand(store: Store, path: Path, town: Community) -> None:
    first = town.entries[0]
    store.append([first])
    store.close()
    broken = first._replace(signatures=tuple((key, bytes(64)) for key, _ in first.signatures))
    db = sqlite3.connect(path)
    db.execute("UPDATE entries SET bytes = ?", (broken.to_bytes(),))
    db.commit()
    db.close()
    Store.open(path).close()
    with pytest.raises(StoreError, match="damaged: a signature"):
        Store.open(path, check_signatures=True)


# The tables of format 1 as they are in the field: never to be changed.
FORMAT_1 = """
CREATE TABLE charters (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE entries (position INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, author BLOB NOT NULL, seq INTEGER NOT NULL,
    slice INTEGER NOT NULL, kind INTEGER NOT NULL, bytes BLOB NOT NULL);
CREATE INDEX entries_by_author ON entries (author, seq);
CREATE TABLE proofs (id BLOB PRIMARY KEY, author BLOB NOT NULL, bytes BLOB NOT NULL);
CREATE INDEX proofs_by_author ON proofs (author);
CREATE TABLE pending (number INTEGER PRIMARY KEY AUTOINCREMENT, what INTEGER NOT NULL, digest BLOB NOT NULL UNIQUE,
    author BLOB NOT NULL, signers BLOB NOT NULL, missing BLOB NOT NULL, bytes BLOB NOT NULL);
CREATE INDEX pending_by_author ON pending (author);
CREATE TABLE blobs (hash BLOB PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE drafts (number INTEGER PRIMARY KEY AUTOINCREMENT, author BLOB NOT NULL, bytes BLOB NOT NULL);
PRAGMA application_id = 1969382256;
PRAGMA user_version = 1;
"""


FORMAT_2 = """
CREATE TABLE dropped (number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, author BLOB NOT NULL,
    seq INTEGER NOT NULL, digest BLOB NOT NULL, bytes BLOB NOT NULL);
CREATE INDEX dropped_by_author ON dropped (author);
PRAGMA user_version = 2;
"""


def test_a_store_of_format_1_opens(path: Path, town: Community) -> None:
    *before, last = town.entries
    db = sqlite3.connect(path)
    db.executescript(FORMAT_1)
    db.execute("INSERT INTO charters VALUES (1, ?)", (town.world.charters.versions[0].to_bytes(),))
    for position, signed in enumerate(before, 1):
        entry = signed.entry
        row = (position, entry.id, entry.author, entry.seq, entry.slice, entry.kind, signed.to_bytes())
        db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    db.execute("INSERT INTO drafts VALUES (1, ?, ?)", (town.forker, b"a draft"))
    db.commit()
    db.close()
    with Store.open(path, read_only=True) as store:  # as it is
        assert store.ledger.entries == len(before)
    with Store.open(path) as store:
        assert _outcomes(store, [last]) == [Outcome.ADDED]
        assert store.drafts(town.forker) == [(1, b"a draft")]
        same_after_reopening(store, town.forker).close()


def test_a_new_store_has_the_newest_format(store: Store, path: Path) -> None:
    store.close()
    db = sqlite3.connect(path)
    made = db.execute("SELECT name, type FROM sqlite_schema ORDER BY name").fetchall()
    other = sqlite3.connect(":memory:")
    other.executescript(FORMAT_1)
    other.executescript(FORMAT_2)
    assert made == other.execute("SELECT name, type FROM sqlite_schema ORDER BY name").fetchall()
    db.close()


# -- more than one ----------------------------------------------------------------------------------------------------


def test_only_one_may_write(store: Store, path: Path, town: Community) -> None:
    with pytest.raises(LocalIOError, match="in use by another process") as caught:
        Store.open(path)
    assert "ubcp stop" in str(caught.value.hint)
    with pytest.raises(LocalIOError, match="in use by another process"):
        new_store(path, town.world)
    store.close()
    Store.open(path).close()


def test_readers_see_what_was_there_when_they_opened(store: Store, path: Path, town: Community) -> None:
    store.append(town.entries[:5])
    with Store.open(path, read_only=True) as reader:
        before = known(reader)
        store.append(town.entries[5:])
        assert known(reader) == before
        with pytest.raises(StoreError):
            reader.append(town.entries[5:])
        assert known(reader) == before
    with Store.open(path, read_only=True) as reader:
        assert known(reader) == known(store)


def test_a_closed_store_says_so(store: Store, town: Community) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.ledger  # noqa: B018
    with pytest.raises(StoreError, match="closed"):
        store.append(town.entries)


def test_a_store_that_cannot_be_read_again_answers_nothing(store: Store, town: Community) -> None:
    """The write fails, and so does reading the disk again: better no answer than what the disk may not have."""
    store._disk.db.close()
    with pytest.raises(StoreError):
        store.append(town.entries)
    with pytest.raises(StoreError, match="closed"):
        store.ledger  # noqa: B018


def test_charters_are_shared_with_nobody(path: Path, town: Community) -> None:
    charters = fresh_charters(town.world)
    with Store.create(path, charters) as store:
        store.add_charter(second_charter(charters, town.world, effective=9))
        assert (len(charters), len(store.ledger.charters)) == (1, 2)


def test_rows_are_read_in_parts(store: Store, town: Community, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "BATCH", 3)
    store.append(town.entries)
    assert list(store.entries()) == [signed.to_bytes() for signed in town.entries]
    same_after_reopening(store).close()
