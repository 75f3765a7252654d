"""Collects the votes on a round's result: each member tells each, and every answer carries all votes heard so far."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from ubcp_p2p.codec import MalformedMessage, Value, fields, hash_of, items, signature_of
from ubcp_p2p.errors import NetworkError, RoundFailed
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.frames import Stream
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.quorum import Ballot, Certificate, Group, vote_digest

log = logging.getLogger(__name__)

BALLOTS_KEPT = 4  # a member that is late for a vote still gets the certificate from those that went on
EARLY_VOTES_MAX = 256  # votes for groups that we have not heard of yet
EARLY_VOTES_PER_PEER_MAX = 4  # so that a flood pushes out only its sender's own
RETRY_S = 0.25


class Polls:
    """The ballots of one run. `collect` is the member's own vote; the handler answers the others'."""

    def __init__(self, network: Network, run_id: bytes) -> None:
        self._network = network
        self._protocol = f"/ubcp/vote/1/{run_id.hex()[:32]}"
        self._ballots: OrderedDict[bytes, Ballot] = OrderedDict()
        self._early: OrderedDict[tuple[bytes, bytes], tuple[bytes, bytes]] = OrderedDict()
        self._heard = asyncio.Event()
        self._pushes: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        await self._network.handle(self._protocol, self._serve)

    async def close(self) -> None:
        await self._network.unhandle(self._protocol)
        for push in self._pushes:
            push.cancel()
        await asyncio.gather(*self._pushes, return_exceptions=True)

    async def collect(
        self, group: Group, state_hash: bytes, *, deadline_s: float, gone: Callable[[], set[bytes]]
    ) -> Certificate:
        """Vote for `state_hash` and wait for the others; returns the certificate of the state that won.

        Unanimity ends the vote at once. More than half suffices when the deadline (monotonic seconds) has passed, or
        when every member that has not voted is `gone`. Raises RoundFailed, naming the silent and the dissenters, when
        no majority came.
        """
        me = self._network.public
        ballot = self._open_ballot(group)
        ballot.add(me, state_hash, self._network.key.sign("vote", vote_digest(group.digest, state_hash)))
        others = [peer for peer in group.peers if peer != me]
        for peer in others:
            # Not awaited: whoever votes last has all votes at once, and the others still need that last one.
            push = asyncio.create_task(self._tell(peer, ballot, me, deadline_s))
            self._pushes.add(push)
            push.add_done_callback(self._pushes.discard)
        while True:
            self._heard.clear()
            winner = ballot.winner()
            missing = set(ballot.missing())
            late = time.monotonic() >= deadline_s
            if ballot.unanimous() or (winner is not None and (not missing or late or missing <= gone())):
                assert winner is not None
                return ballot.certificate(winner)
            if late or missing <= gone():
                names = ", ".join(short(peer) for peer in sorted(missing)) or "nobody"
                dissenters = {peer for peer, (state, _) in ballot.votes.items() if state != state_hash}
                why = "the members' results differ" if dissenters else f"{names} did not vote"
                raise RoundFailed(f"no majority for a result: {why}", tuple(sorted(missing | dissenters)))
            try:
                async with asyncio.timeout(min(0.1, max(0.01, deadline_s - time.monotonic()))):
                    await self._heard.wait()
            except TimeoutError:
                pass

    def certificate(self, group_digest: bytes) -> Certificate | None:
        """The certificate of a recent group, if a majority's votes were heard by now."""
        ballot = self._ballots.get(group_digest)
        winner = ballot.winner() if ballot is not None else None
        return ballot.certificate(winner) if ballot is not None and winner is not None else None

    def _open_ballot(self, group: Group) -> Ballot:
        digest = group.digest
        ballot = self._ballots.get(digest)
        if ballot is None:
            ballot = self._ballots[digest] = Ballot(group, {})
            while len(self._ballots) > BALLOTS_KEPT:
                self._ballots.popitem(last=False)
            for (early_digest, peer), (state_hash, signature) in list(self._early.items()):
                if early_digest == digest:
                    ballot.add(peer, state_hash, signature)
                    del self._early[(early_digest, peer)]
        return ballot

    async def _tell(self, peer: bytes, ballot: Ballot, me: bytes, deadline_s: float) -> None:
        state_hash, signature = ballot.votes[me]
        while time.monotonic() < deadline_s:
            try:
                answer = await self._network.request(
                    peer, self._protocol, [ballot.group.digest, state_hash, signature], timeout_s=2.0
                )
                for row in items(answer, len(ballot.group.members)):
                    voter, state, signed = fields(row, 3)
                    ballot.add(hash_of(voter), hash_of(state), signature_of(signed))
                self._heard.set()
                return
            except (NetworkError, MalformedMessage) as error:
                log.debug("vote not delivered to %s: %s", short(peer), error)
                await asyncio.sleep(RETRY_S)

    async def _serve(self, stream: Stream) -> None:
        digest, state_hash, signature = fields(await stream.receive(timeout_s=5.0), 3)
        group_digest, state, signed = hash_of(digest), hash_of(state_hash), signature_of(signature)
        ballot = self._ballots.get(group_digest)
        rows: list[Value] = []
        if ballot is None:
            own = [place for place in self._early if place[1] == stream.peer]
            if len(own) >= EARLY_VOTES_PER_PEER_MAX:
                del self._early[own[0]]
            elif len(self._early) >= EARLY_VOTES_MAX:
                self._early.popitem(last=False)
            self._early[(group_digest, stream.peer)] = (state, signed)
        elif ballot.add(stream.peer, state, signed):
            self._heard.set()
            rows = [[peer, vote, sig] for peer, (vote, sig) in sorted(ballot.votes.items())]
        await stream.send(rows, timeout_s=5.0)
