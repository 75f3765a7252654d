"""The demo's script: who starts when, who comes late, who is killed, and what must then be true.

It reads from top to bottom as what happens. `_until` is where time passes: it takes in what the peers say, shows it,
and raises when a peer fails, when nothing happens any more, or when the run ends before the story does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any, TypeVar

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.peer.control import call
from ubcp_p2p.peer.demo.alone import Alone, train_alone
from ubcp_p2p.peer.demo.board import Board, HeldOut
from ubcp_p2p.peer.demo.follow import KILLED, Event, Followers, Trap
from ubcp_p2p.peer.demo.processes import KEEP_HINT, DemoFailed, NodeProcess, Swarm, workplace
from ubcp_p2p.peer.demo.view import View

RUN = "demo"
FIRST, SECOND, LATE, VICTIM = "peer 1", "peer 2", "peer 3", "peer 4"
PEERS_MIN = 2
STALL_S = 60.0  # without a word from any peer: rounds take about 1 s, and every deadline in one is far shorter
TICK_S = 0.05
SAMPLE_PROMPT = "ROMEO. "
SAMPLE_BYTES = 280
SAMPLE_SEED = 1
CALL_S = 60.0
TAIL_LINES = 12
LINE_CHARS = 200

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What is trained, and when: the third peer is started after `late_from` rounds and needs some more to be in; the
    fourth is killed in round `kill_from`, or later if the third is later."""

    recipe: Recipe
    late_from: int
    kill_from: int
    device: str  # that every peer trains on, as in training.device of a configuration


@dataclass(frozen=True)
class Kill:
    """How the kill -9 went. `place`: what the victim was last heard to do; went_on_s: until the others committed."""

    round: int
    place: str
    went_on_s: float
    left: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """All that the demo found out."""

    board: Board
    first: HeldOut
    last: HeldOut
    alone: tuple[Alone, ...]
    hashes: dict[str, tuple[int, str]]  # survivor -> (round, state hash), from its status document
    late_round: int
    kill: Kill
    sample: str | None
    seconds: float
    parts: dict[str, float] = field(default_factory=dict)  # part of the demo -> seconds

    @property
    def best_alone(self) -> Alone:
        return min(self.alone, key=lambda alone: alone.last.loss)

    @property
    def replicas_identical(self) -> bool:
        return len(set(self.hashes.values())) == 1


class Story:
    """One telling of the demo."""

    def __init__(self, plan: Plan, view: View, board: Board, began_s: float) -> None:
        """began_s: time.monotonic() when the command began, for the seconds of the whole."""
        self._plan = plan
        self._recipe = plan.recipe
        self._view = view
        self._board = board
        self._began_s = began_s
        self._followers = Followers()
        self._swarm: Swarm
        self._mortal: set[str] = set()  # may end unasked: they are about to be killed, or were
        self._parts: dict[str, float] = {}
        self._heard_s = time.monotonic()

    def tell(self, keep: Path | None) -> Outcome:
        """Run the whole demo; every process is gone when it returns or raises. Raises DemoFailed and UbcpErrors."""
        with workplace(keep) as directory:
            with Swarm(directory, self._plan.device) as self._swarm, self._last_words():
                with self._part("start"):
                    seed = self._start_network()
                    first = self._begin_run(seed)
                with self._part("rounds"):
                    self._say(
                        f"Rounds: each peer takes {self._board.local_steps} steps on its own part of the data, which "
                        "nobody else sees, then all average what they learned."
                    )
                    late_round = self._let_one_in(seed)
                    kill = self._kill_one()
                    self._finish_rounds()
                with self._part("measure"):
                    hashes, last, sample = self._measure()
                with self._part("stop"):
                    self._say("Stopping the nodes: they leave the run, keep a checkpoint, and end.")
                    self._swarm.stop()
            with self._part("alone"):
                alone = self._train_alone(directory)
        seconds = time.monotonic() - self._began_s
        return Outcome(
            self._board, first, last, tuple(alone), hashes, late_round, kill, sample, seconds, self._parts
        )  # fmt: skip

    # -- the script -----------------------------------------------------------------------------------------------

    def _start_network(self) -> str:
        """A seed node, and the peers that are there from the beginning; returns the seed's address."""
        self._say(f"Making profiles in {self._swarm.directory}: each node gets keys of its own, as from `ubcp init`.")
        seed = self._swarm.make("bootstrap")
        for name in (FIRST, SECOND, LATE, VICTIM):
            node = self._swarm.make(name)
            self._board.add(name, node.public)
        self._say("Starting the bootstrap node: newcomers ask it whom they can meet. It trains and decides nothing.")
        seed.start("bootstrap")
        address: str = self._until_up(seed)["addresses"][0]
        self._say(
            f"Starting {FIRST}, {SECOND} and {VICTIM}: each is a node of its own, and knows only the bootstrap node's "
            "address."
        )
        for name in (FIRST, SECOND, VICTIM):
            self._start(name, address)
        self._now("their libp2p daemons start and join the network")
        return address

    def _begin_run(self, seed: str) -> HeldOut:
        """Peer 1 begins the run and measures the untrained model; the others join it."""
        first = self._node(FIRST)
        self._until_up(first)
        self._train(first)
        self._until(lambda: self._board.peers[FIRST].place == "joining", f"{FIRST}'s trainer to be ready")
        others = [self._node(name) for name in (SECOND, VICTIM)]
        for node in others:
            self._until_up(node)
        # Asked before the others begin to load their trainers: it runs while they do, and the model is still untrained.
        self._now(f"{FIRST} measures the untrained model on held-out plays; the others load their trainers")
        for node in others:
            self._train(node)
        start = self._held_out(first)
        if start.round != 0:
            raise DemoFailed("the first round was over before the untrained model was measured", hint="run it again")
        self._say(f"{FIRST} began the run. Untrained, the model's held-out loss is {_figure(start)} nats a byte.")
        self._now("the peers find each other through the DHT and listen to each other's heartbeats")
        self._until(lambda: self._board.round >= 1, "the first round")
        return start

    def _let_one_in(self, seed: str) -> int:
        """The third peer comes late; returns the first round that it took part in."""
        begin = self._plan.late_from
        self._now("three peers train; every round ends with all of them at the same model, or it does not count")
        self._until(lambda: self._board.round >= begin, f"round {begin}")
        self._say(f"{LATE} starts now, late: it has never seen the model, and asks the others for it.")
        self._now(f"{LATE} starts; the others do not wait for it")
        row = self._board.peers[LATE]
        self._start(LATE, seed)
        node = self._node(LATE)
        self._until_up(node)
        self._train(node)
        self._until(lambda: bool(row.taken), f"{LATE} to take part in a round")
        self._say(
            f"{LATE} is in: round {row.taken[0]} is its first, with {len(self._board.members[row.taken[0]])} members."
        )
        return row.taken[0]

    def _kill_one(self) -> Kill:
        """The fourth peer is killed in the middle of an exchange; the others must go on and nothing of it may stay."""
        begin = max(self._board.peers[LATE].taken[0] + 2, self._plan.kill_from)
        self._now("all four train")
        self._until(lambda: self._board.round >= begin - 1, f"round {begin - 1}")
        node, row = self._node(VICTIM), self._board.peers[VICTIM]
        remains = node.remains()
        self._mortal.add(VICTIM)
        self._followers.traps[VICTIM] = Trap(node, "exchange", begin)
        self._now(f"{VICTIM} will be killed when the next exchange begins: the others then count on it")
        killed_s = self._until(lambda: row.killed_s, "the next exchange")
        assert row.round is not None
        round_ = row.round
        self._now("the others notice the silence, and make the round without it")
        after = self._until(
            lambda: min((at_s for at_s in self._board.committed_s.values() if at_s > killed_s), default=None),
            "the others to go on",
        )
        self._say(f"The others went on: their next commit came {after - killed_s:.1f} s after the kill.")
        left = remains.left()
        what = (
            "its node, libp2p daemon, trainer and sockets are gone" if not left else f"LEFT BEHIND: {', '.join(left)}"
        )
        self._say(f"What is left of {VICTIM}: {'nothing; ' if not left else ''}{what}.")
        return Kill(round_, row.place or "unknown", after - killed_s, tuple(left))

    def _finish_rounds(self) -> None:
        self._now("three peers train to the end; the late one has caught up by now")
        survivors = [self._board.peers[name] for name in (FIRST, SECOND, LATE)]
        self._until(lambda: all(row.done for row in survivors), "the last round", ends=True)
        self._say(f"All {self._recipe.rounds.total} rounds are done.")

    def _measure(self) -> tuple[dict[str, tuple[int, str]], HeldOut, str | None]:
        """Compare the replicas, measure the trained model, and let it write."""
        self._now("comparing the survivors' models, and measuring them on held-out plays")
        hashes = {}
        for name in (FIRST, SECOND, LATE):
            status = self._node(name).status()
            run = next((run for run in status["runs"] if run["name"] == RUN), None) if status else None
            if run is None:
                raise self._node(name).failure(f"{name} does not answer at the end of the run")
            hashes[name] = (int(run["round"]), str(run["state_hash"]))
        last = self._held_out(self._node(FIRST))
        self._board.held_out[last.round] = last
        self._say(f"Held-out loss after round {last.round}: {_figure(last)}.")
        sample = None
        if self._recipe.model.kind == "gpt":
            answer = self._call(
                self._node(LATE), "sample", run=RUN, prompt=SAMPLE_PROMPT, length=SAMPLE_BYTES, seed=SAMPLE_SEED
            )
            sample = str(answer["text"])
        return hashes, last, sample

    def _train_alone(self, directory: Path) -> list[Alone]:
        steps = self._recipe.total_steps
        self._say(
            f"For comparison, one peer alone takes the same {steps} steps from the same start, in each of two ways."
        )
        self._now(f"one peer alone: {steps} steps, the swarm is gone; the better way is what the swarm must beat")

        def on_steps(way: str, done: int) -> None:
            self._board.alone_steps[way] = done
            self._view.refresh()

        return asyncio.run(train_alone(self._recipe, directory, self._plan.device, on_steps))

    # -- its means ------------------------------------------------------------------------------------------------

    def _node(self, name: str) -> NodeProcess:
        return self._swarm.nodes[name]

    def _start(self, name: str, seed: str) -> None:
        self._node(name).start("up", join=[seed])
        self._board.peers[name].phase = "starting"

    def _until_up(self, node: NodeProcess) -> dict[str, Any]:
        def up() -> dict[str, Any] | None:
            status = node.status()
            return status if status is not None and status["stage"] == "up" else None

        return self._until(up, f"{node.name} to be up")

    def _train(self, node: NodeProcess) -> None:
        """As `ubcp train RECIPE --run demo --min-peers 2` does."""
        toml = self._recipe.to_toml()
        self._call(node, "train", recipe=toml, where="the demo's recipe", run=RUN, peers_min=PEERS_MIN)
        self._board.peers[node.name].phase = "loads the trainer"
        self._followers.follow(node, RUN)

    def _held_out(self, node: NodeProcess) -> HeldOut:
        answer = self._call(node, "evaluate", run=RUN)
        return HeldOut(int(answer["round"]), float(answer["loss"]), float(answer["stderr"]))

    def _until(self, ready: Callable[[], T | None], what: str, *, ends: bool = False) -> T:
        """Take in what happens until `ready` gives something true, and return that.

        ends: the last round may come meanwhile. Raises DemoFailed.
        """
        self._heard_s = time.monotonic()
        while True:
            self._take_in()
            result = ready()
            if result:
                return result
            for node in self._swarm.nodes.values():
                if node.name not in self._mortal:
                    node.require_running()
            survivors = [row for row in self._board.live if row.name not in self._mortal]
            if not ends and survivors and all(row.done for row in survivors):
                raise DemoFailed(
                    f"the run ended while the demo waited for {what}", hint="is this machine very busy? Try again"
                )
            if time.monotonic() - self._heard_s > STALL_S:
                raise DemoFailed(
                    f"nothing happened for {STALL_S:.0f} s while the demo waited for {what}; {self._where_all_are()}",
                    hint=KEEP_HINT,
                )

    def _take_in(self) -> None:
        """Hear all that the peers have said, waiting TICK_S at most for a first word."""
        try:
            heard = self._followers.heard.get(timeout=TICK_S)
            while True:
                if heard.event is not None:
                    self._heard_s = time.monotonic()
                    self._board.hear(heard.name, heard.event)
                    self._tell(heard.name, heard.event)
                heard = self._followers.heard.get_nowait()
        except Empty:
            pass
        self._view.refresh()

    def _tell(self, name: str, event: Event) -> None:
        """What of an event is part of the story."""
        kind, round_ = event["kind"], event["round"]
        if kind == "failed":
            hint = event.get("hint")
            raise self._node(name).failure(f"{name} failed: {event['message']}", str(hint) if hint else None)
        if kind == "committed":
            self._view.round_done(round_ - 1)
        elif kind == "adopted" and event.get("how") == "download":
            source = self._board.name_of(str(event.get("source")))
            self._say(
                f"{name} took the state of round {round_} from {source}; its hash is the one that the group signed."
            )
        elif kind == KILLED:
            self._say(f"kill -9 {name}, in the exchange of round {round_}: no farewell, and its part of it is missing.")
        elif kind == "retry":
            self._say(f"{name} tries round {round_} again: {event['reason']}.")
        elif kind == "mismatch":
            self._say(f"{name} had another result of round {round_} than the majority, and takes theirs.")
        elif kind == "rejected":
            self._say(f"{name} left an offer out of round {round_}: {event['reason']}.")
        elif kind == "evaluated":
            self._say(f"Held-out loss after round {round_}: {_figure(self._board.held_out[round_])} ({name} measured).")

    def _call(self, node: NodeProcess, verb: str, **arguments: Any) -> Any:
        """Ask a node over its control socket. Raises DemoFailed."""
        try:
            return call(node.profile, verb, timeout_s=CALL_S, **arguments)
        except UbcpError as error:
            raise node.failure(f"{node.name}: {error.message}", error.hint) from None

    @contextmanager
    def _last_words(self) -> Iterator[None]:
        """When the demo fails, show what the node that failed wrote last; all nodes, when it is not known which."""
        try:
            yield
        except DemoFailed as error:
            nodes = [error.node] if error.node is not None else [*self._swarm.nodes.values()]
            for node in nodes:
                for line in node.tail(TAIL_LINES if error.node is not None else 3):
                    self._say(f"{node.name} | {line[:LINE_CHARS]}")
            raise
        except (KeyboardInterrupt, SystemExit):
            self._say("Interrupted: stopping all nodes.")
            raise

    def _where_all_are(self) -> str:
        return "; ".join(f"{row.name}: {row.phase}" for row in self._board.peers.values())

    def _say(self, text: str) -> None:
        self._view.say(text)

    def _now(self, text: str) -> None:
        self._view.now(text)

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        began_s = time.monotonic()
        yield
        self._parts[name] = round(time.monotonic() - began_s, 1)


def _figure(measured: HeldOut) -> str:
    return f"{measured.loss:.3f} ± {measured.stderr:.3f}"
