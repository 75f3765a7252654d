"""Every valid entry of an export or a store, by a replay of the rules; what is not valid is counted, and left out.

Signatures are not verified: that is for an audit, and for a store when it takes an entry in.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from ubcp_p2p.ledger import rules
from ubcp_p2p.ledger.entry import Entry
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.sources import Source
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.wire import Signed, decode_signed


@dataclass(frozen=True)
class Read:
    """The ledger of all valid entries. The rest, by why it is left out; what is there twice is not counted.

    refused: malformed or against a rule. pending: refers to what is not before it, or is left out. early: more than a
    slice ahead of the clock (SPEC §5.4).
    """

    ledger: Ledger
    refused: int
    pending: int
    early: int


def read(source: Source, clock: int, take: Callable[[Entry], None]) -> Read:
    """Replay the source from its beginning and hand each valid entry on. clock: the slice that it is now.

    Raises UnreadableExport.
    """
    ledger = Ledger(source.charters)
    places: dict[bytes, array[int]] = {}  # author → offsets of its valid entries
    refused = pending = early = 0

    def history(author: bytes, wanted: Collection[bytes] | None = None, /) -> Iterator[Signed]:
        for offset in places.get(author, ()):
            payload = source.entry(offset)
            assert payload is not None, "the file changed while it was read"
            yield decode_signed(payload)

    for record in source.entries():
        try:
            signed = decode_signed(record.payload)
            if signed.entry.slice > clock + 1:
                early += 1
            elif rules.apply(ledger, signed, history):
                places.setdefault(signed.entry.author, array("Q")).append(record.offset)
                take(signed.entry)
        except Pending:
            pending += 1
        except LedgerError:
            refused += 1
    for _ in source.blobs():  # to the end of the file: one that is cut off is unreadable
        pass
    return Read(ledger, refused, pending, early)
