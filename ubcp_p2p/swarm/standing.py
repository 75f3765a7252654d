"""Where the others stand: asks them, chooses the branch, and moves there by commit or by download.

Who is let in by too few of them to train follows, and asks again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.errors import NetworkError, StateMismatch
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.events import Observer, RunSettings
from ubcp_p2p.swarm.exchange import AllGather, Exchange, Pace
from ubcp_p2p.swarm.membership import BEAT_S, STRIKE_S_MAX, Phase
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.payers import Payers, two_faced
from ubcp_p2p.swarm.presence import Presence
from ubcp_p2p.swarm.quorum import Certificate, Standing, choose
from ubcp_p2p.swarm.states import States
from ubcp_p2p.swarm.trainer import Trainer

log = logging.getLogger(__name__)

STRIKE_S = 30.0  # how long a peer that lied or hung is not waited for
LIES_KEPT = 1024
CATCH_UP_TRIES = 3
SHUN_S = 3600.0  # how long who was shown to lie trains with nobody
COMPARE_S = 10.0  # others' deadlines end a little later than this peer's
LIED = "this peer was shown to lie about its work in this run"


class Follower(Presence):
    """A peer that stands on a certified state and follows the majority of the live peers (quorum.choose)."""

    def __init__(self, network: Network, trainer: Trainer, settings: RunSettings, observe: Observer) -> None:
        self._shunned: dict[bytes, tuple[int, float]] = {}  # peer → (from this round on, until then)
        settings = replace(settings, admission=settings.admission.but_for(self._why_shunned))
        ready = trainer.ready
        states = States(
            network, settings.run_id, ready.state_bytes, settings.rounds, settings.peers_max, settings.admission
        )
        super().__init__(network, settings, observe, states, ready.round, ready.state_hash)
        self.exchange: Exchange = AllGather(network, settings.run_id, ready.offer_bytes)
        self._trainer = trainer
        self._known: set[bytes] = set()  # peers that this one has made a round with
        self._lied: set[tuple[bytes, bytes]] = set()  # (peer, state hash): it served other bytes; not to be asked again
        self._pace = Pace()
        self._payers = Payers()
        self._candidate_hash: bytes | None = None
        self.refused = ""  # why others do not let this peer in, in the words of most of them

    def _stand_on(self, certificate: Certificate) -> None:
        contradicted = self._payers.contradicted(certificate.group, time.monotonic())
        self._strike_two_faced(set(contradicted).intersection(certificate.signers))
        self._candidate_hash = None
        self.exchange.release()
        self._known.update(certificate.group.peers)
        for peer in certificate.group.peers if self._network.public in certificate.group.peers else ():
            self._states.refusals.lift(peer)
        self.view.forgive(certificate.signers)
        self.certificate, self.base_hash, self.round = certificate, certificate.state_hash, certificate.round
        self._states.publish(self._trainer.state, self.base_hash, certificate)

    def _strike_two_faced(self, peers: Iterable[bytes]) -> None:
        """Wait no more for who has named two payers for one round, and has signed both."""
        for peer in sorted(set(peers) - {self._network.public}):
            log.warning("%s has named two payers for one round, and signed both; not waited for", short(peer))
            self._say("two payers", peer=peer.hex())
            self.view.strike(peer, time.monotonic(), STRIKE_S_MAX)

    async def compare(self, certificate: Certificate) -> None:
        """Ask those whose signatures it lacks what they stand on, and strike who is two-faced; for a while at most.

        A leader that shows its members different cards of itself can make two certificates for one state: then each
        lacks the signatures on the other one.
        """
        unsigned = set(certificate.group.peers) - {*certificate.signers, self._network.public}
        until_s = time.monotonic() + COMPARE_S
        while unsigned and time.monotonic() < until_s:
            standings = await self._states.standings(unsigned.intersection(self.peers()))
            self._strike_two_faced(_two_faced_among(certificate, standings.values()))
            unsigned -= {peer for peer, standing in standings.items() if standing.round >= certificate.round}
            await asyncio.sleep(BEAT_S)

    async def _is_shut_out(self) -> bool:
        """Whether this peer is to train nothing now; then some time has passed, and it has caught up.

        By its own admission, or when most of those who are there refuse it. Their word is good for this alone: it costs
        this peer the time until it asks again, and nobody else anything.
        """
        refusals, peers = self._states.refusals, self.peers()
        if due := refusals.due(peers, time.monotonic()):
            await self._states.ask_in(due)
        own = self.settings.admission.trains(self._network.public)
        waits = bool(own) or refusals.by_most(peers)
        if (words := refusals.why(peers) or own) != self.refused:
            self.refused = words
            by = [peer.hex() for peer in refusals.of(peers)]
            if words:
                self._say("refused", reason=words, by=by, waits=waits)
            else:
                self._say("let in")
        if not waits:
            return False
        if self.phase != Phase.JOINING:
            await self._enter(Phase.JOINING)  # nobody is to wait for it
        if self._strangers():
            await self._catch_up()
        await asyncio.sleep(BEAT_S)
        return True

    def strike(self, peer: bytes) -> None:
        """Wait for this peer no more, for an hour: this one alone has seen it lie. What a group is does not change."""
        log.warning("%s was shown to lie about its work; it is not waited for", short(peer))
        self.view.strike(peer, time.monotonic(), STRIKE_S_MAX)

    def shun(self, peer: bytes, from_round: int, left_s: float) -> None:
        """Let this peer train no more from that round on, for so long: it was shown to lie about its work.

        By the round, and not at once: members that shun at different moments make different groups. What is told last
        counts.
        """
        log.warning("%s was shown to lie about its work; it is out from round %d on", short(peer), from_round)
        now_s = time.monotonic()
        self._shunned = {other: until for other, until in self._shunned.items() if until[1] > now_s}
        self._shunned[peer] = from_round, now_s + min(left_s, SHUN_S)

    def _why_shunned(self, peer: bytes) -> str:
        from_round, until_s = self._shunned.get(peer, (0, 0.0))
        return LIED if from_round <= self.round and time.monotonic() < until_s else ""

    def knows(self, peer: bytes) -> bool:
        """Whether this peer has made a round with `peer`, or taken over one that `peer` was in."""
        return peer in self._known_peers()

    async def _catch_up(self) -> bool:
        """Ask live peers what they stand on and move to the better branch, if there is one; True when moved."""
        for _ in range(CATCH_UP_TRIES):  # the others may go on while we ask, and then no longer serve what we ask for
            struck = self.view.struck(time.monotonic())
            liars = {peer for peer, _ in self._lied} & struck  # one could else answer late, time and again
            alive = [peer for peer in self.peers() if peer not in liars]
            if not alive:
                return False
            standings = await self._states.standings(alive)
            self._strike_two_faced(_two_faced_among(self.certificate, standings.values()))
            mine, seats = Standing(self.base_hash, self.certificate), self.settings.peers_max
            voices = {peer: standing for peer, standing in standings.items() if not self._is_newcomer(peer, standing)}
            better = choose(mine, voices, me=self._network.public, known=self._known_peers(), seats=seats)
            if better is None:
                return await self._agree_on_genesis(standings)
            backers = [peer for peer, standing in standings.items() if standing.state_hash == better.state_hash]
            if await self._adopt(better, backers):
                return True
        return False

    def _is_newcomer(self, peer: bytes, standing: Standing) -> bool:
        """A peer that only just came has no voice yet: many at once would outvote those who trained until now."""
        member = self.view.members.get(peer)
        return standing.certificate is None and (member is None or member.beat.phase == Phase.JOINING)

    def _known_peers(self) -> set[bytes]:
        """Peers that this one has made a round with; after a restart those of the checkpoint's round."""
        return self._known | set(self.certificate.group.peers if self.certificate is not None else ())

    async def _agree_on_genesis(self, standings: Mapping[bytes, Standing]) -> bool:
        """Before the first round: where first parameters differ, take the most common ones, then the lower hash."""
        if self.certificate is not None or self.round != 0 or not standings:
            return False
        counts: dict[bytes, list[bytes]] = {self.base_hash: [self._network.public]}
        for peer, standing in standings.items():
            if standing.certificate is None:
                counts.setdefault(standing.state_hash, []).append(peer)
        state_hash, backers = min(counts.items(), key=lambda item: (-len(item[1]), item[0]))
        if state_hash == self.base_hash:
            return False
        for peer in backers:
            if await self._load_from(peer, 0, state_hash):
                self.base_hash = state_hash
                self._states.publish(self._trainer.state, state_hash, None)
                return True
        return False

    async def _adopt(self, certificate: Certificate, backers: Sequence[bytes]) -> bool:
        """Move to a certified state: by committing our own candidate if it is the same, else by download."""
        if self._candidate_hash == certificate.state_hash and certificate.round == self.round + 1:
            await self._trainer.commit()
            self._stand_on(certificate)
            self._say("adopted", how="own result")
            return True
        before = self.round
        for peer in sorted(backers, key=lambda _: random.random()):
            if peer != self._network.public and await self._load_from(peer, certificate.round, certificate.state_hash):
                self._stand_on(certificate)
                self._say("adopted", how="download", source=peer.hex(), before=before)
                return True
        return False

    async def _load_from(self, peer: bytes, round_: int, state_hash: bytes) -> bool:
        if (peer, state_hash) in self._lied:
            return False
        try:
            grace_s = self._grace_s()
            total_s = self._pace.exchange_s(self._trainer.ready.state_bytes, grace_s)
            buffer = await self._states.download(peer, round_, state_hash, stall_s=grace_s, total_s=total_s)
            with buffer:
                await self._trainer.load(round_, buffer, state_hash)
        except (MalformedMessage, StateMismatch) as error:
            log.warning("%s served a bad state: %s", short(peer), error)
            self._say("bad state", peer=peer.hex(), reason=str(error))
            if len(self._lied) >= LIES_KEPT:
                self._lied.clear()
            self._lied.add((peer, state_hash))
            self.view.strike(peer, time.monotonic(), STRIKE_S)
            return False
        except NetworkError as error:
            log.info("no state from %s: %s", short(peer), error)
            return False
        return True


def _two_faced_among(mine: Certificate | None, standings: Iterable[Standing]) -> set[bytes]:
    """Who is, by what this peer stands on and by what others do."""
    others = [standing.certificate for standing in standings if standing.certificate is not None]
    return set[bytes]().union(*(two_faced(mine, other) for other in others)) if mine is not None else set()
