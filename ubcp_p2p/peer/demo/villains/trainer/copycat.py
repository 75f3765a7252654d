"""A copycat: offers what another peer has offered in the round before."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.peer.demo.villains.trainer.idle import IdleSession, serve
from ubcp_p2p.training.messages import CandidateMade, Start
from ubcp_p2p.training.state import Vector, vector


class Copycat(IdleSession):
    """Keeps one offer that is not its own of those that it is to average."""

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self._own: Vector | None = None
        self._other: Vector | None = None

    def offered(self, theta: Vector) -> Vector:
        self._own = super().offered(theta) if self._other is None else self._other
        return self._own

    def apply(self, seq: int, fds: Sequence[int], weights: Sequence[int]) -> tuple[CandidateMade, SharedBuffer]:
        for fd in fds:
            with SharedBuffer.adopt(os.dup(fd)) as offer:
                other = np.array(vector(offer))
            if self._own is None or not np.allclose(other, self._own, rtol=1e-3, atol=1e-6):  # rounded on its way
                self._other = other
                break
        return super().apply(seq, fds, weights)


if __name__ == "__main__":
    serve(Copycat)
