"""Ends what waits for a check: by the validator's report, by evidence verified here, or by the paymaster's own look.

A report frees a round's pay or asks for a closer look; only what is verified here costs anybody anything. What becomes
of a round is on the disk before it is told.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.errors import NetworkError, TrainingError, UbcpError
from ubcp_p2p.ledger.export import BLOB_BYTES_MAX
from ubcp_p2p.peer.paying.bill import Bill
from ubcp_p2p.peer.paying.cabinet import Cabinet, Place
from ubcp_p2p.peer.paying.holding import REPORT_S_MAX, Hold, Stage, is_overdue
from ubcp_p2p.peer.paying.job import Job
from ubcp_p2p.peer.paying.report import EVIDENCE_BYTES_MAX, Report
from ubcp_p2p.peer.paying.tab import WORDS_MAX, BillRefused
from ubcp_p2p.peer.paying.verifier import CannotJudge, Unsure, Verifier
from ubcp_p2p.peer.paying.wire import ANSWER_S, answer
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.exchange import LINK_BYTES_PER_S_MIN
from ubcp_p2p.swarm.frames import DeadlineExceeded
from ubcp_p2p.swarm.openings import Openings
from ubcp_p2p.training.ends import WHOLE
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.verdict import Claim, Finding, Verdict
from ubcp_p2p.verification.evidence import Evidence, bytes_max, claim_of

if TYPE_CHECKING:
    from ubcp_p2p.swarm.frames import Stream
    from ubcp_p2p.swarm.ledger import LiveLedger
    from ubcp_p2p.swarm.network import Network

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
ASKING_MAX: Final = 3  # contributors that are asked, or whose opening waits to be judged: one has up to 512 MiB
ASKING_SLOW_MAX: Final = 1  # and of those that were slow: who drips must not hold the places of all
SLOW_MAX: Final = 1024  # contributors that are remembered as slow
FAST_S: Final = 60.0  # for an opening; who takes longer is asked again in the place of the slow
TASKS_MAX: Final = 256  # contributors with rounds that are settled, or wait for their turn
ASK_S: Final = 30.0
ASK_PAUSES_S: Final = (2.0, 5.0)
UNSURE_S_MAX: Final = 2 * REPORT_S_MAX  # since the bill: an hour at least after a validator was last waited for
AGAIN_S: Final = 600.0  # until the directory is asked again: each time the evidence is judged again, for its data
FALSE_REPORTS_MAX: Final = 3  # of one validator and REQUEST; its word against others is then no reason to look


class _TooSlow(UbcpError):
    """An opening that did not come in time for the place that it was asked in."""


Settled = Callable[[Job, bytes], Awaitable[None]]


class Settler:
    """settled: keeps a job's tab, and promises what is owed to the node now. clock: Unix seconds."""

    def __init__(
        self, network: Network, ledger: LiveLedger, verifier: Verifier, cabinet: Cabinet, settled: Settled,
        *, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._network, self._ledger, self._verifier, self._cabinet = network, ledger, verifier, cabinet
        self._settled, self._clock = settled, clock
        self._judging = asyncio.Semaphore(1)  # a judge is a process
        self._asking, self._asking_slow = asyncio.Semaphore(ASKING_MAX), asyncio.Semaphore(ASKING_SLOW_MAX)
        self._slow: dict[bytes, None] = {}  # contributors, the longest known first
        self._not_before_s: dict[tuple[bytes, bytes], float] = {}  # by REQUEST and contributor: of those put off

    # -- what validators say ----------------------------------------------------------------------------------------

    async def hear(self, job: Job, stream: Stream, payload: bytes) -> None:
        """One report, and its evidence where it is wanted. Raises BillRefused, MalformedMessage, NetworkError."""
        report = Report.from_bytes(payload, stream.peer)
        key = report.peer, report.round
        place = Place(job.request, *key)
        async with job.lock:
            wanted = await self._take(job, report, stream.peer)
        if not wanted:
            await stream.send(answer(0), timeout_s=ANSWER_S)
            return
        with self._cabinet.room(place, stream.peer):
            try:
                await stream.send(answer(1), timeout_s=ANSWER_S)
                await self._cabinet.receive(place, stream, report)
                async with job.lock:
                    hold = job.tab.holds.get(key)
                    if hold is not None and hold.stage == Stage.REPORT:
                        job.tab.holds[key] = replace(hold, stage=Stage.EVIDENCE, evidence=report.evidence)
                        await self._settled(job, report.peer)
            finally:
                hold = job.tab.holds.get(key)
                if hold is None or hold.stage != Stage.EVIDENCE:
                    self._cabinet.drop_coming(place)
        await stream.send(answer(0), timeout_s=ANSWER_S)

    async def _take(self, job: Job, report: Report, validator: bytes) -> bool:
        """Whether its evidence is wanted; what needs none has had its effect."""
        hold, account = job.tab.holds.get((report.peer, report.round)), job.tab.accounts.get(report.peer)
        if report.run_id != job.terms.run_id:
            raise BillRefused("a report of another run")
        if hold is None:
            if account is None or (account.last_round < report.round and not account.barred):
                raise BillRefused("that round has not been billed here yet")
            return False
        if hold.validator != validator:
            raise BillRefused("another member was drawn to check that round")
        if hold.stage != Stage.REPORT:
            return False
        if report.finding == Finding.HONEST:
            job.tab.release(report.peer, report.round, honest=True)
            await self._settled(job, report.peer)
            self._cabinet.drop(Place(job.request, report.peer, report.round))
            return False
        is_heard = job.false_reports.get(validator, 0) < FALSE_REPORTS_MAX
        fits = 0 < report.size <= min(EVIDENCE_BYTES_MAX, bytes_max(shape_of(job.recipe)))
        if report.finding != Finding.UNOPENED and is_heard and fits:
            return True
        job.tab.holds[report.peer, report.round] = replace(hold, stage=Stage.OWN_LOOK)
        await self._settled(job, report.peer)
        return False

    # -- what is looked at here -------------------------------------------------------------------------------------

    async def serve(self, jobs: Callable[[], Iterable[Job]], slice_now: Callable[[], int]) -> None:
        """Settle what can be settled until cancelled: a contributor that is slow delays its own rounds alone."""
        under_way: dict[tuple[bytes, bytes], asyncio.Task[None]] = {}  # by REQUEST and contributor
        async with asyncio.TaskGroup() as tasks:
            while True:
                under_way = {who: task for who, task in under_way.items() if not task.done()}
                now_s = self._clock()
                self._not_before_s = {who: s for who, s in self._not_before_s.items() if now_s < s <= now_s + AGAIN_S}
                for job in jobs():
                    ending = slice_now() > job.expiry
                    due = {node for (node, _), hold in job.tab.holds.items() if self._is_due(job, hold, ending=ending)}
                    for node in due:
                        who = job.request, node
                        is_free = who not in under_way and who not in self._not_before_s
                        if is_free and len(under_way) < TASKS_MAX:
                            under_way[who] = tasks.create_task(self._settle_all(job, node, ending=ending))
                await asyncio.sleep(LOOK_S)

    async def _settle_all(self, job: Job, node: bytes, *, ending: bool) -> None:
        with job.in_use():
            for hold in job.tab.held(node):
                if job.tab.holds.get((node, hold.round)) != hold:  # settled meanwhile
                    continue
                if (job.request, node) in self._not_before_s:  # it would be no different with its other rounds
                    return
                try:
                    await self._settle(job, node, hold, ending=ending)
                except UbcpError as error:
                    log.warning("round %d of %s is not settled: %s", hold.round, short(node), error.message)
                except Exception:  # a bug: the others are paid
                    log.exception("round %d of %s is not settled", hold.round, short(node))

    def _is_due(self, job: Job, hold: Hold, *, ending: bool) -> bool:
        newest = max(job.tab.places, default=hold.round)
        return hold.stage != Stage.REPORT or is_overdue(hold, newest, int(self._clock()), ending=ending)

    async def _settle(self, job: Job, node: bytes, hold: Hold, *, ending: bool) -> None:
        if not self._is_due(job, hold, ending=ending):
            return
        if hold.stage == Stage.EVIDENCE:
            await self._in_turn(self._judging, self._weigh, job, node, hold)
            return
        if node not in self._slow:
            try:
                await self._in_turn(self._asking, self._look, job, node, hold)
                return
            except _TooSlow as error:
                log.info("round %d of %s: %s", hold.round, short(node), error.message)
                self._slow[node] = None
                if len(self._slow) > SLOW_MAX:
                    del self._slow[next(iter(self._slow))]
        await self._in_turn(self._asking_slow, partial(self._look, is_slow=True), job, node, hold)

    async def _in_turn(
        self, places: asyncio.Semaphore, step: Callable[[Job, bytes, Hold], Awaitable[None]],
        job: Job, node: bytes, hold: Hold,
    ) -> None:  # fmt: skip
        async with places:
            if job.tab.holds.get((node, hold.round)) == hold:  # not settled while it waited for its turn
                await step(job, node, hold)

    async def _weigh(self, job: Job, node: bytes, hold: Hold) -> None:
        """A validator's evidence: it convicts, or the validator was wrong."""
        place = Place(job.request, node, hold.round)
        blob = await asyncio.to_thread(self._cabinet.read, place, hold.evidence)
        if blob is None:
            await self._look_instead(job, node, hold)
            return
        try:
            verdict = await self._verdict_on(job, node, hold, blob)
        except CannotJudge as error:
            if not self._put_off(job, node, hold, error):
                await self._decide(job, node, hold, f"it was accused, which cannot be verified here: {error.message}")
            return
        except UbcpError as error:
            verdict = Verdict(Finding.UNOPENED, 0, error.message)
        if verdict.is_lie:
            await self._convict(job, node, hold, verdict, blob, own=False)
            return
        log.warning(
            "what %s sent against %s is no evidence: %s", short(hold.validator or b""), short(node), verdict.words
        )
        if hold.validator is not None:
            job.false_reports[hold.validator] = job.false_reports.get(hold.validator, 0) + 1
        await self._look_instead(job, node, hold)

    async def _verdict_on(self, job: Job, node: bytes, hold: Hold, blob: bytes) -> Verdict:
        """Raises CannotJudge; MalformedMessage where it is no evidence against this round."""
        evidence = await asyncio.to_thread(Evidence.from_bytes, blob, job.recipe, shape_of(job.recipe))
        if (evidence.card.run_id, evidence.card.peer, evidence.card.trail) != (job.terms.run_id, node, hold.trail):
            raise MalformedMessage("evidence of another card")
        verdict = claim_of(evidence.card, job.recipe)
        if isinstance(verdict, Claim):
            bill = await self._bill(job, node, hold)
            group = bill.certificate.group.peers if bill is not None else ()
            # Not what the evidence says of it: its certificate may be of a group that the validator has made up.
            members = bill.base.group.peers if bill is not None and bill.base is not None else None
            verdict = await self._verifier.judge(job.run, job.recipe, verdict, members, evidence.opening, group)
        return verdict

    def _put_off(self, job: Job, node: bytes, hold: Hold, why: CannotJudge) -> bool:
        """Whether to ask later, where that may help. By the bill's time, so a restart begins nothing anew."""
        if not isinstance(why, Unsure) or self._clock() - hold.since_s >= UNSURE_S_MAX:
            return False
        log.warning("round %d of %s waits: %s", hold.round, short(node), why.message)
        self._not_before_s[job.request, node] = self._clock() + AGAIN_S
        return True

    async def _look_instead(self, job: Job, node: bytes, hold: Hold) -> None:
        async with job.lock:
            self._cabinet.drop_coming(Place(job.request, node, hold.round))
            if job.tab.holds.get((node, hold.round)) == hold:
                job.tab.holds[node, hold.round] = replace(hold, stage=Stage.OWN_LOOK)
                await self._settled(job, node)

    async def _look(self, job: Job, node: bytes, hold: Hold, *, is_slow: bool = False) -> None:
        """Ask the contributor itself, as the validator was to. Raises _TooSlow where it may take its time elsewhere."""
        if shape_of(job.recipe).bytes_max() > EVIDENCE_BYTES_MAX:
            await self._decide(job, node, hold, "its opening is larger than this node takes in")
            return
        bill = await self._bill(job, node, hold)
        if bill is None or bill.card is None:
            await self._decide(job, node, hold, "what it has claimed is not on this disk any more")
            return
        evidence = Evidence(job.run, bill.card, bill.base, b"")
        verdict = claim_of(bill.card, job.recipe)
        if isinstance(verdict, Claim):
            try:
                group = bill.certificate.group.peers
                found, evidence = await self._walk(job, hold, verdict, evidence, group, is_slow=is_slow)
            except CannotJudge as error:
                await self._decide(job, node, hold, f"it cannot be checked here: {error.message}")
                return
            if isinstance(found, Unsure):
                await self._wait_with(job, node, hold, evidence, found)
                return
            verdict = found
        if verdict.is_lie:
            await self._convict(job, node, hold, verdict, await asyncio.to_thread(evidence.to_bytes), own=True)
        elif verdict.finding == Finding.HONEST:
            self._slow.pop(node, None)
            await self._decide(job, node, hold, "")
        else:
            log.warning("round %d of %s is not paid: %s", hold.round, short(node), verdict.words)
            async with job.lock:
                waited, words = job.tab.held(node), f"round {hold.round} is not paid: {verdict.words}"
                unopened = verdict.finding == Finding.UNOPENED  # what drowns may be honest, near a loss of 0
                job.tab.withhold(node, hold.round, words, unopened=unopened, now_s=int(self._clock()))
                await self._settled(job, node)
                for over in waited:
                    if (node, over.round) not in job.tab.holds:
                        self._cabinet.drop(Place(job.request, node, over.round))

    async def _walk(
        self, job: Job, hold: Hold, claim: Claim, evidence: Evidence, group: Collection[bytes], *, is_slow: bool
    ) -> tuple[Verdict | Unsure, Evidence]:
        """The first finding that is not honest, or the last, and the opening that it is of. Raises CannotJudge."""
        verdict = Verdict(Finding.UNOPENED, 0, "nothing was opened")
        for stretch in hold.stretches:
            try:
                opening = await self._ask(job, claim.peer, hold, stretch, is_slow=is_slow)
            except (NetworkError, MalformedMessage) as error:
                words = f"it did not open stretch {stretch}: {error.message}"
                return Verdict(Finding.UNOPENED, 0, words), evidence
            evidence = replace(evidence, opening=opening)
            async with self._judging:
                try:
                    verdict = await self._verifier.judge(job.run, job.recipe, claim, evidence.members, opening, group)
                except Unsure as error:
                    return error, evidence
            if verdict.finding != Finding.HONEST:
                break
        return verdict, evidence

    async def _wait_with(self, job: Job, node: bytes, hold: Hold, evidence: Evidence, why: Unsure) -> None:
        """Keep what seems to be a lie, as if a validator had sent it: it is judged again, and not asked for again."""
        if not self._put_off(job, node, hold, why):
            await self._decide(job, node, hold, f"it cannot be checked here: {why.message}")
            return
        blob = await asyncio.to_thread(evidence.to_bytes)
        async with job.lock:
            if job.tab.holds.get((node, hold.round)) != hold:  # its validator has sent evidence meanwhile
                return
            kept = await asyncio.to_thread(self._cabinet.put_coming, Place(job.request, node, hold.round), blob)
            # Nobody else's word: no validator is blamed for it.
            waits = replace(hold, stage=Stage.EVIDENCE, evidence=kept, validator=None)
            job.tab.holds[node, hold.round] = waits
            await self._settled(job, node)

    async def _bill(self, job: Job, node: bytes, hold: Hold) -> Bill | None:
        place, terms = Place(job.request, node, hold.round), job.terms
        return await asyncio.to_thread(self._cabinet.bill, place, terms.run_id, members_max=terms.peers_max)

    async def _ask(self, job: Job, node: bytes, hold: Hold, stretch: int, *, is_slow: bool) -> bytes:
        """An opening. Raises NetworkError, MalformedMessage; _TooSlow where a slow one may take longer."""
        size = shape_of(job.recipe).bytes_max()
        openings = Openings(self._network, job.terms.run_id, size, _no_opening, lambda *asked: False)
        slowest_s = ASK_S + size / LINK_BYTES_PER_S_MIN
        total_s = slowest_s if is_slow else min(FAST_S, slowest_s)
        try:
            async with asyncio.timeout(total_s):  # all tries together: who hangs up late gains nothing
                for pause_s in ASK_PAUSES_S:
                    try:
                        return await openings.ask(node, hold.trail, stretch, end=WHOLE, total_s=total_s)
                    except DeadlineExceeded:
                        raise
                    except NetworkError:
                        await asyncio.sleep(pause_s)
                return await openings.ask(node, hold.trail, stretch, end=WHOLE, total_s=total_s)
        except (TimeoutError, DeadlineExceeded) as error:
            words = f"the opening did not come in time, which is {total_s:.0f} s at most"
            raise (DeadlineExceeded if is_slow else _TooSlow)(words) from error

    async def _decide(self, job: Job, node: bytes, hold: Hold, words: str) -> None:
        """The round is owed; words: what stays open."""
        async with job.lock:
            job.tab.release(node, hold.round, honest=not words)
            if words:
                log.warning("round %d of %s is paid unchecked: %s", hold.round, short(node), words)
                job.tab.accounts[node].words = f"round {hold.round}: {words}"[:WORDS_MAX]
            await self._settled(job, node)
            self._cabinet.drop(Place(job.request, node, hold.round))

    async def _convict(self, job: Job, node: bytes, hold: Hold, verdict: Verdict, blob: bytes, *, own: bool) -> None:
        """blob: the evidence, kept before the tab names it; own: made here. A small one is a blob of the ledger, too.
        A liar is barred none the less where there is no room for it."""
        cabinet, place = self._cabinet, Place(job.request, node, hold.round)
        proof = (await asyncio.to_thread(hashlib.sha256, blob)).digest() if own else hold.evidence
        try:
            await asyncio.to_thread(partial(cabinet.put_own, blob) if own else partial(cabinet.keep, place, proof))
        except UbcpError as error:
            log.warning("evidence against %s is not kept: %s", short(node), error.message)
        words = f"round {hold.round} was no honest work ({verdict.finding}): {verdict.words[:140]}"
        words = f"{words}; evidence {proof.hex()}"
        log.warning("%s is not paid any more: %s", short(node), words)
        async with job.lock:
            waiting = job.tab.held(node)
            job.tab.bar(node, words, proof)
            await self._settled(job, node)
            for other in waiting:  # now that this is on the disk: a round without its bill would be paid
                self._cabinet.drop(Place(job.request, node, other.round))
        if len(blob) <= BLOB_BYTES_MAX:
            try:
                await self._ledger.keep(blob)
            except UbcpError as error:
                log.warning("evidence against %s is no blob of the ledger: %s", short(node), error.message)


async def _no_opening(trail: bytes, stretch: int, end: bytes) -> bytes:
    """A paymaster opens nothing."""
    raise TrainingError("there is nothing to open here")
