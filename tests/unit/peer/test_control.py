"""The control socket: a real server in a thread, the real client, and clients that behave badly."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ubcp_p2p.errors import ConfigError, Exit, LocalIOError, UbcpError
from ubcp_p2p.peer import control
from ubcp_p2p.peer.control import (
    LINE_BYTES_MAX,
    SOCKET_NAME,
    ControlServer,
    Emit,
    NodeRefused,
    NotRunning,
    Verb,
    call,
    stream,
)
from ubcp_p2p.peer.profile import Profile, ProfileLock


class Served:
    """A ControlServer on a profile, in a thread of its own."""

    def __init__(self, root: Path, sockets: Path) -> None:
        self.profile = Profile(root)
        self.profile.make()
        self.sockets = sockets
        self.cancelled = threading.Event()
        self.entered = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10.0)

    def stop(self) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10.0)
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(10.0)
        connection.connect(str(self.sockets / SOCKET_NAME))
        return connection

    def send(self, data: bytes) -> dict[str, Any]:
        """Send raw bytes, read one line."""
        with self.connect() as connection, connection.makefile("rb") as lines:
            connection.sendall(data)
            answer: dict[str, Any] = json.loads(lines.readline())
            return answer

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        verbs: dict[str, Verb] = {
            "echo": self._echo,
            "count": self._count,
            "refuse": self._refuse,
            "wait": self._wait,
            "bug": self._bug,
        }
        with ProfileLock(self.profile, self.sockets):
            server = ControlServer(self.sockets, verbs)
            await server.start()
            self._ready.set()
            await self._stop.wait()
            await server.stop()

    async def _echo(self, request: dict[str, Any], emit: Emit) -> Any:
        return request

    async def _count(self, request: dict[str, Any], emit: Emit) -> Any:
        for number in range(int(request["to"])):
            await emit({"number": number})
        return "counted"

    async def _refuse(self, request: dict[str, Any], emit: Emit) -> Any:
        raise {"config": ConfigError, "io": LocalIOError}[request["how"]]("no", hint="do this")

    async def _wait(self, request: dict[str, Any], emit: Emit) -> Any:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _bug(self, request: dict[str, Any], emit: Emit) -> Any:
        raise ZeroDivisionError("oops")


@pytest.fixture
def served(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    sockets = tmp_path_factory.mktemp("s")
    made = Served(tmp_path / "profile", sockets)
    made.start()
    yield made
    made.stop()
    assert not (sockets / SOCKET_NAME).exists()


def test_a_call_and_its_answer(served: Served) -> None:
    assert call(served.profile, "echo", text="é", n=[1, None]) == {"verb": "echo", "text": "é", "n": [1, None]}


def test_events_come_before_the_answer(served: Served) -> None:
    messages = list(stream(served.profile, "count", to=3))
    assert messages == [*({"event": {"number": n}} for n in range(3)), {"ok": "counted"}]
    assert call(served.profile, "count", to=5) == "counted"


@pytest.mark.parametrize(("how", "code"), [("config", Exit.USAGE), ("io", Exit.IO)])
def test_the_nodes_error_comes_with_its_hint_and_exit_code(served: Served, how: str, code: Exit) -> None:
    with pytest.raises(NodeRefused) as refused:
        call(served.profile, "refuse", how=how)
    assert (refused.value.message, refused.value.hint, refused.value.exit_code) == ("no", "do this", code)


def test_an_unknown_verb_and_a_bug_are_answered_in_words(served: Served) -> None:
    with pytest.raises(NodeRefused, match="does not know the verb 'fly'"):
        call(served.profile, "fly")
    with pytest.raises(NodeRefused, match="a bug in the node: ZeroDivisionError"):
        call(served.profile, "bug")
    with pytest.raises(NodeRefused, match="not understood"):
        call(served.profile, "count", to="many")
    with pytest.raises(NodeRefused, match="not understood"):
        call(served.profile, "count")
    assert call(served.profile, "echo") == {"verb": "echo"}


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{\n", b"7\n", b"null\n", b"[]\n", b'"verb"\n', b"{}\n", b'{"verb": []}\n', b'{"verb": {"a": 1}}\n',
     b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"{" + b" " * LINE_BYTES_MAX + b"}\n"],
)  # fmt: skip
def test_a_request_that_is_no_request_is_answered_and_harms_nobody(served: Served, line: bytes) -> None:
    assert set(served.send(line)["error"]) == {"message", "hint", "exit"}
    assert call(served.profile, "echo") == {"verb": "echo"}


def test_callers_that_say_nothing_or_hang_up_harm_nobody(served: Served) -> None:
    idle = served.connect()
    served.connect().close()
    half = served.connect()
    half.sendall(b'{"verb": "ec')
    half.close()
    assert call(served.profile, "echo") == {"verb": "echo"}
    idle.close()


def test_a_caller_that_hangs_up_ends_its_call(served: Served) -> None:
    connection = served.connect()
    connection.sendall(b'{"verb": "wait"}\n')
    assert served.entered.wait(10.0)
    assert not served.cancelled.is_set()
    connection.close()
    assert served.cancelled.wait(10.0)


def test_a_node_that_does_not_answer_in_time_is_said(served: Served) -> None:
    with pytest.raises(LocalIOError, match="did not answer within"):
        call(served.profile, "wait", timeout_s=0.05)
    assert served.cancelled.wait(10.0)


@pytest.mark.slow
def test_a_stop_ends_calls_in_progress(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    made = Served(tmp_path / "profile", tmp_path_factory.mktemp("s"))
    made.start()
    connection = made.connect()
    connection.sendall(b'{"verb": "wait"}\n')
    assert made.entered.wait(10.0)
    made.stop()
    assert made.cancelled.is_set()
    assert connection.recv(1) == b""
    connection.close()


@pytest.mark.slow
def test_no_node_is_said_with_the_command_that_starts_one(tmp_path: Path) -> None:
    profile = Profile(tmp_path)
    started_s = time.monotonic()
    with pytest.raises(NotRunning, match="no node is running") as missing:
        call(profile, "status")
    assert missing.value.hint == f"ubcp up --profile {tmp_path}"
    assert time.monotonic() - started_s < 1.0


def test_a_lock_without_a_socket_is_a_node_that_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "APPEAR_S", 0.05)
    profile = Profile(tmp_path)
    with ProfileLock(profile, tmp_path / "nothing here"), pytest.raises(LocalIOError, match="does not answer"):
        call(profile, "status")


def test_a_node_that_hangs_up_or_talks_nonsense_is_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("p")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(root / SOCKET_NAME))
    listener.listen()

    def answer(data: bytes) -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(data)
        connection.close()

    with ProfileLock(Profile(root), root):
        for data, words in ((b"", "hung up"), (b"garbage\n", "broke"), (b'{"error": {}}\n', "broke")):
            thread = threading.Thread(target=answer, args=(data,))
            thread.start()
            with pytest.raises(UbcpError, match=words):
                call(Profile(root), "status")
            thread.join()
    listener.close()
