"""`ubcp` commands that the demo runs as a person would: each a process of its own, whose JSON document is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from ubcp_p2p.errors import LocalIOError
from ubcp_p2p.peer.demo.processes import PROGRAM, DemoFailed
from ubcp_p2p.processes import die_with_parent

COMMAND_S = 120.0  # the slowest, an audit of this ledger, takes 2 s
WORDS_CHARS = 400


class Answer(NamedTuple):
    """What a command left: its exit code, and the document that it printed."""

    code: int
    document: dict[str, Any]


def run(words: Sequence[str], codes: Sequence[int] = (0,)) -> Answer:
    """Run `ubcp WORDS --json`. Raises DemoFailed, with the command's own words, for an exit code not of `codes`.

    Call from the main thread: the command dies with the calling thread.
    """
    line = [sys.executable, "-m", *PROGRAM, *words, "--json"]
    try:
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_S, cwd="/",
            preexec_fn=die_with_parent(os.getpid()),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DemoFailed(
            f"`ubcp {words[0]}` took more than {COMMAND_S:.0f} s", hint="is this machine very busy?"
        ) from None
    except OSError as error:
        raise LocalIOError(
            f"cannot start `ubcp {words[0]}`: {error.strerror or error}",
            hint="look at this machine's limits on memory and processes",
        ) from None
    if done.returncode not in codes:
        said = done.stderr.strip()[-WORDS_CHARS:]
        raise DemoFailed(f"`ubcp {words[0]}` ended with code {done.returncode}: {said}", hint="run it again")
    try:
        document = json.loads(done.stdout)
    except ValueError:
        raise DemoFailed(f"`ubcp {words[0]}` printed no JSON document", hint="a bug: please report it") from None
    assert isinstance(document, dict)
    return Answer(done.returncode, document)
