"""Passes evidence of lies on: hands this node's to the others of the run, and judges what they hand to it.

A group stays whole only where its members shun alike. So a conviction begins with a round and not at a moment: who has
found a lie names one that is LEAD_ROUNDS ahead, and all who are convinced by then leave the liar out from the same
round on. Nobody's word counts: who is handed evidence walks the stretch again by itself. Who hands over what shows
nothing is not heard any more, and one accusation is looked at in a round, whoever brings it: a check costs a fifth of
one at most.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from ubcp_p2p.codec import MalformedMessage, fields, hash_of, number
from ubcp_p2p.errors import NetworkError, UbcpError
from ubcp_p2p.files import keep_newest, read_limited
from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.admission import Verdict as Admitted
from ubcp_p2p.swarm.events import Committed, Event
from ubcp_p2p.swarm.exchange import LINK_BYTES_PER_S_MIN
from ubcp_p2p.swarm.frames import DeadlineExceeded, Stream
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.openings import STALL_S
from ubcp_p2p.swarm.quorum import ROUND_MAX, Place
from ubcp_p2p.swarm.standing import SHUN_S
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.verdict import Claim, Verdict
from ubcp_p2p.verification.draw import rule_of
from ubcp_p2p.verification.evidence import EVIDENCE_KEPT, Evidence, bytes_max, claim_of

log = logging.getLogger(__name__)

LEAD_ROUNDS: Final = 2  # from the finding to the first round without the liar: the others need about one to judge
LEAD_ROUNDS_MAX: Final = 8  # that another may name
AGE_ROUNDS_MAX: Final = 256  # older lies are no longer heard of: a node that was away has not to judge all of a run
AGAIN_ROUNDS: Final = 4  # until one accuser is heard again: it has not every round for itself
EVIDENCE_BYTES_MAX: Final = 512 << 20  # what is larger convinces its finder alone
IGNORED_MAX: Final = 1024
PLACES_MAX: Final = 64  # certified states whose members are remembered
TRIES_MAX: Final = 8  # to reach a peer that is there
TELL_EVERY_S: Final = 1.0
ANSWER_S: Final = 10.0
NO, WANTED, LATER = 0, 1, 2  # the answers to an accusation; WANTED: its evidence is to follow, and is answered too


class Members(Protocol):
    """What is asked of a RunMember."""

    round: int

    def peers(self) -> list[bytes]: ...

    def knows(self, peer: bytes) -> bool: ...

    def shun(self, peer: bytes, from_round: int) -> None: ...


class Trainer(Protocol):
    """What is asked of a TrainerProcess."""

    async def check(self, claim: Claim, members: tuple[bytes, ...] | None, opening: bytes) -> Verdict: ...


@dataclass
class _Conviction:
    """evidence: its file, named by its hash; from_round: the first without the liar.

    tries: by peer, TRIES_MAX when there is no more to say to it.
    """

    evidence: Path
    from_round: int
    over_s: float  # monotonic: the liar is let in again
    tries: dict[bytes, int] = field(default_factory=dict)


class Accusations:
    """Those of one run: `serve` while it trains, `on_commit` hears of its rounds, `convict` what this node has found.

    name: the run's. folder: for evidence. observe: hears who is shunned, and from which round on.
    """

    def __init__(
        self, network: Network, name: str, recipe: Recipe, trainer: Trainer, member: Members, admitted: Admitted,
        folder: Path, observe: Callable[[Event], None],
    ) -> None:  # fmt: skip
        self._network, self._name, self._recipe, self._trainer = network, name, recipe, trainer
        self._member, self._admitted, self._folder, self._observe = member, admitted, folder, observe
        self._protocol = f"/ubcp/accuse/1/{run_id(name, recipe.hash()).hex()[:32]}"
        self._shape = shape_of(recipe)
        self._bytes_max = min(bytes_max(self._shape), EVIDENCE_BYTES_MAX)
        self._checked = rule_of(recipe).rate_ppm > 0  # on data of one's own honest work looks like a lie
        self._convicted: dict[bytes, _Conviction] = {}  # by who lied, the oldest first
        self._ignored: dict[bytes, None] = {}
        self._members: dict[Place, tuple[bytes, ...]] = {}  # of the groups that certified these states
        self._heard: dict[bytes, int] = {}  # accuser → the round in which it was last heard
        self._judging = False
        self._judged_in = -1  # the round in which one was judged last
        self._telling: dict[bytes, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def on_commit(self, committed: Committed) -> None:
        """Remember whom the data of rounds is cut among, by this node's own certificates."""
        for certificate in (committed.base, committed.certificate):
            if certificate is not None:
                self._members[certificate.place] = certificate.group.peers
        while len(self._members) > PLACES_MAX:
            del self._members[next(iter(self._members))]

    def convict(self, peer: bytes, evidence: Path) -> None:
        """This node's own check has found a lie: shun the liar soon, and tell the others until then."""
        if not self._is_out(peer):
            self._convict(peer, evidence, self._member.round + LEAD_ROUNDS, source=None)

    async def serve(self) -> None:
        """Hand over and hear until cancelled."""
        await self._network.handle(self._protocol, self._hear)
        try:
            while True:
                self._tell_all()
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(TELL_EVERY_S):
                        await self._changed.wait()
        finally:
            await self._network.unhandle(self._protocol)
            tasks = list(self._telling.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _convict(self, peer: bytes, evidence: Path, from_round: int, *, source: bytes | None) -> None:
        self._convicted.pop(peer, None)
        self._convicted[peer] = _Conviction(evidence, from_round, time.monotonic() + SHUN_S)
        while len(self._convicted) > EVIDENCE_KEPT:
            del self._convicted[next(iter(self._convicted))]
        self._member.shun(peer, from_round)
        data = {"peer": peer.hex(), "from_round": from_round, "source": None if source is None else source.hex()}
        self._observe(Event("shunned", self._member.round, data))
        self._changed.set()

    def _is_out(self, peer: bytes) -> bool:
        known = self._convicted.get(peer)
        return known is not None and time.monotonic() < known.over_s

    # -- what this node tells ---------------------------------------------------------------------------------------

    def _tell_all(self) -> None:
        """Begin to tell each peer that is there what it has not been told; who went and comes again is told again."""
        out = {peer: conviction for peer, conviction in self._convicted.items() if self._is_out(peer)}
        peers = set(self._member.peers()) - out.keys()
        for conviction in self._convicted.values():
            conviction.tries = {peer: tries for peer, tries in conviction.tries.items() if peer in peers}
        for peer in peers - self._telling.keys():
            due = [(who, told) for who, told in out.items() if told.tries.get(peer, 0) < TRIES_MAX]
            if due:
                task = self._telling[peer] = asyncio.create_task(self._tell(peer, due))
                task.add_done_callback(partial(self._told, peer))

    def _told(self, peer: bytes, task: asyncio.Task[None]) -> None:
        del self._telling[peer]
        if not task.cancelled() and (error := task.exception()) is not None:  # a bug: training goes on
            log.error("telling %s of lies failed", short(peer), exc_info=error)

    async def _tell(self, peer: bytes, due: list[tuple[bytes, _Conviction]]) -> None:
        for accused, conviction in due:
            try:
                blob = await asyncio.to_thread(read_limited, conviction.evidence, bytes_max=self._bytes_max)
                if await self._hand_over(peer, accused, conviction.from_round, blob):
                    conviction.tries[peer] = TRIES_MAX
            except NetworkError as error:
                conviction.tries[peer] = conviction.tries.get(peer, 0) + 1
                log.info("%s does not hear of a lie of %s: %s", short(peer), short(accused), error.message)
            except (UbcpError, OSError) as error:  # the file has gone, or an answer that is none
                conviction.tries[peer] = TRIES_MAX
                log.warning("%s is not told of a lie of %s: %s", short(peer), short(accused), error)

    async def _hand_over(self, peer: bytes, accused: bytes, from_round: int, blob: bytes) -> bool:
        """Whether the peer needs to hear no more of it. Raises NetworkError, MalformedMessage."""
        async with self._network.open(peer, self._protocol, timeout_s=ANSWER_S) as stream:
            await stream.send([accused, from_round, len(blob)], timeout_s=ANSWER_S)
            (answer,) = fields(await stream.receive(timeout_s=ANSWER_S), 1)
            if number(answer, LATER) == WANTED:
                await stream.send_block(memoryview(blob), stall_s=STALL_S)
                await stream.receive(timeout_s=ANSWER_S)
            return answer != LATER

    # -- what it hears ----------------------------------------------------------------------------------------------

    async def _hear(self, stream: Stream) -> None:
        told, from_, length = fields(await stream.receive(timeout_s=ANSWER_S), 3)
        accused, from_round, size = hash_of(told), number(from_, ROUND_MAX), number(length)
        answer = self._answer(stream.peer, accused, from_round, size)
        if answer != WANTED:
            await stream.send([answer], timeout_s=ANSWER_S)
            return
        self._judging, self._judged_in = True, self._member.round
        self._heard[stream.peer] = self._member.round
        try:
            blob = await self._receive(stream, size)
            await self._judge(stream.peer, accused, from_round, blob)
        finally:
            self._judging = False

    def _answer(self, accuser: bytes, accused: bytes, from_round: int, size: int) -> int:
        member, round_ = self._member, self._member.round
        deaf = accuser in self._ignored or self._is_out(accuser) or self._admitted(accuser)
        if not self._checked or deaf or accused == self._network.public or not 0 < size <= self._bytes_max:
            return NO
        if not member.knows(accuser):
            return LATER  # names cost nothing: who has made no round with this node is not heard yet
        known = self._convicted.get(accused)
        if known is not None and self._is_out(accused):
            if max(from_round, round_) < known.from_round:  # found by two at once: all go by the first
                known.from_round = max(from_round, round_)
                member.shun(accused, known.from_round)
            return NO
        if self._judging or self._judged_in == round_ or accused not in member.peers():
            return LATER  # of who is not here nothing need be known
        return LATER if round_ < self._heard.get(accuser, -AGAIN_ROUNDS) + AGAIN_ROUNDS else WANTED

    async def _receive(self, stream: Stream, size: int) -> bytes:
        """Raises DeadlineExceeded, Unreachable."""
        total_s = ANSWER_S + size / LINK_BYTES_PER_S_MIN
        blob = bytearray(size)
        try:
            async with asyncio.timeout(total_s):
                await stream.send([WANTED], timeout_s=ANSWER_S)
                with memoryview(blob) as view:
                    await stream.receive_block(view, stall_s=STALL_S)
                await stream.send([1], timeout_s=ANSWER_S)
        except TimeoutError:
            raise DeadlineExceeded(f"evidence did not arrive within {total_s:.0f} s") from None
        return bytes(blob)

    async def _judge(self, accuser: bytes, accused: bytes, from_round: int, blob: bytes) -> None:
        path = self._folder / f"{hashlib.sha256(blob).hexdigest()}.evidence"
        known = self._convicted.get(accused)
        if known is not None and known.evidence.name == path.name:
            return  # the hour for this lie is over
        try:
            verdict = await self._verdict(accused, blob)
        except MalformedMessage as error:
            verdict = None
            words = error.message
        except UbcpError as error:  # of this node's own: nobody is ignored for it
            log.warning("evidence against %s is not judged: %s", short(accused), error.message)
            return
        if verdict is None or not verdict.is_lie:
            words = words if verdict is None else verdict.words
            log.warning("%s accuses %s, and shows nothing: %s", short(accuser), short(accused), words)
            self._ignored[accuser] = None
            if len(self._ignored) > IGNORED_MAX:
                del self._ignored[next(iter(self._ignored))]
        elif not self._is_out(accused):  # by this node's own check, meanwhile
            await asyncio.to_thread(keep_newest, path, blob, EVIDENCE_KEPT)
            latest = self._member.round + LEAD_ROUNDS_MAX
            self._convict(accused, path, min(from_round, latest), source=accuser)

    async def _verdict(self, accused: bytes, blob: bytes) -> Verdict:
        """Raises MalformedMessage for what is no evidence against `accused` in this run's last rounds."""
        evidence = await asyncio.to_thread(Evidence.from_bytes, blob, self._recipe, self._shape)
        card, round_ = evidence.card, self._member.round
        if evidence.run != self._name or card.peer != accused:
            raise MalformedMessage("evidence of another run or against another peer")
        if not round_ - AGE_ROUNDS_MAX <= card.round <= round_ + LEAD_ROUNDS_MAX:
            raise MalformedMessage(f"evidence of round {card.round} in round {round_}")
        claim = claim_of(card, self._recipe)
        if isinstance(claim, Verdict):
            return claim
        # Anybody can sign a certificate for this state in the names of a group of his own: only what this node has
        # made or taken part in tells whom the data was cut among. None: it is not held against the accused.
        members = self._members.get((card.round, card.base_hash))
        return await self._trainer.check(claim, members, evidence.opening)
