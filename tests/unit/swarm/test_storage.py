"""What a node keeps of the DHT: bounded under a key and in all, and strangers crowd out none that are near."""

from __future__ import annotations

import time

import pytest

from ubcp_p2p.swarm import storage as module
from ubcp_p2p.swarm.hivemind_parts import node, timed_storage
from ubcp_p2p.swarm.storage import NoCache, RecordStorage

NEAR = [b"near %d" % number for number in range(4)]


def place(number: int) -> object:
    return node.DHTID.generate(source=f"key {number}")


def authors(storage: RecordStorage, key: object) -> set[bytes]:
    found = storage.get(key)
    return set(found.value.data) if found is not None else set()


def records(storage: RecordStorage) -> int:
    return sum(len(item.value) for _, item in storage.items())


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> RecordStorage:
    monkeypatch.setattr(module, "RECORDS_PER_KEY_MAX", 8)
    monkeypatch.setattr(module, "RECORDS_MAX", 100)
    return RecordStorage(NEAR.__contains__)


def late() -> float:
    return time.time() + 600.0


def soon() -> float:
    return time.time() + 60.0


def test_strangers_under_a_key_keep_out_none_that_are_near(storage: RecordStorage) -> None:
    """Though theirs live longer, were there first, and go on coming."""
    key = place(0)
    for number in range(30):
        assert storage.store_subkey(key, b"stranger %d" % number, b"", late())
    for author in NEAR:
        assert storage.store_subkey(key, author, b"", soon())
    for number in range(30, 60):
        assert storage.store_subkey(key, b"stranger %d" % number, b"", late())
        assert len(authors(storage, key)) == 8
    assert set(NEAR) < authors(storage, key)


def test_of_strangers_each_has_its_turn(storage: RecordStorage) -> None:
    key = place(0)
    for number in range(100):
        assert storage.store_subkey(key, b"stranger %d" % number, b"", late())
        assert storage.store_subkey(key, b"honest", b"", soon())
        assert b"honest" in authors(storage, key)


def test_who_is_there_takes_no_second_place(storage: RecordStorage) -> None:
    key = place(0)
    names = {*NEAR, b"a", b"b", b"c", b"d"}
    for again in range(5):
        for author in sorted(names):
            assert storage.store_subkey(key, author, b"%d" % again, soon() + again)
    assert authors(storage, key) == names


def test_many_keys_of_strangers_drop_none_of_who_is_near(storage: RecordStorage) -> None:
    for number, author in enumerate(NEAR):
        assert storage.store_subkey(place(number), author, b"", soon())
    for number in range(10, 1000):
        assert storage.store_subkey(place(number), b"stranger %d" % (number % 3), b"", late())
        assert records(storage) <= 100
    assert [authors(storage, place(number)) for number in range(len(NEAR))] == [{author} for author in NEAR]
    assert len(storage.expiration_heap) <= 200


def test_full_of_who_is_near_there_is_still_room_for_another(storage: RecordStorage) -> None:
    for number in range(150):
        assert storage.store_subkey(place(number), NEAR[0], b"", late())
    assert storage.store_subkey(place(200), b"honest", b"", soon())
    assert authors(storage, place(200)) == {b"honest"}
    assert records(storage) <= 100


def test_what_has_ended_takes_no_room(storage: RecordStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(99):
        assert storage.store_subkey(place(number), b"a", b"", soon())
    later = time.time() + 61.0
    monkeypatch.setattr(timed_storage, "get_dht_time", lambda: later)
    for number in range(99):
        assert storage.store_subkey(place(1000 + number), b"b", b"", later + 60.0)
    assert records(storage) == 99


def test_an_older_record_neither_replaces_a_newer_nor_ends_it(
    storage: RecordStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, until = place(0), late()
    assert storage.store_subkey(key, b"a", b"new", until)
    for older in (until, until - 300.0, time.time() - 1.0):
        assert not storage.store_subkey(key, b"a", b"old", older)
    assert storage.store_subkey(key, b"b", b"", until)
    monkeypatch.setattr(timed_storage, "get_dht_time", lambda: until - 1.0)
    assert authors(storage, key) == {b"a", b"b"}
    assert storage.get(key).value.get(b"a").value == b"new"


def test_what_is_stored_again_and_again_takes_no_more_memory(storage: RecordStorage) -> None:
    for again in range(2000):
        assert storage.store_subkey(place(0), b"a", b"", late() + again)
    assert len(storage.expiration_heap) < 100
    assert len(storage.get(place(0)).value.expiration_heap) < 100


def test_nothing_is_cached() -> None:
    cache = NoCache()
    assert not cache.store(place(0), b"value", late())
    assert not cache.store_subkey(place(0), b"a", b"", late())
    assert cache.get(place(0)) is None and place(0) not in cache
