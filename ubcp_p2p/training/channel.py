"""One end of the trainer's channel: whole messages with descriptors over an AF_UNIX SOCK_SEQPACKET socket.

Linux keeps the message boundaries and passes descriptors (SCM_RIGHTS); the other end's death reads as the end of file.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

from ubcp_p2p.training.errors import MalformedTrainerMessage
from ubcp_p2p.training.limits import MESSAGE_BYTES_MAX, OFFERS_MAX

_INT_BYTES = array.array("i").itemsize


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends. Raises OSError when the system has no such sockets or no descriptors left."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, data: bytes, fds: Sequence[int] = (), flags: int = 0) -> None:
    """Send one message with descriptors, which stay the caller's. Raises OSError as `socket.sendmsg` does."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    end.sendmsg([data], ancillary, flags | socket.MSG_NOSIGNAL)


def receive(end: socket.socket) -> tuple[bytes, list[int]] | None:
    """The next message and its descriptors, which are the caller's from here on; None at the end of file.

    Raises OSError as `recvmsg` does (BlockingIOError on a non-blocking end without a message), MalformedTrainerMessage
    for a message over the limits; no descriptor stays open then.
    """
    data, ancillary, flags, _ = end.recvmsg(
        MESSAGE_BYTES_MAX, socket.CMSG_SPACE(OFFERS_MAX * _INT_BYTES), socket.MSG_CMSG_CLOEXEC
    )
    fds: list[int] = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(content[: len(content) - len(content) % _INT_BYTES])
            fds.extend(numbers)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(fds)
        raise MalformedTrainerMessage(f"a message of more than {MESSAGE_BYTES_MAX} bytes or {OFFERS_MAX} descriptors")
    if not data:
        close_all(fds)
        return None
    return data, fds


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds:
        os.close(fd)
