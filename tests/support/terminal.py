"""A command on a terminal of its own, whose questions are answered."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Mapping, Sequence


def on_a_terminal(answers: Sequence[str], arguments: Sequence[str], env: Mapping[str, str]) -> tuple[int, str]:
    """Run `ubcp` with a terminal, typing an answer whenever what is shown ends in ": "; its exit code, and that."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-m", "ubcp_p2p", *arguments], dict(env))
    shown = b""
    prompts = 0
    try:
        while True:
            try:
                data = os.read(terminal, 1000)
            except OSError:  # Linux: EIO when the other side is closed
                break
            if not data:
                break
            shown += data
            if prompts < len(answers) and shown.endswith(b": "):
                os.write(terminal, answers[prompts].encode() + b"\n")
                prompts += 1
    finally:
        os.close(terminal)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), shown.decode()
