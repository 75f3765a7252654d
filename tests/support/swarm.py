"""Real nodes as processes on loopback, driven over their APIs and watched by their event streams."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.hosts import Host
from tests.support.processes import MARK, ended, family, family_ended, signal_all, until
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.log import QUIET_LIBRARIES
from ubcp_p2p.models.recipe import Recipe, load_recipe, run_id
from ubcp_p2p.peer.control import call, stream
from ubcp_p2p.peer.create import create_profile
from ubcp_p2p.peer.profile import Profile, read_holder
from ubcp_p2p.processes import die_with_parent

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 30.0  # 1.5 s on an idle machine; tests run beside each other
GONE_S = 5.0  # a killed node's processes were gone within 0.4 s (measured, docs/design notes)
STEP_S = 60.0  # for what has no deadline of its own in the protocol: torch's import in a trainer, a restart
LISTEN = '[network]\nlisten = ["/ip4/{address}/tcp/{port}"]\nnat = "off"\n'
TRAINING = '[training]\ndevice = "cpu"\nthreads = 1\n'

Event = dict[str, Any]


class Peer:
    """One node, its process and what it has said. `events` only grows, over restarts too."""

    def __init__(
        self, home: Path, name: str, *, role: str = "up", faulty: bool = True, host: Host | None = None
    ) -> None:
        self.name = name
        self.home = home
        self.role = role
        self.program = ""  # another module to run
        self.faulty = faulty  # runs tests.support.node, which takes orders to fail; otherwise the `ubcp` program
        self.prefix = host.prefix if host is not None else ()
        self.address = host.address if host is not None else "127.0.0.1"
        self.profile = Profile(home / name)
        self.mark = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.events: list[Event] = []
        self._heard = threading.Condition()
        self._threads: list[threading.Thread] = []

    # -- life -----------------------------------------------------------------------------------------------------

    def init(self, *, port: int = 0, more: str = "") -> Peer:
        config = LISTEN.format(address=self.address, port=port) + TRAINING + more
        create_profile(self.profile, config_text=config)
        return self

    @property
    def public(self) -> bytes:
        return NodeKey.load(self.profile.node_key).public

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def runtime_base(self) -> Path:
        path = self.home / "run" / self.name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def environment(self) -> dict[str, str]:
        return {**os.environ, **QUIET_LIBRARIES, MARK: self.mark, "XDG_RUNTIME_DIR": str(self.runtime_base)}

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the process without waiting for anything."""
        self.mark = secrets.token_hex(8)
        program = self.program or ("tests.support.node" if self.faulty else "ubcp_p2p")
        output = (self.home / f"{self.name}.output").open("ab")
        with output:
            command = [sys.executable, "-m", program, self.role, "--profile", str(self.profile.root), *arguments]
            self.process = subprocess.Popen(
                [*self.prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=self.environment(),
                start_new_session=True,
                preexec_fn=die_with_parent(os.getpid()),  # a test run that is killed leaves nothing either
            )
        return self.process

    def start(self, join: Iterable[str] = (), *arguments: str) -> Peer:
        """Start it and wait until its network is up."""
        self.spawn(*(word for address in join for word in ("--peer", address)), *arguments)
        self.wait_up()
        return self

    def wait_up(self) -> Peer:
        def up() -> bool:
            assert self.process is not None and self.process.poll() is None, f"{self.name} ended:\n{self.output()}"
            return read_holder(self.profile) is not None and bool(self.status()["stage"] == "up")

        until(up, START_S, f"{self.name} is up")
        return self

    def output(self) -> str:
        return (self.home / f"{self.name}.output").read_text(errors="replace")[-6000:]

    def call(self, verb: str, *, timeout_s: float = 30.0, **arguments: Any) -> Any:
        return call(self.profile, verb, timeout_s=timeout_s, **arguments)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = self.call("status")
        return document

    def run(self, name: str = "run") -> dict[str, Any]:
        """The status of a run."""
        return next(run for run in self.status()["runs"] if run["name"] == name)

    def own(self) -> list[str]:
        return list(self.status()["addresses"])

    def kill(self) -> None:
        """SIGKILL the node itself, as a user's `kill -9` does; the rest of it must follow by itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop (SIGTERM) and wait; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(STEP_S)

    def left_behind(self) -> list[str]:
        """Processes and files that the ended node has not taken along."""
        processes = family_ended(self.mark, GONE_S)
        files = list(self.runtime_base.rglob("*"))
        if files and not processes:  # the sweeper has just ended
            files = list(self.runtime_base.rglob("*"))
        return [f"{pid}: {line}" for pid, line in processes.items()] + [str(path) for path in files]

    def close(self) -> None:
        """Whatever state the test left it in: end everything and join the threads."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(5.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.mark:
            family_ended(self.mark, 1.0)
            signal_all(self.mark, signal.SIGKILL)
        for thread in self._threads:
            thread.join(STEP_S)

    # -- runs and events ------------------------------------------------------------------------------------------

    def train(self, recipe: Recipe, *, run: str = "run", **options: object) -> Peer:
        """Take part in a run and listen to it from now on."""
        self.call("train", recipe=recipe.to_toml(), run=run, timeout_s=60.0, **options)
        return self.listen(run)

    def listen(self, run: str = "run") -> Peer:
        """Hear what happens and has happened in a run that the node is in."""
        thread = threading.Thread(target=self._listen, args=(run,), name=f"follow {self.name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return self

    def _listen(self, run: str) -> None:
        try:
            for message in stream(self.profile, "follow", run=run):
                if "event" in message:
                    self._note(message["event"])
        except UbcpError as error:
            self._note({"kind": "cut off", "round": -1, "time": time.time(), "reason": str(error)})

    def _note(self, event: Event) -> None:
        with self._heard:
            self.events.append(event)
            self._heard.notify_all()

    def mark_now(self) -> int:
        """A place in `events`: pass it to `wait` to see only what comes after."""
        return len(self.events)

    def wait(
        self, kind: str, timeout_s: float = STEP_S, *, after: int = 0, where: Callable[[Event], bool] = lambda _: True
    ) -> Event:
        """The first event of `kind` from place `after` on for which `where` holds. Fails with the last events."""
        deadline_s = time.monotonic() + timeout_s
        seen = after
        with self._heard:
            while True:
                while seen < len(self.events):
                    event = self.events[seen]
                    seen += 1
                    if event["kind"] == kind and where(event):
                        return event
                    if event["kind"] == "failed" and kind != "failed":
                        raise AssertionError(f"{self.name} waits for {kind!r}, but its run failed: {event}")
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._heard.wait(left_s):
                    raise AssertionError(
                        f"{self.name}: no {kind!r} within {timeout_s:.0f} s; its last events:\n" + self.tail()
                    )

    def tail(self, count: int = 25) -> str:
        rows = [e for e in self.events if e["kind"] != "progress"][-count:]
        return "\n".join(
            f"  {e['time'] % 1000:.2f} {e['kind']} @{e['round']} "
            + " ".join(f"{k}={str(v)[:60]}" for k, v in e.items() if k not in ("kind", "round", "time"))
            for e in rows
        )

    def committed(self, after: int = 0) -> list[Event]:
        return [event for event in self.events[after:] if event["kind"] == "committed"]

    def count(self, kind: str, after: int = 0) -> int:
        return sum(event["kind"] == kind for event in self.events[after:])


class Swarm:
    """A bootstrap node and peers in a private directory; `close` ends all and says what they left behind."""

    def __init__(self, names: Sequence[str] = (), *, faulty: bool = True, bootstrap: bool = True) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="uf-", dir="/tmp"))  # short: a unix socket's path has 108 bytes
        self.faulty = faulty
        self.peers: dict[str, Peer] = {}
        self.seeds: list[str] = []
        try:
            if bootstrap:
                seed = self.add("seed", role="bootstrap")
                seed.start()
                self.seeds = seed.own()
            for name in names:
                self.add(name).spawn(*self.join())
            for name in names:
                self.peers[name].wait_up()
        except BaseException:
            self.close()
            raise

    def join(self) -> list[str]:
        return [word for address in self.seeds for word in ("--peer", address)]

    def add(
        self, name: str, *, role: str = "up", faulty: bool | None = None, more: str = "", host: Host | None = None
    ) -> Peer:
        """A new node with its own profile, not started yet."""
        peer = Peer(self.home, name, role=role, faulty=self.faulty if faulty is None else faulty, host=host)
        self.peers[name] = peer.init(more=more)
        return peer

    def __getitem__(self, name: str) -> Peer:
        return self.peers[name]

    def of(self, names: str) -> list[Peer]:
        """Peers by one-letter names: swarm.of("abc")."""
        return [self.peers[name] for name in names]

    def marks(self) -> dict[str, int]:
        """A place in each peer's events: now."""
        return {name: peer.mark_now() for name, peer in self.peers.items()}

    def logs(self) -> str:
        """What to look at when a test failed."""
        return "\n".join(f"--- {p.name}\n{p.tail()}\n{p.output()[-1500:]}" for p in self.peers.values())

    def close(self) -> list[str]:
        """End every node and remove every file; returns what should have been gone by itself."""
        left = []
        for peer in reversed(self.peers.values()):
            with suppress(Exception):
                peer.close()
            left += [f"{peer.name}: {what}" for what in peer.left_behind()] if peer.mark else []
            signal_all(peer.mark, signal.SIGKILL) if peer.mark else None
        shutil.rmtree(self.home, ignore_errors=True)
        return left

    def __enter__(self) -> Swarm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = self.close()
        if error is None:
            assert not left, f"left behind: {left}"


def tiny(total: int = 50, **rounds: Any) -> Recipe:
    """The recipe digits-tiny, with as many rounds as a test needs."""
    base = load_recipe("digits-tiny")
    return base.model_copy(update={"rounds": base.rounds.model_copy(update={"total": total, **rounds})})


def together(peers: Sequence[Peer], timeout_s: float = STEP_S, *, after: dict[str, int] | None = None) -> Event:
    """Wait for a round that exactly these peers commit together, with one and the same state; returns its event."""
    names = sorted(peer.public.hex() for peer in peers)
    first, *others = peers
    deadline_s = time.monotonic() + timeout_s
    place = (after or {}).get(first.name, 0)
    while True:
        event = first.wait(
            "committed", deadline_s - time.monotonic(), after=place, where=lambda e: sorted(e["members"]) == names
        )
        place = first.events.index(event) + 1

        def as_late(other: Event, least: int = event["round"]) -> bool:
            return other["round"] >= least and sorted(other["members"]) == names

        for other in others:
            start = (after or {}).get(other.name, 0)
            same = other.wait("committed", max(0.0, deadline_s - time.monotonic()), after=start, where=as_late)
            if same["round"] != event["round"]:
                break  # that one adopted this round's end; take the next
            assert same["state_hash"] == event["state_hash"], f"{other.name} and {first.name} differ"
        else:
            return event


def assert_agreed(peers: Sequence[Peer], after: dict[str, int]) -> int:
    """Every round that any two of these peers committed since `after` has one state; returns how many were compared."""
    states: dict[int, set[str]] = {}
    seen: dict[int, int] = {}
    for peer in peers:
        for event in peer.committed(after[peer.name]):
            states.setdefault(event["round"], set()).add(event["state_hash"])
            seen[event["round"]] = seen.get(event["round"], 0) + 1
    for round_, hashes in states.items():
        assert len(hashes) == 1, f"round {round_} has {len(hashes)} states: {hashes}"
    return sum(count > 1 for count in seen.values())


__all__ = [
    "GONE_S", "ROOT", "STEP_S", "Event", "Peer", "Swarm", "assert_agreed", "ended", "family", "run_id", "tiny",
    "together", "until",
]  # fmt: skip
