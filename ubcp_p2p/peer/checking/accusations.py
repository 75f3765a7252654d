"""Accusations in one run: hears evidence of lies, judges it, and with whom this node shuns a liar.

A group stays whole only where its members shun alike; who shuns alone leaves only itself out. So a conviction begins
with a round and not at a moment: who has found a lie names one that is LEAD_ROUNDS ahead. All who are convinced say so
to each other, and each shuns once they are most of those in the groups; where they are not by that round, it only waits
for the liar no more. Nobody's word convicts: who is handed evidence walks the stretch again by itself. Who hands over
what shows nothing is not heard any more, and one accusation is looked at in a round, whoever brings it: a check costs a
fifth of one at most.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

from ubcp_p2p.codec import MalformedMessage, fields, hash_of, number
from ubcp_p2p.errors import NetworkError, UbcpError
from ubcp_p2p.files import keep_newest
from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.peer.checking.conviction import Conviction, Members
from ubcp_p2p.peer.checking.telling import ANSWER_S, LATER, NEARLY_S, NO, WANTED, Telling, upload_s
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.admission import Verdict as Admitted
from ubcp_p2p.swarm.events import Committed, Event
from ubcp_p2p.swarm.frames import DeadlineExceeded, Stream
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.openings import STALL_S
from ubcp_p2p.swarm.quorum import ROUND_MAX, Place
from ubcp_p2p.swarm.standing import SHUN_S
from ubcp_p2p.training.opening import Opening
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.verdict import Claim, Finding, Verdict
from ubcp_p2p.verification.draw import rule_of
from ubcp_p2p.verification.evidence import EVIDENCE_KEPT, Evidence, bytes_max, claim_of

log = logging.getLogger(__name__)
K = TypeVar("K")
T = TypeVar("T")

LEAD_ROUNDS: Final = 2  # from the finding to the first round without the liar: the others need about one to judge
LEAD_ROUNDS_MAX: Final = 8  # that another may name
FRESH_ROUNDS: Final = 2 * LEAD_ROUNDS_MAX  # of a lie of these last rounds the hour has just begun, whatever is said
AGE_ROUNDS_MAX: Final = 256  # older lies are no longer heard of: a node that was away has not to judge all of a run
AGAIN_ROUNDS: Final = 4  # until one accuser is heard again: it has not every round for itself
EVIDENCE_BYTES_MAX: Final = 512 << 20  # what is larger convinces its finder alone
UPLOADS_MAX: Final = 4  # at once, one of an accuser
BROKEN_MAX: Final = 2  # uploads that do not end, of one accuser
IGNORED_MAX: Final = 1024
PLACES_MAX: Final = 64  # certified states whose members are remembered
TELL_EVERY_S: Final = 1.0


class Trainer(Protocol):
    """What is asked of a TrainerProcess."""

    async def check(self, claim: Claim, members: tuple[bytes, ...] | None, opening: bytes) -> Verdict: ...


class _Judged(NamedTuple):
    """verdict: None where this node cannot judge. round: of the card."""

    verdict: Verdict | None
    round: int


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
        self._protocol = f"/ubcp/accuse/3/{run_id(name, recipe.hash()).hex()[:32]}"
        self._shape = shape_of(recipe)
        self._bytes_max = min(bytes_max(self._shape), EVIDENCE_BYTES_MAX)
        self._checked = rule_of(recipe).rate_ppm > 0  # on data of one's own honest work looks like a lie
        self._convicted: dict[bytes, Conviction] = {}  # by who lied, the oldest first
        self._ignored: dict[bytes, None] = {}
        self._members: dict[Place, tuple[bytes, ...]] = {}  # of the groups that certified these states
        self._heard: dict[bytes, tuple[int, int]] = {}  # accuser → the round it was last heard in, rounds until again
        self._uploading: set[bytes] = set()
        self._broken: dict[bytes, int] = {}  # accuser → its uploads that did not end
        self._judging = False
        self._judged_in = -1  # the round in which one was judged last
        self._changed = asyncio.Event()
        self._telling = Telling(network, self._protocol, member, self._changed.set)

    def on_commit(self, committed: Committed) -> None:
        """Remember whom the data of rounds is cut among, by this node's own certificates."""
        for certificate in (committed.base, committed.certificate):
            if certificate is not None:
                _keep(self._members, certificate.place, certificate.group.peers, PLACES_MAX)

    def convict(self, peer: bytes, evidence: Path, verdict: Verdict) -> None:
        """This node's own check has found a lie: tell the others, and shun the liar soon, with them.

        What others may see otherwise, or cannot be handed, is this node's own affair: it waits for the liar no more.
        """
        if self._is_out(peer):
            return
        if not _will_convince(verdict) or evidence.stat().st_size > self._bytes_max:
            self._member.strike(peer)
        else:
            ends = {self._network.public: time.monotonic() + SHUN_S}
            self._convict(peer, Conviction(evidence, self._member.round + LEAD_ROUNDS, None, ends))

    async def serve(self) -> None:
        """Hand over and hear until cancelled."""
        await self._network.handle(self._protocol, self._hear)
        try:
            while True:
                self._changed.clear()
                out = {peer: conviction for peer, conviction in self._convicted.items() if self._is_out(peer)}
                for peer in out:
                    self._weigh(peer)
                self._telling.begin(out, time.monotonic())
                with suppress(TimeoutError):
                    async with asyncio.timeout(TELL_EVERY_S):
                        await self._changed.wait()
        finally:
            await self._network.unhandle(self._protocol)
            await self._telling.close()

    # -- who is out -------------------------------------------------------------------------------------------------

    def _convict(self, peer: bytes, conviction: Conviction) -> None:
        self._convicted.pop(peer, None)
        _keep(self._convicted, peer, conviction, EVIDENCE_KEPT)
        self._weigh(peer)
        self._changed.set()

    def _is_out(self, peer: bytes) -> bool:
        known = self._convicted.get(peer)
        return known is not None and time.monotonic() < known.over_s

    def _weigh(self, peer: bytes) -> None:
        """Shun the liar if most of those in the groups do, the liar counted: who is fewer makes no round without it."""
        conviction, member = self._convicted[peer], self._member
        if not conviction.is_shunned:
            others = [one for one in member.peers() if one != peer and member.knows(one) and not self._is_out(one)]
            if 2 * (1 + sum(one in conviction.ends for one in others)) > len(others) + 2:
                self._shun(peer)
                source = None if conviction.source is None else conviction.source.hex()
                data = {"peer": peer.hex(), "from_round": conviction.from_round, "source": source}
                self._observe(Event("shunned", member.round, data))
            elif member.round >= conviction.from_round and not conviction.is_struck:
                conviction.is_struck = True
                member.strike(peer)

    def _shun(self, peer: bytes) -> None:
        conviction = self._convicted[peer]
        conviction.is_shunned = True
        self._member.shun(peer, conviction.from_round, conviction.over_s - time.monotonic())

    def _back(self, backer: bytes, peer: bytes, from_round: int, left_s: float) -> None:
        """Another says that it is convinced too. Found by two at once: all go by the first round that is named."""
        conviction, before_s = self._convicted[peer], self._convicted[peer].over_s
        conviction.backed(backer, time.monotonic() + left_s)
        is_sooner = from_round < conviction.from_round
        conviction.from_round = min(from_round, conviction.from_round)
        if conviction.is_shunned and (is_sooner or conviction.over_s != before_s):
            self._shun(peer)
        self._weigh(peer)

    # -- what it hears ----------------------------------------------------------------------------------------------

    async def _hear(self, stream: Stream) -> None:
        told, from_, seconds, length = fields(await stream.receive(timeout_s=ANSWER_S), 4)
        accused, from_round, size = hash_of(told), number(from_, ROUND_MAX), number(length)
        accuser, left_s = stream.peer, float(number(seconds))
        answer = self._answer(accuser, accused, from_round, left_s, size)
        left_s = min(left_s, SHUN_S)
        if answer != WANTED:
            await stream.send([answer], timeout_s=ANSWER_S)
            return
        self._uploading.add(accuser)
        try:
            blob = await self._receive(stream, size)
        except NetworkError:
            broken = self._broken.get(accuser, 0) + 1
            _keep(self._broken, accuser, broken, IGNORED_MAX)
            if broken >= BROKEN_MAX:
                _keep(self._ignored, accuser, None, IGNORED_MAX)
            raise
        finally:
            self._uploading.discard(accuser)
        if not self._has_turn():  # another's was here sooner
            await stream.send([LATER], timeout_s=ANSWER_S)
            return
        _, pause = self._heard.pop(accuser, (0, AGAIN_ROUNDS))
        _keep(self._heard, accuser, (self._member.round, pause), IGNORED_MAX)
        self._judging, self._judged_in = True, self._member.round
        try:
            with suppress(NetworkError):  # it need not know
                await stream.send([NO], timeout_s=ANSWER_S)
            await self._judge(accuser, accused, from_round, left_s, blob)
        finally:
            self._judging = False

    def _has_turn(self) -> bool:
        return not self._judging and self._judged_in != self._member.round

    def _answer(self, accuser: bytes, accused: bytes, from_round: int, left_s: float, size: int) -> int:
        member, round_ = self._member, self._member.round
        deaf = accuser in self._ignored or self._is_out(accuser) or self._admitted(accuser)
        if not self._checked or deaf or accused == self._network.public or not 0 < size <= self._bytes_max:
            return NO
        if not member.knows(accuser):
            return LATER  # names cost nothing: who has made no round with this node is not heard yet
        if self._is_out(accused):
            self._back(accuser, accused, max(from_round, round_), min(left_s, SHUN_S))
            return NO
        if left_s < NEARLY_S:
            return NO
        heard, pause = self._heard.get(accuser, (-AGAIN_ROUNDS, AGAIN_ROUNDS))
        is_full = accuser in self._uploading or len(self._uploading) >= UPLOADS_MAX
        if is_full or not self._has_turn() or round_ < heard + pause or accused not in member.peers():
            return LATER  # of who is not here nothing need be known
        return WANTED

    async def _receive(self, stream: Stream, size: int) -> bytes:
        """Raises DeadlineExceeded, Unreachable."""
        blob = bytearray(size)  # takes memory as it is filled
        try:
            async with asyncio.timeout(upload_s(size)):
                await stream.send([WANTED], timeout_s=ANSWER_S)
                with memoryview(blob) as view:
                    await stream.receive_block(view, stall_s=STALL_S)
        except TimeoutError:
            raise DeadlineExceeded(f"evidence did not arrive within {upload_s(size):.0f} s") from None
        return bytes(blob)

    async def _judge(self, accuser: bytes, accused: bytes, from_round: int, left_s: float, blob: bytes) -> None:
        path = self._folder / f"{hashlib.sha256(blob).hexdigest()}.evidence"
        known = self._convicted.get(accused)
        if known is not None and known.evidence.name == path.name:
            return  # the hour for this lie is over
        try:
            verdict, of_round = await self._verdict(accused, blob)
        except MalformedMessage as error:
            log.warning("%s accuses %s, and shows nothing: %s", short(accuser), short(accused), error.message)
            _keep(self._ignored, accuser, None, IGNORED_MAX)
            return
        except UbcpError as error:  # of this node's own: nobody is ignored for it
            log.warning("evidence against %s is not judged: %s", short(accused), error.message)
            return
        if verdict is None or _is_near(verdict):
            words = "it cannot be judged here" if verdict is None else verdict.words
            log.info("%s accuses %s, and may be right: %s", short(accuser), short(accused), words)
            self._put_off(accuser)
        elif not verdict.is_lie:
            log.warning("%s accuses %s, and shows nothing: %s", short(accuser), short(accused), verdict.words)
            _keep(self._ignored, accuser, None, IGNORED_MAX)
        elif verdict.finding == Finding.DATA:  # not all know whom the data was cut among
            self._member.strike(accused)
            self._put_off(accuser)
        else:
            await asyncio.to_thread(keep_newest, path, blob, EVIDENCE_KEPT)
            now_s = time.monotonic()
            if self._is_out(accused):  # by this node's own check, meanwhile
                self._back(accuser, accused, max(from_round, self._member.round), left_s)
                return
            ends = {accuser: now_s + left_s}
            if of_round >= self._member.round - FRESH_ROUNDS:
                ends[self._network.public] = now_s + SHUN_S
            first = min(from_round, self._member.round + LEAD_ROUNDS_MAX)
            self._convict(accused, Conviction(path, first, accuser, ends))

    def _put_off(self, accuser: bytes) -> None:
        """It may be honest, or an accomplice who costs a check: it is heard again, each time twice as long after."""
        round_, pause = self._heard[accuser]
        self._heard[accuser] = round_, min(2 * pause, AGE_ROUNDS_MAX)

    async def _verdict(self, accused: bytes, blob: bytes) -> _Judged:
        """Raises MalformedMessage for what is no evidence against `accused` in this run's last rounds."""
        evidence = await asyncio.to_thread(Evidence.from_bytes, blob, self._recipe, self._shape)
        card, round_ = evidence.card, self._member.round
        if evidence.run != self._name or card.peer != accused:
            raise MalformedMessage("evidence of another run or against another peer")
        if not round_ - AGE_ROUNDS_MAX <= card.round <= round_ + LEAD_ROUNDS_MAX:
            raise MalformedMessage(f"evidence of round {card.round} in round {round_}")
        claim = claim_of(card, self._recipe)
        if isinstance(claim, Verdict):
            return _Judged(claim, card.round)
        # Anybody can sign a certificate for this state in the names of a group of his own: only what this node has
        # made or taken part in tells whom the data was cut among. None: it is not held against the accused.
        members = self._members.get((card.round, card.base_hash))
        if members is None and evidence.members is not None:
            opening = await asyncio.to_thread(Opening.from_bytes, evidence.opening, self._shape)
            if opening.members != evidence.members:  # a lie of the accused, or a certificate that somebody has made up
                return _Judged(None, card.round)
        return _Judged(await self._trainer.check(claim, members, evidence.opening), card.round)


def _will_convince(verdict: Verdict) -> bool:
    """Whether all who judge will find a lie: devices differ, and whom the data is cut among not all know."""
    if verdict.finding == Finding.STEPS:
        return verdict.distance_ppm >= 2 * verdict.allowed_ppm
    return verdict.is_lie and verdict.finding != Finding.DATA


def _is_near(verdict: Verdict) -> bool:
    """Whether another device may find a lie where this one finds none."""
    is_apart = 2 * verdict.distance_ppm > verdict.allowed_ppm
    return verdict.finding == Finding.DROWNED or (verdict.finding == Finding.HONEST and is_apart)


def _keep(kept: dict[K, T], key: K, what: T, most: int) -> None:
    """Put it in; the oldest make room."""
    kept[key] = what
    while len(kept) > most:
        del kept[next(iter(kept))]
