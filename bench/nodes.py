"""Real nodes (`ubcp up`, `ubcp bootstrap`) on loopback for the benchmarks, driven over their APIs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import BenchError

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.peer.control import call
from ubcp_p2p.peer.create import create_profile
from ubcp_p2p.peer.profile import Profile
from ubcp_p2p.processes import die_with_parent

CONFIG = """\
[network]
listen = ["/ip4/127.0.0.1/tcp/0"]
nat = "off"
[training]
threads = 1
device = "cpu"
"""
POLL_S = 0.005
STEP_S = 60.0
END_S = 20.0


@dataclass(frozen=True)
class RunningNode:
    """A node and the monotonic time at which it was started."""

    profile: Profile
    process: subprocess.Popen[bytes]
    started_s: float

    def call(self, verb: str, **arguments: Any) -> Any:
        """See peer.control.call; a node that ended is a BenchError with its last words."""
        try:
            return call(self.profile, verb, timeout_s=STEP_S, **arguments)
        except UbcpError as error:
            raise BenchError(f"{verb}: {error.message}{self.last_words()}") from None

    def wait(self, what: str, condition: Any) -> float:
        """Poll `status` until `condition(document)`; seconds since the node's start. Raises BenchError."""
        deadline_s = time.monotonic() + STEP_S
        while time.monotonic() < deadline_s:
            try:
                if condition(call(self.profile, "status", timeout_s=STEP_S)):
                    return time.monotonic() - self.started_s
            except UbcpError:
                if self.process.poll() is not None:
                    raise BenchError(f"the node ended before it was {what}{self.last_words()}") from None
            time.sleep(POLL_S)
        raise BenchError(f"the node was not {what} within {STEP_S:.0f} s{self.last_words()}")

    def last_words(self) -> str:
        words = (self.profile.root / "words.txt").read_text(errors="replace").strip()[-1000:]
        return f"; its last words:\n{words}" if words else ""


def make_profile(root: Path) -> Profile:
    """A fresh profile that listens on loopback alone."""
    profile = Profile(root)
    create_profile(profile, config_text=CONFIG)
    return profile


def start(profile: Profile, command: str = "up", join: tuple[str, ...] = ()) -> RunningNode:
    """Start a node as a child of this process; it does not outlive it."""
    arguments = [sys.executable, "-m", "ubcp_p2p", command, "--profile", str(profile.root)]
    for address in join:
        arguments += ["--peer", address]
    started_s = time.monotonic()
    with (profile.root / "words.txt").open("wb") as words:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=words, stderr=words, preexec_fn=die_with_parent(os.getpid())
        )
    return RunningNode(profile, process, started_s)


def stop(node: RunningNode) -> None:
    """End a node in order, or by SIGKILL when that takes too long (its children die with it)."""
    node.process.terminate()
    try:
        node.process.wait(END_S)
    except subprocess.TimeoutExpired:
        node.process.kill()
        node.process.wait()


@contextmanager
def swarm(directory: Path, peers: int) -> Iterator[list[RunningNode]]:
    """A seed node and `peers` nodes that have joined through it; yields the peers. All are gone at the end."""
    nodes: list[RunningNode] = []
    try:
        seed = start(make_profile(directory / "seed"), "bootstrap")
        nodes.append(seed)
        seed.wait("up", lambda status: status["stage"] == "up")
        address = seed.call("peers")["own"][0]
        for index in range(peers):
            nodes.append(start(make_profile(directory / f"p{index}"), join=(address,)))
        for node in nodes[1:]:
            node.wait("joined", lambda status: status["connected"] > 0)
        yield nodes[1:]
    finally:
        for node in nodes:
            if node.process.poll() is None:
                node.process.terminate()  # all at once, then wait for each
        for node in nodes:
            stop(node)
