"""What the API serves: verbs. Each takes the fields of a request and answers with one document, events, or a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol


class Emit(Protocol):
    """Tells whoever asked of one event; returns when there is room for the next. id_: where to go on after it."""

    def __call__(self, event: dict[str, Any], id_: str | None = None, /) -> Awaitable[None]: ...


Verb = Callable[[dict[str, Any], Emit], Awaitable[Any]]


@dataclass(frozen=True)
class Attachment:
    """An answer that is a file, open at its beginning; whoever sends it closes it."""

    file: BinaryIO
    size: int
