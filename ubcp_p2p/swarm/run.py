"""One peer's part in one run: local steps, group, exchange, vote, commit; joining, falling behind, leaving.

The protocol and what it promises are told in docs/rounds.md. In one paragraph: a round is a vote on its result. Members
with the same state train, wait until all live companions are ready, find each other by matchmaking, gather all offers,
compute the next state on a copy, and sign its hash. The state is committed by all votes, or at the deadline by more
than half. Whoever missed the end recognises the committed state by the certificate and adopts it; whoever failed
retries without the missing. Nothing reaches the model before the commit.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ubcp_p2p.codec import MalformedMessage, encode
from ubcp_p2p.errors import ConfigError, LocalIOError, NetworkError, RoundFailed, StateMismatch, TrainingError
from ubcp_p2p.swarm import directory
from ubcp_p2p.swarm.exchange import AllGather, Exchange, Pace
from ubcp_p2p.swarm.matchmaking import Matchmaker, NoGroup
from ubcp_p2p.swarm.membership import BEAT_S, Beat, Phase, View
from ubcp_p2p.swarm.network import Network, short
from ubcp_p2p.swarm.quorum import Card, Certificate, Standing, choose, form_group
from ubcp_p2p.swarm.states import States
from ubcp_p2p.swarm.trainer import Evaluation, Offer, Trainer
from ubcp_p2p.swarm.votes import Polls

log = logging.getLogger(__name__)

LISTEN_S = 3 * BEAT_S  # how long a newcomer listens for others before it believes that it is alone
MATCH_S = 4.0  # one search; hivemind's window is 2 s, and a leader that dies costs one answer time
STRIKE_S = 30.0  # how long a peer that lied or hung is not waited for
OFFER_TRIES_MAX = 6  # attempts with one offer before it is thrown away and trained anew
PATIENCE = 0.5  # a straggler offers what it has when the others waited this fraction of their own training time
PATIENCE_MIN_S = 1.0
LIES_KEPT = 1024
SAY_AGAIN_S = 5.0
ASK_AGAIN_S = 1.0  # peers elsewhere that gave no reason to move are asked again after this
CATCH_UP_TRIES = 3
ABSENCES_MAX = 2  # one may be chance
ABSENT_STRIKE_S = 5.0
MEET_EVERY_S = 15.0
DIALS_MAX = 16


@dataclass(frozen=True)
class RunSettings:
    """What a run is.

    The same for all its members, except `peers_min` and `checkpoint_every_s`, which are this peer's.
    """

    name: str
    run_id: bytes
    recipe: str
    recipe_hash: bytes
    rounds: int
    peers_max: int
    weight_max: int  # the most samples that H local steps can be made of
    evaluate_every: int = 0
    peers_min: int = 1
    checkpoint_every_s: float = 10.0


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    `kind` is the place, `data` its figures (JSON types only). Times are seconds.
    """

    kind: str
    round: int
    data: Mapping[str, Any] = field(default_factory=dict)


Observer = Callable[[Event], None]


class RunMember:
    """Takes part in one run until its last round, cancellation or a TrainingError. `observe` hears every Event."""

    def __init__(self, network: Network, trainer: Trainer, settings: RunSettings, observe: Observer) -> None:
        self.settings = settings
        self.round = trainer.ready.round
        self.base_hash = trainer.ready.state_hash
        self.phase = Phase.JOINING
        self.certificate: Certificate | None = None
        self.retries = 0
        self.step = 0
        self.loss: float | None = None
        self.view = View(settings.run_id, network.public)
        self.exchange: Exchange = AllGather(network, settings.run_id, trainer.ready.offer_bytes)
        self._network = network
        self._trainer = trainer
        self._observe = observe
        self._polls = Polls(network, settings.run_id)
        self._states = States(network, settings.run_id, trainer.ready.state_bytes, settings.rounds)
        self._known: set[bytes] = set()  # peers that this one has made a round with
        self._lied: set[tuple[bytes, bytes]] = set()  # (peer, state hash): it served other bytes; not to be asked again
        self._matchmaker: Matchmaker | None = None
        self._absences: Counter[bytes] = Counter()  # searches in a row to which a ready peer did not come
        self._pace = Pace()
        self._apply_s = 0.1
        self._train_s = 0.0
        self._sequence = int(time.time() * 1000)
        self._heard = asyncio.Event()
        self._topic = f"ubcp/run/1/{settings.run_id.hex()}"
        self._candidate_hash: bytes | None = None
        self._checkpointed_s = time.monotonic()
        self._waiting_since_s: float | None = None
        self._background: list[asyncio.Task[None]] = []

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take part until the last round is committed, then keep serving its state until cancelled.

        `close` must follow, however it ends. Raises TrainingError when the trainer fails.
        """
        await self._network.ready()
        for service in (self._polls, self._states, self.exchange):
            await service.open()
        self._states.publish(self._trainer.state, self.base_hash, self.certificate)
        await self._network.subscribe(self._topic, self._on_beat)
        self._background = [
            asyncio.create_task(self._keep_beating()),
            asyncio.create_task(self._keep_meeting()),
        ]
        await self._join()
        while True:
            while self.round < self.settings.rounds:
                await self._one_round()
            await self._checkpoint(due=True)
            await self._enter(Phase.DONE)
            self._say("done")
            await self._serve_the_end()

    async def _serve_the_end(self) -> None:
        """Until cancelled: late joiners still need the state. Returns only when the majority stands elsewhere."""
        while True:
            await self._wait_heard(BEAT_S)
            if self._strangers() and await self._catch_up():
                return
            await asyncio.sleep(ASK_AGAIN_S)

    async def close(self) -> None:
        """Announce the leave and stop answering. To be called when `run` has ended, so that no cancel breaks it off."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self.phase = Phase.LEAVING
        with suppress(NetworkError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._beat()
        self._network.unsubscribe(self._topic)
        for service in (self._polls, self._states, self.exchange):
            await service.close()
        if self._matchmaker is not None:
            with suppress(Exception):  # p2pd may be gone
                await self._matchmaker.close()

    async def _join(self) -> None:
        """Meet the others and stand where the majority of them stands."""
        await self._enter(Phase.JOINING)
        self._say("joining")
        started_s = time.monotonic()
        while time.monotonic() - started_s < LISTEN_S:
            await self._wait_heard(BEAT_S)
        await self._catch_up()
        while len(self._alive()) + 1 < self.settings.peers_min:
            self._say("waiting", peers=len(self._alive()) + 1, wanted=self.settings.peers_min)
            await self._wait_heard(1.0)
        self._say("joined", peers=len(self._alive()) + 1)

    async def _meet(self) -> None:
        """Connect to peers that claim in the DHT to be in this run."""
        try:
            entries = await directory.lookup(self._network)
        except NetworkError:
            return
        strangers = {author for author, entry in entries if entry.run_id == self.settings.run_id}
        strangers |= {peer for peer, member in self.view.members.items() if not member.was_connected}
        strangers -= {*self._network.connected, self._network.public}
        # Asking dials them, by the DHT's routing. A few at a time: anybody can make up many names.
        await self._states.standings(sorted(strangers, key=lambda _: random.random())[:DIALS_MAX])

    # -- one round ----------------------------------------------------------------------------------------------

    async def _one_round(self) -> None:
        await self._enter(Phase.TRAINING)
        started_s = time.monotonic()
        offer = await self._train()
        trained_s = time.monotonic()
        try:
            for attempt in range(OFFER_TRIES_MAX):
                round_ = self.round
                companions = await self._assemble()
                if companions is None or self.round != round_:
                    return  # the others went on; caught up
                try:
                    times = await self._attempt(offer, companions)
                except (RoundFailed, NetworkError) as error:
                    await self._after_failure(error, attempt)
                    if self.round != round_:
                        return
                    continue
                times["train_s"] = trained_s - started_s
                self._say(
                    "committed",
                    members=[peer.hex() for peer in self.certificate.group.peers] if self.certificate else [],
                    loss=offer.loss, weight=offer.weight, attempts=attempt + 1, state_hash=self.base_hash.hex(),
                    **{name: round(value, 4) for name, value in times.items()},
                )  # fmt: skip
                break
            else:
                log.warning("round %d failed %d times with one offer; training it anew", self.round, OFFER_TRIES_MAX)
                return
        finally:
            offer.buffer.close()
        await self._checkpoint()
        if self._is_my_turn_to_evaluate():
            await self._evaluate()

    async def _train(self) -> Offer:
        """H local steps; fewer when the others have waited long enough for this peer."""
        members = self.certificate.group.peers if self.certificate else (*self._alive(), self._network.public)
        self.step = 0
        training = asyncio.ensure_future(self._trainer.train(self.round, sorted(members), self._on_progress))
        try:
            asked = False
            while not training.done():
                await asyncio.wait([training], timeout=0.2)
                if not asked and self._others_wait_too_long():
                    asked = True
                    log.info("the others are waiting: offering the %d steps done", self.step)
                    self._trainer.finish_early()
            offer = await training
        finally:
            if not training.done():
                training.cancel()
                with suppress(asyncio.CancelledError, TrainingError):
                    await training
        self._train_s, self.loss = offer.seconds, offer.loss
        return offer

    def _others_wait_too_long(self) -> bool:
        companions = self._companions()
        beats = [self.view.members[peer].beat for peer in companions]
        if not beats or any(beat.phase == Phase.TRAINING for beat in beats):
            self._waiting_since_s = None
            return False
        if self._waiting_since_s is None:
            self._waiting_since_s = time.monotonic()
        typical_s = statistics.median(beat.train_ms for beat in beats) / 1000.0
        return time.monotonic() - self._waiting_since_s > max(PATIENCE_MIN_S, PATIENCE * typical_s)

    async def _assemble(self) -> list[bytes] | None:
        """Wait until every live companion is ready; returns those to make the round with, or None after catching up."""
        await self._enter(Phase.READY)
        started_s, ask_again_s = time.monotonic(), 0.0
        say_again_s = started_s + SAY_AGAIN_S
        patience_s = 2.0 * max(PATIENCE_MIN_S, PATIENCE * self._train_s) + self._train_s
        while True:
            await self._network.ready()
            if self._strangers() and time.monotonic() >= ask_again_s:
                if await self._catch_up():
                    return None
                ask_again_s = time.monotonic() + ASK_AGAIN_S
            companions = self._companions()
            ready = [p for p in companions if self.view.members[p].beat.phase in (Phase.READY, Phase.ROUND)]
            all_ready = len(ready) == len(companions) and not self._coming()
            enough = len(ready) + 1 >= self.settings.peers_min
            late = time.monotonic() - started_s > patience_s
            if not enough and time.monotonic() >= say_again_s:
                say_again_s = time.monotonic() + SAY_AGAIN_S
                self._say("waiting", peers=len(ready) + 1, wanted=self.settings.peers_min)
            if enough and late and not all_ready:
                for peer in {*companions, *self._coming()} - set(ready):  # it could have offered what it has
                    self.view.strike(peer, time.monotonic(), ABSENT_STRIKE_S)
            if enough and (all_ready or late):
                chosen = self._seats(ready)
                if self._network.public in chosen:
                    return [peer for peer in chosen if peer != self._network.public]
            await self._wait_heard(0.1)

    def _seats(self, ready: Sequence[bytes]) -> list[bytes]:
        """At most `peers_max` of us, drawn anew each round; peers that are only heard of, not connected, come last."""
        everyone = [*ready, self._network.public]
        near = {*self._network.connected, self._network.public}
        key = self.round.to_bytes(8, "big")
        drawn = sorted(everyone, key=lambda peer: (peer not in near, hashlib.sha256(key + peer).digest()))
        return drawn[: self.settings.peers_max]

    async def _attempt(self, offer: Offer, companions: Sequence[bytes]) -> dict[str, float]:
        """One try at the round with `companions`; returns the seconds of each part. Raises RoundFailed or NoGroup."""
        await self._enter(Phase.ROUND)
        settings, me = self.settings, self._network.public
        offer_bytes = self._trainer.ready.offer_bytes
        mark = time.monotonic()
        times: dict[str, float] = {}

        def lap(name: str) -> None:
            nonlocal mark
            now = time.monotonic()
            times[name], mark = now - mark, now

        card = Card(
            settings.run_id, self.round, self.base_hash, me, min(offer.weight, settings.weight_max), offer.digest,
            offer_bytes
        ).signed(self._network.key)  # fmt: skip
        cards = [card.to_bytes()]
        self._say("matchmaking", wanted=len(companions) + 1)
        if companions:
            cards = await self._find_group(cards[0], companions)
        group, refused = form_group(
            settings.run_id, self.round, self.base_hash, cards, offer_bytes=offer_bytes,
            weight_max=settings.weight_max, members_max=settings.peers_max,
        )  # fmt: skip
        for why in refused:
            log.warning("left out of round %d: %s", self.round, why)
        for peer in group.peers:
            self._absences.pop(peer, None)
        self._note_absent(peer for peer in companions if peer not in group.peers)
        if me not in group.peers:
            raise RoundFailed("the leader's list lacks this peer")
        if companions and len(group.peers) < 2:
            raise RoundFailed("nobody else's offer was valid")
        lap("match_s")

        self._say("exchange", members=len(group.peers))
        grace_s = self._grace_s()
        received = (len(group.peers) - 1) * offer_bytes
        exchange_s = self._pace.exchange_s(received, grace_s)
        started_s = time.monotonic()
        offers = await self.exchange.gather(group, offer.buffer, deadline_s=started_s + exchange_s, stall_s=grace_s)
        if received:
            self._pace.observe(received, time.monotonic() - started_s)
        lap("exchange_s")

        self._say("outer step")
        candidate = await self._trainer.apply([(offers[peer], weight) for peer, weight, _ in group.members])
        self._candidate_hash = candidate.state_hash
        for index in candidate.rejected:
            peer = group.peers[index]
            log.warning(
                "%s offered values that are unusable (not finite, or outsized); left out of round %d",
                short(peer),
                self.round,
            )
            self._say("rejected", peer=peer.hex(), reason="not finite, or outsized")
        lap("apply_s")
        self._apply_s += 0.3 * (times["apply_s"] - self._apply_s)

        self._say("vote")
        # The others began when I did: who needs three times my own time, and a silence beyond, is not waited for.
        deadline_s = time.monotonic() + grace_s + 2.0 * (time.monotonic() - started_s)
        certificate = await self._polls.collect(
            group, candidate.state_hash, deadline_s=deadline_s, gone=lambda: self._gone(group.peers)
        )
        lap("vote_s")
        self._strike_silent(group.peers, certificate)
        await self._adopt_own(certificate, candidate.state_hash)
        lap("commit_s")
        return times

    async def _find_group(self, card: bytes, companions: Sequence[bytes]) -> list[bytes]:
        """The cards of the group that came together. Raises NoGroup, also when the others have gone on meanwhile."""
        matchmaker = await self._current_matchmaker()
        matchmaker.expect(companions, banned=self.view.struck(time.monotonic()))
        searching = asyncio.create_task(matchmaker.find(self._group_key(), card, len(companions) + 1, MATCH_S))
        asked: set[tuple[bytes, int]] = set()
        try:
            while not (await asyncio.wait([searching], timeout=0.1))[0]:
                beats = {p: self.view.members[p].beat for p in companions if p in self.view.members}
                ahead = {(peer, beat.round) for peer, beat in beats.items() if beat.round > self.round}
                if ahead <= asked:
                    continue
                asked |= ahead  # a claim, until a certificate bears it out
                if await self._catch_up():
                    raise NoGroup("the others committed this round without this peer")
            try:
                return await searching
            except NoGroup:
                self._note_absent(companions)
                raise
        finally:
            searching.cancel()
            await asyncio.gather(searching, return_exceptions=True)

    def _strike_silent(self, peers: Sequence[bytes], certificate: Certificate) -> None:
        """Who is there and let a vote run to its deadline is not waited for next time."""
        signers = {peer for peer, _ in certificate.signatures}
        for peer in set(peers) & set(self._alive()) - signers:
            self.view.strike(peer, time.monotonic(), ABSENT_STRIKE_S)

    async def _adopt_own(self, certificate: Certificate, mine: bytes) -> None:
        """Commit the candidate if the majority signed it; otherwise repair: take the majority's state."""
        if certificate.state_hash != mine:
            log.error("this peer's result of round %d differs from the majority's; taking theirs", self.round)
            self._say("mismatch", mine=mine.hex(), theirs=certificate.state_hash.hex())
            await self._trainer.discard()
            self._candidate_hash = None
            backers = [peer for peer, _ in certificate.signatures]
            if not await self._adopt(certificate, backers):
                raise RoundFailed("the majority's state could not be had")
            return
        await self._trainer.commit()
        self._stand_on(certificate)
        # At once, before a checkpoint or an evaluation: a beat of the new round that still said ROUND would read as
        # "ready", and the others would make the round without this peer.
        await self._enter(Phase.TRAINING)

    def _stand_on(self, certificate: Certificate) -> None:
        self._candidate_hash = None
        self.exchange.release()
        self._known.update(certificate.group.peers)
        self.view.forgive(peer for peer, _ in certificate.signatures)
        self.certificate, self.base_hash, self.round = certificate, certificate.state_hash, certificate.round
        self._states.publish(self._trainer.state, self.base_hash, certificate)

    async def _after_failure(self, error: TrainingError | NetworkError, attempt: int) -> None:
        """Before a retry.

        Did the others commit after all? If not, drop the candidate, and wait for the missing no more.
        """
        self.retries += 1
        log.warning("round %d, attempt %d: %s", self.round, attempt + 1, error)
        self._say("retry", reason=str(error), attempt=attempt + 1)
        now_s = time.monotonic()
        alive = set(self._alive())
        missing = set(getattr(error, "missing", ()))
        for peer in missing & alive:
            self.view.strike(peer, now_s, STRIKE_S if attempt else ABSENT_STRIKE_S)
        leader = self._matchmaker.leader if self._matchmaker is not None else None
        if leader is not None and missing - set(self.view.members):  # it gathered cards of peers that nobody knows
            self.view.strike(leader, now_s, STRIKE_S)
        if not await self._catch_up() and self._candidate_hash is not None:
            self._candidate_hash = None
            await self._trainer.discard()
        self.exchange.release()
        await asyncio.sleep(random.uniform(0.0, 0.05))  # members that failed together should not collide together

    # -- where the others stand ---------------------------------------------------------------------------------

    async def _catch_up(self) -> bool:
        """Ask live peers what they stand on and move to the better branch, if there is one; True when moved."""
        for _ in range(CATCH_UP_TRIES):  # the others may go on while we ask, and then no longer serve what we ask for
            alive = self._alive()
            if not alive:
                return False
            standings = await self._states.standings(alive)
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

    # -- small things -------------------------------------------------------------------------------------------

    def _alive(self) -> list[bytes]:
        return self.view.alive(time.monotonic(), self._network.connected)

    def _companions(self) -> list[bytes]:
        return self.view.companions(time.monotonic(), self._network.connected, self.round, self.base_hash)

    def _coming(self) -> list[bytes]:
        if self.certificate is None:
            return []
        before = self.certificate.group.base_hash
        return self.view.coming(time.monotonic(), self._network.connected, self.round, before)

    def _strangers(self) -> list[bytes]:
        coming = self._coming()
        strangers = self.view.strangers(time.monotonic(), self._network.connected, self.round, self.base_hash)
        return [peer for peer in strangers if peer not in coming]

    def _note_absent(self, peers: Iterable[bytes]) -> None:
        """These said that they were ready and did not come: one such peer would slow every round, or stop a pair."""
        for peer in peers:
            member = self.view.members.get(peer)
            if member is not None and (member.beat.round, member.beat.base_hash) == (self.round, self.base_hash):
                self._absences[peer] += 1
                if self._absences[peer] >= ABSENCES_MAX:
                    log.warning("%s says that it is ready and does not come; not waited for", short(peer))
                    self.view.strike(peer, time.monotonic(), ABSENT_STRIKE_S)

    def _gone(self, peers: Sequence[bytes]) -> set[bytes]:
        return set(peers) - set(self._alive()) - {self._network.public}

    def _grace_s(self) -> float:
        """The longest silence that a live companion is allowed: the unit of every deadline here."""
        return max((self.view.members[p].silence_allowed_s() for p in self._alive()), default=2.0)

    def _group_key(self) -> bytes:
        return hashlib.sha256(
            b"ubcp/group-key/1\0" + encode([self.settings.run_id, self.round, self.base_hash])
        ).digest()

    async def _current_matchmaker(self) -> Matchmaker:
        session = await self._network.ready()
        if self._matchmaker is None or self._matchmaker.generation != session.generation:
            matchmaker = Matchmaker(self._network, self.settings.run_id)
            await matchmaker.open()
            self._matchmaker = matchmaker
        return self._matchmaker

    async def _checkpoint(self, due: bool = False) -> None:
        """Write a checkpoint when one is due. A full disk is said and survived: the older checkpoints stay."""
        if not due and time.monotonic() - self._checkpointed_s < self.settings.checkpoint_every_s:
            return
        self._say("checkpoint")
        extra = {"certificate": self.certificate.to_bytes().hex()} if self.certificate else {}
        try:
            path = await self._trainer.checkpoint(extra)
            self._say("checkpointed", path=str(path))
        except (LocalIOError, ConfigError) as error:
            log.error("no checkpoint: %s", error)
            self._say("checkpoint failed", reason=error.message, hint=error.hint or "")
        self._checkpointed_s = time.monotonic()

    def _is_my_turn_to_evaluate(self) -> bool:
        every = self.settings.evaluate_every
        if not every or (self.round % every and self.round != self.settings.rounds) or self.certificate is None:
            return False
        peers = self.certificate.group.peers
        return peers[(self.round // every) % len(peers)] == self._network.public

    async def _evaluate(self) -> Evaluation:
        result = await self._trainer.evaluate()
        self._say("evaluated", loss=result.loss, stderr=result.stderr, accuracy=result.accuracy, n=result.n)
        return result

    def _say(self, kind: str, **data: Any) -> None:
        self._observe(Event(kind, self.round, data))

    def _on_progress(self, progress: Any) -> None:
        self.step, self.loss = progress.step, progress.loss
        self._say("progress", step=progress.step, steps=progress.steps, loss=progress.loss)

    # -- heartbeats ---------------------------------------------------------------------------------------------

    async def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._waiting_since_s = None
        with suppress(NetworkError):
            await self._beat()

    async def _beat(self) -> None:
        self._sequence = max(self._sequence + 1, int(time.time() * 1000))
        beat = Beat(
            self.settings.run_id, self._sequence, self.round, self.phase, self.base_hash, self.step,
            int(self._train_s * 1000),
        )  # fmt: skip
        await self._network.publish(self._topic, beat.to_bytes())

    async def _keep_beating(self) -> None:
        due_s = time.monotonic()
        while True:
            with suppress(NetworkError):
                await self._beat()
            due_s += BEAT_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            late_s = time.monotonic() - due_s
            if late_s > 2 * BEAT_S:
                # We were stopped (SIGSTOP, a sleeping laptop): the others' silence is our own deafness.
                for member in self.view.members.values():
                    member.heard_s += late_s
                due_s = time.monotonic()
            self.view.drop_silent(time.monotonic())

    def _on_beat(self, peer: bytes, payload: bytes) -> None:
        try:
            beat = Beat.from_bytes(payload)
        except MalformedMessage as error:
            log.debug("a malformed heartbeat from %s: %s", short(peer), error)
            return
        if self.view.hear(peer, beat, time.monotonic()):
            self._heard.set()

    async def _wait_heard(self, timeout_s: float) -> None:
        self._heard.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), timeout_s)

    async def _keep_meeting(self) -> None:
        """Look for members in the DHT: often while few are known, seldom later."""
        while True:
            await self._meet()
            await asyncio.sleep(MEET_EVERY_S if self._alive() else 1.0)
