"""Logging set-up: JSON lines to a size-capped file, short lines for people to stderr. Called once, by the cli.

Anything may be in a message, also what a hostile peer sent: both outputs escape control characters and cap the length.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import math
import os
import sys
import time
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

from ubcp_p2p.errors import LocalIOError

FILE_BYTES_MAX: Final = 8 << 20  # with the backups, 32 MiB a profile at most
FILE_BACKUPS: Final = 3
MESSAGE_CHARS_MAX: Final = 4000

# Own names: importing hivemind renames WARNING for the whole process.
_LEVELS: Final = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}

# What to have in the environment before hivemind is imported and p2pd started; the cli sets it, unless the user did.
QUIET_LIBRARIES: Final[Mapping[str, str]] = {"HIVEMIND_LOGLEVEL": "ERROR", "GOLOG_LOG_LEVEL": "ERROR"}


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Structured values of a record: `log.info("round committed", extra=fields(round=3))`."""
    return {"ubcp_fields": values}


def printable(text: str) -> str:
    """The text on one line, safe for a terminal: control and other unprintable characters escaped, length capped."""
    if len(text) > MESSAGE_CHARS_MAX:
        text = text[:MESSAGE_CHARS_MAX] + f"… ({len(text)} characters)"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def setup_logging(level: str, *, file: Path | None = None, stderr_level: str | None = None) -> None:
    """Send all logging to `file` (JSON lines, from `level` up) and to stderr (from `stderr_level` up).

    Levels: debug, info, warning, error; `stderr_level` is `level` unless given. Replaces what an earlier call set up.
    Raises LocalIOError when `file` cannot be opened.
    """
    handlers: list[logging.Handler] = []
    terminal = _QuietStream(sys.stderr)
    terminal.setFormatter(HumanFormatter())
    terminal.setLevel((stderr_level or level).upper())
    handlers.append(terminal)
    if file is not None:
        try:
            file.parent.mkdir(mode=0o700, exist_ok=True)
            rotating = _PrivateRotatingFile(file, maxBytes=FILE_BYTES_MAX, backupCount=FILE_BACKUPS, encoding="utf-8")
        except OSError as error:
            raise LocalIOError(
                f"cannot open the log {file}: {error.strerror}", hint="check the folder's mode"
            ) from None
        rotating.setFormatter(JsonFormatter())
        rotating.setLevel(level.upper())
        handlers.append(rotating)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(min(handler.level for handler in handlers))
    logging.getLogger("asyncio").setLevel(max(logging.INFO, root.level))  # its debug lines tell of each poll


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, the record's fields, error."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, object] = {
            "time": _utc(record.created) + f".{int(record.msecs):03d}Z",
            "level": _LEVELS.get(record.levelno, str(record.levelno)),
            "logger": record.name,
            "message": _cap(record.getMessage()),
        }
        for name, value in _fields_of(record).items():
            document.setdefault(name, _json_value(value))
        if record.exc_info and record.exc_info[0] is not None:
            document["error"] = _cap(self.formatException(record.exc_info))
        return json.dumps(document, ensure_ascii=True)  # ASCII: no control or bidi characters in the file either


class HumanFormatter(logging.Formatter):
    """`12:30:59 warning round 3 is retried peer=12D3… (TimeoutError: …)`: one line, no traceback."""

    def format(self, record: logging.LogRecord) -> str:
        level = _LEVELS.get(record.levelno, str(record.levelno))
        parts = [time.strftime("%H:%M:%S", time.localtime(record.created)), level, record.getMessage()]
        parts += [f"{name}={value}" for name, value in _fields_of(record).items()]
        if record.exc_info and record.exc_info[1] is not None:
            parts.append(f"({type(record.exc_info[1]).__name__}: {record.exc_info[1]})")
        return printable(" ".join(parts))


class _QuietStream(logging.StreamHandler[Any]):
    """A closed terminal is no reason to fail, nor to print a traceback about it."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    """Mode 0600. On a full disk: one line on stderr, then silence until a line could be written again."""

    _failures = 0  # in a row

    def _open(self) -> TextIOWrapper:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return TextIOWrapper(os.fdopen(fd, "ab"), encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        failures = self._failures
        super().emit(record)
        if self._failures == failures:
            self._failures = 0

    def handleError(self, record: logging.LogRecord) -> None:
        self._failures += 1
        if self._failures > 1:
            return
        reason = sys.exc_info()[1]
        try:
            print(printable(f"ubcp: warning: cannot write the log {self.baseFilename}: {reason}"), file=sys.stderr)
        except (OSError, ValueError):
            pass  # stderr is closed as well: nobody is left to tell


def _fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    values = getattr(record, "ubcp_fields", None)
    return values if isinstance(values, Mapping) else {}


def _json_value(value: object) -> object:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _cap(value.hex() if isinstance(value, bytes) else str(value))


def _cap(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARS_MAX else text[:MESSAGE_CHARS_MAX] + "…"


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
