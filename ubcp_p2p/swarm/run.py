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
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

from ubcp_p2p.codec import encode
from ubcp_p2p.errors import NetworkError, RoundFailed, TrainingError
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.events import Committed, Event, Observer, RunSettings
from ubcp_p2p.swarm.learner import PATIENCE, PATIENCE_MIN_S, Learner
from ubcp_p2p.swarm.matchmaking import Matchmaker, NoGroup
from ubcp_p2p.swarm.membership import BEAT_S, Phase
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.quorum import Card, Certificate, form_group, leaves_room
from ubcp_p2p.swarm.standing import STRIKE_S
from ubcp_p2p.swarm.trainer import Offer, Trainer
from ubcp_p2p.swarm.votes import Polls

__all__ = ["MATCH_S", "Event", "Observer", "RunMember", "RunSettings"]

log = logging.getLogger(__name__)

LISTEN_S = 3 * BEAT_S  # how long a newcomer listens for others before it believes that it is alone
MATCH_S = 4.0  # one search; hivemind's window is 2 s, and a leader that dies costs one answer time
OFFER_TRIES_MAX = 6  # attempts with one offer before it is thrown away and trained anew
SAY_AGAIN_S = 5.0
ASK_AGAIN_S = 1.0  # peers elsewhere that gave no reason to move are asked again after this
COMPARED_MAX = 3  # rounds at one time
ABSENCES_MAX = 2  # one may be chance
ABSENT_STRIKE_S = 5.0  # a hiccup is no lie; doubled each time, so that what goes on is soon not waited for


class RunMember(Learner):
    """Takes part in one run until its last round, cancellation or a TrainingError. `observe` hears every Event."""

    def __init__(self, network: Network, trainer: Trainer, settings: RunSettings, observe: Observer) -> None:
        super().__init__(network, trainer, settings, observe)
        self.retiring = False  # set from outside: `run` returns when the present round has ended
        self.on_commit: Callable[[Committed], None] | None = None  # told of each round that this peer was in
        self.retries = 0
        self._comparing: deque[asyncio.Task[None]] = deque()
        self._polls = Polls(network, settings.run_id)
        self._matchmaker: Matchmaker | None = None
        self._tried: tuple[bytes, Certificate | None, tuple[bytes, ...]] = (
            b"",
            None,
            (),
        )  # group's digest, base, cards
        self._absences: Counter[bytes] = Counter()  # searches in a row to which a ready peer did not come
        self._without_seat: Collection[bytes] = ()  # of those that were ready when a round was last chosen for
        self._unseated = -1  # the round in which this peer was last told that it has no seat

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take part until the last round is committed, then keep serving its state until cancelled.

        Returns only after `retiring` was set: at the end of the round, at once where none can be made. `close` must
        follow, however it ends. Raises TrainingError when the trainer fails.
        """
        await self._network.ready()
        for service in (self._polls, self._states, self.exchange):
            await service.open()
        self._states.publish(self._trainer.state, self.base_hash, self.certificate)
        await self.appear()
        await self._join()
        while True:
            while self.round < self.settings.rounds:
                if self.retiring:
                    return
                if not await self._is_shut_out():
                    await self._one_round()
            await self.keep_checkpoint(due=True)
            await self._enter(Phase.DONE)
            self._say("done")
            await self._serve_the_end()

    async def _serve_the_end(self) -> None:
        """Until cancelled: late joiners still need the state. Returns only when the majority stands elsewhere."""
        while True:
            await self._wait_heard(BEAT_S)
            if self._strangers() and await self._catch_up():
                return
            if self._unsaved:
                await self.keep_checkpoint()
            await asyncio.sleep(ASK_AGAIN_S)

    async def close(self) -> None:
        """Announce the leave and stop answering. To be called when `run` has ended, so that no cancel breaks it off."""
        await self.disappear()
        for task in self._comparing:
            task.cancel()
        await asyncio.gather(*self._comparing, return_exceptions=True)
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
        await self._states.ask_in(self.peers())
        while len(self.peers()) + 1 < self.settings.peers_min and not self.retiring:
            self._say("waiting", peers=len(self.peers()) + 1, wanted=self.settings.peers_min)
            await self._wait_heard(1.0)
        self._say("joined", peers=len(self.peers()) + 1)

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
                    times = await self._attempt(offer, companions, attempt)
                except (RoundFailed, NetworkError) as error:
                    await self._after_failure(error, attempt)
                    if self.round != round_ or self._states.refusals.by_most(self.peers()):
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
        await self.keep_checkpoint()
        if self._is_my_turn_to_evaluate():
            await self._evaluate()

    async def _assemble(self) -> list[bytes] | None:
        """Wait until every live companion is ready; returns those to make the round with.

        None after catching up, and when this peer is to retire and there are too few for a round.
        """
        await self._wait_for_guests()
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
            if self.retiring and not enough:
                return None
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
        """At most `peers_max` of us, chosen anew each round; peers that are only heard of, not connected, come last."""
        seats, everyone = self.settings.peers_max, [*ready, self._network.public]
        linked = {*self._network.connected, self._network.public}
        near = self.settings.seats(self.round, [peer for peer in everyone if peer in linked], seats)
        far = [peer for peer in everyone if peer not in linked]
        rest = self.settings.seats(self.round, far, seats - len(near.seated))
        self._without_seat = {**near.refused, **rest.refused}.keys()
        if self._network.public in near.refused and self._unseated != self.round:
            self._unseated = self.round
            self._say("refused a seat", reason=near.refused[self._network.public])
        return [*near.seated, *rest.seated]

    async def _attempt(self, offer: Offer, companions: Sequence[bytes], attempt: int) -> dict[str, float]:
        """One try at the round with `companions`; returns the seconds of each part. Raises RoundFailed or NoGroup.

        attempt: how many tries with this offer have failed.
        """
        await self._enter(Phase.ROUND)
        settings, me = self.settings, self._network.public
        offer_bytes = self._trainer.ready.offer_bytes
        mark = time.monotonic()
        times: dict[str, float] = {}

        def lap(name: str) -> None:
            nonlocal mark
            now = time.monotonic()
            times[name], mark = now - mark, now

        payer = self._payers.mine((self.round, self.base_hash), settings.payer(self.round))
        card = Card(
            settings.run_id, self.round, self.base_hash, me, min(offer.weight, settings.weight_max), offer.digest,
            offer_bytes, offer.trail, payer, len(companions) + 1 if attempt < ABSENCES_MAX else 0,
        ).signed(self._network.key)  # fmt: skip
        cards = [card.to_bytes()]
        self._say("matchmaking", wanted=len(companions) + 1)
        if companions:
            cards = await self._find_group(cards[0], companions)
        group, refused = form_group(
            settings.run_id, self.round, self.base_hash, cards, offer_bytes=offer_bytes,
            weight_max=settings.weight_max, members_max=settings.peers_max, admission=settings.admission,
        )  # fmt: skip
        for why in refused:
            log.warning("left out of round %d: %s", self.round, why)
        for peer in group.peers:
            self._absences.pop(peer, None)
        self._note_left_out(peer for peer in companions if peer not in group.peers)
        if me not in group.peers:
            raise RoundFailed("the leader's list lacks this peer")
        if companions and len(group.peers) < 2:
            raise RoundFailed("nobody else's offer was valid")
        if leaves_room(group, cards):
            raise RoundFailed(f"{len(group.peers)} came, of more that are ready: they could make a group too")
        if two_faced := self._payers.contradicted(group, time.monotonic()):
            names = ", ".join(map(short, two_faced))
            raise RoundFailed(f"two payers are named for one round: by {names}", two_faced)
        self._tried = group.digest, self.certificate, tuple(cards)
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
        candidate = await self._trainer.apply([(offers[seat.peer], seat.weight) for seat in group.members])
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

        self._say("vote")
        self._payers.note(group, time.monotonic())
        # The others began when I did: who needs three times my own time, and a silence beyond, is not waited for.
        deadline_s = time.monotonic() + grace_s + 2.0 * (time.monotonic() - started_s)
        certificate = await self._polls.collect(
            group, candidate.state_hash, deadline_s=deadline_s, gone=lambda: self._gone(group.peers)
        )
        lap("vote_s")
        self._strike_silent(group.peers, certificate)
        await self._adopt_own(certificate, candidate.state_hash)
        self._compare(certificate)
        lap("commit_s")
        return times

    def _compare(self, certificate: Certificate) -> None:
        """Begin to; of the rounds before, the oldest is given up: rounds may be shorter than a comparison."""
        while len(self._comparing) >= COMPARED_MAX:
            self._comparing.popleft().cancel()
        self._comparing.append(asyncio.create_task(self.compare(certificate)))

    async def _find_group(self, card: bytes, companions: Sequence[bytes]) -> list[bytes]:
        """The cards of the group that came together. Raises NoGroup, also when the others have gone on meanwhile."""
        matchmaker = await self._current_matchmaker()
        matchmaker.expect(companions, banned=self.view.struck(time.monotonic()).union(self._without_seat))
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
                self._note_absent(peer for peer in companions if peer not in matchmaker.refusals)
                raise
        finally:
            searching.cancel()
            await asyncio.gather(searching, return_exceptions=True)
            for peer, words in matchmaker.refusals.items():
                self._states.refusals.note(peer, words, time.monotonic())

    def _strike_silent(self, peers: Sequence[bytes], certificate: Certificate) -> None:
        """Who is there and let a vote run to its deadline is not waited for next time."""
        signers = set(certificate.signers)
        for peer in self._still_here(set(peers) & set(self.peers()) - signers):
            self.view.strike(peer, time.monotonic(), ABSENT_STRIKE_S)

    async def _adopt_own(self, certificate: Certificate, mine: bytes) -> None:
        """Commit the candidate if the majority signed it; otherwise repair: take the majority's state."""
        if certificate.state_hash != mine:
            log.error("this peer's result of round %d differs from the majority's; taking theirs", self.round)
            self._say("mismatch", mine=mine.hex(), theirs=certificate.state_hash.hex())
            await self._trainer.discard()
            self._candidate_hash = None
            if not await self._adopt(certificate, certificate.signers):
                raise RoundFailed("the majority's state could not be had")
            return
        await self._trainer.commit()
        self._stand_on(certificate)
        # At once, before a checkpoint or an evaluation: a beat of the new round that still said ROUND would read as
        # "ready", and the others would make the round without this peer.
        await self._enter(Phase.TRAINING)

    def _stand_on(self, certificate: Certificate) -> None:
        super()._stand_on(certificate)
        digest, base, cards = self._tried
        if self.on_commit is not None and certificate.group.digest == digest:
            self.on_commit(Committed(certificate, base, cards))

    async def _after_failure(self, error: TrainingError | NetworkError, attempt: int) -> None:
        """Before a retry.

        Did the others commit after all? If not, drop the candidate, and wait for the missing no more.
        """
        self.retries += 1
        log.warning("round %d, attempt %d: %s", self.round, attempt + 1, error)
        self._say("retry", reason=str(error), attempt=attempt + 1)
        now_s = time.monotonic()
        alive = set(self.peers())
        missing = set(getattr(error, "missing", ()))
        for peer in self._still_here(missing & alive):
            self.view.strike(peer, now_s, ABSENT_STRIKE_S)
        leader = self._matchmaker.leader if self._matchmaker is not None else None
        if leader is not None and missing - set(self.view.members):  # it gathered cards of peers that nobody knows
            self.view.strike(leader, now_s, STRIKE_S)
        if not await self._catch_up() and self._candidate_hash is not None:
            self._candidate_hash = None
            await self._trainer.discard()
        self.exchange.release()
        await asyncio.sleep(random.uniform(0.0, 0.05))  # members that failed together should not collide together

    # -- small things -------------------------------------------------------------------------------------------

    def _note_left_out(self, peers: Iterable[bytes]) -> None:
        """These are not in the group that was found. Only who led it saw whether they asked to join.

        Another leader may have refused them, for a fault that it alone saw or for none: two honest peers that held
        that against a third took turns in not waiting for it, without end.
        """
        if self._matchmaker is not None and self._matchmaker.leader is None:
            self._note_absent(peers)

    def _note_absent(self, peers: Iterable[bytes]) -> None:
        """These said that they were ready and did not come: one such peer would slow every round, or stop a pair."""
        for peer in self._still_here(peers):
            self._absences[peer] += 1
            if self._absences[peer] >= ABSENCES_MAX:
                log.warning("%s says that it is ready and does not come; not waited for", short(peer))
                self.view.strike(peer, time.monotonic(), ABSENT_STRIKE_S)

    def _still_here(self, peers: Iterable[bytes]) -> list[bytes]:
        """Those last heard in this very round. Others have gone on: it is this peer that is late, and not they."""
        beats = {peer: self.view.members[peer].beat for peer in peers if peer in self.view.members}
        return [p for p, beat in beats.items() if (beat.round, beat.base_hash) == (self.round, self.base_hash)]

    def _group_key(self) -> bytes:
        return hashlib.sha256(
            b"ubcp/group-key/1\0" + encode([self.settings.run_id, self.round, self.base_hash])
        ).digest()

    async def _current_matchmaker(self) -> Matchmaker:
        session = await self._network.ready()
        if self._matchmaker is None or self._matchmaker.generation != session.generation:
            matchmaker = Matchmaker(self._network, self.settings.run_id, self.settings.admission.to_group)
            await matchmaker.open()
            self._matchmaker = matchmaker
        return self._matchmaker
