"""When requests came here, kept in the profile: a node that is started again goes on with the waits that it knew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ubcp_p2p.allocator.problem import SLICE_MAX
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.files import atomic_write, read_limited

FORMAT: Final = "ubcp/seen/1"
SEEN_MAX: Final = 50_000  # of more, those that came last: the others are nearer to their end
FILE_BYTES_MAX: Final = 8 << 20  # 50,000 of them take 4.2 MB

_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Slice = Annotated[int, Field(ge=0, le=SLICE_MAX)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: str
    network: _Hash
    requests: Annotated[dict[_Hash, _Slice], Field(max_length=SEEN_MAX)]


def read_seen(path: Path, network: bytes) -> dict[bytes, int]:
    """REQUEST → the slice in which it came; nothing where there is no file, or one of another community.

    Raises ConfigError for a file that is damaged or of another version, LocalIOError.
    """
    try:
        data = read_limited(path, bytes_max=FILE_BYTES_MAX)
    except FileNotFoundError:
        return {}
    try:
        document = _Document.model_validate_json(data)
    except ValidationError:
        document = None
    if document is None or document.format != FORMAT:
        raise ConfigError(f"{path} is damaged, or of another version of ubcp", hint="remove it: waits begin anew")
    if document.network != network.hex():
        return {}
    return {bytes.fromhex(request): slice_ for request, slice_ in document.requests.items()}


def keep_seen(path: Path, network: bytes, seen: Mapping[bytes, int]) -> None:
    """Write the file, in the place of the one there is. Raises LocalIOError."""
    newest = sorted(seen.items(), key=lambda row: (-row[1], row[0]))[:SEEN_MAX]
    requests = {request.hex(): slice_ for request, slice_ in newest}
    document = {"format": FORMAT, "network": network.hex(), "requests": requests}
    atomic_write(path, json.dumps(document).encode())
