"""One swarm of three for many cases: whatever a case does to it, it must be whole again at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import FAILED
from tests.support.swarm import Peer, Swarm, tiny, together

RECIPE = tiny(100_000)  # digits-tiny, without an end
OPTIONS: dict[str, Any] = {
    "peers_min": 2,
    "checkpoint_every_s": 0.0,
}  # a checkpoint each round, so that each round has all places


class Shared:
    """The swarm of a module. A case that failed leaves it in an unknown state: the next one gets a new swarm."""

    def __init__(self, names: str) -> None:
        self.names = names
        self.swarm: Swarm | None = None
        self.first_loss = 0.0

    def get(self) -> Swarm:
        if self.swarm is None:
            self.swarm = Swarm(self.names)
            for peer in self.swarm.of(self.names):
                peer.train(RECIPE, **OPTIONS)
            together(self.swarm.of(self.names))
        return self.swarm

    def drop(self) -> None:
        swarm, self.swarm = self.swarm, None
        if swarm is not None:
            swarm.close()

    def close(self) -> None:
        """The end of the module: an orderly stop of all leaves nothing."""
        swarm, self.swarm = self.swarm, None
        if swarm is not None:
            left = swarm.close()
            assert not left, f"left behind: {left}"


def serve(shared: Shared, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[Swarm]:
    """A case's turn with the shared swarm; after a failure its logs are printed and it is dropped."""
    try:
        swarm = shared.get()
    except BaseException:
        shared.drop()
        raise
    for name in shared.names:
        swarm[name].call("pardon")
    yield swarm
    if request.node.stash.get(FAILED, False):
        print(swarm.logs())
        shared.drop()


@pytest.fixture(scope="module")
def three() -> Iterator[Shared]:
    shared = Shared("abc")
    yield shared
    shared.close()


@pytest.fixture
def swarm(three: Shared, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[Swarm]:
    """Peers a, b and c, training together."""
    yield from serve(three, request, capsys)


@pytest.fixture(scope="module")
def two() -> Iterator[Shared]:
    shared = Shared("ab")
    yield shared
    shared.close()


@pytest.fixture
def honest(two: Shared, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[Swarm]:
    """Peers a and b, training together."""
    yield from serve(two, request, capsys)


@pytest.fixture
def intruder(honest: Swarm, request: pytest.FixtureRequest) -> Iterator[Callable[[], Peer]]:
    """intruder(): a third peer with an identity of its own, that has joined a and b and made a round with them."""
    made: list[Peer] = []

    def enter() -> Peer:
        peer = honest.add(f"x{len(honest.peers)}")
        made.append(peer)
        peer.start(honest.seeds).train(RECIPE, **OPTIONS)
        marks = {p.name: p.mark_now() for p in honest.of("ab")}
        together([*honest.of("ab"), peer], after={**marks, peer.name: 0})
        return peer

    yield enter
    for peer in made:
        peer.kill()
        left = peer.left_behind()
        assert not left, f"left behind by the intruder: {left}"
