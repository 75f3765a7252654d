"""A writer signs only what nobody can know otherwise: drafts, confirmation, restored backups, clocks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.community import disk_that_ends_at, known, new_store, same_after_reopening, second_charter
from ubcp_p2p.charter.values import SignedCharter
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger import writer as writer_module
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.database import StoreError
from ubcp_p2p.ledger.disk import Disk
from ubcp_p2p.ledger.entry import (
    ZERO,
    Allot,
    Body,
    Checkpoint,
    Heal,
    OpenAccount,
    OpenNode,
    Position,
    Receipt,
    Request,
    Rotate,
    Voucher,
)
from ubcp_p2p.ledger.faults import RuleViolation
from ubcp_p2p.ledger.store import Outcome, Store
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import DEVICE, PEAK, World, secret
from ubcp_p2p.ledger.writer import EndedByCharter, ForkedBackup, Standing, Writer, WrongClock
from ubcp_p2p.units import MICROCREDITS

KEY = NodeKey(secret(0, "the writer"))


@pytest.fixture
def world() -> World:
    """Its one account owns the writer's node."""
    made = World(11)
    made.account("ann")
    return made


@pytest.fixture
def owner(world: World) -> AccountKey:
    return AccountKey(secret(world.seed, "account ann"))


@pytest.fixture
def store(tmp_path: Path, world: World) -> Iterator[Store]:
    with new_store(tmp_path / "ledger.sqlite3", world) as made:
        made.append(world.entries)
        yield made


def _now_s(store: Store, slice_: int = 0) -> float:
    charter = store.ledger.charters.first
    return charter.epoch + slice_ * charter.slice_s + 1.0


def _open(store: Store, world: World) -> OpenNode:
    return OpenNode(world.history(world.ledger.accounts()[0])[-1].entry.position)


def _confirmed(store: Store, world: World, owner: AccountKey, *, count: int = 0) -> Writer:
    """A writer that has opened its chain and written `count` checkpoints."""
    writer = Writer(store, KEY)
    assert writer.confirm([[]]) == []
    assert writer.write(_open(store, world), now_s=_now_s(store), offsets_s=[], cosigners=[owner])
    for size in range(1, count + 1):
        assert _checkpoint(writer, store, size)
    return writer


def _checkpoint(writer: Writer, store: Store, size: int, slice_: int = 0) -> Signed | None:
    return writer.write(Checkpoint(size, ZERO, ZERO), now_s=_now_s(store, slice_), offsets_s=[])


def _copied(store: Store, to: Path) -> Store:
    """A backup of a running store: what a copy of its files gives."""
    for suffix in ("", "-wal"):
        shutil.copy(store.path.with_name(store.path.name + suffix), to.with_name(to.name + suffix))
    return Store.open(to)


# -- before anybody was asked -----------------------------------------------------------------------------------------


def test_until_peers_were_asked_there_are_only_drafts(store: Store, world: World, owner: AccountKey) -> None:
    writer = Writer(store, KEY)
    assert (writer.standing, writer.shows) == (Standing.UNCONFIRMED, False)
    assert writer.write(_open(store, world), now_s=_now_s(store), offsets_s=[], cosigners=[owner]) is None
    assert _checkpoint(writer, store, 5) is None
    assert writer.write_drafts(now_s=_now_s(store), offsets_s=[]) == []
    assert writer.confirm([]) == []
    assert writer.standing is Standing.UNCONFIRMED  # nobody was asked
    assert store.ledger.entries == len(world.entries)

    store.close()
    store = Store.open(store.path)
    writer = Writer(store, KEY)
    assert writer.confirm([[], []]) == []
    assert _checkpoint(writer, store, 6) is None  # not before the drafts
    (refused,) = writer.write_drafts(now_s=_now_s(store, 3), offsets_s=[0.1])
    assert refused.error is not None and refused.error.code == "signer"  # an OPEN without its owner: kept
    done = writer.write_drafts(now_s=_now_s(store, 3), offsets_s=[0.1], cosigners=[owner])
    assert [written.signed and written.signed.entry.seq for written in done] == [0, 1, 2]
    assert store.history(KEY.public) == [written.signed for written in done]
    store.close()


def test_drafts_are_signed_in_their_order(store: Store, world: World, owner: AccountKey) -> None:
    writer = _confirmed(store, world, owner)
    again = Writer(store, KEY)
    for size in (3, 2, 4):
        assert _checkpoint(again, store, size) is None
    assert again.write_drafts(now_s=_now_s(store), offsets_s=[]) == []
    assert writer.head is not None
    again.confirm([[writer.head]])
    done = again.write_drafts(now_s=_now_s(store, 7), offsets_s=[])
    assert [written.signed and written.signed.entry.seq for written in done] == [1, None, 2]
    assert [written.error and written.error.code for written in done] == [None, "checkpoint-falls", None]
    assert [signed.entry.slice for signed in store.history(KEY.public)] == [0, 7, 7]
    assert store.drafts(KEY.public) == []
    assert _checkpoint(again, store, 5, slice_=7) is not None


def test_a_draft_stays_for_what_it_refers_to(store: Store, world: World, owner: AccountKey) -> None:
    writer = _confirmed(store, world, owner)
    with pytest.raises(RuleViolation, match="an entry that this node does not have"):
        writer.write(Allot(bytes(32), bytes(32), 1), now_s=_now_s(store), offsets_s=[])
    assert store.pending_missing() == []
    assert writer.head is not None and writer.head.seq == 0
    again = Writer(store, KEY)
    again.write(Allot(bytes(32), bytes(32), 1), now_s=_now_s(store), offsets_s=[])
    _checkpoint(again, store, 1)
    again.confirm([[]])
    for _ in range(2):
        (written,) = again.write_drafts(now_s=_now_s(store), offsets_s=[])
        assert written.error is not None and written.error.code == "unknown-reference"
    assert len(store.drafts(KEY.public)) == 2


def test_drafts_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "DRAFTS_MAX", 2)
    writer = Writer(store, KEY)
    _checkpoint(writer, store, 1)
    _checkpoint(writer, store, 2)
    with pytest.raises(ConfigError, match="2 entries wait to be signed"):
        _checkpoint(writer, store, 3)


def test_only_a_new_profile_signs_alone(tmp_path: Path, world: World) -> None:
    key = AccountKey(secret(0, "new"))
    path = tmp_path / "new.sqlite3"
    with new_store(path, world) as store:
        writer = Writer(store, key, alone=True)
        assert writer.standing is Standing.CONFIRMED
        signed = writer.write(OpenAccount(ZERO), now_s=_now_s(store), offsets_s=[])
        assert signed is not None and store.entry(signed.entry.id) == signed
        assert Writer(store, key, alone=True).standing is Standing.UNCONFIRMED  # it has an entry by now
    with Store.open(path) as store:
        assert Writer(store, key, alone=True).standing is Standing.UNCONFIRMED
        assert Writer(store, AccountKey(secret(0, "other")), alone=True).standing is Standing.UNCONFIRMED


# -- what peers know --------------------------------------------------------------------------------------------------


def test_peers_that_are_behind_confirm(store: Store, world: World, owner: AccountKey) -> None:
    writer = _confirmed(store, world, owner, count=3)
    reports = [[signed.entry.position] for signed in store.history(KEY.public)[1:3]]
    again = Writer(store, KEY)
    assert again.confirm([*reports, []]) == []
    assert (again.standing, again.shows) == (Standing.CONFIRMED, True)
    assert writer.head == again.head


def test_a_restored_backup_learns_what_it_had_signed(store: Store, world: World, owner: AccountKey) -> None:
    writer = _confirmed(store, world, owner, count=1)
    with _copied(store, store.path.with_name("backup.sqlite3")) as restored:
        _checkpoint(writer, store, 2)
        _checkpoint(writer, store, 3)
        again = Writer(restored, KEY)
        assert writer.head is not None
        report = [writer.head]
        assert again.confirm([report]) == [writer.head.id]
        assert _checkpoint(again, restored, 9) is None
        restored.append(store.history(KEY.public)[-1:])  # the newest alone: it waits for the one before
        assert again.confirm([report]) == [writer.head.id]
        restored.append(store.history(KEY.public))
        assert again.confirm([report]) == []
        (written,) = again.write_drafts(now_s=_now_s(restored), offsets_s=[])
        assert written.signed is not None and written.signed.entry.prev == writer.head.id


def test_a_restored_backup_that_went_on_is_told_and_signs_no_more(
    store: Store, world: World, owner: AccountKey
) -> None:
    writer = _confirmed(store, world, owner, count=1)
    with _copied(store, store.path.with_name("backup.sqlite3")) as restored:
        mine, other = _checkpoint(writer, store, 2), None
        again = Writer(restored, KEY)
        again.confirm([[]])  # peers that know nothing yet: the worst case
        other = _checkpoint(again, restored, 3)
        assert mine is not None and other is not None
        assert writer.confirm([[other.entry.position]]) == [other.entry.id]
        store.append([other])
        assert (writer.standing, writer.shows) == (Standing.FORKED, False)
        for attempt in (
            lambda: _checkpoint(writer, store, 4),
            lambda: writer.confirm([[]]),
            lambda: writer.write_drafts(now_s=_now_s(store), offsets_s=[]),
        ):
            with pytest.raises(ForkedBackup, match=f"two entries with number 2 of {KEY.public.hex()[:16]}") as caught:
                attempt()
        for signed in (mine, other):
            assert signed.entry.id.hex()[:16] in caught.value.message
        assert "ubcp init --profile NEW" in str(caught.value.hint)
    store.close()
    with Store.open(store.path) as store:
        assert Writer(store, KEY).standing is Standing.FORKED


def test_looking_at_one_report_confirms_nothing(store: Store, world: World, owner: AccountKey) -> None:
    writer = _confirmed(store, world, owner)
    assert writer.head is not None
    again = Writer(store, KEY)
    assert again.missing([[writer.head]]) == []
    assert again.standing is Standing.UNCONFIRMED
    unknown = Position(KEY.public, 3, bytes(32))
    assert again.missing([[writer.head], [unknown]]) == [unknown.id]


def test_a_peer_that_cannot_show_what_it_claims_is_left_out(store: Store, world: World, owner: AccountKey) -> None:
    writer = _confirmed(store, world, owner)
    assert writer.head is not None
    lie = Position(KEY.public, 0, bytes(32))
    again = Writer(store, KEY)
    assert again.confirm([[writer.head], [lie]]) == [bytes(32)]
    assert again.standing is Standing.UNCONFIRMED
    assert again.confirm([[writer.head]]) == []


def test_an_own_entry_from_elsewhere_takes_the_confirmation_back(store: Store, world: World, owner: AccountKey) -> None:
    """A second machine with this key, or peers that were behind: what they did not say arrives later."""
    writer = _confirmed(store, world, owner)
    twin = Author(world.charters.network, KEY, head=writer.head)
    first, second = (twin.write(0, Checkpoint(size, ZERO, ZERO)) for size in (1, 2))
    store.append([second])  # waits for the first
    assert writer.standing is Standing.UNCONFIRMED
    assert _checkpoint(writer, store, 9) is None
    store.append([first])
    assert writer.head == second.entry.position
    assert writer.standing is Standing.UNCONFIRMED
    assert writer.confirm([[second.entry.position]]) == []
    (written,) = writer.write_drafts(now_s=_now_s(store), offsets_s=[])
    assert written.signed is not None and written.signed.entry.prev == second.entry.id


def test_what_strangers_sign_in_ones_name_stops_nobody(store: Store, world: World, owner: AccountKey) -> None:
    writer = _confirmed(store, world, owner)
    stranger = Author(
        world.charters.network, world.stewards[0], public=KEY.public, head=Position(KEY.public, 8, bytes(32))
    )
    (verdict,) = store.append([stranger.write(0, Checkpoint(1, ZERO, ZERO))])
    assert verdict.missing == (bytes(32),)
    assert writer.standing is Standing.CONFIRMED


# -- failing to write -------------------------------------------------------------------------------------------------


def test_a_full_disk_keeps_the_number_free(store: Store, world: World, owner: AccountKey) -> None:
    writer = _confirmed(store, world, owner, count=1)
    head = writer.head
    log = store.path.with_name(store.path.name + "-wal")
    with disk_that_ends_at(log.stat().st_size), pytest.raises(StoreError):
        _checkpoint(writer, store, 2)
    assert writer.head == head
    signed = _checkpoint(writer, store, 1000)
    assert head is not None and signed is not None and signed.entry.seq == head.seq + 1


def test_an_entry_against_the_rules_is_not_kept(store: Store, world: World, owner: AccountKey) -> None:
    writer = _confirmed(store, world, owner, count=2)
    with pytest.raises(RuleViolation) as caught:
        _checkpoint(writer, store, 1)
    assert caught.value.code == "checkpoint-falls"
    assert _checkpoint(writer, store, 3) is not None


# -- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset_s", "words"), [(1000.0, "1000 s behind the clocks"), (-1000.0, "1000 s ahead of")])
def test_a_clock_that_peers_do_not_share(
    store: Store, world: World, owner: AccountKey, offset_s: float, words: str
) -> None:
    writer = _confirmed(store, world, owner)
    body = Checkpoint(1, ZERO, ZERO)
    with pytest.raises(WrongClock, match=words) as caught:
        writer.write(body, now_s=_now_s(store), offsets_s=[0.0, offset_s, offset_s])
    assert "NTP" in str(caught.value.hint)
    assert writer.write(body, now_s=_now_s(store), offsets_s=[0.0, 800.0, offset_s]) is not None


def test_a_clock_behind_ones_own_chain(store: Store, world: World, owner: AccountKey) -> None:
    writer = _confirmed(store, world, owner)
    assert _checkpoint(writer, store, 1, slice_=5) is not None
    with pytest.raises(WrongClock, match="1800 s behind the time in its own newest entry"):
        _checkpoint(writer, store, 2, slice_=3)
    signed = _checkpoint(writer, store, 2, slice_=4)
    assert signed is not None and signed.entry.slice == 5


# -- keys and healed forks --------------------------------------------------------------------------------------------


def test_the_key_follows_a_rotation(store: Store, world: World) -> None:
    old, new = AccountKey(secret(world.seed, "account ann")), AccountKey(secret(0, "new"))
    author = world.ledger.accounts()[0]
    writer = Writer(store, old)
    writer.confirm([[]])
    assert writer.write(Rotate(new.public, ZERO), now_s=_now_s(store), offsets_s=[], cosigners=[new])
    assert writer.write(_small(world), now_s=_now_s(store), offsets_s=[]) is not None
    later = Writer(store, new, author=author)
    later.confirm([[]])
    assert later.write(_small(world), now_s=_now_s(store), offsets_s=[]) is not None
    stale = Writer(store, old)
    stale.confirm([[]])
    with pytest.raises(RuleViolation) as caught:
        stale.write(_small(world), now_s=_now_s(store), offsets_s=[])
    assert caught.value.code == "signer"


def _small(world: World, credits_: int = 1) -> Request:
    return Request("run", bytes(32), world.charter.purposes[0], 1, 1, 1, credits_, 0, 0, 1000, bytes(32), (), ())


def test_after_a_heal_an_account_goes_on_from_there(store: Store, world: World) -> None:
    key = AccountKey(secret(world.seed, "account ann"))
    before = world.history(key.public)[-1].entry.position
    one, other = (Author(world.charters.network, key, head=before) for _ in range(2))
    kept, lost = one.write(0, _small(world)), other.write(0, _small(world, 2))
    store.append([kept, lost])
    writer = Writer(store, key)
    with pytest.raises(ForkedBackup) as caught:
        writer.confirm([[]])
    assert "HEAL" in str(caught.value.hint)
    heal = one.write(0, Heal(((lost.entry.seq, lost.entry.id),), ()), world.stewards[:2])
    (verdict,) = store.append([heal])
    assert (verdict.id, verdict.outcome, verdict.error) == (heal.entry.id, Outcome.ADDED, None)
    assert writer.confirm([[heal.entry.position]]) == []
    signed = writer.write(_small(world), now_s=_now_s(store), offsets_s=[])
    assert signed is not None and signed.entry.prev == heal.entry.id
    assert writer.standing is Standing.CONFIRMED


# -- charters that come late ------------------------------------------------------------------------------------------


class Late:
    """Work in period 2; then version 2 of the charter comes, by which no device can have done so much."""

    def __init__(self) -> None:
        self.world = World(31)
        payer, worker = self.world.account("payer"), self.world.account("worker")
        self.till, self.rig = self.world.node(payer, "till"), self.world.node(worker, "rig")
        self.world.now = 2 * self.world.charter.period_slices
        self.request = self.world.request(payer, self.till, 5000 * MICROCREDITS)
        self.allot = self.world.allot(self.till, self.request, self.rig, 5000 * MICROCREDITS)
        weak = tuple(device._replace(peak=1) for device in self.world.charter.devices)
        self.two = second_charter(self.world.charters, self.world, effective=1, devices=weak)
        again = replace(self.world.charter, number=3, previous=self.two.charter.id, effective=2)
        self.three = SignedCharter(again).signed((k.public, k.sign("charter", again.id)) for k in self.world.stewards)

    def fill(self, store: Store) -> Store:
        store.append(self.world.entries)
        return store

    def peer(self, *entries: Signed) -> Store:
        """Another node's store, with the first charter alone."""
        made = self.fill(Store(Disk.in_memory([self.world.charters.versions[0].to_bytes()])))
        made.append(entries)
        return made

    def receipt(self, amount: int = 4000 * MICROCREDITS) -> Receipt:
        voucher = Voucher(
            self.rig.network, self.till.public, self.request.entry.id, self.allot.entry.id, self.rig.public, amount,
            amount, 1, DEVICE, -(-amount // PEAK), ZERO,
        )  # fmt: skip
        return Receipt(voucher, self.till.voucher(voucher).signature)

    def write(self, writer: Writer, store: Store, body: Body, later: int) -> Signed | None:
        return writer.write(body, now_s=_now_s(store, self.world.now + later), offsets_s=[])

    def position(self, store: Store) -> list[Position]:
        return [chain.head for chain in store.ledger.chains[self.rig.public]]


@pytest.mark.parametrize("count", [1, 2])
def test_a_number_that_a_late_charter_has_freed_is_never_signed_again(tmp_path: Path, count: int) -> None:
    """Who has not seen that charter has the entry: another one with its number would be a fork there."""
    late = Late()
    with late.fill(new_store(tmp_path / "x", late.world)) as store:
        writer = Writer(store, late.rig.key)
        writer.confirm([late.position(store)])
        first = late.write(writer, store, late.receipt(), 1)
        assert first is not None and first.entry.seq == 1
        if count == 2:
            assert late.write(writer, store, Checkpoint(3, ZERO, ZERO), 2)
        both = store.history(late.rig.public)
        knows, knows_not = late.peer(*both), late.peer(*both)
        for one in (store, knows):
            assert one.add_charter(late.two)
        assert writer.head is not None and writer.head.seq == 0
        for _ in range(2):  # also after a new start
            assert writer.confirm([late.position(knows), late.position(knows_not)]) == []
            assert (writer.standing, writer.shows) == (Standing.ENDED, True)
            with pytest.raises(EndedByCharter, match=f"dropped the entry .*, number {count}: ") as caught:
                late.write(writer, store, Checkpoint(5, ZERO, ZERO), 3)
            with pytest.raises(EndedByCharter):
                writer.write_drafts(now_s=_now_s(store, late.world.now), offsets_s=[])
            assert "ubcp init --profile NEW" in str(caught.value.hint)
            store.close()
            store = Store.open(store.path)
            writer = Writer(store, late.rig.key)
        store.close()


def test_what_a_later_charter_lets_stand_is_shown_again_as_it_was(tmp_path: Path) -> None:
    late = Late()
    with late.fill(new_store(tmp_path / "x", late.world)) as store:
        writer = Writer(store, late.rig.key)
        writer.confirm([late.position(store)])
        late.write(writer, store, late.receipt(), 1)
        late.write(writer, store, Checkpoint(3, ZERO, ZERO), 2)
        before = known(store)
        store.add_charter(late.two)
        assert writer.standing is Standing.ENDED and known(store) != before
        store = same_after_reopening(store)
        store.add_charter(late.three)
        assert known(store) == before._replace(charters=3)
        writer = Writer(store, late.rig.key)
        assert writer.confirm([late.position(store)]) == []
        assert writer.standing is Standing.CONFIRMED
        signed = late.write(writer, store, Checkpoint(5, ZERO, ZERO), 3)
        assert signed is not None and signed.entry.seq == 3
        same_after_reopening(store).close()


def test_an_account_whose_entry_a_charter_has_dropped_is_told_who_helps(tmp_path: Path) -> None:
    late = Late()
    key = AccountKey(secret(late.world.seed, "account payer"))
    with late.fill(new_store(tmp_path / "x", late.world)) as store:
        none = second_charter(late.world.charters, late.world, effective=1, exposure_cap=1)
        store.add_charter(none)
        writer = Writer(store, key)
        assert writer.standing is Standing.ENDED
        with pytest.raises(EndedByCharter) as caught:
            writer.check()
        assert "stewards" in str(caught.value.hint)
