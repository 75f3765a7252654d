"""One swarm of three for all cases of a file: whatever a case does to it, it must be whole again for the next one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import FAILED
from tests.support.swarm import Swarm, tiny, together
from ubcp_p2p.models.recipe import ChecksConfig, Recipe

RECIPE = tiny(100_000, local_steps=50)  # without an end; rounds long enough for a late peer to catch up in
# Where a member lies in every round, a check that is drawn would keep it out of the next cases for an hour. What checks
# do to liars is tested elsewhere; here the rounds must bear them without.
UNCHECKED = RECIPE.model_copy(update={"checks": ChecksConfig(rate=0.0)})
OPTIONS: dict[str, Any] = {"peers_min": 2, "checkpoint_every_s": 0.0}  # so that each round has all places


class Shared:
    """The swarm. A case that failed leaves it in an unknown state: the next one gets a new swarm."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.swarm: Swarm | None = None

    def whole(self) -> Swarm:
        """Peers a, b and c in one round together; nobody remembers what happened before."""
        if self.swarm is None:
            self.swarm = Swarm("abc")
            for peer in self.swarm.of("abc"):
                peer.train(self.recipe, **OPTIONS)
        self.swarm["c"].call("behave", modes={})
        for peer in self.swarm.of("abc"):
            peer.call("pardon")
        together(self.swarm.of("abc"), after=self.swarm.marks())
        return self.swarm

    def drop(self) -> list[str]:
        swarm, self.swarm = self.swarm, None
        return swarm.close() if swarm is not None else []


@pytest.fixture(scope="module")  # not the session: it never stops training, also beside tests that have no use for it
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    shared = Shared(getattr(request.module, "RECIPE", RECIPE))
    yield shared
    left = shared.drop()
    assert not left, f"an orderly stop left behind: {left}"


@pytest.fixture
def swarm(shared: Shared, request: pytest.FixtureRequest) -> Iterator[Swarm]:
    """Peers a, b and c, training together; c is the one that things happen to."""
    try:
        swarm = shared.whole()
    except BaseException:
        if shared.swarm is not None:
            print(shared.swarm.logs())
        shared.drop()
        raise
    yield swarm
    if request.node.stash.get(FAILED, False):
        print(swarm.logs())
        shared.drop()
