"""A freeloader: offers what the group has moved by in the round before, which everybody knows, as work of its own."""

from __future__ import annotations

from ubcp_p2p.peer.demo.villains.trainer.idle import IdleSession, serve
from ubcp_p2p.training.messages import Start
from ubcp_p2p.training.state import Vector


class Freeloader(IdleSession):
    """Like work, it goes where the others go."""

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self._then: Vector | None = None

    def offered(self, theta: Vector) -> Vector:
        before, self._then = self._then, theta
        return super().offered(theta) if before is None else before - theta


if __name__ == "__main__":
    serve(Freeloader)
