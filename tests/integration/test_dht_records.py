"""A DHT of three real nodes: what a node did not sign is neither stored nor returned, and garbage harms nobody."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.swarm.made import key
from ubcp_p2p.keys import NodeKey, peer_id_of, public_of
from ubcp_p2p.swarm import directory, storage
from ubcp_p2p.swarm.addresses import AddressBook
from ubcp_p2p.swarm.hivemind_parts import PeerID, dht_pb2, node, validation
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.p2pd import P2pdSettings
from ubcp_p2p.swarm.records import LIFETIME_S_MAX, VALUE_BYTES_MAX, Ed25519Validator

pytestmark = pytest.mark.slow

RECORD = "a key of the test"


@asynccontextmanager
async def running(secret: NodeKey, bootstrap: tuple[str, ...] = ()) -> AsyncIterator[Network]:
    with tempfile.TemporaryDirectory(prefix="ubcp-") as folder:  # unix sockets need short paths
        place = Path(folder)
        secret.save(place / "key")
        settings = P2pdSettings(identity=place / "key", listen=("/ip4/127.0.0.1/tcp/0",))
        network = Network(secret, settings, place, AddressBook(place / "peers.json"), bootstrap)
        serving = asyncio.create_task(network.serve())
        try:
            async with asyncio.timeout(20.0):
                await network.ready()
            yield network
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


@asynccontextmanager
async def three() -> AsyncIterator[tuple[Network, Network, Network]]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(key(1)))
        joined = tuple(first.multiaddrs())
        second = await stack.enter_async_context(running(key(2), joined))
        third = await stack.enter_async_context(running(key(3), joined))
        for network in (second, third):
            await network.neighbours.connect(joined[0])
        await third.neighbours.connect(second.multiaddrs()[0])
        networks = first, second, third
        async with asyncio.timeout(20.0):  # else each learns of a connection when it next looks
            while any(len(network.connected) < 2 for network in networks):
                await asyncio.gather(*(network.refresh_connected() for network in networks))
        yield networks


@pytest.mark.asyncio
async def test_neighbours_whose_routing_tables_forgot_each_other_meet_again() -> None:
    """A table drops whoever does not answer once, as when a p2pd stands still for a second; the connections stay."""
    async with running(key(1)) as first, running(key(2), tuple(first.multiaddrs())) as second:
        async with asyncio.timeout(20.0):  # before the next dial-back, which also makes them meet
            while any(network.neighbours.dialled_back is None for network in (first, second)):
                await asyncio.gather(first.refresh_connected(), second.refresh_connected())
            for table in (network.session.dht.protocol.routing_table for network in (first, second)):
                for name in list(table.uid_to_peer_id):
                    del table[name]
            while not await first.claims(RECORD):  # each claim is stored on whom the node knows by then
                await second.claim(RECORD, 1, 60.0)


def store_request(sender: Network, subkey: bytes, value: bytes, expires_s: float, key_: str = RECORD) -> Any:
    return dht_pb2.StoreRequest(
        keys=[node.DHTID.generate(source=key_).to_bytes()], subkeys=[subkey], values=[value],
        expiration_time=[expires_s], in_cache=[False], peer=sender.session.dht.protocol.node_info,
    )  # fmt: skip


async def push(sender: Network, to: Network, subkey: bytes, value: bytes, expires_s: float, key_: str = RECORD) -> bool:
    """Send a record as it is, past the checks of our own node; whether the other took it."""
    stub = sender.session.dht.protocol.get_stub(PeerID(peer_id_of(to.public)))
    answer = await stub.rpc_store(store_request(sender, subkey, value, expires_s, key_), timeout=5.0)
    return bool(answer.store_ok[0])


def packed(value: Any) -> bytes:
    data: bytes = node.MSGPackSerializer.dumps(value)
    return data


def signed(author: NodeKey, subkey: bytes, value: bytes, expires_s: float, key_: str = RECORD) -> bytes:
    key_id = node.DHTID.generate(source=key_).to_bytes()
    record = validation.DHTRecord(key_id, subkey, value, expires_s)
    return Ed25519Validator(author).sign_value(record)


@pytest.mark.asyncio
async def test_a_signed_record_is_found_and_a_forged_one_is_not_stored() -> None:
    async with three() as (first, second, third):
        assert await second.claim(RECORD, ["mine"], 60.0)
        (claim,) = await third.claims(RECORD)
        assert (claim.author, claim.value) == (second.public, ["mine"])

        soon, mine, theirs = time.time() + 60.0, packed(peer_id_of(third.public)), packed(peer_id_of(second.public))
        lie = packed(["a lie"])
        assert not await push(third, first, theirs, lie, soon)  # no signature
        assert not await push(third, first, theirs, signed(third.key, mine, lie, soon), soon)  # signed by another
        assert not await push(third, first, theirs, signed(third.key, theirs, lie, soon), soon)
        good = signed(third.key, mine, lie, soon)
        assert not await push(third, first, mine, good[:-2] + bytes([good[-2] ^ 1]) + good[-1:], soon)
        assert not await push(third, first, mine, good, soon + 1.0)  # another expiration than the one signed
        long_ago, far = time.time() - 120.0, time.time() + 7200.0
        assert not await push(third, first, mine, signed(third.key, mine, lie, long_ago), long_ago)
        assert not await push(third, first, mine, signed(third.key, mine, lie, far), far)
        assert await push(third, first, mine, good, soon)  # the same by the book
        assert {c.author: c.value for c in await first.claims(RECORD)} == {
            second.public: ["mine"],
            third.public: ["a lie"],
        }


GARBAGE = [
    b"\xc1",  # no msgpack at all
    b"",
    b"\x92\x01",  # cut off
    b"\xdd\xff\xff\xff\xff",  # a list of 2^32 items
    b"\xc7\x02\x50\xc1\xc1",  # an extension that hivemind tries to read
    b"\xc7\x00\x50",  # the same, empty
    packed([[["deep"]]]),
    packed({"not": "a list"}),
]


@pytest.mark.asyncio
async def test_garbage_that_its_author_signed_neither_stops_nor_hides_the_others() -> None:
    """Each in the place of the one before: the newest record of an author is the one that counts."""
    async with three() as (first, second, third):
        entry = directory.Entry("run", b"\1" * 32, "recipe", b"\2" * 32, 3, 50)
        await directory.publish(second, [entry])
        begin_s = time.time() + 60.0
        subkey = packed(peer_id_of(third.public))
        key_id = node.DHTID.generate(source=directory.KEY).to_bytes()
        for number, garbage in enumerate(GARBAGE):
            soon = begin_s + number
            record = validation.DHTRecord(key_id, subkey, garbage, soon)
            value = Ed25519Validator(third.key).sign_value(record)
            request = dht_pb2.StoreRequest(
                keys=[key_id], subkeys=[subkey], values=[value], expiration_time=[soon], in_cache=[False],
                peer=third.session.dht.protocol.node_info,
            )  # fmt: skip
            for node_ in (first, second):
                stub = third.session.dht.protocol.get_stub(PeerID(peer_id_of(node_.public)))
                await stub.rpc_store(request, timeout=5.0)
            for node_ in (first, second):
                async with asyncio.timeout(10.0):
                    found = await directory.lookup(node_)
                assert (second.public, entry) in found, garbage


async def shown(asker: Network, by: Network, key_: str = RECORD) -> set[bytes]:
    """Whose records under a key one node shows to another."""
    key_id = node.DHTID.generate(source=key_)
    found = await asker.session.dht.protocol.call_find(PeerID(peer_id_of(by.public)), [key_id])
    value, _ = found[key_id]
    return {public_of(subkey) for subkey, _ in value.value.items()}


@pytest.mark.asyncio
async def test_what_others_ask_to_cache_hides_no_record() -> None:
    async with three() as (first, second, third):
        assert await second.claim(RECORD, ["mine"], 60.0)
        late = time.time() + LIFETIME_S_MAX - 10.0
        subkey = packed(peer_id_of(third.public))
        request = store_request(third, subkey, signed(third.key, subkey, packed(1), late), late)
        request.in_cache[:] = [True]
        stub = third.session.dht.protocol.get_stub(PeerID(peer_id_of(first.public)))
        await stub.rpc_store(request, timeout=5.0)
        assert second.public in await shown(third, first)


@pytest.mark.asyncio
async def test_a_crowd_of_strangers_keeps_no_neighbour_out_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "RECORDS_PER_KEY_MAX", 8)
    async with three() as (first, second, third):
        entry = directory.Entry("run", b"\1" * 32, "recipe", b"\2" * 32, 3, 50)
        place = directory.key_of(entry.name)
        await directory.publish(second, [entry])
        value, late = packed([["run", b"\1" * 32, "recipe", b"\2" * 32, 3, 50, b""]]), time.time() + 600.0
        for number in range(20):
            stranger = key(100 + number)
            subkey = packed(peer_id_of(stranger.public))
            assert await push(third, first, subkey, signed(stranger, subkey, value, late, place), late, place)
        assert second.public in await shown(third, first, place)
        assert len(await shown(third, first, place)) == 8
        assert (second.public, entry) in await directory.lookup(third, "run")


@pytest.mark.asyncio
async def test_a_record_as_full_as_it_may_be_is_still_found() -> None:
    async with three() as (first, second, third):
        value, late = packed(b"." * (VALUE_BYTES_MAX - 100)), time.time() + 600.0
        for number in range(storage.RECORDS_PER_KEY_MAX + 5):
            stranger = key(1000 + number)
            subkey = packed(peer_id_of(stranger.public))
            assert await push(third, first, subkey, signed(stranger, subkey, value, late), late)
        assert await second.claim(RECORD, ["mine"], 60.0)
        assert len(await shown(third, first)) == storage.RECORDS_PER_KEY_MAX
        assert second.public in {claim.author for claim in await third.claims(RECORD)}
