"""What a recipe says of its openings and trails, for daemon and trainer alike. Imports no torch."""

from __future__ import annotations

from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.training.compare import fades
from ubcp_p2p.training.points import Shape
from ubcp_p2p.training.trail import stretch_steps


def shape_of(recipe: Recipe) -> Shape:
    """The lengths of a recipe's openings."""
    parameters = recipe.parameters()
    state_values = 2 * parameters if recipe.outer.optimizer == "nesterov" else parameters
    names = tuple(sorted(fades(recipe.inner.optimizer, recipe.inner.betas)))
    return Shape(parameters, state_values, names, stretch_steps(recipe.rounds.local_steps))
