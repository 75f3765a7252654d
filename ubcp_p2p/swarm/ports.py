"""The ports that the system chose where the configuration says 0, kept: addresses that others remember stay good.

The file is a convenience and may be deleted.
"""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from ubcp_p2p.errors import LocalIOError, UbcpError
from ubcp_p2p.files import atomic_write, read_limited

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 64 * 1024  # 32 addresses of 256 characters
ADDRESSES_MAX = 32
_TCP = re.compile(r"/(ip4|ip6)/([^/]+)/tcp/([0-9]+)((?:/wss?)?)")
_ANY_HOST = ("0.0.0.0", "::")  # noqa: S104  # read from the configuration, not bound here
_FAMILIES = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6}


class Ports:
    """Address with port 0 → the port it had last. With `path` None the memory ends with the process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known = _read(path) if path is not None else {}

    def last(self, listen: Sequence[str]) -> tuple[str, ...]:
        """`listen` with each port 0 replaced by the port that the address had last, where that is free."""
        chosen = []
        for address in listen:
            port = self._known.get(address)
            if port is not None and not _is_free(address, port):
                log.warning("port %d, which this node had before, is taken: %s gets a new one", port, address)
                port = None
            chosen.append(_with_port(address, port) if port is not None else address)
        return tuple(chosen)

    def note(self, listen: Sequence[str], actual: Iterable[str]) -> None:
        """Remember which ports the addresses in `listen` got; `actual` are those that p2pd listens on."""
        known = {
            address: port
            for address in listen[:ADDRESSES_MAX]
            if _is_open(address) and (port := _port_of(address, actual)) is not None
        }
        if known == self._known:
            return
        self._known = known
        if self._path is not None:
            try:
                atomic_write(self._path, json.dumps(known, indent=1).encode())
            except LocalIOError as error:
                log.warning("the ports of this node were not kept: %s", error)


def not_heard(listen: Sequence[str], actual: Sequence[str]) -> list[str]:
    """Those TCP addresses of `listen` that nothing in `actual` answers to: p2pd says nothing while it has another."""
    found = [match for text in actual if (match := _TCP.fullmatch(text)) is not None]
    missing = []
    for address in listen:
        wanted = _TCP.fullmatch(address)
        if wanted is None:
            continue
        family, host, port, tail = wanted.groups()
        if not any(
            m[1] == family and host in (*_ANY_HOST, m[2]) and port in ("0", m[3]) and m[4] == tail for m in found
        ):
            missing.append(address)
    return missing


def _port_of(address: str, actual: Iterable[str]) -> int | None:
    """The port that `address` got, when there is one answer: two such addresses of one host have two."""
    wanted = _TCP.fullmatch(address)
    assert wanted is not None
    family, host, _, tail = wanted.groups()
    found = [match for text in actual if (match := _TCP.fullmatch(text)) is not None]
    ports = {int(m[3]) for m in found if m[1] == family and host in (*_ANY_HOST, m[2]) and m[4] == tail}
    return ports.pop() if len(ports) == 1 else None


def _with_port(address: str, port: int) -> str:
    return _TCP.sub(rf"/\1/\2/tcp/{port}\4", address)


def _is_free(address: str, port: int) -> bool:
    """Whether we could listen there. p2pd itself would share the port with another p2pd (SO_REUSEPORT)."""
    _, family, host, *_ = address.split("/")
    try:
        with socket.socket(_FAMILIES[family], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of our last life may linger
            if family == "ip6":
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # p2pd has the same port of IPv4 beside it
            probe.bind((host, port))
    except OSError:
        return False
    return True


def _is_open(address: str) -> bool:
    """Whether `address` leaves the port to the system."""
    match = _TCP.fullmatch(address)
    return match is not None and int(match[3]) == 0


def _read(path: Path) -> dict[str, int]:
    try:
        rows = json.loads(read_limited(path, bytes_max=FILE_BYTES_MAX))
        return {
            address: port
            for address, port in list(rows.items())[:ADDRESSES_MAX]
            if _is_open(address) and type(port) is int and 0 < port < 65536
        }
    except (OSError, UbcpError, ValueError, AttributeError, RecursionError):
        return {}  # new ports are chosen, as in a new profile
