"""Finds the group for one round: hivemind's Matchmaking, sized to the peers that are really there.

hivemind's defaults wait 5 s for peers that may not exist. Here the heartbeats already say who is ready, so the
target size is that number, and the search ends the moment the group is full: 0.1–0.25 s for four peers
(docs/measurements.md). What the leader gathers is signed by each member (quorum.Card), so a leader can leave members
out but cannot speak for them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, AsyncIterator  # noqa: UP035  # hivemind recognises typing.AsyncIterator only

from ubcp_p2p.errors import NetworkError, UbcpError
from ubcp_p2p.keys import peer_id_of, public_of
from ubcp_p2p.swarm.admission import WORDS_MAX, Verdict, everybody, heard
from ubcp_p2p.swarm.frames import Unreachable
from ubcp_p2p.swarm.hivemind_parts import (
    Matchmaking,
    P2PContext,
    P2PDaemonError,
    ServicerBase,
    StepControl,
    averaging_pb2,
)
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.quorum import Card

log = logging.getLogger(__name__)

LOOKUP_EVERY_S = (
    0.1  # hivemind polls the DHT 200 times a second otherwise; this cut CPU by 4× for 50 ms more (measured)
)
ANSWER_S = 1.0  # a leader that does not answer a join request within this is passed over
WINDOW_S = 2.0  # how long a leader waits for the rest of its group; must exceed ANSWER_S (see hivemind's docstring)


class NoGroup(NetworkError):
    """Nobody came to this round's group in time."""


class _Dht:
    """What GroupKeyManager wants of a DHT: awaitable get and store. Look-ups are spaced LOOKUP_EVERY_S apart.

    Only records of `expected` peers are passed on (None: of all): whoever else declares itself a leader would cost an
    answer time each.
    """

    def __init__(self, network: Network, expected: Callable[[], set[bytes] | None]) -> None:
        self.peer_id = network.session.p2p.peer_id
        self._dht = network.session.dht
        self._expected = expected
        self._last_s = 0.0

    async def get(self, key: str, latest: bool = False, return_future: bool = False) -> Any:
        wait_s = self._last_s + LOOKUP_EVERY_S - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        self._last_s = time.monotonic()
        found = await self._dht.get(key, latest=latest)
        expected = self._expected()
        if expected is not None and found is not None and isinstance(found.value, dict):
            wanted = {peer_id_of(public) for public in expected}
            for subkey in [subkey for subkey in found.value if subkey not in wanted]:
                del found.value[subkey]
        return found

    async def store(
        self, key: str, subkey: bytes, value: Any, expiration_time: float, return_future: bool = False
    ) -> Any:
        return await self._dht.store(key, value, expiration_time, subkey=subkey, await_all_replicas=False)


class GroupServicer(ServicerBase):  # type: ignore[misc]  # hivemind is untyped
    """Answers join requests for one run; the wire name is fixed so that versions and class names can change."""

    def __init__(self, matchmaker: Matchmaker) -> None:
        self._matchmaker = matchmaker

    @classmethod
    def _get_handle_name(cls, namespace: str | None, method_name: str) -> str:
        return f"/ubcp/group/2/{namespace}/{method_name}"

    async def rpc_join_group(
        self, request: averaging_pb2.JoinRequest, context: P2PContext
    ) -> AsyncIterator[averaging_pb2.MessageFromLeader]:
        if words := self._matchmaker.shuts_out(context.remote_id):
            yield averaging_pb2.MessageFromLeader(
                code=averaging_pb2.PROTOCOL_VIOLATION, gathered=[words[:WORDS_MAX].encode()]
            )
            return
        if self._matchmaker.refuses(context.remote_id, request.gather):
            yield averaging_pb2.MessageFromLeader(code=averaging_pb2.PROTOCOL_VIOLATION)
            return
        async for message in self._matchmaker.search.rpc_join_group(request, context):
            yield message


# hivemind reads the annotations at run time, and this file's are strings of names that it can resolve only like this.
GroupServicer.rpc_join_group.__annotations__.update(
    {
        "request": averaging_pb2.JoinRequest,
        "context": P2PContext,
        "return": AsyncIterator[averaging_pb2.MessageFromLeader],
    }
)


class _Hearing:
    """Stands for the servicer's type where hivemind asks a leader: hears the words of those that refuse."""

    def __init__(self, on_refusal: Callable[[Any, bytes], None]) -> None:
        self._on_refusal = on_refusal

    def get_stub(self, p2p: Any, leader: Any, *, namespace: str | None = None) -> Any:
        stub = GroupServicer.get_stub(p2p, leader, namespace=namespace)

        async def ask(request: Any) -> AsyncIterator[Any]:
            return self._overheard(leader, await stub.rpc_join_group(request))

        return SimpleNamespace(rpc_join_group=ask)

    async def _overheard(self, leader: Any, messages: Any) -> AsyncIterator[Any]:
        try:
            async for message in messages:
                if message.code == averaging_pb2.PROTOCOL_VIOLATION and message.gathered:
                    self._on_refusal(leader, message.gathered[0])
                yield message
        finally:
            await messages.aclose()


class _Search(Matchmaking):  # type: ignore[misc]  # hivemind is untyped
    """One search that remembers who led the group it ended in, and hears why leaders refuse."""

    led_by: Any = None

    def __init__(self, *arguments: Any, on_refusal: Callable[[Any, bytes], None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._servicer_type = _Hearing(on_refusal)

    async def follower_assemble_group(self, leader: Any, msg: Any) -> Any:
        self.led_by = leader
        return await super().follower_assemble_group(leader, msg)


class Matchmaker:
    """Matchmaking for one run on one network session. `generation` tells whether it is still alive.

    refusals: who of those that were asked to lead in the last search does not let this peer in, and why, in its words.
    """

    def __init__(self, network: Network, run_id: bytes, why_not: Verdict = everybody) -> None:
        """why_not: of a peer, why it may not join; it hears these words."""
        self.generation = network.session.generation
        self.leader: bytes | None = None  # of the last group found; None when it was this peer
        self.refusals: dict[bytes, str] = {}
        self._why_not = why_not
        self._banned: set[bytes] = set()
        self._expected: set[bytes] | None = None
        self._network = network
        self._p2p = network.session.p2p
        self._namespace = run_id.hex()[:32]
        self._dht = _Dht(network, lambda: self._expected)
        self._servicer = GroupServicer(self)
        self._card: Card | None = None
        self.search = self._new_search(b"nobody searches yet", 2)

    def _new_search(self, key: bytes, size: int) -> Any:
        """A fresh Matchmaking for each search.

        Hivemind's leaves tasks behind that would pile up in a long-lived one.
        """
        search = _Search(
            self._p2p,
            key,
            self._dht,
            servicer_type=GroupServicer,
            prefix=self._namespace,
            target_group_size=None,
            min_group_size=2,
            min_matchmaking_time=WINDOW_S,
            request_timeout=ANSWER_S,
            client_mode=False,
            on_refusal=self._note_refusal,
        )
        search.target_group_size = search.potential_leaders.target_group_size = size
        return search

    async def open(self) -> None:
        """Begin to answer join requests. Raises Unreachable when p2pd is gone."""
        try:
            await self._servicer.add_p2p_handlers(self._p2p, namespace=self._namespace)
        except (OSError, EOFError, P2PDaemonError) as error:
            raise Unreachable(f"p2pd did not take the matchmaking handler: {error}") from None

    async def close(self) -> None:
        if self.generation == self._network.generation:
            await self._servicer.remove_p2p_handlers(self._p2p, namespace=self._namespace)

    def expect(self, companions: Iterable[bytes], *, banned: Iterable[bytes]) -> None:
        """Whom the next search asks to lead, and whose join requests it refuses (public keys)."""
        self._expected = set(companions)
        self._banned = set(banned)
        self.refusals = {}

    def _note_refusal(self, leader: Any, words: bytes) -> None:
        public = public_of(leader.to_bytes())
        if self._expected is None or public in self._expected:  # a leader can send us on to anybody
            self.refusals[public] = heard(words[: 4 * WORDS_MAX].decode(errors="replace"))

    def shuts_out(self, peer_id: Any) -> str:
        """Why this peer may not join any group of this run, in words for it; "" when it may."""
        try:
            return self._why_not(public_of(peer_id.to_bytes()))
        except UbcpError:
            return ""  # `refuses` it is

    def refuses(self, peer_id: Any, data: bytes) -> bool:
        """Whether this peer may not join: banned, or its card is not its own for the very round that we are at.

        Without this whoever knows the public search key could take honest members' seats with garbage.
        """
        try:
            public, card = public_of(peer_id.to_bytes()), Card.from_bytes(data)
        except UbcpError:
            return True
        mine = self._card
        place = (card.run_id, card.round, card.base_hash)
        return (
            public in self._banned
            or card.peer != public
            or (mine is not None and place != (mine.run_id, mine.round, mine.base_hash))
        )

    async def find(self, key: bytes, card: bytes, size: int, timeout_s: float) -> list[bytes]:
        """Find a group of `size` peers (me included) who look under the same 32-byte `key`; returns the members' cards.

        Raises NoGroup after `timeout_s`. A smaller group is returned when the window closes and at least two came.
        """
        self._card = Card.from_bytes(card)
        self.search = search = self._new_search(key, size)
        now_s = time.time()
        step = StepControl(scheduled_time=now_s, deadline=now_s + timeout_s, data_for_gather=card)
        try:
            async with asyncio.timeout(timeout_s + ANSWER_S):
                group = await search.look_for_group(step)
        except TimeoutError:
            group = None
        except Exception as error:
            raise NoGroup(f"matchmaking failed: {error or type(error).__name__}") from error
        if group is None:
            raise NoGroup(f"no group of {size} came together within {timeout_s:.1f} s")
        self.leader = public_of(search.led_by.to_bytes()) if search.led_by is not None else None
        return [bytes(data) for data in group.gathered]
