"""A real node that takes orders to fail: `python -m tests.support.node up --profile DIR`, as `python -m ubcp_p2p up`.

Some verbs more on its API, each as POST /v1/VERB. `fail_at` names a place (an event's kind, or "writing": the trainer
has begun to write a checkpoint), the first round in which it counts, a target and a signal: fail_at(peer, round, kind).
`behave` makes the node hostile in the named ways (tests/support/hostile.py) until it is told otherwise. `sense` gives
it other sensors.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ubcp_p2p.peer.runs as runs_module
from tests.support.hostile import HostileMember, assault
from tests.support.hostile_ledger import ledger_assault
from ubcp_p2p.api.verbs import Emit
from ubcp_p2p.ledger.entry import Decision
from ubcp_p2p.log import setup_logging
from ubcp_p2p.peer.node import Node, run_node
from ubcp_p2p.peer.profile import Profile
from ubcp_p2p.sensors.machine import Machine
from ubcp_p2p.swarm.run import Event, Observer, RunMember, RunSettings
from ubcp_p2p.training.process import TrainerProcess


@dataclass(frozen=True)
class Fault:
    """At the first event of `kind` in `round` or later, send `signal` to `target` ("node", "p2pd", "trainer")."""

    kind: str
    round: int
    target: str
    signal: int


class Faults:
    """The faults that are still to come."""

    def __init__(self) -> None:
        self.armed: list[Fault] = []
        self.p2pd_pid: Callable[[], int | None] = lambda: None

    def pass_by(self, kind: str, round_: int, trainer: TrainerProcess, observe: Observer) -> None:
        """A run has come to this place: fire what is armed for it, telling first."""
        for fault in [f for f in self.armed if f.kind == kind and round_ >= f.round]:
            self.armed.remove(fault)
            pid = {"node": os.getpid(), "p2pd": self.p2pd_pid(), "trainer": trainer.pid}[fault.target]
            assert pid is not None
            observe(Event("fault", round_, {"place": kind, "target": fault.target, "pid": pid}))
            os.kill(pid, fault.signal)


class WatchedTrainer:
    """The trainer, with the place "writing" inside `checkpoint`."""

    def __init__(self, trainer: TrainerProcess, folder: Path, pass_by: Callable[[str], None]) -> None:
        self._trainer = trainer
        self._folder = folder
        self._pass_by = pass_by

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)

    async def checkpoint(self, extra: dict[str, str]) -> Path:
        before = _listing(self._folder)
        writing = asyncio.ensure_future(self._trainer.checkpoint(extra))
        while not writing.done() and _listing(self._folder) == before:  # noqa: ASYNC110  # a folder has no event
            await asyncio.sleep(0)
        self._pass_by("writing")
        return await writing


def _listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


class FaultyNode(Node):
    """A node with the verbs `fail_at`, `behave`, `assault` and `pardon`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.faults = Faults()
        self.faults.p2pd_pid = lambda: self.network.p2pd_pid if self.network is not None else None
        self.modes: dict[str, Any] = {}
        node = self

        class FaultyRuns(runs_module.Runs):
            def member(self, settings: RunSettings, trainer: TrainerProcess, observe: Observer) -> RunMember:
                def tap(event: Event) -> None:
                    observe(event)
                    node.faults.pass_by(event.kind, event.round, trainer, observe)

                def pass_by(kind: str) -> None:
                    node.faults.pass_by(kind, member.round, trainer, observe)

                folder = self._profile.runs / settings.run_id.hex()[:32]
                watched: Any = WatchedTrainer(trainer, folder, pass_by)
                member = HostileMember(self._network, watched, settings, tap, node.modes)
                return member

        runs_module.Runs = FaultyRuns  # type: ignore[misc]  # Node imports it when it has loaded

    def _verbs(self) -> dict[str, Any]:
        return {
            **super()._verbs(),
            "fail_at": self._fail_at,
            "behave": self._behave,
            "assault": self._assault,
            "pardon": self._pardon,
            "sense": self._sense,
            "ledger-assault": self._ledger_assault,
            "ledger-write": self._ledger_write,
        }

    async def _fail_at(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        fault = Fault(request["kind"], request["round"], request["target"], request.get("signal", signal.SIGKILL))
        self.faults.armed.append(fault)
        return {"armed": len(self.faults.armed)}

    async def _behave(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        self.modes.clear()
        self.modes.update(request["modes"])
        return {"modes": self.modes}

    async def _pardon(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        """Forget what peers did in an earlier case."""
        for run in self.runs.all() if self.runs is not None else []:
            for member in run.member.view.members.values() if run.member is not None else []:
                member.strikes, member.struck_until_s = 0, 0.0
        return {}

    async def _sense(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        """Read the sensors from the files under another root."""
        assert self.keeper is not None
        self.keeper.machine = Machine("cpu", root=Path(request["root"]))
        return {}

    async def _ledger_assault(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        assert self.network is not None
        assert self.community is not None
        return await ledger_assault(self.network, self.community.network, str(request["how"]))

    async def _ledger_write(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        """Write DECISIONs that accept nothing, by the node's own hand."""
        assert self.ledger is not None
        bodies = [Decision(request["slice"], 0, 1, (), (), bytes.fromhex(mark)) for mark in request["marks"]]
        written = [await self.ledger.write(body) for body in bodies]
        return {"ids": [signed and signed.entry.id.hex() for signed in written]}

    async def _assault(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        assert self.network is not None
        return await assault(self.network, bytes.fromhex(request["run_id"]), str(request["how"]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["up", "bootstrap"])
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("--peer", action="append", default=[])
    options = parser.parse_args()
    profile = Profile(options.profile)
    config = profile.config()
    setup_logging(config.log.level, file=profile.log / "ubcp.log")
    # resume=False: a test tells the node what to do, and when
    run_node(FaultyNode(profile, config, join=tuple(options.peer), trains=options.role == "up", resume=False))


if __name__ == "__main__":
    main()
