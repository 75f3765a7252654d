"""`python -m ubcp_p2p` is `ubcp`, and what its console script calls: loads the program where Ctrl-C can do no harm."""

from __future__ import annotations

import signal


def entry() -> None:
    """Run the program and exit with its code."""
    # Loading it takes 0.2 s, in which a KeyboardInterrupt would be nobody's to catch: Ctrl-C just ends the process.
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored (nohup), or a test's
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ubcp_p2p.cli.main import entry as run

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    entry()
