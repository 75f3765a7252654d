"""A contributor's files: the newest voucher of each REQUEST, and what is owed beyond it."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from ubcp_p2p.codec import decode, encode
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.files import atomic_write, read_limited
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.entry import ZERO
from ubcp_p2p.peer.paying.owed import OWED_BYTES_MAX, Owed
from ubcp_p2p.peer.paying.wire import Promise
from ubcp_p2p.swarm.addresses import short

log = logging.getLogger(__name__)

PROMISE_BYTES_MAX: Final = 1024
_VOUCHER: Final = "voucher"
_OWED: Final = "owed"


class Shelf:
    """folder: a paymaster's tabs may lie there, too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Make the folder."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def requests(self) -> set[bytes]:
        """Those that something is kept of; a name that is none of ours is left alone."""
        found = set()
        for path in (path for kind in (_VOUCHER, _OWED) for path in self._folder.glob(f"*.{kind}")):
            with suppress(ValueError):
                if len(request := bytes.fromhex(path.stem)) == len(ZERO):
                    found.add(request)
        return found

    def keep_promise(self, request: bytes, promise: Promise) -> None:
        """Raises LocalIOError."""
        atomic_write(self._path(request, _VOUCHER), encode(promise.to_value()))

    def keep_owed(self, request: bytes, data: bytes) -> None:
        """Raises LocalIOError."""
        atomic_write(self._path(request, _OWED), data)

    def promise(self, asked: Asked) -> Promise | None:
        """The newest voucher; None where there is none, or none that can be read."""
        path = self._path(asked.id, _VOUCHER)
        if not path.exists():
            return None
        try:
            data = read_limited(path, bytes_max=PROMISE_BYTES_MAX)
            return Promise.of(decode(data, bytes_max=PROMISE_BYTES_MAX))
        except UbcpError as error:
            log.warning("the voucher of %s by %s cannot be read: %s", asked.body.run, short(asked.author), error)
            return None

    def recall(self, job: Owed, now_s: float, unix_s: float) -> None:
        """What was owed when the node ended; nothing where that cannot be read."""
        path = self._path(job.asked.id, _OWED)
        if not path.exists():
            return
        try:
            job.recall(read_limited(path, bytes_max=OWED_BYTES_MAX), now_s, unix_s)
        except UbcpError as error:
            log.warning("what was owed for %s cannot be read: %s", job.asked.body.run, error.message)

    def forget(self, request: bytes) -> None:
        """Remove all that is kept of a REQUEST."""
        for kind in (_VOUCHER, _OWED):
            path = self._path(request, kind)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s is not removed: %s", path, error.strerror)

    def _path(self, request: bytes, kind: str) -> Path:
        return self._folder / f"{request.hex()}.{kind}"
