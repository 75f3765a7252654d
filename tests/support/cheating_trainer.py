"""A trainer that cheats: after its first round it offers that round's tensor again, on a trail that it makes up."""

from __future__ import annotations

import numpy as np

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.peer.demo.villains.trainer.idle import IdleSession, serve
from ubcp_p2p.training.inner import AfterStep
from ubcp_p2p.training.messages import Offered, Start
from ubcp_p2p.training.state import Vector, vector


class StaleSession(IdleSession):
    """Works once, and lives on that."""

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self._first: Vector | None = None

    def offered(self, theta: Vector) -> Vector:
        assert self._first is not None
        return self._first

    def train(
        self, seq: int, round: int, members: tuple[bytes, ...], after_step: AfterStep
    ) -> tuple[Offered, SharedBuffer]:
        if self._first is not None:
            return super().train(seq, round, members, after_step)
        made = super(IdleSession, self).train(seq, round, members, after_step)  # with real steps
        self._first = np.array(vector(made[1]))
        return made


if __name__ == "__main__":
    serve(StaleSession)
