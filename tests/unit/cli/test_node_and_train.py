"""`ubcp up`, `status`, `stop`, `peers`, `train`, `runs`, `leave` as command lines, against a node of the test."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.profiles import owned_profile
from ubcp_p2p.api.address import Address
from ubcp_p2p.api.server import ApiServer
from ubcp_p2p.api.verbs import Emit
from ubcp_p2p.cli import main as cli
from ubcp_p2p.cli.node import describe_earning, describe_run, describe_sandbox
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.peer.asking.listing import of_name
from ubcp_p2p.peer.pause import read_pause
from ubcp_p2p.peer.profile import Profile, ProfileLock

RUN: dict[str, Any] = {
    "name": "r", "recipe": "digits-tiny", "run_id": "ab" * 32, "stage": "done", "resumed": False, "resting": "",
    "phase": "done", "round": 50, "rounds": 50,
    "step": 4, "steps": 4, "peers": 3, "loss": 0.25, "state_hash": "cd" * 32, "retries": 1, "trainer_pid": 7,
    "device": "cpu", "sandbox": None, "evaluation": None, "refused": "", "checkpoint_trouble": None, "error": None,
}  # fmt: skip
FAILED = RUN | {"error": {"message": "the trainer was killed", "hint": "start it again"}}
OWNER: dict[str, Any] = {
    "works": False, "share_permille": 1000, "words": "on battery", "until": None, "causes": ["battery"], "pause": None,
    "readings": {"on_battery": True, "carbon": {"g_per_kwh": 27, "source": "the average", "note": "the API is away"}},
    "trouble": "pause.json is \x1b[2J damaged",
}  # fmt: skip
STATUS: dict[str, Any] = {
    "version": "0", "pid": 42, "role": "peer", "stage": "up", "loading": [], "uptime_s": 3.0, "peer_id": "12D3KooWx",
    "account": "ef" * 32, "addresses": ["/ip4/127.0.0.1/tcp/1/p2p/12D3KooWx"], "clock_offset_s": None,
    "reachability": {"kind": "loopback", "words": "this machine only"}, "connected": 2, "p2pd_pid": 9,
    "p2pd_restarts": 0, "runs": [RUN], "owner": OWNER, "ledger": None,
    "ledger_words": "none: this node is in no community",
    "serving": None,
    "serving_words": "this node serves no requests",
    "earning": [],
    "troubles": ["paying has stopped by an error \x1b[2J"],
    "api": {"url": "http://127.0.0.1:9", "header_file": "/h"},
}  # fmt: skip
ASKED: dict[str, Any] = {
    "request": "3a" * 32, "run": "paid", "run_id": "12" * 32, "account": "ef" * 32, "mine": True, "state": "waiting",
    "purpose": "research", "reserved": 1_500_000, "paid": 500_000, "peers_min": 2, "peers_max": 4,
    "asked": "2026-12-01 10:00 UTC", "deadline": "2026-12-08 10:00 UTC", "closable": "2026-12-09 10:15 UTC",
    "recipe": None, "recipe_hash": "7b" * 32,
    "leases": {"slice": 7, "nodes": ["bc" * 32]}, "expected_wait_s": 1800, "queue": 3, "words": "full \x1b[2J",
}  # fmt: skip
COPY: dict[str, Any] = {
    "name": "paid", "run_id": "12" * 32, "recipe": "gpt", "recipe_hash": "7b" * 32, "round": 8, "rounds": 9,
    "state_hash": "cd" * 32, "bytes": 3, "path": "/x/model", "fetched": 1_800_000_000,
}  # fmt: skip
FETCHING: list[dict[str, Any]] = [
    {"kind": "asking", "round": 0, "peers": 1},
    {"kind": "downloading", "round": 8, "peer": "0a" * 32, "of": 3},
    {"kind": "progress", "round": 8, "bytes": 3, "of": 3},
    {"kind": "passed over", "round": 8, "peer": "0a" * 32, "reason": "other bytes \x1b[2J"},
]
COMMITTED = {
    "kind": "committed", "round": 50, "time": 1.0, "members": ["a", "b"], "loss": 0.5, "weight": 8, "attempts": 1,
    "state_hash": "x", "train_s": 0.1, "match_s": 0.2, "exchange_s": 0.3,
}  # fmt: skip
EVENTS: list[dict[str, Any]] = [
    {"kind": "joined", "round": 0, "time": 1.0, "peers": 2},
    {"kind": "waiting", "round": 0, "time": 1.0, "peers": 1, "wanted": 2},
    {"kind": "paused", "round": 0, "time": 1.0, "reason": "on battery"},
    {"kind": "goes on", "round": 0, "time": 1.0},
    {"kind": "progress", "round": 0, "time": 1.0, "step": 1, "steps": 4, "loss": 1.0},
    {"kind": "retry", "round": 3, "time": 1.0, "reason": "no \x1b[2Jmajority\nubcp: error: forged", "attempt": 1},
    {"kind": "adopted", "round": 4, "time": 1.0, "how": "download", "source": "a", "before": 2},
    {"kind": "mismatch", "round": 4, "time": 1.0, "mine": "a", "theirs": "b"},
    {"kind": "rejected", "round": 4, "time": 1.0, "peer": "a", "reason": "not finite"},
    {"kind": "evaluated", "round": 4, "time": 1.0, "loss": 1.5, "stderr": 0.01, "accuracy": None, "n": 10},
    {"kind": "checkpoint failed", "round": 4, "time": 1.0, "reason": "disk full", "hint": "free some"},
    {"kind": "a kind of a newer node", "round": 4, "time": 1.0},
    COMMITTED,
    {"kind": "done", "round": 50, "time": 1.0},
]


class FakeNode:
    """A real API with canned answers. `asked` keeps the requests."""

    def __init__(self, root: Path, sockets: Path) -> None:
        self.root = root
        self.asked: list[dict[str, Any]] = []
        self.final = RUN
        self._sockets = sockets
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._end: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10.0)

    def stop(self) -> None:
        assert self._end is not None
        loop, event = self._end
        if self._thread.is_alive():
            loop.call_soon_threadsafe(event.set)
        self._thread.join(10.0)

    async def _main(self) -> None:
        event = asyncio.Event()
        self._end = asyncio.get_running_loop(), event

        async def follow(request: dict[str, Any], emit: Emit) -> Any:
            for document in EVENTS:
                await emit(document)
            return self.final

        async def fetch(request: dict[str, Any], emit: Emit) -> Any:
            self.asked.append(request)
            for document in FETCHING:
                await emit(document)
            model = self.root / "model"
            model.write_bytes(b"abc")
            return COPY | {"path": str(model), "words": "nobody is there: the kept one \x1b[2J"}

        async def stop(request: dict[str, Any], emit: Emit) -> Any:
            event.set()
            return {"stopping": True, "pid": __import__("os").getpid()}

        def canned(answer: Any) -> Any:
            async def verb(request: dict[str, Any], emit: Emit) -> Any:
                self.asked.append(request)
                return answer

            return verb

        claim = {"name": "far", "recipe": "gpt", "run_id": "12" * 32, "peers": 2, "round": 9, "rounds": 10}
        known: dict[str, Any] = {
            "own": [RUN],
            "claimed": [claim, claim | {"run_id": RUN["run_id"], "name": "mine"}],
            "requests": [ASKED, ASKED | {"run": "theirs", "mine": False, "state": "served"}],
            "fetched": [COPY],
            "fetch_troubles": {"paid": ["no peer of the run answers \x1b[2J"]},
        }

        async def run(request: dict[str, Any], emit: Emit) -> Any:
            return of_name(known, request["run"])

        verbs = {
            "status": canned(STATUS), "train": canned(RUN), "leave": canned(RUN), "follow": follow, "stop": stop,
            "pause": canned(OWNER), "resume": canned(OWNER | {"works": True, "words": "working", "trouble": None}),
            "runs": canned(known), "run": run, "fetch": fetch,
            "peers": canned({"own": ["/a/p2p/1"], "connected": ["2"], "remembered": ["/b/p2p/2"]}),
        }  # fmt: skip
        with ProfileLock(Profile(self.root), self._sockets):
            server = ApiServer(self._sockets, verbs)
            await server.start()
            self._ready.set()
            await event.wait()
            await server.stop()


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HIVEMIND_LOGLEVEL", "GOLOG_LOG_LEVEL"):
        monkeypatch.setenv(name, "ERROR")
    return owned_profile(tmp_path / "profile").root


@pytest.fixture
def node(profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    made = FakeNode(profile, tmp_path_factory.mktemp("s"))
    made.start()
    yield made
    made.stop()


def ubcp(*words: str, profile: Path | None = None) -> int:
    return cli.main([*words, *(["--profile", str(profile)] if profile else [])])


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected", "hint"),
    [
        (["up", "--peer", "nonsense"], "not a peer's address", "/ip4/"),
        (["up", "--peer", "/ip4/1.2.3.4/tcp/1/p2p/0OIl"], "not a peer id", "12D3KooW"),
        (["bootstrap", "--peer", "/ip4/1.2.3.4/tcp/1"], "not a peer's address", "ubcp status"),
        (["up", "--peers", "/no/such/file"], "cannot read the peers", "ubcp peers"),
        (["train", "no-such-recipe", "--run", "r"], "no-such-recipe", "digits-tiny"),
        (["train", "digits-tiny"], "--run", "--help"),
        (["train", "digits-tiny", "--run", "r", "--min-peers", "0"], "min-peers", "--help"),
        (["train", "digits-tiny", "--run", "r", "--min-peers", "65"], "min-peers", "--help"),
        (["leave"], "NAME", "--help"),
        (["status", "--bogus"], "bogus", "--help"),
    ],
)
def test_a_wrong_command_line_is_exit_2_with_a_hint(
    profile: Path, words: list[str], expected: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ubcp(*words, profile=profile) == 2
    out, err = capsys.readouterr()
    assert out == ""
    error, told = err.strip().split("\n")[-2:]
    assert error.startswith("ubcp: error: ")
    assert told.startswith("ubcp: hint: ")
    assert expected in error
    assert hint in told


@pytest.mark.parametrize(
    "words", [["status"], ["stop"], ["peers"], ["runs"], ["leave", "r"], ["train", "digits-tiny", "--run", "r"]]
)
@pytest.mark.slow
def test_without_a_node_every_command_says_how_to_start_one(
    profile: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ubcp(*words, profile=profile) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "no node is running" in err
    assert "ubcp up --profile" in err


def test_without_a_profile_up_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp("up", profile=tmp_path / "none") == 2
    assert "ubcp init --profile" in capsys.readouterr().err


def test_a_peers_file_is_checked_line_by_line(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "peers.txt"
    file.write_text("# friends\n\n   \n  not an address \n")
    assert ubcp("up", "--peers", str(file), profile=profile) == 2
    assert "'not an address'" in capsys.readouterr().err
    file.write_bytes(b"\xff\xfe")
    assert ubcp("up", "--peers", str(file), profile=profile) == 2
    file.write_bytes(b"/ip4/1.2.3.4/tcp/1/p2p/x\n" * 100_000)
    assert ubcp("up", "--peers", str(file), profile=profile) in (2, 3)


# -- with a node -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["status"], ["peers"], ["runs"], ["leave", "r"], ["train", "digits-tiny", "--run", "r"], ["pause"], ["resume"]],
)
def test_json_is_one_document_on_stdout(node: FakeNode, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp(*words, "--json", profile=node.root) == 0
    out, _ = capsys.readouterr()
    json.loads(out)
    assert out.endswith("\n")
    assert out.count("\n") == 1


def test_status_in_words(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp("status", profile=node.root) == 0
    out = capsys.readouterr().out
    for words in ("12D3KooWx", "pid 42", "up", "loopback", "2 connected", "/ip4/127.0.0.1/tcp/1", "round 50 of 50",
                  "http://127.0.0.1:9", "owner      idle: on battery\n",
                  "owner      carbon by the average: the API is away\n",
                  "owner      TROUBLE: pause.json is \\x1b[2J damaged\n",
                  "TROUBLE    paying has stopped by an error \\x1b[2J\n"):  # fmt: skip
        assert words in out


def test_pause_and_resume_ask_the_node(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp("pause", "--for", "0.5", "--after-round", profile=node.root) == 0
    assert "idle: on battery" in capsys.readouterr().out
    assert ubcp("resume", profile=node.root) == 0
    assert capsys.readouterr().out.startswith("working\n")
    asked = [{key: request.get(key) for key in ("verb", "hours", "after_round")} for request in node.asked]
    assert asked == [
        {"verb": "pause", "hours": 0.5, "after_round": True},
        {"verb": "resume", "hours": None, "after_round": None},
    ]
    assert not Profile(node.root).pause_file.exists()  # the node writes it


@pytest.mark.slow
def test_pause_without_a_node_is_kept_for_the_next(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Profile(profile)
    assert ubcp("pause", "--for", "2", profile=profile) == 0
    kept = read_pause(place.pause_file)
    assert kept is not None
    assert kept.until == kept.since + 7200
    assert ubcp("pause", "--for", "-1", profile=profile) == 2
    assert read_pause(place.pause_file) == kept
    assert ubcp("resume", "--json", profile=profile) == 0
    assert not place.pause_file.exists()
    out, err = capsys.readouterr()
    assert "the next one begins paused" in out
    assert json.loads(out.splitlines()[-1]) == {
        "running": False, "words": "no node is running; the next one is not paused",
    }  # fmt: skip
    assert "a pause of -1.0 hours cannot be" in err
    assert ubcp("pause", profile=profile / "none") == 2


def test_api_prints_what_a_shell_can_use(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp("api", "--json", profile=node.root) == 0
    document = json.loads(capsys.readouterr().out)
    assert ubcp("api", profile=node.root) == 0
    lines = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert lines == {"UBCP_URL": document["url"], "UBCP_HEADER": document["header_file"]}
    assert Path(document["header_file"]).read_text().startswith("Authorization: Bearer ")
    assert Path(document["socket"]).is_socket()


@pytest.mark.slow
def test_api_without_a_node_or_without_loopback_says_so(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp("api", profile=profile) == 2
    assert "no node is running" in capsys.readouterr().err
    with ProfileLock(Profile(profile), profile), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        address = Address(profile, "00", None)
        address.save()
        listener.bind(str(address.socket))
        listener.listen()
        assert ubcp("api", profile=profile) == 3
    assert f"curl --unix-socket {address.socket}" in capsys.readouterr().err


def test_peers_prints_what_up_peers_takes(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp("peers", profile=node.root) == 0
    assert capsys.readouterr().out == "/a/p2p/1\n/b/p2p/2\n"


def test_runs_tells_own_runs_from_claims(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp("runs", profile=node.root) == 0
    out = capsys.readouterr().out
    assert "here     r (digits-tiny): round 50 of 50" in out
    assert "claimed  far (gpt): round 9, by 2 peers" in out
    assert "mine" not in out
    assert "asked    paid, by you: waiting, 0.5 of 1.5 credits paid; until 2026-12-08" in out
    assert f"asked    theirs, by {'ef' * 8}…: being served" in out


def test_runs_show_tells_all_of_one_name(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp("runs", "show", "paid", profile=node.root) == 0
    out = capsys.readouterr().out
    for words in (
        "2 to 4 peers",
        "slice 7 is held by bcbc",
        "no peer could show (7b7b",
        "within 30 min, number 3",
        "from 2026-12-09",
    ):
        assert words in out, words
    assert "fetched  paid (gpt): round 8 of 9, in /x/model" in out
    assert "fetched  not the newest: no peer of the run answers" in out
    assert "\x1b" not in out and "theirs" not in out
    assert ubcp("runs", "show", "r", "--json", profile=node.root) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["own"], document["claimed"], document["requests"]) == ([RUN], [], [])
    assert ubcp("runs", "show", "unknown", profile=node.root) == 1
    assert "known: far, mine, paid, r, theirs" in capsys.readouterr().err


def test_runs_fetch_shows_what_happens_and_copies_the_file(
    node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert ubcp("runs", "fetch", "paid", "--recipe", "digits-tiny", "--out", str(out), profile=node.root) == 0
    (request,) = [asked for asked in node.asked if asked["verb"] == "fetch"]
    assert request["run"] == "paid" and 'name = "digits-tiny"' in request["recipe"]
    shown = capsys.readouterr()
    assert shown.out == f"paid (gpt): round 8 of 9, in {out}\n"
    for words in ("asking 1 peer what", "round 8, 3 bytes, from 0a0a", "passed over 0a0a", "the kept one"):
        assert words in shown.err
    assert "\x1b" not in shown.err
    assert (out.read_bytes(), out.stat().st_mode & 0o777) == (b"abc", 0o600)
    assert ubcp("runs", "fetch", "paid", "--out", str(out), profile=node.root) == 2
    assert "is there already" in capsys.readouterr().err
    assert ubcp("runs", "fetch", "paid", "--json", profile=node.root) == 0
    assert json.loads(capsys.readouterr().out)["round"] == 8


def test_train_sends_the_recipe_and_shows_what_happens(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp("train", "digits-tiny", "--run", "r", "--min-peers", "3", "--new", profile=node.root) == 0
    (request,) = [asked for asked in node.asked if asked["verb"] == "train"]
    assert (request["run"], request["peers_min"], request["new"]) == ("r", 3, True)
    assert 'name = "digits-tiny"' in request["recipe"]
    err = capsys.readouterr().err
    for words in ("joined with 2", "paused: on battery", "goes on: the owner",
                  "waiting for peers: 1 of 2", "tried again", "now at round 4", "repaired",
                  "not finite", "1.5000 ± 0.0100", "NO CHECKPOINT: disk full", "round 50 committed by 2"):  # fmt: skip
        assert words in err
    assert "step 1/4" not in err  # progress is for terminals


def test_what_a_peer_sent_cannot_forge_a_line_or_move_the_cursor(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    ubcp("train", "digits-tiny", "--run", "r", profile=node.root)
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert not any(line.startswith("ubcp: error: forged") for line in err.splitlines())


def test_train_detached_returns_at_once(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp("train", "digits-tiny", "--run", "r", "--detach", profile=node.root) == 0
    assert "joined" not in capsys.readouterr().err


def test_a_run_that_failed_is_exit_1_with_its_reason(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.final = FAILED
    assert ubcp("train", "digits-tiny", "--run", "r", profile=node.root) == 1
    err = capsys.readouterr().err
    assert "ubcp: error: the run 'r' failed: the trainer was killed" in err
    assert "ubcp: hint: start it again" in err


def test_stop_waits_for_the_end(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert ubcp("stop", profile=node.root) == 0
    assert "stopped (pid" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (RUN, "r (digits-tiny): round 50 of 50, done, 3 peers, loss 0.250, 1 retries"),
        (FAILED, "r: failed: the trainer was killed (start it again)"),
        (RUN | {"error": {"message": "no", "hint": None}}, "r: failed: no"),
        (RUN | {"round": None}, "r: starting the trainer"),
        (RUN | {"round": None, "resumed": True}, "r: starting the trainer, to go on where it was"),
        (RUN | {"resumed": True}, "1 retries, resumed at the node's start"),
        (RUN | {"stage": "left", "round": None}, "r: left before it began"),
        (
            RUN | {"stage": "paused", "resting": "on battery"},
            "paused after round 50 of 50: on battery",
        ),
        (RUN | {"stage": "paused", "round": None, "resting": "no"}, "r (digits-tiny): paused: no"),
        (RUN | {"stage": "running", "resting": "on battery"}, "; about to pause: on battery"),
        (RUN | {"loss": None, "checkpoint_trouble": "disk full"}, "NO CHECKPOINT: disk full"),
    ],
)
def test_one_line_on_a_run(run: dict[str, Any], words: str) -> None:
    assert words in describe_run(run)
    assert "\n" not in describe_run(run)


EARNING: dict[str, Any] = {
    "request": "ab" * 32, "run": "plays", "rounds": 12, "earned": 340, "earned_words": "0.00034 credits",
    "receipted": 300, "unpaid_rounds": 2, "held_rounds": 1, "words": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({}, "plays abababababababab…: 0.00034 credits for 12 rounds, 2 not yet in its voucher, 1 wait for a check"),
        ({"unpaid_rounds": 0, "held_rounds": 0, "words": "capped"},
         "plays abababababababab…: 0.00034 credits for 12 rounds: capped"),
        ({"rounds": 0}, "plays abababababababab…: nothing yet"),
        ({"rounds": 0, "run": "", "words": "nobody has its recipe"}, "abababababababab…: nobody has its recipe"),
    ],
)  # fmt: skip
def test_one_line_on_what_is_earned(row: dict[str, Any], line: str) -> None:
    assert describe_earning(EARNING | row) == line


def test_the_lines_on_a_sandbox() -> None:
    def layer(name: str, active: bool, words: str, remedy: str = "") -> dict[str, Any]:
        return {"name": name, "active": active, "words": words, "remedy": remedy}

    held, bare = layer("limits", True, "at most 9 MiB"), layer("files", False, "no Landlock", "a newer Linux")
    assert describe_sandbox(None) == describe_sandbox([]) == []
    assert describe_sandbox([held, bare]) == [
        "holds: limits (at most 9 MiB)",
        "NOT THERE: files: no Landlock; a newer Linux",
    ]
    off = [layer(name, False, "switched off") for name in ("limits", "files")]
    assert describe_sandbox(off) == ["NOT THERE: limits, files: switched off"]


def test_the_error_class_of_a_missing_node_is_usage() -> None:
    from ubcp_p2p.peer.control import NotRunning

    assert issubclass(NotRunning, ConfigError)
