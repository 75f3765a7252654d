"""A child tied to its parent ends with it, also when the parent was gone before the child could tie itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.support.processes import ended
from ubcp_p2p.processes import die_with_parent

PARENT = """
import os, signal, subprocess, sys
from ubcp_p2p.processes import die_with_parent
waits = [sys.executable, "-c", "import signal; signal.pause()"]
print(subprocess.Popen(waits, preexec_fn=die_with_parent(os.getpid())).pid, flush=True)
signal.pause()
"""


@pytest.mark.slow
def test_a_child_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not ended(child, 0.0)
        parent.kill()
    try:
        assert ended(child, 10.0)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_a_child_whose_parent_has_gone_ends_at_once() -> None:
    done = subprocess.run(["/bin/true"], check=False, preexec_fn=die_with_parent(os.getpid()))
    assert done.returncode == 0
    somebody_else = os.getppid()
    done = subprocess.run(["/bin/true"], check=False, preexec_fn=die_with_parent(somebody_else))
    assert done.returncode == 1
