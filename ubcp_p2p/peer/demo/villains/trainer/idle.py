"""A trainer that takes no step: it offers what costs nothing, and commits to a trail that it makes up for it.

By itself it offers zeros. The others of this folder offer something that looks more like work.
"""

from __future__ import annotations

import os
import sys

import numpy as np

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.training import session, worker
from ubcp_p2p.training.inner import AfterStep, InnerResult
from ubcp_p2p.training.messages import Offered
from ubcp_p2p.training.state import InnerState, Vector

LOSS = 2.0  # what it says of its training


class IdleSession(session.Session):
    """Everything but the local steps is honest."""

    def offered(self, theta: Vector) -> Vector:
        """What it offers instead of work. theta: the parameters that the round begins from."""
        return np.zeros_like(theta)

    def train(
        self, seq: int, round: int, members: tuple[bytes, ...], after_step: AfterStep
    ) -> tuple[Offered, SharedBuffer]:
        self._inner.run = self._make_up  # type: ignore[method-assign]
        try:
            return super().train(seq, round, members, after_step)
        finally:
            del self._inner.run

    def _make_up(
        self, run_id: bytes, round: int, peer: bytes, members: tuple[bytes, ...], after_step: AfterStep,
        *, first: int = 0, last: int | None = None,
    ) -> InnerResult:  # fmt: skip
        """A straight line to what is offered, in as many steps as honest work would take."""
        base, memory = np.array(self._inner.read()), self._inner.save()
        offer, recipe = self.offered(base), self._inner.recipe
        steps = recipe.rounds.local_steps
        for step in range(1, steps + 1):
            self._inner.write(base - offer * np.float32(step / steps))
            self._inner.restore(InnerState(memory.steps + step, memory.vectors))
            after_step(step, steps, lambda: LOSS)
        return InnerResult(steps, steps * recipe.inner.batch, LOSS)


def serve(kind: type[session.Session]) -> None:
    """Be the trainer's program, with sessions of this kind; does not return."""
    session.Session = kind  # type: ignore[misc]  # the worker takes it from there when it is asked to start
    code = worker.main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(IdleSession)
