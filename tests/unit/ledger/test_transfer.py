"""Exports and imports at their edges: entries ahead of the clock, and more forks than an export has room for."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.community import CREDIT, new_store
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger import transfer
from ubcp_p2p.ledger.ahead import Ahead, by_clock
from ubcp_p2p.ledger.audit import audit
from ubcp_p2p.ledger.balances import Balance, balances
from ubcp_p2p.ledger.entry import SLICE_MAX, ZERO, Checkpoint
from ubcp_p2p.ledger.export import RecordKind, read_export
from ubcp_p2p.ledger.report import Report
from ubcp_p2p.ledger.sources import open_source
from ubcp_p2p.ledger.store import Outcome, Store
from ubcp_p2p.ledger.transfer import Exported, export_store, import_export
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import World

FAR = 70 * 366 * 96  # slices: in 2096


@dataclass
class Told:
    """A community with income, and one entry of the far future by somebody who is not enrolled."""

    world: World
    early: Signed

    @classmethod
    def made(cls) -> Told:
        world = World(1)
        payer, worker = world.account("payer"), world.account("worker")
        till, rig = world.node(payer, "till"), world.node(worker, "rig")
        allot = world.allot(till, world.request(payer, till, 5000 * CREDIT), rig, 5000 * CREDIT)
        world.receipt(rig, till, allot, 4000 * CREDIT)
        traveller = world.node(world.account("traveller", enrol=False), "traveller")
        now, world.now = world.now, FAR
        early = world.write(traveller, Checkpoint(1, ZERO, ZERO))
        world.now = now
        return cls(world, early)

    @property
    def now_s(self) -> float:
        return float(self.world.charter.epoch)

    def present(self) -> list[Signed]:
        return [signed for signed in self.world.entries if signed != self.early]

    def store(self, path: Path, *entries: Signed) -> Store:
        made = new_store(path, self.world)
        assert {verdict.outcome for verdict in made.append(entries)} == {Outcome.ADDED}
        return made

    def exported(self, path: Path, *entries: Signed) -> Path:
        with self.store(path.with_suffix(".of"), *entries) as store, path.open("wb") as file:
            export_store(store, file)
        return path


def rows(store: Store) -> list[Balance]:
    return balances(store.ledger, store.history)


def audited(path: Path, clock: int = 10**6) -> Report:
    with open_source(path) as source:
        return audit(source, jobs=1, clock=clock)


# -- entries of the future --------------------------------------------------------------------------------------------


def test_an_import_leaves_out_what_is_ahead_of_the_clock(tmp_path: Path) -> None:
    told = Told.made()
    present, all_ = (
        told.exported(tmp_path / "present", *told.present()), told.exported(tmp_path / "all", *told.world.entries),
    )  # fmt: skip
    store, done = import_export(tmp_path / "a", present, now_s=told.now_s)
    with store:
        before = rows(store)
        assert (bool(done.ahead), before[0].available > 0) == (False, True)
    for path in (tmp_path / "a", tmp_path / "b"):  # into one that is there, and a new one
        store, done = import_export(path, all_, now_s=told.now_s)
        with store:
            assert rows(store) == before
            assert store.entry(told.early.entry.id) is None
        assert (done.ahead.ids, done.refused, done.waiting) == ({told.early.entry.id}, 0, 0)
        words = done.ahead.words(told.world.charter)
        assert words == f"1 entry is of the future (first: slice {FAR}, 2096-02-23 00:00 UTC)"
    later_s = told.now_s + float(FAR * told.world.charter.slice_s)
    store, done = import_export(tmp_path / "a", all_, now_s=later_s)
    with store:
        assert (done.entries_added, bool(done.ahead)) == (1, False)


def test_one_slice_ahead_is_taken_in(tmp_path: Path) -> None:
    told = Told.made()
    all_ = told.exported(tmp_path / "all", *told.world.entries)
    slice_s = told.world.charter.slice_s
    for now_s, added in ((told.now_s + (FAR - 1) * slice_s - 1, 0), (told.now_s + (FAR - 1) * slice_s, 1)):
        store, _ = import_export(tmp_path / "a", all_, now_s=now_s)
        with store:
            assert store.ledger.entries == len(told.present()) + added


def test_a_store_that_has_entries_of_the_future_tells_how_to_get_rid_of_them(tmp_path: Path) -> None:
    """Older versions took them in."""
    told = Told.made()
    with told.store(tmp_path / "clean", *told.present()) as store:
        before = rows(store)
    told.store(tmp_path / "old", *told.world.entries).close()
    until = by_clock(told.now_s)
    for _ in range(2):  # the first attempt holds no lock
        with pytest.raises(ConfigError, match=r"1 entry is of the future .*; is this machine's clock") as caught:
            Store.open(tmp_path / "old", until=until)
        assert "ubcp ledger export --as-of DATE" in str(caught.value.hint)
    with Store.open(tmp_path / "old", read_only=True, until=until) as store:
        assert rows(store) == before
        assert store.ahead.ids == {told.early.entry.id}
        assert store.newest(told.early.entry.author, 1)[0].entry.seq == 0
        with (tmp_path / "out").open("wb") as file:
            assert export_store(store, file).entries == len(told.present())
    assert audited(tmp_path / "out").faults == ()
    store, _ = import_export(tmp_path / "new", tmp_path / "out", now_s=told.now_s)
    with store:
        assert rows(store) == before
    Store.open(tmp_path / "new", until=until).close()
    Store.open(tmp_path / "old", until=by_clock(told.now_s + FAR * 900.0)).close()


def test_what_refers_to_the_future_is_left_out_with_it(tmp_path: Path) -> None:
    world = World(1)
    payer, worker = world.account("payer"), world.account("worker")
    till = world.node(payer, "till")
    request = world.request(payer, till, 10 * CREDIT)
    world.now = 5
    rig = world.node(worker, "rig")
    opened = world.entries[-1].entry.id
    world.now = 4  # one slice before what it refers to
    allot = world.allot(till, request, rig, 5 * CREDIT)
    last = world.write(till, Checkpoint(1, ZERO, ZERO))
    with new_store(tmp_path / "old", world) as store:
        store.append(world.entries)
    with Store.open(tmp_path / "old", read_only=True, until=lambda charter: 4) as store:
        assert (store.ahead.ids, store.ahead.dependent) == ({opened}, {allot.entry.id, last.entry.id})
        assert (store.ledger.entries, store.ledger.slice) == (len(world.entries) - 3, 0)
        assert len(list(store.entries())) == store.ledger.entries


def test_a_time_that_no_calendar_has() -> None:
    ahead = Ahead()
    for slice_ in (SLICE_MAX, SLICE_MAX - 1):
        ahead.add(slice_.to_bytes(32, "big"), slice_)
    assert (
        ahead.words(World(1).charter) == f"2 entries are of the future (first: slice {SLICE_MAX - 1}, after 9999 UTC)"
    )


# -- more forks than there is room for --------------------------------------------------------------------------------


def forked(count: int) -> World:
    """So many accounts have forked, the first of them thrice."""
    world = World(3)
    people = [world.account(f"person {n}") for n in range(count)]
    till = world.node(people[0], "till")
    for number, person in enumerate(people):
        for amount in (1, 2, 3, 4) if number == 0 else (1, 2):
            world.request(copy.copy(person), till, amount * CREDIT)
    return world


def exported(world: World, tmp_path: Path) -> tuple[Exported, Report, dict[RecordKind, list[bytes]]]:
    path = tmp_path / "out"
    with new_store(tmp_path / "store", world) as store:
        store.append(world.entries)
        with path.open("wb") as file:
            done = export_store(store, file)
    with path.open("rb") as file:
        records: dict[RecordKind, list[bytes]] = {}
        for record in read_export(file):
            records.setdefault(record.kind, []).append(record.payload)
    return done, audited(path), records


@pytest.mark.parametrize(
    ("proofs_max", "frozen_max", "proofs", "frozen"), [(99, 99, 5, 3), (4, 99, 4, 3), (2, 99, 2, 2), (99, 1, 5, 1)]
)
def test_what_an_export_has_no_room_for_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proofs_max: int, frozen_max: int, proofs: int, frozen: int
) -> None:
    """Nobody is named frozen whose proof is left out, and no proof of a frozen author for another's second one."""
    monkeypatch.setattr(transfer, "PROOFS_MAX", proofs_max)
    monkeypatch.setattr(transfer, "FROZEN_MAX", frozen_max)
    world = forked(3)
    done, report, records = exported(world, tmp_path)
    assert (len(records[RecordKind.PROOF]), len(records[RecordKind.FROZEN])) == (proofs, frozen)
    assert done == (len(world.entries), 5 - proofs, 3 - frozen)
    assert {fault.code for fault in report.faults} == {"fork"}
    assert len(report.frozen) == 3
