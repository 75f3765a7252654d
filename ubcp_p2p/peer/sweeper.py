"""The private directory of one running node, and the sweeper that removes it when the node is killed.

Sockets are files, and a process that is killed by SIGKILL removes nothing. So a shell of 1 MB waits on a pipe that
only the node holds: when the node ends, however it ends, the kernel closes the pipe and the shell removes the
directory.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SWEEP = 'trap "" INT TERM HUP; read -r _; rm -rf -- "$1"; rmdir -- "$2" 2>/dev/null'


@contextmanager
def instance_dir(parent: Path) -> Iterator[Path]:
    """A fresh directory (mode 0700) in `parent`, gone at the end even after kill -9. Raises OSError."""
    directory = parent / f"{os.getpid()}-{secrets.token_hex(3)}"
    try:
        directory.mkdir(mode=0o700)
    except FileNotFoundError:  # the sweeper of a node that has just ended removed the empty parent
        parent.mkdir(mode=0o700)
        directory.mkdir(mode=0o700)
    sweeper = subprocess.Popen(
        ["/bin/sh", "-c", _SWEEP, "ubcp-sweeper", str(directory), str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    assert sweeper.stdin is not None
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        sweeper.stdin.close()
        sweeper.wait()
