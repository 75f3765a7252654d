"""The trainer's program on a kernel without Landlock: its system calls are unknown there."""

from __future__ import annotations

import errno
import os
import sys

from ubcp_p2p.training import worker
from ubcp_p2p.training.sandbox import seccomp

_ALLOW, _ERRNO, _CREATE_RULESET = 0x7FFF0000, 0x00050000, 444


def main(arguments: list[str]) -> int:
    library = seccomp.load()
    assert library is not None
    context = library.seccomp_init(_ALLOW)
    assert library.seccomp_rule_add_array(context, _ERRNO | errno.ENOSYS, _CREATE_RULESET, 0, None) == 0
    assert library.seccomp_load(context) == 0
    return worker.main(arguments)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
