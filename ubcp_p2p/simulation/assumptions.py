"""What the budget curve assumes, from TOML: frozen, checked once, and each assumption by a name that can be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ubcp_p2p.content import content_dir
from ubcp_p2p.simulation.scenario import Table, parse_toml

_HINT: Final = "begin with a copy of simulation/curve.toml; docs/simulation.md explains the keys"

Amount = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
Spread = Annotated[float, Field(ge=0, le=5)]


class Budget(Table):
    """[budget]"""

    from_: Amount = Field(alias="from")
    to: Amount
    points: int = Field(ge=2, le=1_000)


class Hardware(Table):
    """[hardware]"""

    utilisation: float = Field(gt=0, le=1)
    lost: float = Field(ge=0, lt=1)


class Learning(Table):
    """[learning]"""

    credits: float = Field(ge=0, le=1e15)
    spread: Spread


class Project(Table):
    """[[project]]"""

    name: str = Field(min_length=1, max_length=100)
    part: Amount
    parameters: Amount
    tokens: Amount
    flop_per_parameter_and_token: float = Field(gt=0, le=1_000)
    attempts: float = Field(ge=1, le=1e6)
    spread: Spread

    @property
    def credits(self) -> float:
        """The median of what all attempts take, in PFLOP."""
        return self.parameters * self.tokens * self.flop_per_parameter_and_token * self.attempts / 1e15


class Assumptions(Table):
    """The whole file."""

    format: Literal["ubcp-curve/1"]
    users: int = Field(ge=1, le=10**10)
    period_days: float = Field(gt=0, le=10_000)
    sample: int = Field(ge=100, le=1_000_000)
    seeds: int = Field(ge=2, le=1_000)
    budget: Budget
    hardware: Hardware
    learning: Learning
    project: list[Project] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.budget.to <= self.budget.from_:
            raise ValueError("budget.to must be above budget.from")
        return self

    def useful_credits(self, budget: float) -> float:
        """The work that a budget in PFLOP/s-days of peak power does, in PFLOP."""
        return budget * 86_400 * self.hardware.utilisation * (1 - self.hardware.lost)

    def scaled(self, name: str, factor: float) -> Assumptions | None:
        """A copy with one assumption multiplied; None where that breaks a limit (a utilisation above 1)."""
        document = self.model_dump(by_alias=True)
        place: Any = document
        *path, last = name.split(".")
        for step in path:
            place = place[int(step)] if step.isdigit() else place[step]
        place[last] = type(place[last])(place[last] * factor)
        try:
            return Assumptions.model_validate(document)
        except ValidationError:
            return None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all assumptions that the result may hang on; a project's by its place."""
        projects = [
            f"project.{place}.{key}"
            for place in range(len(self.project))
            for key in ("part", "parameters", "tokens", "attempts", "spread")
        ]
        return (
            "users", "hardware.utilisation", "hardware.lost", "learning.credits", "learning.spread", *projects,
        )  # fmt: skip


def shipped_assumptions() -> Path:
    return content_dir("simulation") / "curve.toml"


def load(path: Path) -> Assumptions:
    """Raises ConfigError, naming the key and what is wrong with it."""
    return parse_toml(Assumptions, path, hint=_HINT)
