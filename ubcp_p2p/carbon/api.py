"""An optional source: one JSON document from a URL that the owner has written into the configuration.

    {"slots": [{"start": "2026-11-27T03:00:00Z", "end": "2026-11-27T04:00:00Z", "g_per_kwh": 120}, …]}

Slots ascend and do not overlap. Other keys of the document are not looked at. Redirects are not followed: they would
lead to another place than the one that was written down.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ubcp_p2p import __version__
from ubcp_p2p.carbon.values import (
    G_PER_KWH_MAX,
    SLOTS_MAX,
    TIME_MAX,
    CarbonUnknown,
    Intensity,
    Slot,
    is_in_order,
    mean,
)
from ubcp_p2p.errors import NetworkError

URL_CHARS_MAX: Final = 2048
BYTES_MAX: Final = 512 << 10  # 2,000 slots have about 200 KiB
FETCH_S: Final = 10.0  # for the whole answer
KEEP_S: Final = 24 * 3600  # an answer older than this is not used, whatever hours its slots are for
_CHUNK: Final = 16 << 10


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True)

    start: AwareDatetime
    end: AwareDatetime
    g_per_kwh: Annotated[int, Field(ge=0, le=G_PER_KWH_MAX, strict=True)]


class _Document(BaseModel):
    slots: Annotated[list[_Row], Field(min_length=1, max_length=SLOTS_MAX)]


def check_url(text: str) -> SplitResult:
    """The parts of a URL that may be asked: https, or http to this very machine. Raises ValueError in words."""
    if len(text) > URL_CHARS_MAX or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"should be a URL of at most {URL_CHARS_MAX} printable ASCII characters")
    parts = urlsplit(text)
    host = parts.hostname
    if not host or parts.scheme not in ("https", "http"):
        raise ValueError("should begin with https:// and name a host")
    if parts.username is not None or parts.fragment:
        raise ValueError("should have no user name and no #fragment")
    if not 0 < (parts.port if parts.port is not None else 1) <= 65535:
        raise ValueError("should have a port from 1 to 65535")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError("should begin with https://: plain http is for a server on this machine")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Api:
    """A provider that answers from the last document; `refresh` gets a new one. `clock` gives Unix seconds."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time, timeout_s: float = FETCH_S) -> None:
        """Raises ValueError for a URL that may not be asked."""
        self._parts = check_url(url)
        self._clock = clock
        self._timeout_s = timeout_s
        self._slots: tuple[Slot, ...] = ()
        self._fetched = 0
        self._trouble = "it has not answered yet"

    @property
    def name(self) -> str:
        """The host alone: the rest of a URL may hold a key."""
        return str(self._parts.hostname)

    def refresh(self) -> None:
        """Ask once; blocks for at most about `timeout_s`. Raises NetworkError; the last good answer then stays."""
        try:
            self._slots = parse(_get(self._parts, self._timeout_s))
            self._fetched, self._trouble = int(self._clock()), ""
        except NetworkError as error:
            self._trouble = error.message
            raise

    def intensity(self, start: int, end: int) -> Intensity:
        fresh = self._slots if self._clock() - self._fetched < KEEP_S else ()
        grams = mean(fresh, start, end)
        if grams is None:
            why = self._trouble or "its answer says nothing of this time"
            raise CarbonUnknown(f"the carbon API at {self.name}: {why}")
        ahead = tuple(slot for slot in fresh if slot.end > start)
        note = f"its last answer is used: {self._trouble}" if self._trouble else ""
        return Intensity(grams, "api", f"the carbon API at {self.name}", ahead, note)


def parse(data: bytes) -> tuple[Slot, ...]:
    """The slots of a document. Raises NetworkError in words."""
    try:
        document = _Document.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"]) or "the document"
        raise NetworkError(f"its answer is not what docs/owner.md says: {place}: {fault['msg']}") from None
    slots = []
    for number, row in enumerate(document.slots):
        start, end = _seconds(row.start), _seconds(row.end)
        if not 0 <= start < end <= TIME_MAX:
            raise NetworkError(f"its answer is not what docs/owner.md says: slots.{number} ends before it begins")
        slots.append(Slot(start, end, row.g_per_kwh))
    if not is_in_order(slots):
        raise NetworkError("its answer is not what docs/owner.md says: its slots overlap, or do not ascend")
    return tuple(slots)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _get(parts: SplitResult, timeout_s: float) -> bytes:
    import http.client  # these cost every command 30 ms, and few nodes ask anybody
    import socket
    import ssl

    assert parts.hostname is not None
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    over = threading.Event()
    made: socket.socket | None = None  # the connection forgets its own when the server says that it will close

    def cut() -> None:
        """A socket's own limit begins anew with each byte: whoever sends one now and then would never reach it."""
        over.set()
        if made is not None:
            with suppress(OSError):  # closed by then
                socket.socket.shutdown(made, socket.SHUT_RDWR)  # TLS's own takes the reader's state away under it

    watchdog = threading.Timer(timeout_s, cut)
    watchdog.daemon = True
    watchdog.start()
    try:
        connection.connect()
        made = connection.sock
        if over.is_set():
            raise TimeoutError
        connection.request("GET", target, headers={"Accept": "application/json", "User-Agent": f"ubcp/{__version__}"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise NetworkError(f"it answered {answer.status}")
        data = b""
        while chunk := answer.read1(_CHUNK):
            data += chunk
            if len(data) > BYTES_MAX:
                raise NetworkError(f"its answer has more than {BYTES_MAX} bytes")
        if over.is_set():  # what has come may be a part
            raise TimeoutError
        return data
    except (OSError, http.client.HTTPException) as error:
        if over.is_set() or isinstance(error, TimeoutError):
            raise NetworkError(f"it did not answer within {timeout_s:g} s") from None
        # an HTTPException quotes what was sent, by whoever answered
        why = "" if isinstance(error, http.client.HTTPException) else str(error)
        raise NetworkError(f"it cannot be asked: {why or type(error).__name__}") from None
    finally:
        watchdog.cancel()
        connection.close()
