"""What the demo's script is told with: its nodes, its view, and the one place where time passes.

`_until` takes in what the peers say, shows it, and raises when a peer fails, when nothing happens any more, or when the
run ends before the story does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty
from typing import Any, TypeVar

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.peer.control import call
from ubcp_p2p.peer.demo.board import Board, HeldOut
from ubcp_p2p.peer.demo.follow import KILLED, Event, Followers
from ubcp_p2p.peer.demo.processes import KEEP_HINT, DemoFailed, NodeProcess, Swarm
from ubcp_p2p.peer.demo.view import View

RUN = "demo"
STALL_S = 60.0  # without a word from any peer: rounds take about 1 s, and every deadline in one is far shorter
TICK_S = 0.05
ASK_EVERY_S = 0.3
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
    slice_s: int  # of the community: a quarter of an hour in earnest, and here so short that one can wait for the next
    villain: str | None = None  # its kind


class Stage:
    """Where a story is told."""

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

    def _until_all(
        self, nodes: Sequence[NodeProcess], so: Callable[[dict[str, Any]], bool], what: str, *, ends: bool = True
    ) -> None:
        """Wait until the status documents of all of these are `so`; asked seldom, for each costs its node some work."""
        left = list(nodes)
        again_s = 0.0

        def ready() -> bool:
            nonlocal left, again_s
            if time.monotonic() < again_s:
                return False
            left = [node for node in left if (status := node.status()) is None or not so(status)]
            again_s = time.monotonic() + ASK_EVERY_S
            return not left

        self._until(ready, what, ends=ends)

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
            whose = self._board.name_of(str(event.get("peer")))
            self._say(f"{name} left the offer of {whose} out of round {round_}: {event['reason']}.")
        elif kind == "bad state":
            self._say(f"{name} refused a state that {self._board.name_of(str(event['peer']))} sent: {event['reason']}.")
        elif kind == "checked" and event["finding"] not in ("honest", "unopened"):
            whose = self._board.name_of(str(event["peer"]))
            self._say(f"{name} checked round {round_} of {whose}: {event['finding']}: {event['words']}.")
        elif kind == "evaluated":
            self._say(f"Held-out loss after round {round_}: {figure(self._board.held_out[round_])} ({name} measured).")

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


def figure(measured: HeldOut) -> str:
    return f"{measured.loss:.3f} ± {measured.stderr:.3f}"
