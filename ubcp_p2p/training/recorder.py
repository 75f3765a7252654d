"""Records the states along a round's local steps, names them as a trail, and opens a stretch of it when asked.

For the trainer's process alone. States are kept only as far as they fit a budget; what lies between two of them is
walked again, which gives the same bits on the device that walked it first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ubcp_p2p.errors import TrainingError
from ubcp_p2p.training.inner import InnerLoop
from ubcp_p2p.training.opening import Opening, make_opening
from ubcp_p2p.training.points import Point
from ubcp_p2p.training.state import ITEM_BYTES, Vector
from ubcp_p2p.training.trail import Leaf, marks, memory_hash, parameters_hash, root_of, trail_hash

KEPT_BYTES_MAX: Final = 256 * 2**20  # of one round's states beside the first; 1M parameters need 60 MB


@dataclass(frozen=True)
class Trail:
    """A finished trail. base: a copy of the whole state it began from; kept: some of its states by leaf, and leaf 0."""

    run_id: bytes
    round: int
    peer: bytes
    members: tuple[bytes, ...]
    marks: tuple[int, ...]
    leaves: tuple[Leaf, ...]
    base: Vector
    kept: dict[int, Point]

    def hash(self) -> bytes:
        """What goes on the card."""
        return trail_hash(self.members, root_of(self.leaves))


class Recorder:
    """One round's trail in the making: made before the first step, told after each, finished with the offer's hash."""

    def __init__(self, loop: InnerLoop, stretch: int, local_steps: int) -> None:
        self._loop, self._stretch, self._local_steps = loop, stretch, local_steps
        states = len(marks(local_steps, stretch)) - 1
        point_bytes = loop.parameters * ITEM_BYTES * (1 + len(loop.state_vectors))
        self._every = max(1, -(-states * point_bytes // KEPT_BYTES_MAX))
        self._kept = {0: take(loop)}
        self._leaves = [Leaf(0, b"", memory_hash(self._kept[0].memory))]
        self._steps = 0

    def after_step(self, steps: int) -> None:
        """`steps` local steps are done. What the last of them leads to is taken by `finish`."""
        self._steps = steps
        if steps % self._stretch == 0 and steps < self._local_steps:
            point = self._take()
            self._leaves.append(Leaf(steps, parameters_hash(point.theta), memory_hash(point.memory)))

    def finish(
        self, run_id: bytes, round: int, peer: bytes, members: tuple[bytes, ...], base: Vector, base_hash: bytes,
        offer: bytes,
    ) -> Trail:  # fmt: skip
        """The trail from the state `base`, which is copied, to the offer with the hash `offer`."""
        # Ended early, where a stretch ends: the offer's name replaces the leaf's own.
        at_mark = self._leaves[-1].step == self._steps
        memory = self._leaves.pop().memory if at_mark else memory_hash(self._take().memory)
        first = Leaf(0, base_hash, self._leaves[0].memory)
        leaves = (first, *self._leaves[1:], Leaf(self._steps, offer, memory))
        return Trail(
            run_id, round, peer, members, marks(self._steps, self._stretch), leaves, np.array(base), self._kept
        )

    def _take(self) -> Point:
        point = take(self._loop)
        if len(self._leaves) % self._every == 0:
            self._kept[len(self._leaves)] = point
        return point


def take(loop: InnerLoop) -> Point:
    """A copy of the loop's present state."""
    return Point(np.array(loop.read()), loop.save())


def walk(loop: InnerLoop, trail: Trail, start: Point, first: int, last: int) -> Point:
    """Take local steps `first` to `last` − 1 of the trail's round from `start`; `loop` stays where that leads."""
    loop.write(start.theta)
    loop.restore(start.memory)
    if last > first:
        loop.run(trail.run_id, trail.round, trail.peer, trail.members, _on, first=first, last=last)
    return take(loop)


def open_stretch(loop: InnerLoop, trail: Trail, index: int) -> Opening:
    """Open one stretch; `loop` is used up and left anywhere. Raises TrainingError, also for a device that differs
    from itself."""
    if not 0 <= index < len(trail.leaves) - 1:
        raise TrainingError(f"stretch {index} of a trail that has {len(trail.leaves) - 1}")
    before, after = (_point(loop, trail, place) for place in (index, index + 1))
    return make_opening(trail.members, trail.leaves, index, trail.base, before, after)


def _point(loop: InnerLoop, trail: Trail, place: int) -> Point:
    nearest = max(kept for kept in trail.kept if kept <= place)
    if nearest == place:
        return trail.kept[place]
    point = walk(loop, trail, trail.kept[nearest], trail.marks[nearest], trail.marks[place])
    if memory_hash(point.memory) != trail.leaves[place].memory:
        raise TrainingError(
            "this device did not repeat its own steps to the bit, so the round cannot be opened",
            hint="run with a fixed number of threads; if it repeats, use another device",
        )
    return point


def _on(step: int, steps: int, mean_loss: object) -> bool:
    return True
