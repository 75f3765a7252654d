"""`ubcp demo` as a user starts it: the whole story, and that nothing stays behind however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from ubcp_p2p.peer.demo.villain import VILLAINS

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(300)]

KEYS = {
    "peers", "rounds", "loss_first", "loss_last", "loss_alone", "replicas_identical", "late_joiner_round",
    "killed_peer_round", "credits", "decisions", "audit", "seconds",
}  # fmt: skip
GONE_S = 10.0
HARM_MAX = 0.1  # a short run is noisy: the standard error of each loss is some 0.6 %


@dataclass(frozen=True)
class Places:
    """Where one demo may leave files: its temporary directory, and that of the nodes' sockets."""

    temporary: Path
    sockets: Path

    def left(self) -> list[Path]:
        return [*self.temporary.iterdir(), *self.sockets.iterdir()]

    def processes(self) -> list[psutil.Process]:
        """Processes that were started with a path in the temporary directory: nodes, p2pd, sweepers."""
        return [
            process
            for process in psutil.process_iter(["cmdline", "status"])
            if process.info["status"] != psutil.STATUS_ZOMBIE
            and any(str(self.temporary) in word or str(self.sockets) in word for word in process.info["cmdline"] or [])
        ]


@pytest.fixture
def places() -> Iterator[Places]:
    with tempfile.TemporaryDirectory(prefix="ub") as short:  # pytest's own path is too long for sockets
        temporary, sockets = Path(short, "t"), Path(short, "s")
        temporary.mkdir()
        sockets.mkdir(mode=0o700)
        yield Places(temporary, sockets)


@contextmanager
def demo(places: Places, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running `ubcp demo --quick`, which is ended at the latest with the block."""
    environment = os.environ | {"TMPDIR": str(places.temporary), "XDG_RUNTIME_DIR": str(places.sockets)}
    with subprocess.Popen(
        [sys.executable, "-m", "ubcp_p2p", "demo", "--quick", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """The lines on stderr up to the first one with `words`."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"the demo ended without {words!r}:\n{''.join(lines)}")


def wait_until_nothing_is_left(places: Places, processes: list[psutil.Process]) -> None:
    """Of the processes given and of all that have the places in their command lines, and in the places themselves."""
    _, alive = psutil.wait_procs(processes, timeout=GONE_S)
    assert not alive
    deadline_s = time.monotonic() + GONE_S
    while (places.left() or places.processes()) and time.monotonic() < deadline_s:
        psutil.wait_procs(places.processes(), timeout=0.05)
    assert not places.processes()
    assert not places.left()


def test_the_story_comes_true_and_is_told_in_one_document(places: Places, tmp_path: Path) -> None:
    picture, kept = tmp_path / "loss.png", places.temporary / "kept"
    with demo(places, "--json", "--png", str(picture), "--keep", str(kept)) as process:
        output, told = process.communicate()
    assert process.returncode == 0, told

    result = json.loads(output)
    assert set(result) == KEYS
    assert (result["peers"], result["rounds"], result["replicas_identical"]) == (4, 60, True)
    assert 0 < result["late_joiner_round"] < result["killed_peer_round"] < 60
    assert 1.0 < result["loss_last"] < result["loss_first"]
    assert 1.0 < result["loss_alone"] < result["loss_first"]

    audit, credits = result["audit"], result["credits"]
    assert audit["faults"] == []
    assert audit["valid"] == audit["entries"] > 3 * 5  # five accounts and nodes were opened and enrolled, and worked
    [asker] = [account for account, each in credits.items() if each["spent"]]
    earned = {account: each["earned"] for account, each in credits.items() if account != asker}
    assert len(earned) == 4
    assert all(earned.values())
    assert credits[asker]["spent"] == sum(earned.values())
    assert credits[asker]["available"] < credits[asker]["allowance"] - credits[asker]["spent"]  # the rest is reserved
    assert all(each["available"] == each["allowance"] + each["earned"] for a, each in credits.items() if a != asker)
    assert {told["node"] for told in result["decisions"] if told["accepted"]} == {f"peer {n}" for n in (1, 2, 3, 4)}
    assert all(told["words"].startswith("accepted: ") for told in result["decisions"] if told["accepted"])

    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "kill -9 peer 4" in told
    assert "What is left of peer 4: nothing" in told
    assert "\x1b" not in told  # plain lines where there is no terminal

    logs = {path.parent.parent.name for path in kept.glob("*/log/ubcp.log")}
    assert logs == {"bootstrap", "asker", "peer-1", "peer-2", "peer-3", "peer-4"}
    assert list(kept.glob("peer-1/runs/*/round-00000060.safetensors"))
    assert (kept / "demo.ledger").stat().st_size > 0
    assert not places.processes()
    assert places.left() == [kept]


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", VILLAINS)
def test_a_villain_is_caught_unpaid_and_harmless(places: Places, kind: str) -> None:
    with demo(places, "--json", "--villain", kind) as process:
        output, told = process.communicate()
    assert process.returncode == 0, told
    result = json.loads(output)
    assert set(result) == KEYS | {"villain"}
    assert set(result["villain"]) == {"kind", "caught", "how", "paid", "harm"}
    assert (result["villain"]["kind"], result["villain"]["caught"], result["villain"]["paid"]) == (kind, True, 0)
    assert result["villain"]["how"]
    assert result["villain"]["harm"] < HARM_MAX
    assert (result["peers"], result["replicas_identical"]) == (4, True)
    assert 1.0 < result["loss_last"] < result["loss_first"]
    blamed = {fault["account"] for fault in result["audit"]["faults"]}
    assert len(blamed) == (kind == "forker")  # whose account it is, the demo has looked at
    assert not places.processes()


@pytest.mark.parametrize(
    ("number", "moment", "code"),
    [
        (signal.SIGINT, "Starting asker", 130),
        pytest.param(signal.SIGTERM, "Rounds:", 128 + signal.SIGTERM, marks=pytest.mark.full),
    ],
)
def test_a_signal_ends_everything(places: Places, number: signal.Signals, moment: str, code: int) -> None:
    with demo(places, "--json") as process:
        read_until(process, moment)
        processes = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        output, told = process.communicate()
    assert process.returncode == code, told
    assert output == ""
    assert "Traceback" not in told
    wait_until_nothing_is_left(places, processes)


@pytest.mark.full
def test_kill_9_of_the_demo_itself_leaves_nothing(places: Places) -> None:
    with demo(places, "--json") as process:
        read_until(process, "Rounds:")
        processes = psutil.Process(process.pid).children(recursive=True)
        assert len(processes) > 5 * 3  # five nodes with p2pd and sweeper each, and trainers
        process.kill()
        process.communicate()
    wait_until_nothing_is_left(places, processes)


@pytest.mark.full
def test_a_peer_that_ends_unasked_is_named_with_its_last_words(places: Places) -> None:
    with demo(places, "--json") as process:
        read_until(process, "Rounds:")
        processes = psutil.Process(process.pid).children(recursive=True)
        [peer] = [child for child in psutil.Process(process.pid).children() if "peer-2" in " ".join(child.cmdline())]
        peer.kill()
        output, told = process.communicate()
    assert process.returncode == 1, told
    assert output == ""
    assert "ubcp: error: peer 2 was ended by signal 9, unasked\nubcp: hint: " in told
    assert re.search(r"peer 2 \| .* info ", told)
    wait_until_nothing_is_left(places, processes)
