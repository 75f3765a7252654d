"""Recipes whose work nobody checks: they say so, and it is part of what the peers share."""

from __future__ import annotations

import pytest

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models.recipe import ChecksConfig, Recipe, load_recipe
from ubcp_p2p.models.unchecked import rate_ppm, unchecked

OPEN = load_recipe("fashion-cnn").to_toml().replace('fallback = "digits"', 'fallback = "none"')
PRIVATE = OPEN.replace('source = "fashion-mnist"', 'source = "fashion-mnist"\nprivate = true')


def test_private_data_are_not_checked_and_the_hash_says_so() -> None:
    recipe = Recipe.from_toml(PRIVATE, "x")
    assert recipe.private and recipe.checks.rate > 0
    assert rate_ppm(recipe) == 0
    assert "private data" in (unchecked(recipe) or "")
    assert recipe.hash() != Recipe.from_toml(OPEN, "x").hash()
    back = Recipe.from_bytes(recipe.to_bytes(), "x")
    assert back.private and back.hash() == recipe.hash()
    assert Recipe.from_toml(recipe.to_toml(), "x") == recipe


@pytest.mark.parametrize(("rate", "ppm"), [(0.0, 0), (1e-7, 0), (1e-6, 1), (0.02, 20_000)])
def test_a_rate_of_nothing_is_unchecked(rate: float, ppm: int) -> None:
    recipe = load_recipe("digits-tiny").model_copy(update={"checks": ChecksConfig(rate=rate)})
    assert rate_ppm(recipe) == ppm
    assert (unchecked(recipe) is None) == bool(ppm)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PRIVATE.replace("private = true", "private = false"), "left out"),
        (PRIVATE.replace('fallback = "none"', 'fallback = "digits"'), "stands in"),
    ],
)
def test_one_meaning_has_one_form(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Recipe.from_toml(text, "x")
