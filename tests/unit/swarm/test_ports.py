"""Which port an address with port 0 had: what is kept, what is taken again, and what a damaged file does."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ubcp_p2p.swarm.ports import FILE_BYTES_MAX, Ports, not_heard

ANY, HERE, ANY6, FIXED = "/ip4/0.0.0.0/tcp/0", "/ip4/127.0.0.1/tcp/0", "/ip6/::/tcp/0", "/ip4/0.0.0.0/tcp/4001"


@pytest.fixture
def free() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_is_taken_again_also_by_the_next_process(tmp_path: Path, free: int) -> None:
    path = tmp_path / "ports.json"
    ports = Ports(path)
    assert ports.last([ANY, FIXED]) == (ANY, FIXED)
    ports.note([ANY, FIXED], [f"/ip4/127.0.0.1/tcp/{free}", f"/ip4/10.0.0.7/tcp/{free}"])
    assert path.stat().st_mode & 0o777 == 0o600
    for again in (ports, Ports(path)):
        assert again.last([ANY, FIXED]) == (f"/ip4/0.0.0.0/tcp/{free}", FIXED)


def test_one_that_is_taken_is_not(taken: int, caplog: pytest.LogCaptureFixture) -> None:
    ports = Ports()
    ports.note([HERE], [f"/ip4/127.0.0.1/tcp/{taken}"])
    assert ports.last([HERE]) == (HERE,)
    assert f"port {taken}, which this node had before, is taken" in caplog.text


def test_one_that_another_p2pd_would_share_is_not(free: int) -> None:
    ports = Ports()
    ports.note([ANY], [f"/ip4/127.0.0.1/tcp/{free}"])
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("", free))
        listener.listen()
        assert ports.last([ANY]) == (ANY,)


@pytest.mark.parametrize(
    ("listen", "actual", "chosen"),
    [
        (HERE, "/ip4/127.0.0.1/tcp/{0}", "/ip4/127.0.0.1/tcp/{0}"),
        (HERE + "/ws", "/ip4/127.0.0.1/tcp/{0}/ws", "/ip4/127.0.0.1/tcp/{0}/ws"),
        (HERE, "/ip4/127.0.0.1/tcp/{0}/ws", HERE),
        (HERE, "/ip4/10.0.0.7/tcp/{0}", HERE),
        (HERE, "/ip6/::1/tcp/{0}", HERE),
        (ANY, "/ip4/10.0.0.7/tcp/{0}/p2p/12D3KooWx/p2p-circuit", ANY),
        (ANY, "/dns4/example.org/tcp/{0}", ANY),
        ("/ip4/0.0.0.0/udp/0/quic", "/ip4/10.0.0.7/tcp/{0}", "/ip4/0.0.0.0/udp/0/quic"),
    ],
)
def test_which_port_an_address_got(listen: str, actual: str, chosen: str, free: int) -> None:
    ports = Ports()
    ports.note([listen], [actual.format(free)])
    assert ports.last([listen]) == (chosen.format(free),)


def test_two_answers_are_none_and_families_are_told_apart(free: int) -> None:
    ports = Ports()
    ports.note([ANY, ANY6], ["/ip4/10.0.0.7/tcp/4001", "/ip4/10.0.0.7/tcp/4002", f"/ip6/::1/tcp/{free}"])
    four, six = ports.last([ANY, ANY6])
    assert four == ANY
    assert six in (ANY6, f"/ip6/::/tcp/{free}")  # the latter where this machine has IPv6


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "null", "{", "[" * 100_000, "\xff", " " * (FILE_BYTES_MAX + 1), json.dumps({ANY: "4001"}),
        json.dumps({ANY: 70_000}), json.dumps({ANY: 0}), json.dumps({ANY: True}), json.dumps({FIXED: 4001}),
        json.dumps({ANY: [1]}), json.dumps({"/tcp/0": 1}),
    ],
)  # fmt: skip
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content, encoding="latin-1")
    assert Ports(tmp_path / "ports.json").last([ANY, FIXED]) == (ANY, FIXED)


def test_a_profile_that_cannot_be_written_is_said(tmp_path: Path, free: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    ports = Ports(tmp_path / "missing" / "ports.json")
    ports.note([HERE], [f"/ip4/127.0.0.1/tcp/{free}"])
    assert "were not kept" in caplog.text
    assert ports.last([HERE]) == (f"/ip4/127.0.0.1/tcp/{free}",)


@pytest.mark.parametrize(
    ("listen", "missing"),
    [
        ([ANY, HERE], []),
        (["/ip4/0.0.0.0/tcp/4001"], []),
        (["/ip4/10.0.0.7/tcp/4001", "/ip4/127.0.0.1/tcp/4001"], []),
        ([HERE, "/ip4/0.0.0.0/tcp/4002"], ["/ip4/0.0.0.0/tcp/4002"]),
        (["/ip4/10.0.0.8/tcp/0", HERE], ["/ip4/10.0.0.8/tcp/0"]),
        ([ANY6, "/ip4/127.0.0.1/tcp/4001/ws"], [ANY6, "/ip4/127.0.0.1/tcp/4001/ws"]),
        (["/ip4/0.0.0.0/udp/4001/quic-v1"], []),  # not judged
    ],
)
def test_an_address_that_p2pd_left_out_is_named(listen: list[str], missing: list[str]) -> None:
    assert not_heard(listen, ["/ip4/127.0.0.1/tcp/4001", "/ip4/10.0.0.7/tcp/4001"]) == missing
