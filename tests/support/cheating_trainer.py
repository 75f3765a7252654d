"""A trainer that cheats: after its first round it offers that round's tensor again, on a trail that it makes up."""

from __future__ import annotations

import os
import sys

import numpy as np

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.training import session, worker
from ubcp_p2p.training.inner import AfterStep, InnerResult
from ubcp_p2p.training.messages import Offered, Start
from ubcp_p2p.training.state import InnerState, Vector, vector


class StaleSession(session.Session):
    """Works once, and lives on that."""

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self._first: Vector | None = None

    def train(
        self, seq: int, round: int, members: tuple[bytes, ...], after_step: AfterStep
    ) -> tuple[Offered, SharedBuffer]:
        if self._first is None:
            made = super().train(seq, round, members, after_step)
            self._first = np.array(vector(made[1]))
            return made
        self._inner.run = self._make_up  # type: ignore[method-assign]
        try:
            return super().train(seq, round, members, after_step)
        finally:
            del self._inner.run

    def _make_up(
        self, run_id: bytes, round: int, peer: bytes, members: tuple[bytes, ...], after_step: AfterStep,
        *, first: int = 0, last: int | None = None,
    ) -> InnerResult:  # fmt: skip
        """A straight line to the old offer, in as many steps as honest work would take."""
        assert self._first is not None
        recipe, base, memory = self._inner.recipe, np.array(self._inner.read()), self._inner.save()
        steps = recipe.rounds.local_steps
        for step in range(1, steps + 1):
            self._inner.write(base - self._first * np.float32(step / steps))
            self._inner.restore(InnerState(memory.steps + step, memory.vectors))
            after_step(step, steps, lambda: 2.0)
        return InnerResult(steps, steps * recipe.inner.batch, 2.0)


if __name__ == "__main__":
    session.Session = StaleSession  # type: ignore[misc]  # the worker takes it from there when it is asked to start
    code = worker.main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
