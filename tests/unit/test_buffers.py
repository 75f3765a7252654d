"""SharedBuffer: shared by descriptor, freed by close, usable whatever the size."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from ubcp_p2p.buffers import SharedBuffer


def _open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_new_buffer_is_zeroed_and_writable() -> None:
    with SharedBuffer.create(5000) as buffer:
        assert bytes(buffer.view) == bytes(5000)
        buffer.view[10:13] = b"abc"
        assert bytes(buffer.view[10:13]) == b"abc"


def test_an_empty_buffer() -> None:
    with SharedBuffer.create(0) as buffer, SharedBuffer.adopt(os.dup(buffer.fd)) as other:
        assert len(buffer.view) == len(other.view) == 0


def test_both_sides_see_the_same_memory() -> None:
    with SharedBuffer.create(100) as buffer, SharedBuffer.adopt(os.dup(buffer.fd)) as other:
        assert other.size == 100
        other.view[99] = 7
        assert buffer.view[99] == 7


def test_the_memory_outlives_the_one_who_made_it() -> None:
    buffer = SharedBuffer.create(10)
    buffer.view[0] = 42
    other = SharedBuffer.adopt(os.dup(buffer.fd))
    buffer.close()
    assert other.view[0] == 42
    other.close()


def test_close_is_safe_twice_and_leaves_no_descriptor() -> None:
    before = _open_fds()
    buffer = SharedBuffer.create(4096)
    buffer.close()
    buffer.close()
    assert _open_fds() == before


def test_close_while_a_view_is_alive() -> None:
    before = _open_fds()
    buffer = SharedBuffer.create(4096)
    view = buffer.view
    buffer.close()
    view[0] = 1
    del view, buffer
    assert _open_fds() == before


def test_failures_leave_no_descriptor() -> None:
    before = _open_fds()
    with pytest.raises((OSError, OverflowError, ValueError)):
        SharedBuffer.create(1 << 62)
    reader, writer = os.pipe()
    os.close(writer)
    with SharedBuffer.adopt(reader) as pipe:  # a pipe has size 0: an empty buffer
        assert pipe.size == 0
    assert _open_fds() == before


def test_another_process_gets_it_by_descriptor() -> None:
    child = (
        "import socket, sys\n"
        "from ubcp_p2p.buffers import SharedBuffer\n"
        "s = socket.socket(fileno=int(sys.argv[1]))\n"
        "_, fds, _, _ = socket.recv_fds(s, 1, 1)\n"
        "with SharedBuffer.adopt(fds[0]) as buffer:\n"
        "    buffer.view[:5] = bytes(reversed(bytes(buffer.view[:5])))\n"
    )
    ours, theirs = socket.socketpair()
    with ours, theirs, SharedBuffer.create(5) as buffer:
        buffer.view[:] = b"abcde"
        command = [sys.executable, "-c", child, str(theirs.fileno())]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
            socket.send_fds(ours, [b"x"], [buffer.fd])
            assert process.wait(20) == 0
        assert bytes(buffer.view) == b"edcba"
