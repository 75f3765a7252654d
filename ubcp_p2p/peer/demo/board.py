"""What is known of the swarm at any moment, from what the peers said: a fold over their events, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OFFER_ITEM_BYTES = 4  # float32
PHASES: Mapping[str, str] = {
    "joining": "looks for others",
    "waiting": "waits for others",
    "joined": "joined",
    "progress": "trains",
    "matchmaking": "finds its group",
    "exchange": "exchanges",
    "outer step": "averages",
    "vote": "compares hashes",
    "committed": "committed",
    "adopted": "takes the state",
    "checkpoint": "saves",
    "checkpointed": "saved",
    "done": "done",
    "killed": "killed",
}


@dataclass(frozen=True)
class HeldOut:
    """A loss on held-out data at the start of `round`, in nats, ± stderr."""

    round: int
    loss: float
    stderr: float


@dataclass(frozen=True)
class Accusation:
    """What one peer says of another: kind is that of the event, "rejected", "bad state" or "checked"."""

    by: str
    kind: str
    round: int
    words: str


@dataclass
class PeerRow:
    """What is known of one peer."""

    name: str
    public: str
    phase: str = "not started"
    place: str | None = None  # the kind of the last event: where in a round it is
    round: int | None = None
    step: int = 0
    loss: float | None = None
    taken: list[int] = field(default_factory=list)  # rounds that it took part in, by the members' signed list
    samples: int = 0
    received_bytes: int = 0
    retries: int = 0
    killed_s: float | None = None  # time.time(), the events' clock
    state_source: str | None = None  # whom it first took the state from, when it came late
    done: bool = False
    failure: tuple[str, str | None] | None = None


class Board:
    """All peers, the rounds and the losses. `hear` is the only writer of what events tell."""

    def __init__(self, rounds: int, local_steps: int, parameters: int) -> None:
        self.rounds = rounds
        self.local_steps = local_steps
        self.parameters = parameters
        self.peers: dict[str, PeerRow] = {}
        self.members: dict[int, tuple[str, ...]] = {}  # round -> names
        self.hashes: dict[int, set[str]] = {}  # round -> the state hashes that members committed
        self.committed_s: dict[int, float] = {}  # round -> when the first member committed it (time.time())
        self.losses: dict[int, dict[str, float]] = {}  # round -> training loss by name
        self.held_out: dict[int, HeldOut] = {}
        self.alone_steps: dict[str, int] = {}  # how far the comparison is, by way of training
        self.mismatches = 0
        self.accused: dict[str, list[Accusation]] = {}  # by name of the accused

    def add(self, name: str, public: str) -> PeerRow:
        row = self.peers[name] = PeerRow(name, public)
        return row

    @property
    def round(self) -> int:
        """How many rounds are committed."""
        return max(self.members, default=-1) + 1

    @property
    def live(self) -> list[PeerRow]:
        """Peers that take part or did to the end."""
        return [row for row in self.peers.values() if row.round is not None and row.killed_s is None]

    def hear(self, name: str, event: Mapping[str, Any]) -> None:
        """Take in one event of the peer called `name`."""
        row, kind = self.peers[name], str(event["kind"])
        if kind == "killed":
            row.killed_s = float(event["time"])
        if row.killed_s is None:
            row.place = kind
        row.phase = PHASES.get(kind, row.phase)
        row.round = int(event["round"])
        if kind == "progress":
            row.step, row.loss = int(event["step"]), float(event["loss"])
        elif kind == "committed":
            self._committed(row, event)
        elif kind == "adopted" and event.get("how") == "download":
            row.state_source = row.state_source or self.name_of(str(event.get("source")))
        elif kind in ("rejected", "bad state", "checked"):
            self._accused(row, kind, event)
        elif kind == "retry":
            row.retries += 1
        elif kind == "mismatch":
            self.mismatches += 1
        elif kind == "evaluated":
            self.held_out[row.round] = HeldOut(row.round, float(event["loss"]), float(event["stderr"]))
        elif kind == "done":
            row.done = True
        elif kind == "failed":
            row.failure = (str(event["message"]), event.get("hint"))

    def _accused(self, by: PeerRow, kind: str, event: Mapping[str, Any]) -> None:
        finding = event.get("finding")
        if finding in ("honest", "unopened"):  # silence convicts nobody
            return
        words = str(event["words"] if kind == "checked" else event["reason"])
        said = Accusation(by.name, kind, int(event["round"]), f"{finding}: {words}" if finding else words)
        self.accused.setdefault(self.name_of(str(event["peer"])), []).append(said)

    def name_of(self, public: str) -> str:
        return next((row.name for row in self.peers.values() if row.public == public), public[:8])

    def _committed(self, row: PeerRow, event: Mapping[str, Any]) -> None:
        done = int(event["round"]) - 1  # the event names the round that comes next
        names = tuple(sorted(self.name_of(str(public)) for public in event["members"]))
        if done not in self.members:
            self.members[done] = names
            self.committed_s[done] = float(event["time"])
            for name in names:
                if name in self.peers:
                    self.peers[name].taken.append(done)
        self.hashes.setdefault(done, set()).add(str(event["state_hash"]))
        self.losses.setdefault(done, {})[row.name] = float(event["loss"])
        row.loss = float(event["loss"])
        row.step = 0
        row.samples += int(event["weight"])
        row.received_bytes += (len(names) - 1) * self.parameters * OFFER_ITEM_BYTES
