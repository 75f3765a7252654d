"""What the trainer may use of the machine's memory and disk, by resource limits that it cannot raise again."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from ubcp_p2p.models.recipe import PARAMETERS_MAX

MIB: Final = 1 << 20
SHARE_PERMILLE: Final = 800  # of the machine's memory, where its owner names no limit: the rest is for the daemon
FILE_BYTES_MAX: Final = 4 * 4 * PARAMETERS_MAX + MIB  # the largest checkpoint: state and momentum, Adam's two vectors
_FIRST_TO_GO: Final = b"1000"  # of the kernel's scale: when all memory is used up, it ends the trainer, not the daemon


def memory_bytes(memory_mb: int) -> int:
    """The limit in bytes; 0 MiB stands for most of this machine's memory."""
    if memory_mb:
        return memory_mb * MIB
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * SHARE_PERMILLE // 1000


def restrict(memory: int) -> None:
    """Limit what this process allocates to `memory` bytes, its files to FILE_BYTES_MAX; no core dumps.

    Counted is what it allocates for itself (RLIMIT_DATA), not addresses (RLIMIT_AS): CUDA reserves terabytes of those,
    and each thread some. Memory shared with the daemon is not in it; each piece of it is a file of limited size.
    Raises OSError or ValueError when the system refuses.
    """
    for kind, wanted in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, FILE_BYTES_MAX),
        (resource.RLIMIT_CORE, 0),  # a dump would hold the model, and may be as large as the memory
    ):
        most = resource.getrlimit(kind)[1]
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(kind, (limit, limit))
    with suppress(OSError):  # a wish: everything else holds without it
        Path("/proc/self/oom_score_adj").write_bytes(_FIRST_TO_GO)
