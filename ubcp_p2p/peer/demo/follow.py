"""What the peers of the demo say, as one queue: a thread for each follows its node's control socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.peer.control import call, stream
from ubcp_p2p.peer.demo.processes import NodeProcess

Event = Mapping[str, Any]
LOOK_S = 0.2
STATUS_S = 30.0
KILLED = "killed"  # the one event that no node says: Trap does


@dataclass(frozen=True)
class Heard:
    """One event of a peer, or (event None) that the peer will say no more."""

    name: str
    event: Event | None


class Trap:
    """Kills a node at a place in a round: on hearing the event `kind` of `round_` or a later one.

    It acts in the thread that hears: a round's exchange is over in some 50 ms, which a busy main thread could miss.
    """

    def __init__(self, node: NodeProcess, kind: str, round_: int) -> None:
        self._node = node
        self._kind = kind
        self._round = round_
        self._sprung = False

    def springs(self, event: Event) -> Event | None:
        """The event "killed" when `event` was the one to wait for: the node has just been sent SIGKILL."""
        if self._sprung or event["kind"] != self._kind or event["round"] < self._round:
            return None
        process = self._node.process
        assert process is not None
        process.kill()
        self._sprung = True
        return {"kind": KILLED, "round": event["round"], "time": time.time(), "place": self._kind}


class Followers:
    """Follows runs and queues what is heard."""

    def __init__(self) -> None:
        self.heard: SimpleQueue[Heard] = SimpleQueue()
        self.traps: dict[str, Trap] = {}

    def follow(self, node: NodeProcess, run: str) -> None:
        """Begin to follow `run` on `node`, from its first event on; also when the node is not in it yet."""
        threading.Thread(target=self._read, args=(node, run), name=f"follow {node.name}", daemon=True).start()

    def _read(self, node: NodeProcess, run: str) -> None:
        try:
            left = True
            while left:  # a lease may end, and the next begin the run anew
                _wait_for(node, run)
                left = False
                for message in stream(node.profile, "follow", run=run):
                    event = message.get("event")
                    if event is None:
                        break
                    left = event["kind"] == "left"
                    trap = self.traps.get(node.name)
                    killed = trap.springs(event) if trap is not None else None
                    self.heard.put(Heard(node.name, event))
                    if killed is not None:
                        self.heard.put(Heard(node.name, killed))
        except UbcpError:  # the node has ended; whether it should have is the listener's to say
            pass
        finally:
            self.heard.put(Heard(node.name, None))


def _wait_for(node: NodeProcess, run: str) -> None:
    """Until the node is in the run. Raises UbcpError when it has ended."""
    while True:
        runs = call(node.profile, "status", timeout_s=STATUS_S)["runs"]
        if any(each["name"] == run and each["stage"] != "left" for each in runs):
            return
        time.sleep(LOOK_S)
