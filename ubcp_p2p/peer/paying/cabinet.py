"""What a paymaster has on disk of rounds that wait for a check, and evidence: its own, and what validators send.

The bill of such a round is a `*.bill` file. What a validator sends is a `*.coming` file, taken in within limits, until
it is verified; then it is renamed to its hash, or deleted. No upload can push out what a tab names as a proof.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.errors import LocalIOError
from ubcp_p2p.files import atomic_write, read_limited, sync_dir
from ubcp_p2p.peer.paying.bill import BILL_BYTES_MAX, Bill
from ubcp_p2p.peer.paying.holding import Stage
from ubcp_p2p.peer.paying.report import EVIDENCE_BYTES_MAX, Report
from ubcp_p2p.peer.paying.tab import NotYet
from ubcp_p2p.swarm.exchange import LINK_BYTES_PER_S_MIN
from ubcp_p2p.swarm.frames import DeadlineExceeded
from ubcp_p2p.swarm.openings import STALL_S

if TYPE_CHECKING:
    from ubcp_p2p.swarm.frames import Stream

UPLOADS_MAX: Final = 8  # at one time
UPLOADS_EACH_MAX: Final = 2  # of one validator, or a slow one would keep the others out
COMING_MAX: Final = 16  # files that are here or on their way: of 512 MiB each, 8 GiB
PIECE_BYTES: Final = 4 << 20  # in memory


class Place(NamedTuple):
    """Which round a file is about."""

    request: bytes
    node: bytes
    round: int


class Cabinet:
    """folder: made when the first file comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._coming: set[Place] = set()  # on the disk, or on their way there
        self._under_way: Counter[bytes] = Counter()  # by validator

    @contextmanager
    def room(self, place: Place, validator: bytes) -> Iterator[None]:
        """For one upload, while it is under way. Raises NotYet."""
        if place in self._coming:
            raise NotYet("evidence about that round is coming already")
        if len(self._coming) >= COMING_MAX or self._under_way.total() >= UPLOADS_MAX:
            raise NotYet("as much evidence as this node takes in waits already; ask again")
        if self._under_way[validator] >= UPLOADS_EACH_MAX:
            raise NotYet(f"{UPLOADS_EACH_MAX} uploads of this validator are under way already; ask again")
        self._coming.add(place)
        self._under_way[validator] += 1
        try:
            yield
        finally:
            self._under_way[validator] -= 1
            self._under_way += Counter()  # forget who has none

    async def receive(self, place: Place, stream: Stream, report: Report) -> None:
        """What the report names, to the disk. Raises MalformedMessage, NetworkError, LocalIOError."""
        whole_s = STALL_S + report.size / LINK_BYTES_PER_S_MIN
        digest, left = hashlib.sha256(), report.size
        try:
            made = await asyncio.to_thread(self._create, place)
            with made as file, memoryview(bytearray(PIECE_BYTES)) as buffer:
                async with asyncio.timeout(whole_s):
                    while left:
                        piece = buffer[: min(left, PIECE_BYTES)]
                        await stream.receive_block(piece, stall_s=STALL_S)
                        digest.update(piece)
                        await asyncio.to_thread(file.write, piece)
                        left -= len(piece)
                if digest.digest() != report.evidence:
                    raise MalformedMessage("the evidence does not have the hash that was reported")
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
        except TimeoutError:
            raise DeadlineExceeded(f"the evidence did not arrive within {whole_s:.0f} s") from None
        except OSError as error:
            raise LocalIOError(f"cannot keep evidence: {error.strerror or error}") from None

    def _create(self, place: Place) -> BinaryIO:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open(self.coming(place), "wb", opener=_private)

    def read(self, place: Place, evidence: bytes) -> bytes | None:
        """What waits to be verified, or was found to convict just before a restart; None where it is gone.

        Raises LocalIOError.
        """
        for path in (self.coming(place), self.kept(evidence)):
            try:
                return read_limited(path, bytes_max=EVIDENCE_BYTES_MAX)
            except FileNotFoundError:
                continue
        return None

    def put_bill(self, place: Place, bill: bytes) -> None:
        """Raises LocalIOError."""
        self._put(self._file(place, "bill"), bill)

    def bill(self, place: Place, run_id: bytes, *, members_max: int) -> Bill | None:
        """None where it is gone, or was damaged. Raises LocalIOError."""
        try:
            data = read_limited(self._file(place, "bill"), bytes_max=BILL_BYTES_MAX)
            return Bill.from_bytes(data, run_id, members_max=members_max)
        except (FileNotFoundError, MalformedMessage):
            return None

    def put_own(self, blob: bytes) -> bytes:
        """Evidence that was made here, kept for good; its hash. Raises LocalIOError."""
        digest = hashlib.sha256(blob).digest()
        self._put(self.kept(digest), blob)
        return digest

    def put_coming(self, place: Place, blob: bytes) -> bytes:
        """Evidence that was made here and is to be judged again; its hash. Raises NotYet, LocalIOError."""
        if place in self._coming or len(self._coming) >= COMING_MAX:
            raise NotYet("as much evidence as this node takes in waits already")
        self._put(self.coming(place), blob)
        self._coming.add(place)
        return hashlib.sha256(blob).digest()

    def _put(self, path: Path, data: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(path, data)

    def keep(self, place: Place, evidence: bytes) -> None:
        """It convicts: kept under its hash from now on. Raises LocalIOError."""
        try:
            os.replace(self.coming(place), self.kept(evidence))
            sync_dir(self._folder)
        except FileNotFoundError:
            pass  # kept before a restart
        except OSError as error:
            raise LocalIOError(f"cannot keep evidence: {error.strerror}") from None
        self._coming.discard(place)

    def drop(self, place: Place) -> None:
        """The round waits no more: nothing of it is needed."""
        self.drop_coming(place)
        self._file(place, "bill").unlink(missing_ok=True)

    def drop_coming(self, place: Place) -> None:
        """Evidence that was none, or that is needed no more."""
        self.coming(place).unlink(missing_ok=True)
        self._coming.discard(place)

    def sweep(self, wanted: Mapping[Place, Stage]) -> None:
        """At the start: of rounds that wait still, which are `wanted`, files are needed, and no others.

        Evidence that no tab has taken in may be a half: its validator sends it again.
        """
        bills = {self._file(place, "bill") for place in wanted}
        for path in self._folder.glob("*.bill"):
            if path not in bills:
                path.unlink(missing_ok=True)
        names = {self.coming(place): place for place, stage in wanted.items() if stage == Stage.EVIDENCE}
        for path in self._folder.glob("*.coming"):
            if path in names:
                self._coming.add(names[path])
            else:
                path.unlink(missing_ok=True)

    def coming(self, place: Place) -> Path:
        """Of evidence that is to be verified."""
        return self._file(place, "coming")

    def _file(self, place: Place, kind: str) -> Path:
        name = hashlib.sha256(place.request + place.node + place.round.to_bytes(8, "big")).hexdigest()
        return self._folder / f"{name}.{kind}"

    def kept(self, evidence: bytes) -> Path:
        """Where evidence with this hash lies, if it has convicted."""
        return self._folder / f"{evidence.hex()}.evidence"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
