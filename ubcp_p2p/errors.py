"""The error base classes: what happened, why, what to do next, and the exit code that goes with it.

Leaf classes live beside the code that raises them; only the categories, which decide the exit code, are here.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every `ubcp` command (documented in docs/cli.md)."""

    OK = 0
    BAD = 1  # the thing checked is bad
    USAGE = 2  # usage, configuration, or a missing extra
    IO = 3  # local I/O or the network


class UbcpError(Exception):
    """An error that a person can act on.

    message: what happened and why, one sentence, no trailing full stop needed.
    hint: what to do next, or None when there is nothing to do.
    """

    exit_code: Exit = Exit.BAD

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(UbcpError):
    """A file, key or argument that the user gave is wrong; stop."""

    exit_code = Exit.USAGE


class LocalIOError(UbcpError):
    """This machine refused: disk full, permission, a socket that is taken."""

    exit_code = Exit.IO


class NetworkError(UbcpError):
    """The network or a peer did not do what was needed; usually worth a retry."""

    exit_code = Exit.IO


class TrainingError(UbcpError):
    """A run or its trainer failed; the daemon lives on."""

    exit_code = Exit.BAD


class RoundFailed(TrainingError):
    """This attempt at a round did not end in a commit; it is tried again without `missing` (public keys).

    Here because both siblings raise it: the network when offers or votes are missing, the trainer when no offer is
    valid.
    """

    def __init__(self, message: str, missing: tuple[bytes, ...] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.missing = missing


class StateMismatch(TrainingError):
    """A state has another length or hash than it should, or non-finite values: take it from another peer."""
