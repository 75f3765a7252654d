"""The account's key, for commands that sign with it: the passphrase comes from $UBCP_PASSPHRASE or is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ubcp_p2p.errors import ConfigError

if TYPE_CHECKING:
    from ubcp_p2p.keys import AccountKey


def open_account(path: Path) -> AccountKey:
    """Load the key. Raises FileNotFoundError, ConfigError, LocalIOError."""
    from ubcp_p2p.keys import AccountKey, PassphraseNeeded
    from ubcp_p2p.peer.config import passphrase_from_environment

    try:
        return AccountKey.load(path, passphrase_from_environment())
    except PassphraseNeeded:
        return AccountKey.load(path, ask_secret(f"Passphrase of {path}: "))


def ask_secret(prompt: str) -> str:
    """What is typed, not shown. Raises ConfigError without a terminal."""
    import getpass

    if not sys.stdin.isatty():
        raise ConfigError("a passphrase is needed and there is no terminal to ask on", hint="set UBCP_PASSPHRASE")
    return getpass.getpass(prompt, stream=sys.stderr)
