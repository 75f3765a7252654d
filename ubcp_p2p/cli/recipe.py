"""`ubcp recipe list`, `show`, `check`, `cost` and `schema`: what can be trained, by what recipe, at what price."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ubcp_p2p.cli.output import JsonOption, emit_json
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.log import printable

if TYPE_CHECKING:
    from ubcp_p2p.models.cost import Cost
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
    from ubcp_p2p.models.unchecked import unchecked

    found = load_recipe(file)
    if json:
        emit_json(_facts(found))
    else:
        print(printable(f"{file}: fine: {found.name}, {found.parameters():,} parameters, {found.rounds.total} rounds"))
        if (why := unchecked(found)) is not None:
            print(f"unchecked: {why}")


@recipe.command()
def cost(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped recipe's name, or a recipe file (TOML).")],
    peers: Annotated[int, typer.Option("--peers", metavar="N", help="How many take part.")] = 1,
    charter: Annotated[
        Path | None, typer.Option("--charter", metavar="FILE", help="Also what that costs to make, by its figures.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say what a run costs before it is asked for.

    1 credit pays for 1 PFLOP, whoever computes it; a unit is 1 GFLOP, a millionth of that. Counted are the matrix
    products and convolutions of training; measuring the held-out loss costs nothing. Each peer's round is rounded up to
    a whole unit.
    """
    from fractions import Fraction

    from ubcp_p2p.charter.document import load
    from ubcp_p2p.charter.prices import prices
    from ubcp_p2p.charter.words import figure, made
    from ubcp_p2p.models.cost import cost_of
    from ubcp_p2p.models.recipe import load_recipe
    from ubcp_p2p.models.unchecked import unchecked
    from ubcp_p2p.units import MICROCREDITS

    found = load_recipe(name)
    price = cost_of(found, peers)
    basis = load(charter).charter.cost if charter is not None else None
    if charter is not None and basis is None:
        raise ConfigError(f"{charter} has no cost basis", hint="add [cost] to it, as ledger/charter.toml has")
    rows = [row.times(Fraction(price.units, MICROCREDITS)) for row in prices(basis)]
    if json:
        emit_json(
            {
                "name": found.name, "hash": found.hash().hex(), **price._asdict(),
                "units_per_peer_and_round": price.units_per_peer_and_round, "units_per_round": price.units_per_round,
                "units": price.units, "unchecked": unchecked(found), "currency": basis and basis.currency,
                "devices": [
                    {"device": row.device, "seconds": float(row.seconds), "money": float(row.total),
                     "kwh": float(row.kwh), "gco2": float(row.gco2)}
                    for row in rows
                ],
            }
        )  # fmt: skip
        return
    _print_cost(found, price)
    if (why := unchecked(found)) is not None:
        print(f"unchecked: {why}")
    for row in rows:
        assert basis is not None
        print(
            printable(f"made on {row.device} it costs {made(row, basis.currency)}, in {figure(row.seconds)} s of one")
        )


@recipe.command()
def schema(json: JsonOption = False) -> None:
    """Print the JSON schema of a recipe, for editors."""
    from ubcp_p2p.models.recipe import recipe_json_schema

    if json:
        emit_json(recipe_json_schema())
    else:
        print(json_module.dumps(recipe_json_schema(), indent=2, ensure_ascii=False))


def _print_cost(found: Recipe, price: Cost) -> None:
    from ubcp_p2p.units import credits_text

    def line(label: str, units: int, text: str) -> None:
        unit = "unit " if units == 1 else "units"
        print(f"{label:<18}{units:>16,} {unit} {credits_text(units):>18} credits  {text}")

    peers = f"{price.peers} peer{'s' if price.peers > 1 else ''}"
    sample = f"{price.samples_per_round:,} samples of {price.flop_per_sample:,} FLOP"
    line("a peer's round", price.units_per_peer_and_round, sample)
    line("a round", price.units_per_round, f"of {peers}")
    line("the whole run", price.units, f"{price.rounds:,} rounds of {peers}: {found.name}")


def _facts(found: Recipe) -> dict[str, Any]:
    from ubcp_p2p.models.unchecked import unchecked

    return {
        "name": found.name,
        "summary": found.summary,
        "hash": found.hash().hex(),
        "parameters": found.parameters(),
        "rounds": found.rounds.total,
        "local_steps": found.rounds.local_steps,
        "unchecked": unchecked(found),
    }
