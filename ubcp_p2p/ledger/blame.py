"""Whose fault it is that an entry is refused: its author's only where the author's own hand shows it (SPEC §12). Pure.

Whoever hands entries on can take signatures away and add some, sign in somebody's name with a key of his own, and leave
out what an entry refers to. All of that is his fault, and never that of whom the bytes name.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ubcp_p2p.ledger.entry import ZERO, Position, Rotate
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.wire import Signed

# Of the copy or of what comes with it, not of the entry's bytes.
COPY: Final = frozenset({"network", "signer", "stewards", "unknown-reference"})


class Authorship(NamedTuple):
    """What an entry says of its place, and which keys have signed its very bytes: none where the copy is at fault.

    new_key: that a ROTATE sets.
    """

    author: bytes
    seq: int
    prev: bytes
    signers: frozenset[bytes]
    new_key: bytes = b""

    @classmethod
    def of(cls, signed: Signed) -> Authorship:
        """Of an entry whose signatures hold."""
        entry = signed.entry
        new_key = entry.body.key if isinstance(entry.body, Rotate) else b""
        return cls(entry.author, entry.seq, entry.prev, signed.signers, new_key)


def is_authors(ledger: Ledger, code: str, authorship: Authorship) -> bool:
    """Whether the fault `code` is the author's: in the entry's bytes, which the author's key in force has signed."""
    if code in COPY:
        return False
    key = _key_after(ledger, authorship)
    if code == "rotation":  # another copy may have other signatures
        return authorship.signers == {key, authorship.new_key}
    return key in authorship.signers


def _key_after(ledger: Ledger, authorship: Authorship) -> bytes | None:
    """The author's key in force after the entry before; None where that is not known."""
    if authorship.seq == 0 or authorship.prev == ZERO:
        return authorship.author
    before = ledger.branch_through(Position(authorship.author, authorship.seq - 1, authorship.prev))
    if before is not None:
        return before.powers_at(authorship.seq - 1).key
    chain = ledger.index.holder(authorship.prev)  # at another number than the entry says
    if chain is None or chain.author != authorship.author:
        return None
    return next(chain.powers_at(seq).key for seq in range(len(chain)) if chain.id_at(seq) == authorship.prev)


def in_words(message: str, authorship: Authorship | None) -> str:
    """The message of a fault that is not the author's."""
    return message if authorship is None else f"{message}; claimed author {authorship.author.hex()}"
