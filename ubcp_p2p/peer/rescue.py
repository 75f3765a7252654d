"""Fetches the models that this account pays for before those who train them go: in time, and without being asked.

A contributor leaves when its lease ends. So a copy is taken as soon as there is one, then each time that what is left
of the run's time or credits has halved (asking/paid.py), and when its last round is made.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.models.recipe import run_id
from ubcp_p2p.peer.asking.paid import PaidRun, halvings
from ubcp_p2p.swarm import directory

if TYPE_CHECKING:
    from ubcp_p2p.peer.asking.desk import Desk
    from ubcp_p2p.peer.fetching import Fetcher
    from ubcp_p2p.swarm.network import Network

log = logging.getLogger(__name__)

LOOK_S: Final = 10.0
LOOKS_PER_SLICE: Final = 8  # where slices are short
AGAIN_S: Final = 30.0  # after one that failed; two looks where slices are short
AFTER_SLICES: Final = 2  # contributors that the end of their leases has not reached yet may still be there


class _Done(NamedTuple):
    """halvings: at which the newest copy was taken. again_s: monotonic, not to be tried before."""

    halvings: int
    again_s: float
    ended: bool = False


class Rescue:
    """`serve` for the life of the daemon. promised: of one REQUEST, µcredits by now. clock: Unix seconds."""

    def __init__(
        self, network: Network, fetcher: Fetcher, desk: Callable[[], Desk | None], promised: Callable[[bytes], int],
        *, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._network, self._fetcher, self._desk, self._promised, self._clock = network, fetcher, desk, promised, clock
        self._done: dict[bytes, _Done] = {}

    async def serve(self) -> None:
        """Until cancelled."""
        while (desk := self._desk()) is not None:
            try:
                await self.look(await desk.paid(), desk.slice_s)
            except UbcpError as error:
                log.info("no model is fetched now: %s", error.message)
            await asyncio.sleep(_look_s(desk.slice_s))

    async def look(self, runs: Iterable[PaidRun], slice_s: int) -> None:
        """Fetch what is due."""
        now_s = self._clock()
        earned = [run for run in runs if run.earners and now_s < run.end_s + AFTER_SLICES * slice_s]
        open_ = [run for run in earned if not self._done.get(_id(run), _Done(-1, 0.0)).ended]
        for run in open_:
            await self._look(run, now_s, min(AGAIN_S, 2 * _look_s(slice_s)))

    async def _look(self, run: PaidRun, now_s: float, pause_s: float) -> None:
        id_ = _id(run)
        last = self._done.get(id_, _Done(-1, 0.0))
        if time.monotonic() < last.again_s:
            return
        reached = halvings(run, now_s, sum(self._promised(request) for request in run.requests))
        try:
            if not (reached > last.halvings or await self._has_ended(run)):
                return
            recipe = await self._fetcher.recipe(run.recipe, run.name)
            kept = await self._fetcher.copy(self._fetcher.sought(run.name, recipe, [], run), lambda _: None)
        except UbcpError as error:
            log.info("the model of %s is not fetched yet: %s", run.name, error.message)
            self._done[id_] = last._replace(again_s=time.monotonic() + pause_s)
            return
        self._done[id_] = _Done(reached, 0.0, ended=kept["round"] >= kept["rounds"])

    async def _has_ended(self, run: PaidRun) -> bool:
        """Whether one of those who earn with it says so. Raises NetworkError."""
        claims = await directory.lookup(self._network, run.name, run.earners)
        return any(entry.run_id == _id(run) and entry.round >= entry.rounds for _, entry in claims)


def _look_s(slice_s: int) -> float:
    return min(LOOK_S, slice_s / LOOKS_PER_SLICE)


def _id(run: PaidRun) -> bytes:
    return run_id(run.name, run.recipe)
