"""How much of a recipe's work is checked, and what is said where none is."""

from __future__ import annotations

from typing import Final

from ubcp_p2p.models.recipe import Recipe

PPM: Final = 1_000_000


def rate_ppm(recipe: Recipe) -> int:
    """The chance of a peer to be checked in a round, in millionths: 0 where its data are private, whatever is said."""
    return 0 if recipe.private else round(recipe.checks.rate * PPM)


def unchecked(recipe: Recipe) -> str | None:
    """Why nobody checks what the peers of a run of this recipe claim, in words; None where some is checked."""
    if recipe.private:
        return "each peer trains on private data of its own ([data] private): nobody can check its work"
    if not rate_ppm(recipe):
        return "the recipe wants no checks ([checks] rate): nobody checks the work"
    return None
