"""What this node opens of its trails of one run: made once, when a check is drawn, and kept on disk for who may ask.

The trainer forgets a trail after two rounds, and with its own end. The validator may come later than that, a paymaster
that had no word of the validator later still; so what is drawn is opened at once, and outlives trainer, lease and node.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ubcp_p2p.codec import decode, encode, hash_of, items
from ubcp_p2p.errors import TrainingError, UbcpError
from ubcp_p2p.files import atomic_write, read_limited
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.openings import Openings
from ubcp_p2p.training.ends import WHOLE
from ubcp_p2p.training.opening import Opening
from ubcp_p2p.training.points import Shape

log = logging.getLogger(__name__)

KEPT_MAX: Final = 64  # stretches on disk
KNOWN_MAX: Final = 256  # those that are being opened among them
KEPT_BYTES_MAX: Final = 1 << 30  # the newest is kept if it alone is more
ASKERS_MAX: Final = 64
ASKERS_BYTES_MAX: Final = 4096
ASKS_MAX: Final = 8  # of one peer for one stretch: three ends, and a connection may break; but an opening is long
_NAME: Final = re.compile(r"([0-9a-f]{64})-(\d{1,7})\.askers")

Place = tuple[bytes, int]  # (trail, stretch)
Make = Callable[[bytes, int], Awaitable[bytes]]


@dataclass
class _Opened:
    """A stretch that others may ask for. making: while the trainer opens it; asked: how often each has."""

    askers: frozenset[bytes]
    making: asyncio.Task[None] | None = None
    asked: Counter[bytes] = field(default_factory=Counter)


class Shown:
    """`open` once, `close` at the node's end: a run that was left is answered for all the same.

    shape: of this run's openings. folder: made by `open`.
    """

    def __init__(self, network: Network, run_id: bytes, shape: Shape, folder: Path) -> None:
        self.openings = Openings(network, run_id, shape.bytes_max(), self._read, self._may_ask)
        self._shape, self._folder = shape, folder
        self._opened: dict[Place, _Opened] = {}  # the oldest first

    async def open(self) -> None:
        """Begin to answer; also for what an earlier life of the node has opened."""
        self._opened = await asyncio.to_thread(self._load)
        await self.openings.open()

    async def close(self) -> None:
        """Stop answering."""
        await self.openings.close()
        making = [opened.making for opened in self._opened.values() if opened.making is not None]
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)

    def show(self, trail: bytes, stretches: Collection[int], askers: Collection[bytes], make: Make) -> None:
        """Open these stretches to these peers from now on. make: as TrainerProcess.open, asked once for each."""
        for stretch in stretches:
            place = trail, stretch
            if place not in self._opened:
                opened = self._opened[place] = _Opened(frozenset(sorted(askers)[:ASKERS_MAX]))
                opened.making = asyncio.create_task(self._make(place, opened, make))
        while len(self._opened) > KNOWN_MAX:
            del self._opened[next(iter(self._opened))]

    async def _make(self, place: Place, opened: _Opened, make: Make) -> None:
        try:
            data = await make(*place)
            await asyncio.to_thread(self._keep, place, opened.askers, data)
        except (UbcpError, OSError) as error:
            log.warning("a stretch that others may ask for cannot be opened: %s", error)
            self._opened.pop(place, None)
        finally:
            opened.making = None

    async def _read(self, trail: bytes, stretch: int, end: bytes) -> bytes:
        """Raises TrainingError where there is nothing to open."""
        opened = self._opened.get((trail, stretch))
        if opened is not None and opened.making is not None:
            await asyncio.wait([opened.making])
        path = self._path((trail, stretch), "opening")

        def read() -> bytes:
            data = read_limited(path, bytes_max=self._shape.bytes_max())
            return data if end == WHOLE else Opening.from_bytes(data, self._shape).as_asked(end).to_bytes()

        try:
            return await asyncio.to_thread(read)
        except (UbcpError, OSError) as error:
            raise TrainingError(f"the opening is gone: {error}") from None

    def _may_ask(self, peer: bytes, trail: bytes, stretch: int) -> bool:
        opened = self._opened.get((trail, stretch))
        if opened is None or peer not in opened.askers or opened.asked[peer] >= ASKS_MAX:
            return False
        opened.asked[peer] += 1
        return True

    # -- the folder -----------------------------------------------------------------------------------------------

    def _path(self, place: Place, kind: str) -> Path:
        return self._folder / f"{place[0].hex()}-{place[1]}.{kind}"

    def _keep(self, place: Place, askers: frozenset[bytes], data: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(self._path(place, "opening"), data)
        atomic_write(self._path(place, "askers"), encode(sorted(askers)))
        self._make_room()

    def _make_room(self) -> None:
        files = sorted(self._folder.glob("*.opening"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        total = 0
        for number, path in enumerate(files):
            total += path.stat().st_size
            if number and (number >= KEPT_MAX or total > KEPT_BYTES_MAX):
                path.with_suffix(".askers").unlink(missing_ok=True)
                path.unlink(missing_ok=True)

    def _load(self) -> dict[Place, _Opened]:
        found: dict[Place, _Opened] = {}
        if not self._folder.is_dir():
            return found
        for path in sorted(self._folder.glob("*.askers"), key=lambda path: path.stat().st_mtime_ns):
            name = _NAME.fullmatch(path.name)
            if name is None:
                continue
            try:
                rows = items(
                    decode(read_limited(path, bytes_max=ASKERS_BYTES_MAX), bytes_max=ASKERS_BYTES_MAX), ASKERS_MAX
                )
                found[bytes.fromhex(name[1]), int(name[2])] = _Opened(frozenset(hash_of(row) for row in rows))
            except UbcpError as error:
                log.warning("%s is not answered for: %s", path, error.message)
        return found
