"""Every assumption of the simulated community, from TOML: frozen, checked once, with a limit on each."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ubcp_p2p.allocator.problem import URGENCY_MIN, Rules, grid
from ubcp_p2p.content import content_dir
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.files import read_limited

FILE_BYTES_MAX: Final = 64 << 10
SECONDS_OF_A_DAY: Final = 86_400
PURPOSE: Final = "research"
STEP: Final = 8  # of quanta: so that they can be cut into 2, 4 or 8
URGENCY: Final = URGENCY_MIN  # nobody here pays for being urgent
_HINT: Final = "begin with a copy of simulation/community.toml; docs/simulation.md explains the keys"

Count = Annotated[int, Field(ge=1, le=10_000)]
Few = Annotated[int, Field(ge=0, le=1_000)]
Work = Annotated[int, Field(ge=1, le=10_000)]  # tenths of a credit; so few that the allocator's granule is one of them
Part = Annotated[float, Field(ge=0, le=1)]
Hours = Annotated[float, Field(gt=0, le=1_000)]

Model = TypeVar("Model", bound=BaseModel)


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CharterPart(Table):
    """[charter]"""

    half_life_days: int = Field(ge=1, le=365)
    ageing_hours: int = Field(ge=1, le=1_000)
    newcomer_permille: int = Field(ge=0, le=500)
    newcomer_days: int = Field(ge=1, le=365)
    weight_spread: Part


class People(Table):
    """[people]"""

    users: Count
    units: int = Field(ge=1, le=1_000)
    unit_spread: float = Field(ge=0, le=3)
    heavy: Few
    heavy_jobs: int = Field(ge=1, le=100)
    newcomers: Few
    steady_load: float = Field(ge=0, le=2)
    steady_shape: float = Field(gt=0, le=100)


class Cheats(Table):
    """[cheats]"""

    flooding: Few
    flooding_jobs: int = Field(ge=1, le=1_000)
    splitting: Few
    splitting_pieces: Literal[1, 2, 4, 8]
    sybils: Few
    sybil_enrolments: int = Field(ge=1, le=100)
    underclaiming: Few
    overclaiming: Few

    @property
    def users(self) -> int:
        people = self.flooding + self.splitting + self.underclaiming + self.overclaiming
        return people + self.sybils * self.sybil_enrolments


class Peers(Table):
    """[peers]"""

    count: int = Field(ge=1, le=1_000)
    budget_min: Work
    budget_max: Work
    swing: Part
    hours_there: Hours
    hours_away: Hours


class Jobs(Table):
    """[jobs]"""

    quantum_min: Work
    quantum_max: Work
    slices_mean: float = Field(ge=1, le=1_000)
    slices_max: int = Field(ge=1, le=1_000)
    requests_mean: float = Field(ge=1, le=100)
    requests_max: int = Field(ge=1, le=100)


class Horde(Table):
    """[horde]"""

    kudos_per_unit: int = Field(ge=0, le=10**6)
    kudos_least: int = Field(ge=-(10**6), le=10**6)
    kudos_per_10_s: int = Field(ge=0, le=10**6)


class Pairs(Table):
    """[pairs]"""

    slice_seconds: int = Field(ge=60, le=SECONDS_OF_A_DAY)
    users: Count
    units: int = Field(ge=1, le=1_000)
    heavy: Few
    newcomers: Few
    peers: int = Field(ge=1, le=1_000)
    quantum_min: Work
    quantum_max: Work
    cheaters: int = Field(ge=1, le=1_000)
    seeds: int = Field(ge=1, le=100)


class Scenario(Table):
    """The whole file."""

    format: Literal["ubcp-community/1"]
    days: int = Field(ge=1, le=365)
    slice_seconds: int = Field(ge=60, le=SECONDS_OF_A_DAY)
    charter: CharterPart
    people: People
    cheats: Cheats
    peers: Peers
    jobs: Jobs
    horde: Horde
    pairs: Pairs

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        people, pairs, jobs = self.people, self.pairs, self.jobs
        if self.peers.budget_max < self.peers.budget_min:
            raise ValueError("peers.budget_max is below peers.budget_min")
        slots = grid(self.peers.budget_min, self.charter.newcomer_permille)
        if 2 * jobs.quantum_max > slots.fits:  # twice: for those who ask for more than they use
            raise ValueError(f"jobs.quantum_max: twice as much must fit beside the reserve, into {slots.fits}")
        if jobs.quantum_max < jobs.quantum_min or jobs.quantum_min % STEP or jobs.quantum_max % STEP:
            raise ValueError(f"jobs: quanta are multiples of {STEP}, and the largest is not below the smallest")
        if people.heavy + people.newcomers + self.cheats.users >= people.users:
            raise ValueError("people.users: nobody is left to be steady")
        if pairs.heavy + pairs.newcomers >= pairs.users or not pairs.cheaters <= min(pairs.heavy, pairs.units):
            raise ValueError("pairs: cheaters are heavy users, each in a unit of its own, and some users are neither")
        if min(people.users, pairs.users) < max(people.units, pairs.units):
            raise ValueError("people.units: each needs a user")
        return self

    @property
    def slices(self) -> int:
        return self.days * self.slices_a_day

    @property
    def slices_a_day(self) -> int:
        return max(1, SECONDS_OF_A_DAY // self.slice_seconds)

    @property
    def rules(self) -> Rules:
        """The charter, as the allocator takes it."""
        return Rules(
            newcomer_permille=self.charter.newcomer_permille,
            half_life_slices=self.charter.half_life_days * self.slices_a_day,
            ageing_slices=max(1, self.charter.ageing_hours * self.slices_a_day // 24),
            slice_s=self.slice_seconds,
            purposes=(PURPOSE,),
        )

    def with_changes(self, **tables: dict[str, Any]) -> Scenario:
        """A copy with some keys of some tables changed; a key of no table is given as a table of its own name."""
        document = self.model_dump()
        for name, value in tables.items():
            document[name] = document[name] | value if isinstance(document[name], dict) else value[name]
        return Scenario.model_validate(document)


def shipped_scenario() -> Path:
    return content_dir("simulation") / "community.toml"


def load(path: Path) -> Scenario:
    """Raises ConfigError, naming the key and what is wrong with it."""
    return parse_toml(Scenario, path, hint=_HINT)


def parse_toml(model: type[Model], path: Path, *, hint: str) -> Model:
    """The frozen table that a TOML file holds. Raises ConfigError, naming file and key, and LocalIOError."""
    try:
        data = read_limited(path, bytes_max=FILE_BYTES_MAX)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}", hint=hint) from None
    try:
        return model.model_validate(tomllib.loads(data.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: is no TOML: {error}", hint=hint) from None
    except ValidationError as error:
        # An unknown key is often a misspelt one, and then the cause of a "missing" beside it: it comes first.
        fault = min(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in fault["loc"]) or "the whole"
        reason = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        if fault["type"] == "extra_forbidden":
            reason = "unknown key"
        raise ConfigError(f"{path}: {key}: {reason}", hint=hint) from None


def small(scenario: Scenario) -> Scenario:
    """For tests and `--quick`: the same kinds of people, fewer of each, hours instead of days."""
    return scenario.with_changes(
        days={"days": 4}, slice_seconds={"slice_seconds": 3600},
        charter={"half_life_days": 2, "newcomer_days": 2},
        people={"users": 300, "units": 10, "heavy": 16, "newcomers": 20},
        cheats={"flooding": 1, "splitting": 1, "sybils": 1, "sybil_enrolments": 4, "underclaiming": 1,
                "overclaiming": 1},
        peers={"count": 8}, pairs={"users": 60, "units": 4, "heavy": 8, "peers": 2, "cheaters": 2, "seeds": 2},
    )  # fmt: skip


def pair_network(scenario: Scenario) -> Scenario:
    """The smaller network in which tricks are tried: nobody cheats of itself."""
    pairs = scenario.pairs
    return scenario.with_changes(
        slice_seconds={"slice_seconds": pairs.slice_seconds},
        people={"users": pairs.users, "units": pairs.units, "heavy": pairs.heavy, "newcomers": pairs.newcomers},
        cheats=dict.fromkeys(("flooding", "splitting", "sybils", "underclaiming", "overclaiming"), 0),
        peers={"count": pairs.peers},
        jobs={"quantum_min": pairs.quantum_min, "quantum_max": pairs.quantum_max},
    )
