"""Errors over HTTP: an UbcpError as a problem document (RFC 9457), and back."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from ubcp_p2p.errors import Exit, UbcpError

MEDIA_TYPE: Final = "application/problem+json"
_BY_EXIT: Final = {
    Exit.BAD: HTTPStatus.CONFLICT,  # understood, and impossible as things are
    Exit.USAGE: HTTPStatus.BAD_REQUEST,
    Exit.IO: HTTPStatus.SERVICE_UNAVAILABLE,
}


class NotFound(UbcpError):
    """Nothing here has that name."""


class HttpRefusal(UbcpError):
    """What is wrong with a request before any verb has seen it. headers: to be sent with it."""

    exit_code = Exit.USAGE

    def __init__(
        self, status: HTTPStatus, message: str, *, hint: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.headers = dict(headers or {})


class NodeBug(UbcpError):
    """An error that the node did not expect."""

    exit_code = Exit.BAD


class NodeRefused(UbcpError):
    """The node's answer was an error; it carries the node's own words and exit code."""

    def __init__(self, message: str, hint: str | None, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = Exit(exit_code)


def status_of(error: UbcpError) -> HTTPStatus:
    """The HTTP status that goes with an error."""
    match error:
        case HttpRefusal():
            return error.status
        case NotFound():
            return HTTPStatus.NOT_FOUND
        case NodeBug():
            return HTTPStatus.INTERNAL_SERVER_ERROR
        case _:
            return _BY_EXIT.get(error.exit_code, HTTPStatus.INTERNAL_SERVER_ERROR)


def problem(error: UbcpError) -> dict[str, Any]:
    """The document. `exit` is the exit code with which a command ends that met this error."""
    status = status_of(error)
    return {
        "type": "about:blank", "title": status.phrase, "status": int(status), "detail": error.message,
        "hint": error.hint, "exit": int(error.exit_code),
    }  # fmt: skip


def refusal_of(document: Any) -> NodeRefused:
    """The error that a problem document tells of. Raises KeyError, TypeError, ValueError for what is none."""
    hint = document["hint"]
    return NodeRefused(str(document["detail"]), None if hint is None else str(hint), int(document["exit"]))
