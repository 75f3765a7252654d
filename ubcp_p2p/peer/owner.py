"""The owner's rules in the running node: looked at every few seconds and at once after a command; the runs obey."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, Final

from ubcp_p2p.carbon.values import CarbonUnknown, Intensity
from ubcp_p2p.errors import NetworkError, UbcpError
from ubcp_p2p.owner.values import NOT_ASKED, Block, Cause, Manner, Pause, Readings, Unreadable, Verdict
from ubcp_p2p.owner.verdict import verdict
from ubcp_p2p.peer.config import PeerConfig
from ubcp_p2p.peer.grid import grid_of
from ubcp_p2p.peer.pause import begin_pause, end_pause, keep_pause, read_pause
from ubcp_p2p.peer.profile import Profile
from ubcp_p2p.sensors.machine import Machine

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
CARBON_SPAN_S: Final = 900  # what is asked of the grid: the mean of the next quarter of an hour


class Keeper:
    """Keeps the present verdict. `machine` is this very one but in tests."""

    def __init__(self, profile: Profile, config: PeerConfig, machine: Machine | None = None) -> None:
        """Raises ConfigError or LocalIOError for a carbon schedule that cannot be used."""
        self.rules = config.owner.rules()
        self.grid = grid_of(profile, config.carbon)
        self.verdict: Verdict | None = None
        self.readings = Readings()
        self.trouble: str | None = None
        self._file = profile.pause_file
        self.machine = machine or Machine(config.training.device)
        self._refresh_every_s = config.carbon.api_minutes * 60.0
        self._poked = asyncio.Event()
        self._looking = asyncio.Lock()
        try:
            self._pause = read_pause(self._file)
        except UbcpError as error:  # somebody wanted a pause: nothing is done against that
            self._pause, self.trouble = Pause(int(time.time())), error.message
            log.error("%s", error.message)

    async def serve(self, obey: Callable[[Verdict], None]) -> None:
        """Look again and again, and tell each verdict, until cancelled."""
        refreshing = asyncio.create_task(self._keep_refreshing())
        try:
            while True:
                self._poked.clear()
                found = await self.look()
                try:
                    obey(found)
                except Exception:  # the next look tries again: rules that are no longer kept must not go unsaid
                    log.exception("the owner's rules could not be obeyed")
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._poked.wait()
                except TimeoutError:
                    pass
        finally:
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)

    def poke(self) -> None:
        """Something has changed: look again now."""
        self._poked.set()

    async def look(self) -> Verdict:
        """Read the machine and judge. Whatever fails is said, and stops the work."""
        async with self._looking:
            before = self.verdict
            try:
                self.readings = await asyncio.to_thread(self._read)
                memory = {} if before is None else {"memory": before.memory}
                found = verdict(int(time.time()), self.readings, self.rules, self._pause, **memory)
            except Exception as error:
                log.exception("the owner's rules could not be looked at")
                words = f"the owner's rules could not be looked at ({error!r}); the log has the traceback"
                found = Verdict(
                    False, self.rules.share_permille, words, None, (Block(Cause.PAUSE, words, Manner.EARLY),)
                )
            self.verdict = found
            if before is None or (before.works, _causes(before)) != (found.works, _causes(found)):
                log.info("%s", found.words)
            return found

    async def pause(self, hours: float | None, after_round: bool) -> Verdict:
        """Begin a pause, in the place of one that there is. Raises ConfigError, LocalIOError."""
        pause = begin_pause(int(time.time()), hours, after_round)
        keep_pause(self._file, pause)
        return await self._changed(pause)

    async def resume(self) -> Verdict:
        """End the pause; the other rules still hold. Raises LocalIOError."""
        end_pause(self._file)
        return await self._changed(None)

    async def _changed(self, pause: Pause | None) -> Verdict:
        self._pause, self.trouble = pause, None
        return await self.look()

    def status(self) -> dict[str, Any]:
        """JSON for people and programs."""
        found, pause = self.verdict, self._pause
        return {
            "works": found is not None and found.works,
            "share_permille": found.share_permille if found is not None else self.rules.share_permille,
            "words": found.words if found is not None else "the owner's rules have not been looked at yet",
            "until": _moment(found.until) if found is not None else None,
            "causes": _causes(found) if found is not None else [],
            "pause": None
            if pause is None
            else {"since": _moment(pause.since), "until": _moment(pause.until), "after_round": pause.after_round},
            "readings": _told(self.readings),
            "trouble": self.trouble,
        }

    def _read(self) -> Readings:
        readings = self.machine.read(self.rules)
        return replace(readings, carbon=self._carbon()) if self.rules.g_per_kwh_max else readings

    def _carbon(self) -> Intensity | Unreadable:
        now = int(time.time())
        try:
            return self.grid.intensity(now, now + CARBON_SPAN_S)
        except CarbonUnknown as error:
            return Unreadable(error.message)

    async def _keep_refreshing(self) -> None:
        while self.grid.api is not None:
            try:
                await asyncio.to_thread(self.grid.api.refresh)
                self.poke()
            except NetworkError as error:
                log.warning("the carbon API at %s: %s", self.grid.api.name, error.message)
            await asyncio.sleep(self._refresh_every_s)


def _causes(found: Verdict) -> list[str]:
    return [block.cause.value for block in found.blocks]


def _moment(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _told(readings: Readings) -> dict[str, Any]:
    """Each reading that a rule asks for: its value, or why there is none."""
    told: dict[str, Any] = {}
    for field in fields(readings):
        value = getattr(readings, field.name)
        if isinstance(value, Intensity):
            told[field.name] = {"g_per_kwh": value.g_per_kwh, "source": value.source, "note": value.note}
        elif isinstance(value, Unreadable):
            if value != NOT_ASKED:
                told[field.name] = {"unreadable": value.why}
        else:
            told[field.name] = value
    return told
