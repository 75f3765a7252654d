"""Child processes that end with their parent, however it ends: PR_SET_PDEATHSIG (prctl(2), Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int) -> Callable[[], None]:
    """What a child calls, or Popen's preexec_fn: from then on the kernel sends it SIGKILL when `parent` ends (Linux).

    The child ends at once when `parent` has ended already. The signal follows the thread that started the child: start
    it from one that lives as long as the child should, such as the main thread.
    """
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None  # here: a fork may not load libraries

    def tie() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)

    return tie
