"""The price of a recipe, counted without torch, is what torch counts on the recipe's own network and loss."""

from __future__ import annotations

import numpy as np
import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models.cost import Cost, cost_of, flop_per_sample
from ubcp_p2p.models.recipe import Recipe, load_recipe, shipped_recipes
from ubcp_p2p.models.task import build_task

SAMPLES = 3


def counted(recipe: Recipe) -> int:
    """FLOP of SAMPLES samples, forward and backward; attention by its matrix products, as torch counts no fused one."""
    task = build_task(recipe)
    x, y = task.batch(np.arange(SAMPLES), np.random.default_rng(0))
    model = task.model()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        task.loss(model, x, y).backward()  # type: ignore[no-untyped-call]
    total: int = counter.get_total_flops()
    return total


def changed(name: str, **model: object) -> Recipe:
    values = load_recipe(name).model_dump()
    values["model"].update(model)
    return Recipe.model_validate(values)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe(name: str) -> None:
    recipe = load_recipe(name)
    assert SAMPLES * flop_per_sample(recipe) == counted(recipe)


@pytest.mark.parametrize(
    "recipe",
    [
        changed("shakespeare-nano", context=33, layers=1, heads=1, width=6, mlp_ratio=3, tied_embeddings=False),
        changed("shakespeare-nano", context=17, layers=3, heads=4, width=24, mlp_ratio=1),
        changed("digits-tiny", channels=(4,)),
        changed("digits-tiny", channels=(4, 12, 8, 4, 8)),  # down to one pixel, and on
    ],
)
def test_other_networks(recipe: Recipe) -> None:
    assert SAMPLES * flop_per_sample(recipe) == counted(recipe)


def test_each_peers_round_is_rounded_up_to_a_whole_unit() -> None:
    assert Cost(10**9 // 4, 4, peers=3, rounds=5)[:2] == (250_000_000, 4)
    for flop, samples, units in ((250_000_000, 4, 1), (250_000_001, 4, 2), (1, 1, 1), (10**9 - 1, 1, 1)):
        cost = Cost(flop, samples, peers=3, rounds=5)
        assert (cost.units_per_peer_and_round, cost.units_per_round, cost.units) == (units, 3 * units, 15 * units)


def test_a_run_by_the_recipes_own_numbers() -> None:
    recipe = load_recipe("shakespeare-nano")
    cost = cost_of(recipe, 4)
    assert cost == Cost(flop_per_sample(recipe), 8 * 25, 4, 48)
    assert cost.units == 48 * 4 * -(-flop_per_sample(recipe) * 200 // 10**9)


def test_from_one_peer_to_as_many_as_the_recipe_admits() -> None:
    recipe = load_recipe("digits-tiny")
    assert cost_of(recipe) == cost_of(recipe, 1)
    assert [cost_of(recipe, peers).units_per_round for peers in (1, 8)] == [1, 8]


@pytest.mark.parametrize("peers", [0, 9, -1])
def test_more_peers_than_the_recipe_admits(peers: int) -> None:
    with pytest.raises(ConfigError, match="not between 1 and 8"):
        cost_of(load_recipe("digits-tiny"), peers)
