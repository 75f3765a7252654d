"""The optional API against a real HTTP server on loopback: what is asked, what is taken, what is refused."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.carbon.api import BYTES_MAX, KEEP_S, Api, check_url, parse
from ubcp_p2p.carbon.source import Source
from ubcp_p2p.carbon.table import Table, find
from ubcp_p2p.carbon.values import SLOTS_MAX, CarbonUnknown, Slot
from ubcp_p2p.errors import NetworkError

ROW = {"start": "1970-01-01T00:00:00Z", "end": "1970-01-01T01:00:00Z", "g_per_kwh": 120}
LATER = {"start": "1970-01-01T02:00:00+01:00", "end": "1970-01-01T02:00:00Z", "g_per_kwh": 60}


class Server:
    """Answers every GET with `status` and `body`; `silent` says nothing until the test ends.

    `drip`: sent at first, then its last byte again and again while somebody listens.
    """

    def __init__(self) -> None:
        self.status, self.body, self.headers = 200, b"", dict[str, str]()
        self.asked: list[tuple[str, str | None]] = []
        self.silent = False
        self.drip = b""
        self._end = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append((self.path, self.headers["Accept"]))
                if server.silent:
                    server._end.wait(30.0)
                    return
                if server.drip:
                    with suppress(OSError):
                        self.wfile.write(server.drip)
                        while not server._end.wait(0.01):
                            self.wfile.write(server.drip[-1:])
                    return
                self.send_response(server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(server.body)
                except ConnectionError:
                    pass  # it has seen enough

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))  # how soon it sees its end
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/carbon?zone=DE&key=secret"

    def close(self) -> None:
        self._end.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def body_of(*rows: object, **more: object) -> bytes:
    return json.dumps({"slots": rows, **more}).encode()


def test_an_answer_is_taken_and_nothing_is_asked_unasked(server: Server) -> None:
    server.body = body_of(ROW, LATER, zone="DE")
    api = Api(server.url, clock=lambda: 10.0)
    with pytest.raises(CarbonUnknown, match=r"127\.0\.0\.1: it has not answered yet") as unknown:
        api.intensity(0, 900)
    assert "secret" not in str(unknown.value)
    assert server.asked == []
    api.refresh()
    found = api.intensity(0, 900)
    assert (found.g_per_kwh, found.kind, found.note) == (120, "api", "")
    assert found.forecast == (Slot(0, 3600, 120), Slot(3600, 7200, 60))
    assert "secret" not in found.source
    assert server.asked == [("/carbon?zone=DE&key=secret", "application/json")]
    with pytest.raises(CarbonUnknown, match="says nothing of this time"):
        api.intensity(7000, 7900)


def test_a_failure_keeps_the_last_answer_for_a_day_and_says_so(server: Server) -> None:
    now = [10.0]
    server.body = body_of({**ROW, "end": "1970-01-09T00:00:00Z"})
    api = Api(server.url, clock=lambda: now[0])
    api.refresh()
    server.status = 503
    with pytest.raises(NetworkError, match="it answered 503"):
        api.refresh()
    found = api.intensity(0, 900)
    assert (found.g_per_kwh, found.note) == (120, "its last answer is used: it answered 503")
    now[0] += KEEP_S
    with pytest.raises(CarbonUnknown, match="it answered 503"):
        api.intensity(0, 900)


def test_the_table_is_the_fallback_with_the_reason(server: Server) -> None:
    server.status = 404
    source = Source(Api(server.url), Table(find("FR")))
    assert source.api is not None
    with pytest.raises(NetworkError):
        source.api.refresh()
    found = source.intensity(0, 900)
    assert (found.g_per_kwh, found.kind) == (56, "table")
    assert found.note == "the carbon API at 127.0.0.1: it answered 404"
    with pytest.raises(CarbonUnknown, match="it answered 404"):
        Source(source.api, None).intensity(0, 900)
    with pytest.raises(CarbonUnknown, match="has not been told where it is") as untold:
        Source(None, None).intensity(0, 900)
    assert "never guessed" in str(untold.value.hint)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not what docs/owner.md says"),
        (b"[" * 100_000, "not what docs/owner.md says"),
        (body_of(), "slots: List should have at least 1"),
        (body_of(*[ROW] * (SLOTS_MAX + 1)), f"at most {SLOTS_MAX}"),
        (body_of({**ROW, "g_per_kwh": 1.5}), "slots.0.g_per_kwh"),
        (body_of({**ROW, "g_per_kwh": "120"}), "slots.0.g_per_kwh"),
        (body_of({**ROW, "g_per_kwh": -1}), "slots.0.g_per_kwh"),
        (body_of({**ROW, "g_per_kwh": 5001}), "slots.0.g_per_kwh"),
        (body_of({**ROW, "start": "1970-01-01T00:00:00"}), "slots.0.start"),
        (body_of({**ROW, "start": "1960-01-01T00:00:00Z"}), "slots.0 ends before"),
        (body_of({**ROW, "end": "1970-01-01T00:00:00Z"}), "slots.0 ends before it begins"),
        (body_of(LATER, ROW), "overlap, or do not ascend"),
        (body_of(ROW, ROW), "overlap"),
        (b" " * (BYTES_MAX + 1), f"more than {BYTES_MAX} bytes"),
    ],
)
def test_other_answers_are_refused_in_words(server: Server, body: bytes, message: str) -> None:
    server.body = body
    with pytest.raises(NetworkError, match=message):
        Api(server.url).refresh()


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.status, server.headers = 302, {"Location": server.url}
    with pytest.raises(NetworkError, match="it answered 302"):
        Api(server.url).refresh()
    assert len(server.asked) == 1


def test_a_silent_server_costs_the_time_limit_only(server: Server) -> None:
    server.silent = True
    with pytest.raises(NetworkError, match=r"did not answer within 0\.1 s"):
        Api(server.url, timeout_s=0.1).refresh()


@pytest.mark.parametrize(
    "drip", [b"H", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n "]
)
def test_a_byte_now_and_then_does_not_prolong_the_time_limit(server: Server, drip: bytes) -> None:
    server.drip = drip
    with pytest.raises(NetworkError, match=r"^it did not answer within 0\.3 s$"):
        Api(server.url, timeout_s=0.3).refresh()


def test_bytes_that_were_sent_are_not_repeated() -> None:
    """Into a log and a terminal: a status line may hold anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x1b[31mfree credits\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NetworkError, match=r"^it cannot be asked: BadStatusLine$"):
            Api(f"http://127.0.0.1:{listening.getsockname()[1]}/").refresh()
        thread.join()


def test_a_server_that_is_not_there(server: Server) -> None:
    url = server.url
    server.close()
    with pytest.raises(NetworkError, match="cannot be asked"):
        Api(url).refresh()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.org/x", "https://"),
        ("example.org/x", "https://"),
        ("https://", "name a host"),
        ("http://example.org/x", "plain http is for a server on this machine"),
        ("http://127.0.0.1.example.org/x", "plain http"),
        ("https://me:secret@example.org/", "no user name"),
        ("https://example.org/#x", "#fragment"),
        ("https://example.org/ x", "printable"),
        ("https://example.org/\n", "printable"),
        ("https://example.org:0/", "port"),
        ("https://example.org:99999/", "ort"),
        ("https://" + "x" * 2050, "at most 2048"),
    ],
)
def test_urls_that_may_not_be_asked(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_url(url)


@pytest.mark.parametrize(
    "url", ["https://example.org/x?a=b", "http://localhost:8/x", "http://[::1]/", "http://127.9.9.9"]
)
def test_urls_that_may_be_asked(url: str) -> None:
    check_url(url)


@given(st.binary(max_size=300))
def test_any_bytes_are_slots_or_a_fault_in_words(data: bytes) -> None:
    with suppress(NetworkError):
        assert parse(data)
