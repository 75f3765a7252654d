"""The demo's nodes as processes: made, started, killed, stopped and reaped; and what a killed one leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from ubcp_p2p.errors import ConfigError, LocalIOError, UbcpError
from ubcp_p2p.peer.control import NotRunning, call
from ubcp_p2p.peer.create import create_profile
from ubcp_p2p.peer.profile import Profile, read_holder
from ubcp_p2p.peer.sweeper import instance_dir
from ubcp_p2p.processes import die_with_parent

STOP_S = 10.0  # a node that leaves its run and keeps a checkpoint needs about 1 s; after this it is killed
KILLED_S = 5.0  # a killed node's children were gone within 0.4 s (measured); they are waited for so long
TAIL_BYTES = 16 << 10
KEEP_HINT = "its last lines are above; `ubcp demo --keep DIR` keeps the profiles with all logs"
OUTPUT_NAME = "output.txt"  # in the profile's log folder
PROGRAM = ("ubcp_p2p",)

# Loopback alone, and one thread a trainer: four of them share the cores of this machine.
CONFIG = """\
[network]
listen = ["/ip4/127.0.0.1/tcp/0"]
nat = "off"

[training]
device = "{device}"
threads = 1
checkpoints_kept = 1
"""


class DemoFailed(UbcpError):
    """The demo did not go as it is meant to. `node` is the one to blame, when there is one."""

    def __init__(self, message: str, *, hint: str | None = None, node: NodeProcess | None = None) -> None:
        super().__init__(message, hint=hint)
        self.node = node


class NodeProcess:
    """One node of the demo: its profile, and its process while it runs."""

    def __init__(self, name: str, root: Path, device: str, more: str = "") -> None:
        """Make the profile, as `ubcp init` does. more: of its configuration. Raises ConfigError, LocalIOError."""
        self.name = name
        self.profile = Profile(root)
        made = create_profile(self.profile, config_text=CONFIG.format(device=device) + more)
        self.public, self.account = made.node.hex(), made.account
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> Path:
        """What the process writes to its standard output and error."""
        return self.profile.log / OUTPUT_NAME

    def start(self, command: str, join: Sequence[str] = (), program: Sequence[str] = PROGRAM) -> None:
        """Start `ubcp COMMAND` on the profile. Call from the main thread: the node dies with the calling thread.

        program: another one than `ubcp`, that takes the same words.
        """
        assert self.process is None, "started twice"
        line = [sys.executable, "-m", *program, command, "--profile", str(self.profile.root)]
        for address in join:
            line += ["--peer", address]
        try:
            with self.output.open("wb") as output:
                self.process = subprocess.Popen(
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    start_new_session=True,  # Ctrl-C is for the demo, which then stops its nodes in order
                    preexec_fn=die_with_parent(os.getpid()),  # and when the demo is killed, nothing stays
                )
        except OSError as error:
            raise LocalIOError(
                f"cannot start {self.name}: {error.strerror or error}",
                hint="look at this machine's limits on memory and processes",
            ) from None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def status(self) -> dict[str, Any] | None:
        """The node's status document; None while it does not answer yet. Raises DemoFailed when it has ended."""
        self.require_running()
        try:
            document: dict[str, Any] = call(self.profile, "status", timeout_s=10.0)
        except (NotRunning, LocalIOError):
            self.require_running()
            return None
        return document

    def require_running(self) -> None:
        """Raise DemoFailed, with what it said last, when the process has ended."""
        if self.process is not None and self.process.poll() is not None:
            code = self.process.returncode
            ended = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            raise self.failure(f"{self.name} {ended}, unasked")

    def failure(self, what: str, hint: str | None = None) -> DemoFailed:
        """An error about this node; whoever shows it should show the node's `tail` before."""
        return DemoFailed(what, hint=hint or KEEP_HINT, node=self)

    def tail(self, lines: int) -> list[str]:
        """The last lines that the node wrote."""
        try:
            with self.output.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip()][-lines:]

    def remains(self) -> Remains:
        """The handles by which `Remains.left` sees, after a kill, whether anything is left."""
        assert self.process is not None
        holder = read_holder(self.profile)
        return Remains(_descendants(self.process.pid), holder.runtime_dir if holder else None)


class Remains:
    """What a running node consists of besides its own process: child processes, and the directory of its sockets."""

    def __init__(self, processes: Sequence[psutil.Process], sockets: Path | None) -> None:
        self.processes = processes
        self.sockets = sockets

    def left(self, wait_s: float = KILLED_S) -> list[str]:
        """Whatever is still there `wait_s` after the node's death, in words."""
        deadline_s = time.monotonic() + wait_s
        alive = _wait_gone(self.processes, wait_s)
        while self.sockets is not None and self.sockets.exists() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        found = [_describe(process) for process in alive]
        if self.sockets is not None and self.sockets.exists():
            found.append(str(self.sockets))
        return found


class Swarm:
    """All nodes of one demo; `with` it, so that every process is reaped however the demo ends."""

    def __init__(self, directory: Path, device: str) -> None:
        self.directory, self.device = directory, device
        self.nodes: dict[str, NodeProcess] = {}

    def make(self, name: str, more: str = "") -> NodeProcess:
        """A new node with a profile of its own. more: of its configuration."""
        node = NodeProcess(name, self.directory / name.replace(" ", "-"), self.device, more)
        self.nodes[name] = node
        return node

    def stop(self) -> None:
        """End all nodes, at once and in order; kill those that do not end; reap every process. Safe to call again."""
        running = [node.process for node in self.nodes.values() if node.process is not None and node.running]
        children = [child for process in running for child in _descendants(process.pid)]
        try:
            for process in running:
                process.terminate()
            deadline_s = time.monotonic() + STOP_S
            for process in running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline_s - time.monotonic()))
        finally:  # also after another Ctrl-C: at once then
            for process in running:
                process.kill()
            for process in running:
                process.wait()
            for straggler in _wait_gone(children, KILLED_S):
                with suppress(psutil.Error):
                    straggler.kill()

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """A directory for the profiles: `keep`, which must be empty or absent and stays; or one that is gone at the end.

    Raises ConfigError, LocalIOError.
    """
    if keep is not None:
        try:
            keep.mkdir(parents=True, exist_ok=True)
            if any(keep.iterdir()):
                raise ConfigError(f"{keep} is not empty", hint="--keep takes a new or an empty directory")
        except OSError as error:
            raise LocalIOError(f"cannot use {keep}: {error.strerror}", hint="give another --keep DIR") from None
        yield keep.absolute()
        return
    try:
        parent = Path(tempfile.mkdtemp(prefix="ubcp-demo-"))
    except OSError as error:
        raise LocalIOError(
            f"cannot make a temporary directory: {error.strerror}", hint="free some space, or set TMPDIR"
        ) from None
    try:
        with instance_dir(parent) as directory:
            yield directory
    finally:
        with suppress(OSError):
            parent.rmdir()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _wait_gone(processes: Sequence[psutil.Process], wait_s: float) -> list[psutil.Process]:
    """Wait until all have ended; returns those that have not after `wait_s`."""
    deadline_s = time.monotonic() + wait_s
    while True:
        alive = [process for process in processes if _is_alive(process)]
        if not alive or time.monotonic() > deadline_s:
            return alive
        time.sleep(0.01)


def _is_alive(process: psutil.Process) -> bool:
    """A zombie has ended: its new parent has only not asked yet (in a container, process 1 may never do)."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.name()} (pid {process.pid})"
    except psutil.Error:
        return f"pid {process.pid}"
