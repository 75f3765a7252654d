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


def sign_draft(path: Path, draft: bytes, signer: str) -> str:
    """A draft entry of the node, signed with the account key, in hexadecimal. signer: the key in force, in hex.

    The caller has looked at what the draft says. Raises ConfigError, LocalIOError.
    """
    from ubcp_p2p.ledger.parse import decode
    from ubcp_p2p.ledger.wire import sign

    try:
        key = open_account(path)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no account key at {path}", hint="do it on the machine that has it, or copy it there for once"
        ) from None
    if key.public.hex() != signer:
        raise ConfigError(
            f"the key at {path} is not the account's any more: {signer[:16]}… signs for it",
            hint="put the new key in its place",
        )
    return sign(decode(draft), draft, [key]).to_bytes().hex()


def agreed(question: str) -> bool:
    """Whether the person at the terminal says yes. Raises ConfigError without a terminal."""
    if not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask on: nothing was signed", hint="--yes signs without asking")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline(16).strip().lower() in ("y", "yes")


def ask_secret(prompt: str) -> str:
    """What is typed, not shown. Raises ConfigError without a terminal."""
    import getpass

    if not sys.stdin.isatty():
        raise ConfigError("a passphrase is needed and there is no terminal to ask on", hint="set UBCP_PASSPHRASE")
    return getpass.getpass(prompt, stream=sys.stderr)
