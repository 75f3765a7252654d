"""The server against callers that have no business here, are clumsy, slow or hostile: each is answered in words."""

from __future__ import annotations

import io
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Served, read_answer
from ubcp_p2p.api.client import read_events
from ubcp_p2p.api.limits import LIMITS, Limits
from ubcp_p2p.api.openapi import PATH, document
from ubcp_p2p.api.server import ApiServer
from ubcp_p2p.api.verbs import Attachment, Emit
from ubcp_p2p.errors import LocalIOError

PROBLEM = {"type", "title", "status", "detail", "hint", "exit"}
LONG = b"x" * 300_000


async def _attach(request: dict[str, Any], emit: Emit) -> Attachment:
    return Attachment(io.BytesIO(LONG), len(LONG))


async def _odd(request: dict[str, Any], emit: Emit) -> Any:
    return {"loss": float("nan"), "deep": [{"x": float("inf")}], "text": "é\u2028"}


MORE = {"ledger-export": _attach, "peers": _odd}


def _kept_alive(head: bytes) -> bytes:
    return head.replace(b"Connection: close\r\n", b"")


def _ask_on(connection: socket.socket, served: Served) -> None:
    """Ask with the token on a connection that stays open after the answer."""
    connection.sendall(_kept_alive(served.head("POST", "/v1/echo", "Content-Length: 2")) + b"{}")
    data = b""
    while not data.endswith(b"}"):
        chunk = connection.recv(1 << 16)
        assert chunk
        data += chunk
    assert data.startswith(b"HTTP/1.1 200 ")


def _served(factory: pytest.TempPathFactory, limits: Limits = LIMITS) -> Iterator[Served]:
    made = Served(factory.mktemp("profile"), factory.mktemp("s"), MORE, limits)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from _served(tmp_path_factory)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Small limits."""
    small = Limits(body_bytes_max=100, head_bytes_max=2000, connections_max=4, followers_max=1, arrive_s=0.2)
    yield from _served(tmp_path_factory, small)


# -- who may ask -----------------------------------------------------------------------------------------------------


def test_the_token_is_the_users_alone_and_new_each_time(served: Served, strict: Served) -> None:
    address = served.address
    for path in (address.directory / "api.json", address.header_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(address.token)) == 32
    assert address.token != strict.address.token
    assert address.header_file.read_text() == f"Authorization: Bearer {address.token}\n"


@pytest.mark.parametrize("token", ["", "0" * 64, "é", " ", "x" * 3000])
def test_without_the_token_nothing_is_told(served: Served, token: str) -> None:
    for path in ("/v1/echo", "/v1/nothing", PATH):
        answer = served.send(served.head("GET", path, token=token))
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(answer.document) == PROBLEM
        assert "ubcp api" in answer.document["hint"]


def test_two_tokens_and_other_schemes_are_none(served: Served) -> None:
    token = served.address.token
    assert served.send(served.head("GET", PATH, f"Authorization: Bearer {token}")).status == 401
    assert served.send(served.head("GET", PATH, f"Authorization: Basic {token}", token="")).status == 401
    assert served.send(served.head("GET", f"{PATH}?token={token}", token="")).status == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1", "[::2]:80"])
def test_another_hosts_name_is_refused_with_the_right_token_too(served: Served, host: str) -> None:
    assert served.send(served.head("GET", PATH, host=host)).status == 403
    assert served.send(served.head("GET", PATH, "Host: localhost", host=host)).status in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]"])
def test_the_names_of_loopback_are_fine(served: Served, host: str) -> None:
    assert served.send(served.head("GET", PATH, host=host)).status == 200


@pytest.mark.parametrize("header", ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"])
def test_web_pages_are_refused(served: Served, header: str) -> None:
    answer = served.send(served.head("GET", PATH, header))
    assert answer.status == 403
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert served.send(served.head("OPTIONS", PATH, header, "Access-Control-Request-Method: POST")).status == 403


@pytest.mark.parametrize("wrong", [{"token": ""}, {"token": "0" * 64}, {"host": "evil.example"}])
def test_who_is_refused_is_hung_up_on(served: Served, wrong: dict[str, str]) -> None:
    answer = served.send(_kept_alive(served.head("GET", PATH, **wrong)))  # reads to the end: the server closes
    assert (answer.status in (401, 403), answer.headers["connection"]) == (True, "close")


# -- what is asked ---------------------------------------------------------------------------------------------------


def test_its_own_description(served: Served) -> None:
    answer = served.ask("GET", PATH)
    assert answer.document == document()
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/fly", 404), ("GET", "/", 404), ("GET", "/v1/echo/", 404), ("GET", "//v1/stats", 404),
        ("GET", "/v1/echo", 405), ("POST", "/v1/stats", 405), ("DELETE", PATH, 405), ("HEAD", PATH, 405),
        ("OPTIONS", PATH, 405), ("PUT", PATH, 405), ("TRACE", PATH, 405), ("GET", "/v1/stats?period=%FF", 200),
        ("GET", "/v1/runs/%FF/events", 400), ("GET", "/v1/stats?x=1", 400), ("GET", "/v1/stats?period=1&period=2", 400),
        ("GET", "/v1/stats?" + "&".join(f"a{n}=1" for n in range(40)), 400), ("GET", "/v1/stats?period", 400),
        ("GET", "/v1/stats?period=" + "x" * 33, 400),
    ],
)  # fmt: skip
def test_paths_methods_and_queries(served: Served, method: str, path: str, status: int) -> None:
    answer = served.ask(method, path)
    assert answer.status == status
    if status != 200 and method != "HEAD":
        assert set(answer.document) == PROBLEM
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    "body",
    [
        b"\n",
        b"{",
        b"7",
        b"null",
        b"[]",
        b'"verb"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": NaN}',
        b'{"a": 1' + b"0" * 5000,
    ],
)
def test_a_body_that_is_no_object_is_answered_and_harms_nobody(served: Served, body: bytes) -> None:
    answer = served.ask("POST", "/v1/echo", body)
    assert answer.status == 400
    assert "not understood" in answer.document["detail"]
    assert served.ask("POST", "/v1/echo", {"n": [1, None, "é"]}).document == {"verb": "echo", "n": [1, None, "é"]}


def test_errors_keep_their_words_and_say_whose_fault_they_are(served: Served) -> None:
    for how, status, code in (("config", 400, 2), ("io", 503, 3)):
        found = served.ask("POST", "/v1/refuse", {"how": how}).document
        title = {400: "Bad Request", 503: "Service Unavailable"}[status]
        assert found == {
            "type": "about:blank", "title": title, "status": status, "detail": "no", "hint": "do this", "exit": code,
        }  # fmt: skip
    assert served.ask("POST", "/v1/refuse", {}).status == 400
    assert served.ask("POST", "/v1/bug").status == 500


def test_numbers_that_json_has_not_are_null(served: Served) -> None:
    assert served.ask("GET", "/v1/peers").document == {"loss": None, "deep": [{"x": None}], "text": "é\u2028"}


def test_a_file_comes_whole(served: Served) -> None:
    answer = served.ask("GET", "/v1/ledger/export")
    assert (answer.headers["content-type"], answer.headers["content-length"]) == (
        "application/octet-stream", str(len(LONG)),
    )  # fmt: skip
    assert answer.body == LONG


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large(served: Served, strict: Served) -> None:
    assert strict.ask("POST", "/v1/echo", {"x": "y" * 80}).status == 200
    large = b'{"x": "' + b"y" * LIMITS.body_bytes_max + b'"}'
    for server, body in ((strict, b"z" * 101), (served, large)):
        answer = server.ask("POST", "/v1/echo", body)
        assert (answer.status, answer.document["exit"]) == (413, 2)
    chunked = strict.head("POST", "/v1/echo", "Transfer-Encoding: chunked") + b"80\r\n" + b"z" * 128 + b"\r\n"
    assert strict.send(chunked).status == 413


def test_a_head_that_is_too_large_or_none_is_answered(strict: Served) -> None:
    assert strict.send(strict.head("GET", PATH, "X: " + "y" * 3000)).status == 431  # whole, in one piece
    assert strict.send(strict.head("GET", PATH, "X: " + "y" * 3000)[:2500]).status == 400
    for junk in (
        b"\r\n\r\n\r\n",
        b"\x16\x03\x01junk\r\n\r\n",
        b"GET /\r\n\r\n",
        b"x" * 3000,
    ):
        answer = strict.send(junk)
        assert (answer.status, set(answer.document)) == (400, PROBLEM)


@pytest.mark.parametrize("part", ["nothing", "a head's beginning", "a body's beginning"])
@pytest.mark.slow
def test_a_request_that_does_not_arrive_is_hung_up_on(strict: Served, part: str) -> None:
    whole = strict.head("POST", "/v1/echo", "Content-Length: 10") + b"{"
    data = {"nothing": b"", "a head's beginning": whole[:20], "a body's beginning": whole}[part]
    answer = strict.send(data)  # reads to the end: the server closes
    assert (answer.status, "no whole request" in answer.document["detail"]) == (408, True)


@pytest.mark.slow
def test_the_oldest_of_too_many_idle_ones_makes_way_and_the_others_end(served: Served, strict: Served) -> None:
    idle = [strict.connect() for _ in range(5)]
    assert served.ask("GET", PATH).status == 200
    for connection, status in zip(idle, (503, 408, 408, 408, 408), strict=True):
        assert read_answer(connection).status == status
        connection.close()
    assert strict.ask("POST", "/v1/echo").status == 200


def test_each_listener_has_places_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    for served in _served(tmp_path_factory, replace(LIMITS, connections_max=2)):
        held = [served.connect() for _ in range(2)]
        for connection in held:
            _ask_on(connection, served)  # they have shown the token: none of them makes way
        with served.connect() as one_more:
            assert read_answer(one_more).status == 503
        with served.connect_unix() as owner:
            _ask_on(owner, served)
        for connection in held:
            connection.close()


def test_strangers_make_way(tmp_path_factory: pytest.TempPathFactory) -> None:
    for served in _served(tmp_path_factory, replace(LIMITS, connections_max=2, token_s=60.0)):
        strangers = [served.connect() for _ in range(2)]
        assert served.ask("GET", PATH).status == 200
        assert read_answer(strangers[0]).status == 503
        for connection in strangers:
            connection.close()


@pytest.mark.slow
def test_who_does_not_show_the_token_is_hung_up_on_and_who_did_is_not(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    for served in _served(tmp_path_factory, replace(LIMITS, token_s=0.2)):
        with served.connect() as owner, served.connect() as stranger:
            _ask_on(owner, served)
            answer = read_answer(stranger)
            assert (answer.status, answer.document["detail"]) == (408, "no token within 0.2 s")
            _ask_on(owner, served)


@pytest.mark.parametrize("framing", ["Content-Length: 99999999999", "Transfer-Encoding: chunked"])
def test_a_body_without_end_is_cut_off(served: Served, framing: str) -> None:
    """With the token, on a connection that would be kept alive."""
    chunk = b"x" * (1 << 16)
    piece = b"10000\r\n" + chunk + b"\r\n" if "chunked" in framing else chunk
    with served.connect() as connection:
        connection.sendall(_kept_alive(served.head("POST", "/v1/echo", framing)))
        with pytest.raises(ConnectionError):
            connection.sendall(piece * 1000)  # 64 MiB: more than all buffers on the way hold
    assert served.ask("POST", "/v1/echo", {"a": 1}).status == 200


class Endless(io.RawIOBase):
    """A file without an end. closed_: it was closed."""

    def __init__(self, closed: threading.Event) -> None:
        self.closed_ = closed

    def read(self, size: int = -1) -> bytes:
        return bytes(size)

    def close(self) -> None:
        self.closed_.set()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/runs/x/events", "/v1/ledger/export", "/v1/peers"])
def test_who_does_not_read_loses_its_place(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    """Events, a file, a long answer: more than all buffers on the way hold."""
    ended = threading.Event()

    async def follow(request: dict[str, Any], emit: Emit) -> Any:
        try:
            while True:
                await emit({"x": "y" * 10_000})
        finally:
            ended.set()

    async def export(request: dict[str, Any], emit: Emit) -> Any:
        file: Any = Endless(ended)
        return Attachment(file, 1 << 40)

    async def peers(request: dict[str, Any], emit: Emit) -> Any:
        ended.set()
        return {"x": "y" * (32 << 20)}

    limits = replace(LIMITS, stall_s=0.2, followers_max=1, connections_max=1)
    made = Served(
        tmp_path_factory.mktemp("profile"), tmp_path_factory.mktemp("s"),
        {"follow": follow, "ledger-export": export, "peers": peers}, limits,
    )  # fmt: skip
    made.start()
    try:
        with made.connect(receive_bytes=4096) as reader:
            reader.sendall(made.head("GET", path))
            poll = select.poll()
            poll.register(reader, 0)  # a connection that was reset is told without being read
            assert poll.poll(20_000)
            assert ended.wait(10.0)
            assert made.ask("POST", "/v1/echo", {}).status == 200  # the only place is free
    finally:
        made.stop()


@pytest.mark.slow
def test_who_reads_slowly_keeps_its_place(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A little at a time, for longer than one may read nothing; then the rest."""
    size, stall_s = 8 << 20, 1.0

    async def export(request: dict[str, Any], emit: Emit) -> Any:
        return Attachment(io.BytesIO(bytes(size)), size)

    made = Served(
        tmp_path_factory.mktemp("profile"), tmp_path_factory.mktemp("s"), {"ledger-export": export},
        replace(LIMITS, stall_s=stall_s),
    )  # fmt: skip
    made.start()
    try:
        with made.connect(receive_bytes=4096) as reader:
            reader.sendall(made.head("GET", "/v1/ledger/export"))
            poll, got, until_s = select.poll(), 0, time.monotonic() + 2.5 * stall_s
            while chunk := reader.recv(32 << 10 if time.monotonic() < until_s else 1 << 20):
                got += len(chunk)
                if time.monotonic() < until_s:
                    poll.poll(20)  # of nothing: until it is over
            assert got > size
    finally:
        made.stop()


def test_a_caller_that_hangs_up_ends_its_call(tmp_path_factory: pytest.TempPathFactory) -> None:
    for served in _served(tmp_path_factory):
        connection = served.connect()
        connection.sendall(served.head("POST", "/v1/wait"))
        assert served.entered.wait(10.0)
        assert not served.cancelled.is_set()
        connection.close()
        assert served.cancelled.wait(10.0)


@pytest.mark.slow
def test_a_stop_ends_calls_in_progress_and_takes_its_files_along(tmp_path_factory: pytest.TempPathFactory) -> None:
    for served in _served(tmp_path_factory, replace(LIMITS, end_s=0.1)):
        connection = served.connect()
        connection.sendall(served.head("POST", "/v1/wait"))
        assert served.entered.wait(10.0)
    assert served.cancelled.is_set()
    assert list(served.sockets.iterdir()) == []
    try:
        assert connection.recv(1) == b""
    except ConnectionResetError:
        pass
    connection.close()


@pytest.mark.asyncio
async def test_a_port_that_is_taken_is_said(tmp_path: Path, served: Served) -> None:
    assert served.address.url is not None
    port = int(served.address.url.rpartition(":")[2])
    with pytest.raises(LocalIOError, match=f"port {port}: something else does"):
        await ApiServer(tmp_path, {}, port=port).start()
    assert os.listdir(tmp_path) == []


# -- events ----------------------------------------------------------------------------------------------------------


def _stream(body: bytes) -> list[tuple[str, Any]]:
    """A chunked body's events."""
    data, rest = b"", body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        data, rest = data + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return list(read_events(io.BytesIO(data)))


def test_events_then_the_end(served: Served) -> None:
    answer = served.ask("GET", "/v1/runs/2/events", None, "Last-Event-ID: x-7")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert b"id: x-1\ndata: " in answer.body
    assert _stream(answer.body) == [
        ("message", {"number": 0}), ("message", {"number": 1}), ("end", {"counted": "2", "last_event_id": "x-7"}),
    ]  # fmt: skip


def test_an_error_before_the_first_event_is_a_plain_answer(served: Served) -> None:
    answer = served.ask("GET", "/v1/runs/many/events")
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
