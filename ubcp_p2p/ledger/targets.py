"""What a command may write over: nothing that it reads, no store, and no ledger or other file without being told to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.files import beginning_of, same_file
from ubcp_p2p.ledger.database import SQLITE_MAGIC

_HEAD_BYTES: Final = 64


class Occupied(ConfigError):
    """The file that was to be written is there, and is something that must stay."""


def check_export_target(path: Path, *, inputs: Iterable[Path] = (), force: bool) -> None:
    """Raises Occupied where an export must not be written; ConfigError when there is no plain file."""
    head = occupied_by(path, inputs)
    if not head:
        return
    if head.startswith(SQLITE_MAGIC):
        raise Occupied(f"{path} is a ledger store or another database; nothing was written", hint="name another file")
    if not force:
        raise Occupied(f"{path} is there already; nothing was written", hint="--force replaces it")


def occupied_by(path: Path, inputs: Iterable[Path]) -> bytes:
    """How the file at `path` begins; empty where nothing would be lost. Raises Occupied for one of the inputs."""
    for given in inputs:
        if same_file(path, given):
            raise Occupied(f"{path} is what is read here; nothing was written", hint="name another file")
    return beginning_of(path, _HEAD_BYTES)
