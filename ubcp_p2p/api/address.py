"""Where a running node's API is, and the token: files in the node's private directory, for its user alone."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ubcp_p2p.errors import LocalIOError
from ubcp_p2p.files import atomic_write, read_limited

SOCKET_NAME: Final = "api.sock"
ADDRESS_NAME: Final = "api.json"
HEADER_NAME: Final = "api.header"
TOKEN_BYTES: Final = 32
_BYTES_MAX: Final = 4096


@dataclass(frozen=True)
class Address:
    """directory: the node's own, of one start. url: on loopback; None where the node has no loopback interface."""

    directory: Path
    token: str
    url: str | None

    @property
    def socket(self) -> Path:
        return self.directory / SOCKET_NAME

    @property
    def header_file(self) -> Path:
        """The Authorization line as `curl -H @FILE` takes it, so that the token is in no list of processes."""
        return self.directory / HEADER_NAME

    def save(self) -> None:
        """Write the files, mode 0600. Raises LocalIOError."""
        atomic_write(self.header_file, f"Authorization: Bearer {self.token}\n".encode())
        document = {"url": self.url, "token": self.token}
        atomic_write(self.directory / ADDRESS_NAME, json.dumps(document).encode())

    def remove(self) -> None:
        """Remove the files and the socket; safe to call twice."""
        for path in (self.socket, self.header_file, self.directory / ADDRESS_NAME):
            path.unlink(missing_ok=True)

    @classmethod
    def load(cls, directory: Path) -> Address:
        """Raises FileNotFoundError while there is none, LocalIOError for what is none."""
        data = read_limited(directory / ADDRESS_NAME, bytes_max=_BYTES_MAX)
        try:
            document = json.loads(data)
            url = document["url"]
            return cls(directory, str(document["token"]), None if url is None else str(url))
        except (ValueError, KeyError, TypeError):
            raise LocalIOError(f"{directory / ADDRESS_NAME} is damaged", hint="stop the node and start it") from None


def new_token() -> str:
    """Fresh for each start of a node."""
    return secrets.token_hex(TOKEN_BYTES)
