"""`ubcp follow` as a process, over py-libp2p, against a real p2pd: equal roots, frauds seen, nobody trusted."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.swarm import ROOT, Peer
from tests.support.town import Town
from ubcp_p2p.charter.document import to_toml
from ubcp_p2p.log import QUIET_LIBRARIES
from ubcp_p2p.processes import die_with_parent

pytestmark = pytest.mark.slow

STEP_S = 60.0  # imports of hivemind or libp2p on a busy machine, then polls of 3 s
SEED = 5

NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7"

Document = dict[str, Any]


class Program:
    """A child process whose lines on stdout can be waited for."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **QUIET_LIBRARIES},
            preexec_fn=die_with_parent(os.getpid()),
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=arguments, daemon=True)
            for arguments in ((self.process.stdout, self._lines.put), (self.process.stderr, self.errors.append))
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, note: Callable[[str], None]) -> None:
        for line in stream:
            note(line)
        note("")

    def line(self) -> str:
        """The next line on stdout; empty at its end."""
        try:
            return self._lines.get(timeout=STEP_S)
        except queue.Empty:
            raise AssertionError(f"nothing within {STEP_S:.0f} s; stderr: {''.join(self.errors)}") from None

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def ended(self) -> int:
        code = self.process.wait(STEP_S)
        for thread in self._threads:
            thread.join(STEP_S)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.ended()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


class Server(Program):
    """tests.support.ledger_server under orders."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__("-m", "tests.support.ledger_server", str(folder), str(seed))
        self.charter = folder / "charter.toml"
        self.address = self.line().strip()
        assert self.address, "".join(self.errors)

    def order(self, order: str) -> Document:
        """Whom it concerned, and the roots afterwards."""
        self.tell(order)
        reply: Document = json.loads(self.line())
        return reply


class Follow(Program):
    """`ubcp follow --json`."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("-m", "ubcp_p2p", "follow", "--json", *arguments)

    def wait(self, event: str) -> Document:
        """The next document of this kind."""
        while line := self.line():
            document: Document = json.loads(line)
            if document["event"] == event:
                return document
        raise AssertionError(f"it ended without {event!r}: {''.join(self.errors)}")


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        program.close()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[int], Server]]:
    """A server for a seed; it tells the truth again at each test's start."""
    with tempfile.TemporaryDirectory(prefix="ubcp-") as folder:
        servers: dict[int, Server] = {}

        def server(seed: int) -> Server:
            if seed not in servers:
                place = Path(folder, str(seed))  # unix sockets need short paths
                place.mkdir()
                servers[seed] = Server(place, seed)
            servers[seed].order("lie no more")
            return servers[seed]

        yield server
        for one in servers.values():
            one.close()


def once(*arguments: str) -> tuple[int, list[Document], str]:
    """Exit code, documents and stderr of `ubcp follow --json --once`."""
    follow = Follow("--once", *arguments)
    try:
        documents = []
        while line := follow.line():
            documents.append(json.loads(line))
        return follow.ended(), documents, "".join(follow.errors)
    finally:
        follow.close()


@pytest.mark.full
def test_follow_sees_what_happens_and_ends_with_the_same_roots(
    serve: Callable[[int], Server], programs: list[Program]
) -> None:
    server = serve(SEED)
    follow = Follow(server.address)
    programs.append(follow)
    met = follow.wait("community")
    assert met["charter_known"] is False
    assert len(met["network"]) == 64
    assert follow.wait("synced")["kinds"]["RECEIPT"] >= 1

    paid = server.order("receipt")["author"]
    grown = follow.wait("synced")
    assert grown["added"] == 1
    assert (grown["new"][0]["kind"], grown["new"][0]["author"]) == ("RECEIPT", paid)

    server.order("checkpoint")
    assert follow.wait("synced")["kinds"] == {"CHECKPOINT": 1}

    forker = server.order("fork")["author"]
    fault = follow.wait("fault")
    assert (fault["code"], fault["invariant"], fault["account"]) == ("fork", 4, forker)
    assert len({entry["id"] for entry in fault["entries"]}) == 2
    assert {entry["author"] for entry in fault["entries"]} == {forker}

    roots = server.order("bad root")
    fault = follow.wait("fault")
    assert (fault["code"], fault["account"]) == ("checkpoint-root", roots["author"])

    follow.process.send_signal(signal.SIGINT)
    summary = follow.wait("summary")
    assert follow.ended() == 1, follow.errors
    assert [fault["code"] for fault in summary["faults"]] == ["fork", "checkpoint-root"]
    assert summary["frozen"] == [forker]
    assert summary["in_sync"]
    assert summary["checkpoints"] == {"checked": 2, "not_checkable_here": 0}
    assert summary["balances_root"] == roots["balances_root"]
    assert summary["entries_root"] == roots["entries_root"]


def test_a_kept_ledger_goes_on_where_it_was(serve: Callable[[int], Server], tmp_path: Path) -> None:
    server = serve(SEED + 1)
    by_name = server.address.replace("/ip4/127.0.0.1/", "/dns4/localhost/")
    arguments = ["--charter", str(server.charter), "--store", str(tmp_path / "ledger.sqlite3"), by_name]
    code, documents, errors = once(*arguments)
    assert (code, documents[-1]["in_sync"]) == (0, True), errors
    assert documents[0]["charter_known"] is True
    roots = server.order("receipt")
    code, documents, errors = once(*arguments)
    assert (code, documents[-2]["event"], documents[-2]["added"]) == (0, "synced", 1), errors
    assert documents[-1]["entries_root"] == roots["entries_root"]
    assert documents[-1]["signatures"] == 2  # those of the one new RECEIPT


LIES = {
    "garbage": "does not keep the protocol",
    "huge": "a frame of 4294967295 bytes",
    "other charter": "a charter that is not of the network",
    "forged": "does not hold",
    "endless": "answers without end",
    "hang up": "hung up",
}
QUICK = ("garbage", "forged", "endless")  # what `make test` runs: what is no frame, no entry, no end


@pytest.mark.parametrize("lie", [pytest.param(lie, marks=() if lie in QUICK else pytest.mark.full) for lie in LIES])
def test_a_lying_node_is_left_with_one_line(serve: Callable[[int], Server], lie: str) -> None:
    server = serve(SEED)
    server.order(f"lie {lie}")
    code, documents, errors = once(server.address)
    assert code == 3, errors
    assert [document["event"] for document in documents if document["event"] in ("fault", "summary")] == []
    told = [line for line in errors.splitlines() if line.startswith("ubcp: error:")]
    assert len(told) == 1
    assert LIES[lie] in told[0]
    assert server.address in told[0]
    assert "Traceback" not in errors


def test_another_node_is_tried(serve: Callable[[int], Server]) -> None:
    honest, liar = serve(SEED + 1), serve(SEED)
    liar.order("lie garbage")
    code, documents, errors = once("--charter", str(honest.charter), liar.address, honest.address)
    assert code == 0, errors
    lost = next(document for document in documents if document["event"] == "lost")
    assert lost["address"] == liar.address
    assert documents[-1]["in_sync"]


def test_a_node_of_another_community_is_not_followed(serve: Callable[[int], Server]) -> None:
    here, elsewhere = serve(SEED), serve(SEED + 1)
    code, _, errors = once("--charter", str(here.charter), elsewhere.address)
    assert code == 3
    assert "another community" in errors
    assert "protocol" not in errors  # nobody is blamed


@pytest.mark.full
def test_a_node_that_goes_away_is_waited_for(programs: list[Program]) -> None:
    with tempfile.TemporaryDirectory(prefix="ubcp-") as folder:
        server = Server(Path(folder), SEED)
        programs.append(server)
        follow = Follow(server.address)
        programs.append(follow)
        follow.wait("synced")
        server.close()
        lost = follow.wait("lost")
        assert lost["retry_s"] is not None
        follow.process.send_signal(signal.SIGTERM)
        assert follow.wait("summary")["in_sync"] is False
        assert follow.ended() == 0, follow.errors


def test_who_cannot_be_reached_is_told_why(serve: Callable[[int], Server]) -> None:
    there, _, _ = serve(SEED).address.rpartition("/")
    addresses = [NOBODY, f"{there}/{NOBODY.rpartition('/')[2]}"]
    code, documents, errors = once(*addresses)
    assert (code, [document["event"] for document in documents]) == (3, ["lost", "lost"])
    assert [document["address"] for document in documents] == addresses
    assert "nothing answers there" in documents[0]["message"]
    assert "not the node that the address names" in documents[1]["message"]
    assert "ubcp: error: none of the 2 nodes could be followed" in errors


@pytest.mark.parametrize(
    "crash",
    ["trio.lowlevel.spawn_system_task", pytest.param("host.get_network().manager.run_task", marks=pytest.mark.full)],
)
def test_a_crash_within_py_libp2p_is_one_line(crash: str) -> None:
    """Whichever of its background tasks it is: none of them may end the program with a traceback."""
    code = (
        "import sys, trio\n"
        "from ubcp_p2p.cli.main import main\n"
        "from ubcp_p2p.light import dialing\n"
        "async def crash():\n"
        "    raise RuntimeError('a mistake')\n"
        "async def dial(host, address):\n"
        f"    {crash}(crash)\n"
        "    await trio.sleep_forever()\n"
        "dialing._dial = dial\n"
        f"sys.exit(main(['follow', '--once', {NOBODY!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=STEP_S, check=False)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [f"ubcp: error: {NOBODY}: py-libp2p failed: a mistake"]


def test_neither_torch_nor_hivemind_is_loaded(serve: Callable[[int], Server]) -> None:
    code = (
        "import sys\n"
        "from ubcp_p2p.cli.main import main\n"
        f"assert main(['follow', '--once', {serve(SEED + 1).address!r}]) == 0\n"
        "assert 'libp2p' in sys.modules\n"
        "print('heavy', *sorted({'torch', 'hivemind', 'uvloop'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=STEP_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy"


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'libp2p' else found(name, *more)\n"
        "from ubcp_p2p.cli.main import main\n"
        "sys.exit(main(['follow', '/ip4/127.0.0.1/tcp/1']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=STEP_S, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert error == "ubcp: error: this command needs the extra 'light' (libp2p not installed)"
    assert hint.startswith("ubcp: hint: ")
    assert "'.[light]'" in hint


def test_a_real_node_is_followed(programs: list[Program]) -> None:
    """The daemon itself: a community's charter, entries handed in, a fork while it is followed."""
    town = Town(SEED)
    with tempfile.TemporaryDirectory(prefix="ubcp-") as folder:
        charter = Path(folder, "charter.toml")
        charter.write_text(to_toml(town.world.charters.versions[0]))
        peer = Peer(Path(folder), "node", faulty=False).init(more=f"[ledger]\ncharter = {str(charter)!r}\n")
        try:
            peer.start()
            hand_in(peer, town)
            follow = Follow(peer.own()[0])
            programs.append(follow)
            assert follow.wait("synced")["entries"] >= town.ledger.size
            forker = town.fork()
            hand_in(peer, town)
            assert follow.wait("fault")["account"] == forker.hex()
            follow.wait("synced")
            follow.process.send_signal(signal.SIGINT)
            summary = follow.wait("summary")
            assert follow.ended() == 1, follow.errors
            status = peer.status()["ledger"]
            assert summary["balances_root"] == status["balances_root"]
            assert summary["entries"] == status["entries"]
        finally:
            peer.close()


def hand_in(peer: Peer, town: Town) -> None:
    """All that the town has written so far; what the node has is no news to it."""
    peer.call("ledger-append", entries=[signed.to_bytes().hex() for signed in town.world.entries])
