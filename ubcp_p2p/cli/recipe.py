"""`ubcp recipe list`, `show`, `check` and `schema`: what can be trained, and whether a file of one's own can."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ubcp_p2p.cli.output import JsonOption, emit_json
from ubcp_p2p.log import printable

if TYPE_CHECKING:
    from ubcp_p2p.models.recipe import Recipe

recipe = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@recipe.command("list")
def list_(json: JsonOption = False) -> None:
    """List the recipes that come with the program, one a line."""
    from ubcp_p2p.models.recipe import load_recipe, shipped_recipes

    found = [load_recipe(name) for name in shipped_recipes()]
    if json:
        emit_json([_facts(one) for one in found])
        return
    for one in found:
        print(f"{one.name:<18}{one.summary}")


@recipe.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped recipe's name, or a recipe file (TOML).")],
    json: JsonOption = False,
) -> None:
    """Print a recipe as TOML: a beginning for one of your own."""
    from ubcp_p2p.models.recipe import Recipe, recipe_text

    text, where = recipe_text(name)
    found = Recipe.from_toml(text, where)
    if json:
        emit_json(_facts(found) | {"recipe": found.model_dump(mode="json")})
    else:
        print(text, end="")


@recipe.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recipe file (TOML).")], json: JsonOption = False
) -> None:
    """Check a recipe file.

    Exit code 0 when peers can train by it; else 2, with the first thing that is wrong and what to do about it.
    """
    from ubcp_p2p.models.recipe import load_recipe

    found = load_recipe(file)
    if json:
        emit_json(_facts(found))
    else:
        print(printable(f"{file}: fine: {found.name}, {found.parameters():,} parameters, {found.rounds.total} rounds"))


@recipe.command()
def schema(json: JsonOption = False) -> None:
    """Print the JSON schema of a recipe, for editors."""
    from ubcp_p2p.models.recipe import recipe_json_schema

    if json:
        emit_json(recipe_json_schema())
    else:
        print(json_module.dumps(recipe_json_schema(), indent=2, ensure_ascii=False))


def _facts(found: Recipe) -> dict[str, Any]:
    return {
        "name": found.name,
        "summary": found.summary,
        "hash": found.hash().hex(),
        "parameters": found.parameters(),
        "rounds": found.rounds.total,
        "local_steps": found.rounds.local_steps,
    }
