"""Starting the trainer's program, with nothing of the daemon's that it does not need. Imports no torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import ubcp_p2p
from ubcp_p2p.errors import LocalIOError
from ubcp_p2p.training import channel
from ubcp_p2p.training.link import Link

WORKER: Final = "ubcp_p2p.training.worker"
# Names of variables that speak of a secret, ours ($UBCP_PASSPHRASE) or another program's.
_SECRET: Final = re.compile(r"pass|secret|token|credential|api_?key|private", re.IGNORECASE)


def spawn_worker(silent_s: float, program: str = WORKER) -> Link:
    """Start the trainer's program, which says nothing until it is asked to start. Raises LocalIOError.

    It is ended when it owes an answer and says nothing for `silent_s` (0: never). The kernel kills it when the calling
    thread ends.
    """
    # The working folder has no say in what the child imports (-P), unless it is the very source that runs here.
    isolated = [] if _is_working_folder(Path(ubcp_p2p.__file__).resolve().parent.parent) else ["-P"]
    opened: list[int] = []
    try:
        ours, theirs = channel.pair()
        with theirs:
            try:
                output, output_theirs = os.pipe()
                opened += [output, output_theirs]
                process = subprocess.Popen(
                    [sys.executable, *isolated, "-m", program, str(theirs.fileno()), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=output_theirs,
                    stderr=output_theirs,
                    pass_fds=[theirs.fileno()],
                    env={name: value for name, value in os.environ.items() if not _SECRET.search(name)},
                    start_new_session=True,  # Ctrl-C in the terminal is for the daemon alone
                )
                opened.remove(output_theirs)
                os.close(output_theirs)
                try:
                    pidfd = os.pidfd_open(process.pid)
                except OSError:
                    process.kill()
                    process.wait()
                    raise
            except BaseException:
                ours.close()
                channel.close_all(opened)
                raise
    except OSError as error:
        raise LocalIOError(
            f"cannot start the trainer process: {error.strerror or error}",
            hint="look at this machine's limits on memory, processes and open files",
        ) from None
    return Link(process, pidfd, ours, output, silent_s)


def _is_working_folder(path: Path) -> bool:
    try:
        return Path.cwd() == path
    except OSError:  # it was deleted
        return False
