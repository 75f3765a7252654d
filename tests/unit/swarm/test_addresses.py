"""The address book and the words on reachability, fed with what peers and damaged files can hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.keys import to_base58
from ubcp_p2p.swarm.addresses import (
    ADDRESS_CHARS_MAX,
    ADDRESSES_MAX,
    FILE_BYTES_MAX,
    PEERS_MAX,
    AddressBook,
    farthest_first,
    reachability,
    split_multiaddr,
)

ID = to_base58(KEYS[0].peer_id)
ADDRESS = "/ip4/203.0.113.7/tcp/4001"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "peers.json"


def test_what_was_seen_is_there_after_a_restart_newest_first(path: Path) -> None:
    book = AddressBook(path)
    book.saw("old", [ADDRESS], 10.0)
    book.saw("new", [ADDRESS, "/ip4/10.0.0.1/tcp/1"], 20.0)
    book.save()
    again = AddressBook(path)
    assert again.all() == book.all()
    assert again.multiaddrs() == [f"{ADDRESS}/p2p/new", "/ip4/10.0.0.1/tcp/1/p2p/new", f"{ADDRESS}/p2p/old"]


def test_a_peer_seen_again_without_addresses_keeps_the_old_ones(path: Path) -> None:
    book = AddressBook(path)
    book.saw("a", [ADDRESS], 10.0)
    book.saw("a", [], 20.0)
    assert book.all()[0].addresses == (ADDRESS,)
    book.saw("never with an address", [], 30.0)
    assert len(book.all()) == 1


@pytest.mark.parametrize(
    "hostile",
    ["", "ip4/1.2.3.4/tcp/1", "/" + "x" * ADDRESS_CHARS_MAX, "/ip4/1.2.3.4\n/tcp/1", "/ip4/1.2.3.4/tcp/1,/ip4/6.6.6.6",
     "/ip4/1.2.3.4\x1b[2J/tcp/1", "/\u202eip4", "/\ud800"],
)  # fmt: skip
def test_a_hostile_address_is_not_remembered(path: Path, hostile: str) -> None:
    book = AddressBook(path)
    book.saw("a", [hostile, ADDRESS], 10.0)
    assert book.all()[0].addresses == (ADDRESS,)
    with pytest.raises(ConfigError):
        split_multiaddr(f"{hostile}/p2p/{ID}")


def test_the_book_is_bounded_and_forgets_the_oldest(path: Path) -> None:
    book = AddressBook(path)
    for number in range(PEERS_MAX + 10):
        book.saw(f"peer {number}", [f"/ip4/10.0.0.1/tcp/{port}" for port in range(ADDRESSES_MAX + 5)], float(number))
    assert len(book.all()) == PEERS_MAX
    assert all(len(known.addresses) == ADDRESSES_MAX for known in book.all())
    assert book.all()[-1].peer_id == "peer 10"
    book.save()
    assert path.stat().st_size < FILE_BYTES_MAX


ROW = {"peer_id": "a", "addresses": [ADDRESS], "seen_s": 10}


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "7", "{}", '{"a": 1}', '"text"', "[1]", "[null]", "[{}]", "[" * 100_000, "\x00\xff",
     json.dumps([ROW | {"addresses": [1]}]), json.dumps([ROW | {"addresses": None}]),
     json.dumps([ROW | {"seen_s": "x"}]),
     json.dumps([ROW | {"seen_s": float("nan")}]), json.dumps([ROW | {"seen_s": float("inf")}]),
     json.dumps([ROW | {"seen_s": 10**400}])],
)  # fmt: skip
def test_a_damaged_file_is_an_empty_book_that_can_be_saved(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    book = AddressBook(path)
    assert book.all() == []
    book.saw("b", [ADDRESS], 20.0)
    book.save()
    assert [known.peer_id for known in AddressBook(path).all()] == ["b"]


def test_a_huge_file_is_not_read(path: Path) -> None:
    path.write_text(json.dumps([ROW]) + " " * FILE_BYTES_MAX)
    assert AddressBook(path).all() == []


def test_bytes_that_are_no_text_are_an_empty_book(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")
    assert AddressBook(path).all() == []


@given(st.text(max_size=60))
def test_a_friends_address_is_split_or_refused_with_a_hint(text: str) -> None:
    try:
        address, peer_id = split_multiaddr(text)
    except ConfigError as refused:
        hint = refused.hint
    else:
        hint = "not needed"
        assert address.startswith("/")
        assert peer_id
    assert hint


def test_a_full_multiaddr_is_split() -> None:
    assert split_multiaddr(f"  {ADDRESS}/p2p/{ID}\n") == (ADDRESS, ID)
    relayed = f"{ADDRESS}/p2p/{ID}/p2p-circuit"
    assert split_multiaddr(f"{relayed}/p2p/{ID}") == (relayed, ID)
    for bad in (ADDRESS, f"{ADDRESS}/p2p/", f"/p2p/{ID}", f"{ADDRESS}/p2p/0OIl", f"{ADDRESS}/p2p/{'1' * 5000}"):
        with pytest.raises(ConfigError):
            split_multiaddr(bad)


@pytest.mark.parametrize(
    ("listening", "dialled_back", "kind"),
    [([], None, "loopback"), (["/ip4/127.0.0.1/tcp/1"], None, "loopback"), (["/ip6/::1/tcp/1"], None, "loopback"),
     (["/ip4/192.168.1.2/tcp/1"], None, "local"), (["/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1"], True, "local"),
     (["/ip4/8.8.8.8/tcp/1"], None, "public"), (["/dns4/example.org/tcp/1"], True, "public"),
     (["/ip4/8.8.8.8/tcp/1"], False, "outgoing"), (["/ip4/8.8.8.8/tcp/1/p2p/x/p2p-circuit"], None, "relay"),
     (["nonsense", "/ip4", "/ip4/999.1.1.1/tcp/1"], None, "loopback")],
)  # fmt: skip
def test_reachability_in_one_word_and_a_sentence(listening: list[str], dialled_back: bool | None, kind: str) -> None:
    word, sentence = reachability(listening, dialled_back)
    assert word == kind
    assert len(sentence) > 20


def test_the_address_that_works_elsewhere_comes_first() -> None:
    listening = ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.7/tcp/1", "/ip6/::1/tcp/1", "/dns4/node.example/tcp/1"]
    assert farthest_first(listening) == [listening[3], listening[1], listening[0], listening[2]]
