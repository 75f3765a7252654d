"""Finding the node of a profile and asking it: a real server in a thread, the real client."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import Served
from ubcp_p2p.api.address import SOCKET_NAME, Address
from ubcp_p2p.errors import Exit, LocalIOError, UbcpError
from ubcp_p2p.peer import control
from ubcp_p2p.peer.control import NodeRefused, NotRunning, address_of, call, stream
from ubcp_p2p.peer.profile import Profile, ProfileLock


@pytest.fixture
def served(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    sockets = tmp_path_factory.mktemp("s")
    made = Served(tmp_path / "profile", sockets)
    made.start()
    yield made
    made.stop()
    assert list(sockets.iterdir()) == []


def test_a_call_and_its_answer(served: Served) -> None:
    assert call(served.profile, "echo", text="é", n=[1, None]) == {"verb": "echo", "text": "é", "n": [1, None]}


def test_events_come_before_the_answer(served: Served) -> None:
    messages = list(stream(served.profile, "follow", run="3"))
    last = {"counted": "3", "last_event_id": None}
    assert messages == [*({"event": {"number": n}} for n in range(3)), {"ok": last}]
    assert call(served.profile, "follow", run="0") == last | {"counted": "0"}


@pytest.mark.parametrize(("how", "code"), [("config", Exit.USAGE), ("io", Exit.IO)])
def test_the_nodes_error_comes_with_its_hint_and_exit_code(served: Served, how: str, code: Exit) -> None:
    with pytest.raises(NodeRefused) as refused:
        call(served.profile, "refuse", how=how)
    assert (refused.value.message, refused.value.hint, refused.value.exit_code) == ("no", "do this", code)


def test_an_unknown_verb_and_a_bug_are_answered_in_words(served: Served) -> None:
    with pytest.raises(NodeRefused, match="nothing at /v1/fly"):
        call(served.profile, "fly")
    with pytest.raises(NodeRefused, match="a bug in the node: ZeroDivisionError"):
        call(served.profile, "bug")
    with pytest.raises(NodeRefused, match="not understood"):
        call(served.profile, "follow", run="many")
    with pytest.raises(NodeRefused, match="not understood"):
        call(served.profile, "refuse")
    assert call(served.profile, "echo") == {"verb": "echo"}


def test_a_name_is_one_part_of_the_path_whatever_is_in_it(served: Served) -> None:
    for name in ("a/b", "é ?&#%2F", "..", "3/events"):
        with pytest.raises(NodeRefused, match="not understood"):  # it is no number, and arrived whole
            call(served.profile, "follow", run=name)
    assert call(served.profile, "stats", period="3..5 &x=1") == {"verb": "stats", "period": "3..5 &x=1"}
    assert call(served.profile, "stats", period=None) == {"verb": "stats"}


def test_where_the_api_is(served: Served) -> None:
    address = address_of(served.profile)
    assert address == served.address
    assert address.url is not None and address.url.startswith("http://127.0.0.1:")


def test_a_node_that_does_not_answer_in_time_is_said(served: Served) -> None:
    with pytest.raises(LocalIOError, match="did not answer within"):
        call(served.profile, "wait", timeout_s=0.05)
    assert served.cancelled.wait(10.0)


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
    Address(root, "00", None).save()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(root / SOCKET_NAME))
    listener.listen()

    def answer(data: bytes) -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(data)
        connection.close()

    head = b"HTTP/1.1 %d x\r\nContent-Length: 2\r\n\r\n"
    with ProfileLock(Profile(root), root):
        for data in (b"", b"garbage\n", head % 200 + b"{", head % 200 + b"x}", head % 400 + b"{}", head % 500 + b"[]"):
            thread = threading.Thread(target=answer, args=(data,))
            thread.start()
            with pytest.raises(UbcpError, match="broke"):
                call(Profile(root), "status")
            thread.join()
    listener.close()


def test_a_damaged_address_is_said(tmp_path: Path) -> None:
    (tmp_path / "api.json").write_text("[]")
    with ProfileLock(Profile(tmp_path), tmp_path), pytest.raises(LocalIOError, match="damaged"):
        call(Profile(tmp_path), "status")
