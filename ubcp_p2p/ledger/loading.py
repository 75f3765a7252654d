"""The ledger that a store's file leads to: its charters, entries and proofs, judged again in their order."""

from __future__ import annotations

from ubcp_p2p.charter.values import CharterError, Charters, SignedCharter
from ubcp_p2p.ledger import rules
from ubcp_p2p.ledger.disk import Disk, damaged
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.state import History, Ledger
from ubcp_p2p.ledger.wire import ForkProof, decode_signed, verify


def ledger_of(disk: Disk, history: History, *, check_signatures: bool = False) -> Ledger:
    """history: reads from the same file. Raises StoreError when the file has something that was never put there."""
    try:
        first, *later = (SignedCharter.from_bytes(data) for data in disk.charters())
        charters = Charters(first)
        for charter in later:
            charters.add(charter)
        ledger = Ledger(charters)
        _ = ledger.index  # it grows with the ledger from here on; made later, all at once, it would stall a node
        for row in disk.entries():
            signed = decode_signed(row.data)
            if check_signatures:
                verify(signed)
            if signed.entry.id != row.id or not rules.apply(ledger, signed, history):
                raise damaged(disk.path, f"row {row.position} of its entries is not what it should be")
        for data in disk.proofs():
            rules.check_proof(ledger, ForkProof.from_bytes(data))
    except (LedgerError, CharterError, ValueError, KeyError) as error:
        raise damaged(disk.path, str(error)) from error
    except Pending:
        raise damaged(disk.path, "an entry that others refer to is missing") from None
    return ledger
