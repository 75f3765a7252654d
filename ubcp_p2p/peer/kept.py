"""The runs that a node is in, kept in its profile: from these files `ubcp up` goes on after a stop, a crash, a reboot.

One file a name, runs/<hash of the name>.json, written when a run begins and removed when it needs to go on no more.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ubcp_p2p.errors import ConfigError, LocalIOError, UbcpError
from ubcp_p2p.files import atomic_write, read_limited
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.models.run_name import check_name

FORMAT = "ubcp/kept-run/1"
_FORMATS = re.compile(r"ubcp/kept-run/[0-9]{1,9}")  # of all versions of ubcp
FILE_BYTES_MAX = 256 * 1024  # a recipe has at most 64 KiB, of which JSON makes at most twice as much
_DAY_S = 86_400.0


@dataclass(frozen=True)
class RunOptions:
    """What one peer may choose for itself when it joins a run."""

    peers_min: int = 1
    checkpoint_every_s: float = 10.0
    new: bool = False


@dataclass(frozen=True)
class KeptRun:
    """What it takes to go on with a run; its state is in its checkpoints."""

    name: str
    recipe: Recipe
    options: RunOptions


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: str
    name: str
    recipe: str
    peers_min: int = Field(ge=1)
    checkpoint_every_s: float = Field(ge=0, le=_DAY_S, allow_inf_nan=False)
    new: bool


def keep(folder: Path, run: KeptRun) -> None:
    """Write the file of this run into `folder`, in the place of another run of that name. Raises LocalIOError."""
    document = {"format": FORMAT, "name": run.name, "recipe": run.recipe.to_toml(), **asdict(run.options)}
    atomic_write(_file(folder, run.name), json.dumps(document, ensure_ascii=False, indent=1).encode())


def forget(folder: Path, name: str) -> None:
    """Remove the file of the run called `name`, if there is one. Raises LocalIOError."""
    path = _file(folder, name)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise LocalIOError(
            f"cannot remove {path}: {error.strerror}",
            hint="remove it: else the next `ubcp up` goes on with that run",
        ) from None


def kept_runs(folder: Path, count_max: int) -> tuple[list[KeptRun], list[str]]:
    """The runs kept in `folder`, at most `count_max`, and in words what is wrong with the other files there."""
    runs: list[KeptRun] = []
    faults: list[str] = []
    for path in sorted(folder.glob("*.json"))[: 2 * count_max]:  # no node of ours leaves more than `count_max`
        try:
            runs.append(_read(path))
        except (UbcpError, OSError) as error:
            faults.append(f"the run kept in {path} is not resumed: {error}")
    faults += [f"the run {run.name} is not resumed: a node resumes {count_max}" for run in runs[count_max:]]
    return runs[:count_max], faults


def _file(folder: Path, name: str) -> Path:
    return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"  # a name may hold what files' may not


def _read(path: Path) -> KeptRun:
    data = read_limited(path, bytes_max=FILE_BYTES_MAX)
    try:
        document = _Document.model_validate_json(data)
    except ValidationError:
        raise ConfigError(_what_else(data)) from None
    if document.format != FORMAT:
        raise ConfigError(_what_else(data))
    if _file(path.parent, document.name) != path:
        raise ConfigError("it is the file of another run")
    check_name(document.name)
    options = RunOptions(document.peers_min, document.checkpoint_every_s, document.new)
    return KeptRun(document.name, Recipe.from_toml(document.recipe, "its recipe"), options)


def _what_else(data: bytes) -> str:
    """Why these bytes are no kept run of this version."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return "the file is damaged"
    format = document.get("format") if isinstance(document, dict) else None
    if isinstance(format, str) and format != FORMAT and _FORMATS.fullmatch(format):
        return f"it was written by another version of ubcp (format {format}, not {FORMAT})"
    return "the file is damaged"
