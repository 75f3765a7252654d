"""The slice loop: soon after a slice's beginning decide and publish, a minute after it see which leases hold.

Nothing is trained here: what holds is what this node owes the network in this slice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from ubcp_p2p.allocator.blob import decode_problem, encode_problem
from ubcp_p2p.allocator.decide import Decision, Outcome, decide
from ubcp_p2p.allocator.problem import Ask, Problem
from ubcp_p2p.allocator.words import explain
from ubcp_p2p.carbon.values import CarbonUnknown, Slot
from ubcp_p2p.charter.values import Charter, Charters
from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.database import StoreError
from ubcp_p2p.ledger.entry import ACCEPTED_MAX, Body
from ubcp_p2p.ledger.entry import Decision as DecisionBody
from ubcp_p2p.ledger.leases import SETTLE_S, turn_permille
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.owner.values import Verdict
from ubcp_p2p.peer.config import ServingConfig
from ubcp_p2p.peer.owner import Keeper
from ubcp_p2p.peer.serving.book import Book
from ubcp_p2p.peer.serving.problem import Offer
from ubcp_p2p.peer.serving.savings import CarbonBook
from ubcp_p2p.peer.serving.seen import keep_seen, read_seen
from ubcp_p2p.units import AMOUNT_MAX

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_S: Final = 10.0
TURNS_PERMILLE: Final = 600  # of the first minute; the rest is for the last decisions to get around
CLOCK_S: Final = 60.0
SHOWN: Final = 100  # of each kind, in `ubcp status`


def speed_of(config: ServingConfig, charter: Charter) -> int:
    """GFLOP/s that this node offers at most. Raises ConfigError for a device class that the charter lacks."""
    peak = charter.peak_of(config.device_class)
    if peak is None:
        names = ", ".join(device.name for device in charter.devices)
        raise ConfigError(
            f"the charter has no device class {config.device_class!r}",
            hint=f"set serving.device_class to one of its own: {names}",
        )
    cost = charter.cost_of(config.device_class)
    return min(config.gflops or (cost.sustained if cost is not None else peak), peak)


class ServedLedger(Protocol):
    """What serving needs of a node's ledger: swarm/ledger.py has the methods in full."""

    @property
    def charters(self) -> Charters: ...

    async def read(self, function: Callable[[Store], T], /) -> T: ...

    async def may_write(self) -> bool: ...

    async def write(self, body: Body, /) -> Signed | None: ...

    async def keep(self, blob: bytes, /) -> bytes: ...

    async def forget(self, blobs: Iterable[bytes], /) -> None: ...


def _useless(refused: frozenset[str], charter: Charter) -> list[str]:
    """Purposes that the owner refuses and the charter does not have: a word spelt otherwise would be served."""
    unknown = sorted(refused - {*charter.purposes, *charter.refused})
    if not unknown:
        return []
    names, purposes = ", ".join(map(repr, unknown)), ", ".join(charter.purposes)
    return [f"refuse_purposes under [owner] has {names}, which the charter does not; its purposes are {purposes}"]


def given(whole: int, begins: int, slice_s: int, verdict: Verdict) -> int:
    """What the owner's rules leave of a slice's `whole` budget: the share, until the hours end. begins: Unix time."""
    if not verdict.works:
        return 0
    open_s = slice_s if verdict.until is None else min(max(verdict.until - begins, 0), slice_s)
    return whole * verdict.share_permille * open_s // (1000 * slice_s)


class Service:
    """One node's serving. seen_file: where it keeps when requests came. clock: Unix seconds; sleep: for that long."""

    def __init__(
        self,
        ledger: ServedLedger,
        keeper: Keeper,
        config: ServingConfig,
        node: bytes,
        seen_file: Path,
        *,
        on_held: Callable[[list[Asked]], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """on_held: told in each slice on which REQUESTs this node's leases hold. Raises ConfigError."""
        self._ledger, self._keeper, self._config, self._node = ledger, keeper, config, node
        self._clock, self._sleep, self._seen_file, self._on_held = clock, sleep, seen_file, on_held
        self._charter = ledger.charters.first  # epoch and slice length never change
        speed_of(config, ledger.charters.newest)  # say at once what is wrong with the configuration
        try:
            self._kept = read_seen(seen_file, ledger.charters.network)
        except UbcpError as error:  # requests are served all the same
            self._kept = {}
            log.error("%s; %s", error.message, error.hint)
        self._book = Book(node, self._kept)
        self._carbon_book = CarbonBook(config.device_class)
        self._slice = -1
        self._last: tuple[Problem, Decision] | None = None
        self._held: list[bytes] | None = None
        self._words = "waiting for the next slice to begin"
        self._notes = _useless(keeper.rules.purposes_refused, ledger.charters.newest)
        for note in self._notes:
            log.warning(note)

    @property
    def book(self) -> Book:
        """What this node knows of the ledger's requests; for the thread of the store alone."""
        return self._book

    async def serve(self) -> None:
        """Slice after slice, until cancelled."""
        settle_s = min(float(SETTLE_S), self._charter.slice_s / 4)
        while True:
            slice_ = self._charter.slice_at(self._clock())
            begins_s = float(self._charter.epoch + slice_ * self._charter.slice_s)
            try:
                if slice_ != self._slice and self._clock() < begins_s + settle_s:
                    turn_s = settle_s * TURNS_PERMILLE * turn_permille(slice_, self._node) / 1e6
                    await self._until(begins_s + turn_s)
                    await self._decide(slice_)
                await self._until(begins_s + settle_s)
                if slice_ == self._slice:
                    self._held = await self._ledger.read(partial(self._book.held, slice_=slice_))
                    await self._keep_seen()
                    if self._on_held is not None:
                        requests = self._book.activity.requests
                        await self._on_held([requests[id_] for id_ in self._held if id_ in requests])
                await self._until(begins_s + self._charter.slice_s)
            except Exception as error:  # whatever it is, the next slice is decided on again
                self._last, self._held = None, None
                self._words = f"nothing is decided: {error.message if isinstance(error, UbcpError) else repr(error)}"
                log.error("%s", self._words, exc_info=not isinstance(error, UbcpError))
                await self._sleep(min(RETRY_S, settle_s))

    async def _until(self, moment_s: float) -> None:
        """Sleep; in steps, because the clock may be set meanwhile."""
        while (left_s := moment_s - self._clock()) > 0:  # no event tells of the time
            await self._sleep(min(left_s, CLOCK_S))

    async def _keep_seen(self) -> None:
        """When requests came, for the next start. What cannot be written costs no slice."""
        seen = await self._ledger.read(lambda _: dict(self._book.first_seen))
        if seen == self._kept:
            return
        try:
            await asyncio.to_thread(keep_seen, self._seen_file, self._ledger.charters.network, seen)
            self._kept = seen
        except UbcpError as error:
            log.error("%s", error.message)

    async def _decide(self, slice_: int) -> None:
        """Once a slice, also over restarts: what this node has said of a slice stays said."""
        offer = self._offer(slice_)
        carried = self._last[1].reserve_unused if self._last is not None and self._slice == slice_ - 1 else 0
        before = await self._ledger.read(lambda store: self._book.decided(store, slice_))
        self._slice, self._held, self._last = slice_, None, None
        if before:
            self._words = await self._go_on(before)
            return
        if offer is None:
            verdict = self._keeper.verdict
            why = verdict.words if verdict is not None else "its owner's rules were not read yet"
            if verdict is not None and verdict.works:
                why = "its owner's hours end before this slice"
            self._words = f"serves nobody now: {why}"
            return
        if not await self._ledger.read(partial(self._book.counts, slice_=slice_)):
            self._words = "serves nobody now: its owner's account is not enrolled, so that its leases would not count"
            return
        whole = offer.carrying(carried)
        problem = await self._ledger.read(lambda store: self._book.problem(store, slice_, whole))
        decision = await asyncio.to_thread(decide, problem)
        self._last = problem, decision
        if not problem.asks:
            self._words = "nobody asks for this slice"
            return
        self._words = await self._publish(problem, decision)

    async def _go_on(self, before: list[DecisionBody]) -> str:
        """After a restart in mid-slice: what was decided stays, and what was not told of it yet is told."""
        blob = await self._ledger.read(lambda store: store.blob(before[0].inputs))
        if blob is None:
            return "decided before this node was started again"
        problem = decode_problem(blob)
        decision = await asyncio.to_thread(decide, problem)
        self._last = problem, decision
        told = {id_ for body in before for id_ in body.accepted}
        if missing := [id_ for id_ in decision.accepted if id_ not in told]:
            await self._tell(decision, missing, before[0].inputs)
        return "decided before this node was started again"

    def _offer(self, slice_: int) -> Offer | None:
        """What there is to give in this slice; None when the owner's rules say no."""
        verdict, rules = self._keeper.verdict, self._keeper.rules
        charter = self._ledger.charters.at(slice_ // self._charter.period_slices)
        whole = min(AMOUNT_MAX, speed_of(self._config, charter) * charter.slice_s)
        if verdict is None or not verdict.works:
            return None
        budget = given(whole, self._charter.epoch + slice_ * charter.slice_s, charter.slice_s, verdict)
        if not budget:
            return None
        carbon, forecast = self._carbon(slice_)
        return Offer(
            node=self._node,
            budget=budget,
            budget_max=whole * rules.share_permille // 1000,
            refuse_purposes=rules.purposes_refused,
            refuse_runs=rules.runs_refused,
            carbon=carbon,
            forecast=forecast,
        )

    def _carbon(self, slice_: int) -> tuple[int | None, tuple[Slot, ...]]:
        begins = self._charter.epoch + slice_ * self._charter.slice_s
        try:
            found = self._keeper.grid.intensity(begins, begins + self._charter.slice_s)
        except CarbonUnknown:
            return None, ()
        return found.g_per_kwh, found.forecast

    async def _publish(self, problem: Problem, decision: Decision) -> str:
        """Keep the inputs, sign and tell the decision; what became of it, in words."""
        if not await self._ledger.may_write():  # a draft would be signed when the slice is over
            return "decided, and not told: this node may not sign yet (see the ledger's words)"
        # What was a draft a moment ago may be signed by now: a second decision would be a fault (SPEC §6.4).
        if before := await self._ledger.read(partial(self._book.decided, slice_=decision.slice)):
            return await self._go_on(before)
        await self._ledger.forget(await self._ledger.read(partial(self._book.outdated, slice_=decision.slice)))
        inputs = await self._ledger.keep(encode_problem(problem))
        await self._tell(decision, decision.accepted, inputs)
        charter = self._ledger.charters.at(decision.slice // self._charter.period_slices)
        self._carbon_book.note(charter, problem, decision)
        return f"decided: {len(decision.accepted)} of {len(problem.asks)} accepted"

    async def _tell(self, decision: Decision, accepted: Sequence[bytes], inputs: bytes) -> None:
        """In as many entries as it takes, one at least."""
        for first in range(0, max(1, len(accepted)), ACCEPTED_MAX):
            part = tuple(accepted[first : first + ACCEPTED_MAX])
            body = DecisionBody(decision.slice, decision.budget, decision.granule, part, decision.refused, inputs)
            if await self._ledger.write(body) is None:
                raise StoreError("a decision was kept as a draft: this node is not sure of its own chain any more")

    # -- for people -----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """JSON for `ubcp status`."""
        begins = self._charter.epoch + self._slice * self._charter.slice_s
        outcomes, carbon = self._outcomes(), self._carbon_book.savings
        accepted = [each for each in outcomes if each[2].accepted]
        given = [self._row(*each) for each in accepted[:SHOWN]]
        waiting = sorted((each for each in outcomes if not each[2].accepted), key=_by_queue)[:SHOWN]
        held = None if self._held is None else {id_.hex() for id_ in self._held}
        return {
            "words": self._words,
            "notes": self._notes,
            "slice": self._slice if self._slice >= 0 else None,
            "begins": _moment(begins) if self._slice >= 0 else None,
            "ends": _moment(begins + self._charter.slice_s) if self._slice >= 0 else None,
            "budget": self._last[1].budget if self._last is not None else 0,
            "used": self._last[1].used if self._last is not None else 0,
            "settled": self._held is not None,
            "held": [id_.hex() for id_ in self._held or ()],
            "leases": [row for row in given if held is None or row["request"] in held],
            "freed": [row for row in given if held is not None and row["request"] not in held],
            "waiting": [self._row(*each) for each in waiting],
            "waiting_in_all": len(outcomes) - len(accepted),
            "carbon": {"emitted_mg": carbon.emitted_mg, "saved_mg": carbon.saved_mg, "words": carbon.words},
        }

    def _outcomes(self) -> list[tuple[Problem, Ask, Outcome]]:
        if self._last is None:
            return []
        problem, decision = self._last
        return [(problem, ask, one) for ask, one in zip(problem.asks, decision.outcomes, strict=True)]

    def _row(self, problem: Problem, ask: Ask, outcome: Outcome) -> dict[str, Any]:
        asked: Asked | None = self._book.activity.requests.get(ask.id)
        return {
            "request": ask.id.hex(),
            "run": asked.body.run if asked is not None else None,
            "account": ask.applicant.hex(),
            "purpose": ask.purpose,
            "accepted": outcome.accepted,
            "reason": str(outcome.reason),
            "explain": explain(problem, ask, outcome),
            "units": outcome.units,
            "queue": outcome.queue or None,
            "expected_wait_s": None if outcome.accepted else outcome.wait_s,
        }


def _by_queue(each: tuple[Problem, Ask, Outcome]) -> tuple[bool, int]:
    return not each[2].queue, each[2].queue


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
