"""The auditor: what is not a fraud of one author — order, copies, clocks, proofs, snapshots, stores, several cores."""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import second_verifier
from ubcp_p2p.charter.values import Charters
from ubcp_p2p.codec import decode as decode_value
from ubcp_p2p.codec import encode as encode_value
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.keys import AccountKey
from ubcp_p2p.ledger import snapshot
from ubcp_p2p.ledger.audit import audit
from ubcp_p2p.ledger.auditor import Auditor
from ubcp_p2p.ledger.balances import balances, balances_root, entries_root
from ubcp_p2p.ledger.entry import ZERO, Heal, Kind, OpenAccount, Receipt, Rotate, entry_id
from ubcp_p2p.ledger.export import Record, RecordKind, Roots, UnreadableExport, read_export, write_export
from ubcp_p2p.ledger.faults import FAULTS
from ubcp_p2p.ledger.frauds import FRAUDS, Scene
from ubcp_p2p.ledger.merkle import root_of_sorted
from ubcp_p2p.ledger.parse import make
from ubcp_p2p.ledger.plant import write_synthetic
from ubcp_p2p.ledger.report import Report
from ubcp_p2p.ledger.sources import ExportSource, open_source
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.synth import Community, simulate
from ubcp_p2p.ledger.targets import Occupied
from ubcp_p2p.ledger.verifying import BATCH, Bad, Workers, batches, check
from ubcp_p2p.ledger.wire import Signed, decode_signed, sign
from ubcp_p2p.ledger.world import CHARTER, World

LATE = 10**6  # a clock after every slice
ENTRIES = 300


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "valid.ubcp"
    write_synthetic(path, accounts=6, entries=ENTRIES, seed=5)
    return path


def run(path: Path, *, jobs: int = 1, clock: int = LATE, as_of: int | None = None) -> Report:
    with open_source(path) as source:
        return audit(source, jobs=jobs, clock=clock, as_of=as_of)


def records_of(path: Path) -> list[Record]:
    with path.open("rb") as file:
        return list(read_export(file))


def rewritten(
    path: Path, to: Path, change: Callable[[list[bytes]], Iterable[bytes]], *, roots: Roots | None = None
) -> Path:
    """The same export with other entries."""
    records = records_of(path)
    with ExportSource(path) as source, to.open("wb") as file:
        log, network = source.log, source.charters.network
        list(source.entries())
        list(source.blobs())
        end = source.end()
        assert end is not None
        write_export(
            file,
            [r.payload for r in records if r.kind is RecordKind.CHARTER],
            [r.payload for r in records if r.kind is RecordKind.PROOF],
            [r.payload for r in records if r.kind is RecordKind.FROZEN],
            change([r.payload for r in records if r.kind is RecordKind.ENTRY]),
            [r.payload for r in records if r.kind is RecordKind.BLOB],
            network=network,
            roots=lambda: roots or end[1],
            log=log,
        )
    return to


def codes(report: Report) -> list[str]:
    return [fault.code for fault in report.faults]


# -- a valid ledger ---------------------------------------------------------------------------------------------------


def test_a_valid_ledger(path: Path) -> None:
    report = run(path)
    assert (report.faults, report.counts.read, report.counts.valid, report.accounts) == ((), ENTRIES, ENTRIES, 6)
    assert report.counts.checkpoints > 0 and report.blobs > 0 and report.blobs_missing == 0
    document = report.to_json()
    assert [*document][:8] == [
        "entries", "accounts", "valid", "faults", "balances_root", "entries_root", "seconds", "verified_per_s",
    ]  # fmt: skip


def test_the_roots_are_those_of_the_ledger(path: Path) -> None:
    world = Community(5)
    made = list(simulate(world, 6, ENTRIES))
    report = run(path)
    assert report.roots == world.roots()
    assert made == [record.payload for record in records_of(path) if record.kind is RecordKind.ENTRY]


def test_a_synthetic_ledger_has_every_kind_that_people_write(path: Path) -> None:
    kinds = {decode_signed(r.payload).entry.kind for r in records_of(path) if r.kind is RecordKind.ENTRY}
    assert kinds == {1, 2, 3, 4, 5, 6, 7, 8, 9}


@pytest.mark.parametrize(("accounts", "entries"), [(1, 100), (2, 29), (50, 170)])
def test_too_few_entries(accounts: int, entries: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_synthetic(tmp_path / "x", accounts=accounts, entries=entries, seed=0)
    assert not list(tmp_path.iterdir())


def test_every_class_of_fault_has_a_fraud() -> None:
    assert {fraud.code for fraud in FRAUDS.values()} == FAULTS.keys()


# -- order, copies, clocks --------------------------------------------------------------------------------------------


def test_a_copy_is_counted(path: Path, tmp_path: Path) -> None:
    report = run(rewritten(path, tmp_path / "x", lambda entries: [*entries, entries[0], entries[-1]]))
    assert report.counts.duplicate == 2
    assert report.counts.valid == ENTRIES
    assert report.faults == ()


def test_a_bad_copy_is_a_fault_and_the_good_one_counts(path: Path, tmp_path: Path) -> None:
    def with_bad_copy(entries: list[bytes]) -> Iterable[bytes]:
        good = decode_signed(entries[0])
        key, signature = good.signatures[0]
        bad = good._replace(signatures=((key, signature[:40] + bytes(24)),))
        return [bad.to_bytes(), *entries]

    report = run(rewritten(path, tmp_path / "x", with_bad_copy))
    assert codes(report) == ["signature"]
    assert report.counts.valid == ENTRIES
    assert report.counts.dependent == 0


THIEF = AccountKey(b"\7" * 32)


def _strangers_too(signed: Signed) -> Signed:
    both = sorted([*signed.signatures, (THIEF.public, THIEF.sign("entry", signed.entry.id))])
    return signed._replace(signatures=tuple(both))


def _only_authors(signed: Signed) -> Signed:
    return signed._replace(signatures=tuple(pair for pair in signed.signatures if pair[0] == signed.entry.author))


def _blank(signed: Signed) -> Signed:
    return signed._replace(signatures=tuple((key, bytes(64)) for key, _ in signed.signatures))


def _by_thief(signed: Signed, **changed: Any) -> Signed:
    """In the author's name and place, what the author never wrote."""
    body = signed.entry.body._replace(**changed)
    e = signed.entry
    return sign(*make(e.network, e.author, e.seq, e.prev, e.slice, body), [THIEF])


def _elsewhere(signed: Signed) -> Signed:
    e = signed.entry
    return sign(*make(b"9" * 32, e.author, e.seq, e.prev, e.slice, e.body), [THIEF])


def _opens_again(signed: Signed) -> Signed:
    e = signed.entry
    return sign(*make(e.network, e.author, e.seq, e.prev, e.slice, OpenAccount(ZERO)), [THIEF])


def _out_of_place(signed: Signed) -> Signed:
    e = signed.entry
    return sign(*make(e.network, e.author, e.seq + 1, e.prev, e.slice, e.body), [THIEF])


def _far_ahead(signed: Signed) -> Signed:
    e = signed.entry
    return sign(*make(e.network, e.author, e.seq, e.prev, 2**31, e.body), [THIEF])


def _of_version_two(signed: Signed) -> bytes:
    """Malformed bytes in the author's name."""
    row = decode_value(signed.data, bytes_max=len(signed.data))
    assert isinstance(row, list)
    data = encode_value([2, *row[1:]])
    return encode_value([data, [[THIEF.public, THIEF.sign("entry", entry_id(data))]]])


def _padded(signed: Signed) -> bytes:
    """The very entry, in a wire form with a field too many."""
    return encode_value([signed.data, [[key, signature] for key, signature in signed.signatures], 0])


@pytest.mark.parametrize(
    ("kind", "change", "code"),
    [
        (Kind.RECEIPT, _strangers_too, "signer"), (Kind.ENROL, _only_authors, "stewards"),
        (Kind.REQUEST, _blank, "signature"), (Kind.REQUEST, partial(_by_thief, run="forged"), "signer"),
        (Kind.REQUEST, _elsewhere, "network"), (Kind.REQUEST, _opens_again, "opening"),
        (Kind.REQUEST, _out_of_place, "sequence"), (Kind.REQUEST, _far_ahead, "slice-ahead"),
        (Kind.REQUEST, _of_version_two, "version"), (Kind.REQUEST, _padded, "encoding"),
        (Kind.ROTATE, _only_authors, "rotation"),
    ],
)  # fmt: skip
def test_nobody_is_accused_of_what_a_copyist_can_do(
    path: Path, tmp_path: Path, kind: Kind, change: Callable[[Signed], Signed | bytes], code: str
) -> None:
    """Without a key of the author's: it is held against the log, and so does the second verifier."""
    changed: list[Signed] = []
    with ExportSource(path) as source:
        log = source.log

    def with_another(entries: list[bytes]) -> Iterable[bytes]:
        for data in entries:
            signed = decode_signed(data)
            if not changed and signed.entry.kind == kind and signed.entry.author != log:
                changed.append(signed)
                other = change(signed)
                yield other if isinstance(other, bytes) else other.to_bytes()
            else:
                yield data

    export = rewritten(path, tmp_path / "x", with_another)
    report = run(export)
    fault = next(fault for fault in report.faults if fault.code == code)
    victim = changed[0].entry.author
    assert victim not in [fault.account for fault in report.faults]
    assert fault.account == log
    assert fault.message.endswith(f"claimed author {victim.hex()}")
    second = second_verifier.audit(export.read_bytes(), clock=2**40)
    assert victim not in [fault.author for fault in second.faults]


def test_what_an_author_has_signed_himself_is_his_fault(path: Path, tmp_path: Path) -> None:
    """Malformed bytes as well; a key that a ROTATE has replaced is not his any more."""
    world = Community(5)
    entries = list(simulate(world, 6, ENTRIES))
    author = world.people[0].author
    old, new = author.key, AccountKey(b"\5" * 32)
    recovery = world.ledger.chains[author.public][0].powers.recovery
    world.write(author, Rotate(new.public, recovery), [new])
    entries += world.taken()
    author.key = new

    def of_version_two(key: AccountKey) -> bytes:
        assert author.head is not None
        row: list[Any] = [2, author.network, author.public, author.head.seq + 1, author.head.id, world.now, 9, []]
        data = encode_value(row)
        return encode_value([data, [[key.public, key.sign("entry", entry_id(data))]]])

    report = run(rewritten(path, tmp_path / "x", lambda _: [*entries, of_version_two(new)]))
    assert [(f.code, f.account) for f in report.faults if f.code == "version"] == [("version", author.public)]
    assert isinstance(old, AccountKey)
    report = run(rewritten(path, tmp_path / "y", lambda _: [*entries, of_version_two(old)]))
    assert [(f.code, f.account) for f in report.faults if f.code == "version"] == [("version", world.log)]


def test_what_comes_after_what_refers_to_it(path: Path, tmp_path: Path) -> None:
    report = run(rewritten(path, tmp_path / "x", lambda entries: [*entries[1:], entries[0]]))
    assert codes(report) == ["unknown-reference"]
    assert report.faults[0].entry == decode_signed(records_of(path)[3].payload).entry.id
    assert report.counts.read == ENTRIES == report.counts.valid + report.counts.dependent + 1


def test_an_entry_left_out(path: Path, tmp_path: Path) -> None:
    """What refers to it is a fault, and so is the exporter's word about its own order."""
    report = run(rewritten(path, tmp_path / "x", lambda entries: entries[:-9] + entries[-8:]))
    assert set(codes(report)) == {"unknown-reference", "checkpoint-root"}
    report = run(rewritten(path, tmp_path / "y", lambda entries: entries[:-1]))
    assert codes(report) == ["checkpoint-root"]
    assert report.faults[0].message == "the END of the export names another set of entries"


def test_entries_of_the_future_and_as_of(path: Path) -> None:
    slices = [decode_signed(r.payload).entry.slice for r in records_of(path) if r.kind is RecordKind.ENTRY]
    half = slices[ENTRIES // 2]
    early = sum(slice_ > half + 1 for slice_ in slices)
    report = run(path, clock=half)
    assert set(codes(report)) == {"slice-ahead"}
    assert len(report.faults) + report.counts.dependent == early
    report = run(path, clock=0, as_of=half)
    assert report.faults == ()
    assert report.counts.later + report.counts.dependent == sum(slice_ > half for slice_ in slices)
    assert report.slice <= half


def test_the_end_names_other_roots(path: Path, tmp_path: Path) -> None:
    right = run(path).roots
    same = list[bytes].copy
    assert codes(run(rewritten(path, tmp_path / "a", same, roots=right))) == []
    assert codes(run(rewritten(path, tmp_path / "b", same, roots=Roots(ZERO, right.balances)))) == ["checkpoint-root"]
    assert codes(run(rewritten(path, tmp_path / "c", same, roots=Roots(right.entries, ZERO)))) == ["checkpoint-state"]


def test_a_header_of_another_network(path: Path, tmp_path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[14 + 5 + 3] ^= 1
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UnreadableExport, match="its charter is that of the network"):
        run(tmp_path / "x")


def test_a_charter_that_does_not_hold(path: Path, tmp_path: Path) -> None:
    charter = records_of(path)[1]
    data = bytearray(path.read_bytes())
    data[charter.end - 1] ^= 1  # in the last signature
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UnreadableExport, match="charter that does not hold") as caught:
        run(tmp_path / "x")
    assert caught.value.offset == charter.offset


# -- several cores ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_cores_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = BATCH // 4  # as many batches, of a smaller ledger
    monkeypatch.setattr("ubcp_p2p.ledger.auditor.BATCH", batch)
    for name in ("signature-voucher", "unknown-reference", "fork"):
        file = tmp_path / name
        write_synthetic(file, accounts=6, entries=6 * batch, seed=9, fraud=FRAUDS[name])
        one, three = run(file, jobs=1), run(file, jobs=3)
        assert (one.faults, one.roots, one.counts) == (three.faults, three.roots, three.counts)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["forked", "spawned beside another thread"])
def test_workers_and_this_process_verify_in_order(path: Path, start: str) -> None:
    payloads = [record.payload for record in records_of(path) if record.kind is RecordKind.ENTRY]
    # The first of its two signatures: what comes after must not be taken for this one's.
    n = next(n for n, data in enumerate(payloads) if isinstance(decode_signed(data).entry.body, Receipt))
    payloads[n] = payloads[n][:-1] + bytes([payloads[n][-1] ^ 1])
    many = [payloads] * 20
    expected = check(payloads)
    bad = expected[n]
    assert (
        isinstance(bad, Bad) and bad.code == "signature" and bad.authorship is not None and not bad.authorship.signers
    )
    assert sum(isinstance(outcome, Signed) for outcome in expected) == len(payloads) - 1
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    if start != "forked":
        other.start()
    try:
        with Workers(2) as workers:
            assert list(workers.checked(iter(many))) == [expected] * 20
            assert workers.aside(root_of_sorted, bytes(64))() == root_of_sorted(bytes(64))
    finally:
        over.set()


@pytest.mark.slow
def test_an_unreadable_end_stops_the_workers(path: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UnreadableExport):
        run(tmp_path / "x", jobs=2)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\xc4\x01x\x90", b"\x92\xc4\x02\x91\xc0\x91\x92\xc4\x00\xc4\x00"])
def test_junk_has_no_name(data: bytes) -> None:
    (outcome,) = check([data])
    assert isinstance(outcome, Bad)
    assert outcome.code in {"encoding", "field", "version"}
    assert outcome.authorship is None


def test_batches() -> None:
    small = [Record(RecordKind.ENTRY, bytes([n]), n) for n in range(7)]
    assert list(batches(small, 3)) == [small[:3], small[3:6], small[6:]]
    assert list(batches(small[:6], 3)) == [small[:3], small[3:6]]
    assert list(batches([], 3)) == []
    large = [Record(RecordKind.ENTRY, bytes(1 << 20), n) for n in range(9)]
    assert [len(batch) for batch in batches(large, 100)] == [4, 4, 1]


# -- snapshots --------------------------------------------------------------------------------------------------------


def audited(path: Path, checkpoint: Path, said: list[str] | None = None) -> Report:
    with open_source(path) as source:
        return audit(source, jobs=1, clock=LATE, checkpoint=checkpoint, say=(said if said is not None else []).append)


@pytest.mark.parametrize("name", [None, "fork", "overdraft", "sequence", "two-branches", "heal", "close-voucher"])
def test_an_audit_goes_on_where_another_stood(name: str | None, tmp_path: Path) -> None:
    """Over a snapshot of every part of a ledger the same is found, and only what is new is verified."""
    whole = tmp_path / "whole"
    write_synthetic(whole, accounts=6, entries=ENTRIES, seed=5, fraud=FRAUDS[name] if name else None)
    expected = run(whole)
    total = expected.counts.read
    for part in (1, ENTRIES // 2, total - 1, total):
        beginning = rewritten(whole, tmp_path / "beginning", lambda entries, n=part: entries[:n])  # type: ignore[misc]
        checkpoint = tmp_path / f"snapshot {part}"
        audited(beginning, checkpoint)
        said: list[str] = []
        report = audited(whole, checkpoint, said)
        assert said == []
        assert (report.faults, report.roots, report.counts) == (expected.faults, expected.roots, expected.counts)
        assert report.resumed == part
        assert report.signatures == sum(
            len(decode_signed(r.payload).signatures) + (decode_signed(r.payload).entry.kind == 6)
            for r in [r for r in records_of(whole) if r.kind is RecordKind.ENTRY][part:]
            if isinstance(check([r.payload])[0], Signed)
        )


def test_a_snapshot_of_a_ledger_that_forks_later(tmp_path: Path) -> None:
    """History of the part that was not read again is read from the file when it is needed."""
    world = Community(5)
    entries = list(simulate(world, 6, ENTRIES))
    scene = Scene(world)
    payer, till = scene.person("payer")
    early = payer.draft(world.now, scene.request_body(till))
    world.request(payer, till, 1000)
    entries += world.taken()
    world.take(early)
    later = world.taken()
    everything = {}
    for name, rows in (("before", entries), ("after", entries + later)):
        everything[name] = tmp_path / name
        with everything[name].open("wb") as file:
            charters = [version.to_bytes() for version in world.charters.versions]
            write_export(file, charters, [], [], rows, world.blobs, network=world.charters.network, roots=world.roots)
    audited(everything["before"], tmp_path / "snapshot")
    report = audited(everything["after"], tmp_path / "snapshot")
    assert report.resumed == len(entries)
    assert codes(report) == ["fork"]
    assert report.roots == world.roots()


def test_a_snapshot_of_branches_that_leave_one_another(tmp_path: Path) -> None:
    """What branches share is shared again, and they fork on from there, healed in part."""
    world = Community(5)
    entries = list(simulate(world, 6, ENTRIES))
    scene = Scene(world)
    payer, till = scene.person("payer")
    for round_ in range(20):
        twin = copy.copy(payer)
        world.request(payer, till, 1000 + round_)
        other = world.request(twin, till, 2000)
        if round_ == 9:
            body = Heal(((other.entry.seq, other.entry.id),), ())
            world.write(payer, body, world.stewards[: world.charter.threshold])
    everything, count = tmp_path / "everything", len(entries)
    entries += world.taken()
    with everything.open("wb") as file:
        charters = [version.to_bytes() for version in world.charters.versions]
        write_export(file, charters, [], [], entries, world.blobs, network=world.charters.network, roots=world.roots)
    whole = run(everything)
    assert codes(whole).count("fork") == 19 and whole.roots == world.roots()
    for part in (count + 10, count + 25, len(entries) - 1):
        beginning = rewritten(everything, tmp_path / "beginning", lambda rows, n=part: rows[:n])  # type: ignore[misc]
        audited(beginning, tmp_path / f"snapshot {part}")
        report = audited(everything, tmp_path / f"snapshot {part}")
        assert report.resumed == part
        assert (report.faults, report.roots, report.counts) == (whole.faults, whole.roots, whole.counts)


def test_debts_and_open_networks_are_said(tmp_path: Path) -> None:
    for name in ("debt", "debt-closed"):
        write_synthetic(tmp_path / name, accounts=6, entries=ENTRIES, seed=5, fraud=FRAUDS[name])
        report = run(tmp_path / name)
        ((account, amount),) = report.debts
        (fault,) = [fault for fault in report.faults if fault.code == "debt"]
        assert (fault.entry, fault.account) == (b"", account)
        assert amount == CHARTER.allowance.member
        document = report.to_json()
        assert document["debts"] == [{"account": account.hex(), "debt": amount}]
        assert document["open_network"] is False
        assert not report.frozen or account not in report.frozen
    world = World(1, stewards=1, threshold=0)
    world.account("a")
    with (tmp_path / "open").open("wb") as file:
        charters, rows = [v.to_bytes() for v in world.charters.versions], [s.to_bytes() for s in world.entries]
        roots = Roots(entries_root(world.ledger), balances_root(balances(world.ledger, world.history)))
        write_export(file, charters, [], [], rows, [], network=world.charters.network, roots=lambda: roots)
    report = run(tmp_path / "open")
    assert (report.is_open, report.debts, report.faults) == (True, (), ())


def test_new_frozen_accounts_before_the_entries_do_not_matter(tmp_path: Path) -> None:
    plain, proved = tmp_path / "plain", tmp_path / "proved"
    write_synthetic(plain, accounts=6, entries=ENTRIES, seed=5)
    write_synthetic(proved, accounts=6, entries=ENTRIES, seed=5, fraud=FRAUDS["fork-proved"])
    audited(plain, tmp_path / "snapshot")
    said: list[str] = []
    report = audited(proved, tmp_path / "snapshot", said)
    assert (report.resumed, said, codes(report)) == (ENTRIES, [], ["fork"])
    with ExportSource(proved) as source:
        auditor = snapshot.load(tmp_path / "snapshot", source)
        assert auditor is not None
        author = decode_signed(records_of(proved)[4].payload).entry.author
        assert [signed.entry.author for signed in auditor.history(author)] == [author] * len(auditor.applied[author])


def test_a_snapshot_of_another_ledger_is_not_used(path: Path, tmp_path: Path) -> None:
    other, reordered = tmp_path / "other", tmp_path / "reordered"
    write_synthetic(other, accounts=6, entries=ENTRIES, seed=6)
    audited(path, tmp_path / "snapshot")
    said: list[str] = []
    before = (tmp_path / "snapshot").read_bytes()
    with pytest.raises(ConfigError, match="a snapshot of another ledger; it stays as it is"):
        audited(other, tmp_path / "snapshot", said)
    assert (tmp_path / "snapshot").read_bytes() == before
    rewritten(path, reordered, lambda entries: entries[:-1])
    assert audited(reordered, tmp_path / "snapshot", said).resumed == 0
    assert "entries were others" in said[-1]


def test_a_snapshot_that_is_damaged_anywhere_is_not_used(path: Path, tmp_path: Path) -> None:
    audited(path, tmp_path / "snapshot")
    data = (tmp_path / "snapshot").read_bytes()
    with ExportSource(path) as source:
        for at in [*range(60), *range(60, len(data), 4999), len(data) - 1]:
            (tmp_path / "x").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises((snapshot.SnapshotMismatch, Occupied)):
                snapshot.load(tmp_path / "x", source)
        for cut in (len(snapshot.MAGIC), len(data) // 2, len(data) - 1):
            (tmp_path / "x").write_bytes(data[:cut])
            with pytest.raises(snapshot.SnapshotMismatch):
                snapshot.load(tmp_path / "x", source)
        for data in (b"junk", snapshot.MAGIC[:5]):
            (tmp_path / "x").write_bytes(data)
            with pytest.raises(Occupied, match="no snapshot of an audit"):
                snapshot.save(tmp_path / "x", Auditor(source, Ledger(source.charters)))
            assert (tmp_path / "x").read_bytes() == data
        (tmp_path / "x").write_bytes(b"")
        assert snapshot.load(tmp_path / "x", source) is None
        assert snapshot.load(tmp_path / "absent", source) is None


def test_a_snapshot_is_the_same_whoever_writes_it(path: Path, tmp_path: Path) -> None:
    audited(path, tmp_path / "one")
    with ExportSource(path) as source:
        auditor = snapshot.load(tmp_path / "one", source)
        assert auditor is not None
        snapshot.save(tmp_path / "other", auditor)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_no_snapshot_with_entries_of_the_future(tmp_path: Path) -> None:
    file = tmp_path / "x"
    write_synthetic(file, accounts=6, entries=ENTRIES, seed=5, fraud=FRAUDS["slice-ahead"])
    said: list[str] = []
    assert codes(audited(file, tmp_path / "snapshot", said)) == ["slice-ahead"]
    assert "not written" in said[0]
    assert not (tmp_path / "snapshot").exists()


# -- stores -----------------------------------------------------------------------------------------------------------


def test_a_store(path: Path, tmp_path: Path) -> None:
    expected = run(path)
    records = records_of(path)
    with ExportSource(path) as source:
        charters = Charters(source.charters.versions[0])
    with Store.create(tmp_path / "ledger.sqlite3", charters) as store:
        entries = [decode_signed(r.payload) for r in records if r.kind is RecordKind.ENTRY]
        store.append(entries[: ENTRIES // 2], verified=True)
        for record in records:
            if record.kind is RecordKind.BLOB:
                store.put_blob(record.payload)
        audited(tmp_path / "ledger.sqlite3", tmp_path / "snapshot")
        store.append(entries[ENTRIES // 2 :], verified=True)
        report = audited(tmp_path / "ledger.sqlite3", tmp_path / "snapshot")  # beside the process that has it open
    assert (report.faults, report.roots, report.resumed) == ((), expected.roots, ENTRIES // 2)
    assert (report.blobs, report.blobs_missing) == (expected.blobs, 0)
    assert report.counts.uncheckable == expected.counts.checkpoints
    assert run(tmp_path / "ledger.sqlite3").roots == expected.roots


def test_a_store_with_a_changed_entry(path: Path, tmp_path: Path) -> None:
    with ExportSource(path) as source:
        charters = Charters(source.charters.versions[0])
    entries = [decode_signed(r.payload) for r in records_of(path) if r.kind is RecordKind.ENTRY]
    key, signature = entries[-1].signatures[0]
    forged = entries[-1]._replace(signatures=((key, signature[:-1] + bytes([signature[-1] ^ 1])),))
    with Store.create(tmp_path / "ledger.sqlite3", charters) as store:
        store.append([*entries[:-1], forged], verified=True)
    report = run(tmp_path / "ledger.sqlite3")
    assert codes(report) == ["signature"]
    assert report.faults[0].account == b""  # anybody can change a signature
    assert report.faults[0].message.endswith(f"claimed author {forged.entry.author.hex()}")


def test_no_file_and_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(UnreadableExport):
        open_source(tmp_path / "x")


def test_histories_are_read_again(path: Path) -> None:
    with ExportSource(path) as source:
        auditor = Auditor(source, Ledger(source.charters))
        auditor.run(Workers(1), clock=LATE, as_of=None)
        everything = [decode_signed(r.payload) for r in records_of(path) if r.kind is RecordKind.ENTRY]
        for author in auditor.applied:
            assert list(auditor.history(author)) == [s for s in everything if s.entry.author == author]
        assert list(auditor.history(ZERO)) == []
        assert source.entry(3) is None


def test_an_empty_ledger(tmp_path: Path) -> None:
    world = Community(1)
    file = io.BytesIO()
    charters = [version.to_bytes() for version in world.charters.versions]
    write_export(file, charters, [], [], [], [], network=world.charters.network, roots=world.roots)
    (tmp_path / "x").write_bytes(file.getvalue())
    report = audited(tmp_path / "x", tmp_path / "snapshot")
    assert (report.faults, report.counts.read, report.accounts) == ((), 0, 0)
    assert report.roots == world.roots()
    assert not (tmp_path / "snapshot").exists()
    world.account("first", recovery=OpenAccount(ZERO).recovery)


def test_the_end_counts_other_entries(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    end = records_of(path)[-1]
    count = end.payload.index(ENTRIES.to_bytes(2, "big"))
    changed = end.payload[:count] + (ENTRIES + 1).to_bytes(2, "big") + end.payload[count + 2 :]
    (tmp_path / "x").write_bytes(data[: end.offset + 5] + changed)
    report = run(tmp_path / "x")
    assert [(fault.code, fault.account) for fault in report.faults] == [("checkpoint-root", b"")]
    assert report.faults[0].message == f"the END of the export counts {ENTRIES + 1} entries"
