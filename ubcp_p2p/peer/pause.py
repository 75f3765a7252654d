"""The owner's pause as a file in the profile (pause.json): it holds over restarts of the node, until it is over."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ubcp_p2p.carbon.values import TIME_MAX
from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.files import atomic_write, read_limited
from ubcp_p2p.owner.values import Pause

FORMAT: Final = "ubcp/pause/1"
HOURS_MAX: Final = 24 * 366
_BYTES_MAX: Final = 4096


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: str = Field(pattern=f"^{FORMAT}$")
    since: int = Field(ge=0, le=TIME_MAX)
    until: int | None = Field(ge=0, le=TIME_MAX)
    after_round: bool


def begin_pause(now: int, hours: float | None, after_round: bool) -> Pause:
    """A pause from now on. Raises ConfigError for hours that cannot be meant."""
    if hours is not None and not (math.isfinite(hours) and 0 < hours <= HOURS_MAX):
        raise ConfigError(f"a pause of {hours} hours cannot be", hint=f"give more than 0 and at most {HOURS_MAX} hours")
    until = None if hours is None else now + max(1, round(hours * 3600))
    return Pause(now, until, after_round)


def keep_pause(path: Path, pause: Pause) -> None:
    """Write it in one step. Raises LocalIOError."""
    document = {"format": FORMAT, "since": pause.since, "until": pause.until, "after_round": pause.after_round}
    atomic_write(path, json.dumps(document).encode())


def end_pause(path: Path) -> None:
    """Remove the file, if it is there. Raises LocalIOError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise LocalIOError(f"cannot remove {path}: {error.strerror}", hint="check its owner and mode") from None


def read_pause(path: Path) -> Pause | None:
    """The pause that was kept, if there is one. Raises ConfigError for a damaged file, LocalIOError."""
    try:
        data = read_limited(path, bytes_max=_BYTES_MAX)
    except FileNotFoundError:
        return None
    try:
        found = _Document.model_validate_json(data)
    except ValidationError:
        raise ConfigError(f"{path} is damaged: paused until `ubcp resume`", hint="`ubcp resume` removes it") from None
    return Pause(found.since, found.until, found.after_round)
