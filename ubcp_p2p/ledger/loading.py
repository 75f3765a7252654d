"""From a store's file to the Ledger that its entries lead to."""

from __future__ import annotations

from collections.abc import Collection

from ubcp_p2p.charter.values import Charter, CharterError, Charters, SignedCharter
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger import rules
from ubcp_p2p.ledger.ahead import CLOCK_HINT, Ahead, Until
from ubcp_p2p.ledger.database import damaged
from ubcp_p2p.ledger.disk import Disk
from ubcp_p2p.ledger.entry import SEQ_MAX, SLICE_MAX
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.wire import ForkProof, Signed, decode_signed, verify


def replayed(disk: Disk, *, check_signatures: bool = False, until: Until | None = None) -> tuple[Ledger, Ahead]:
    """The fold over what the disk has, and what was left out of it as `until` has it. Raises StoreError (damaged)."""
    ahead = Ahead()
    try:
        first, *later = (SignedCharter.from_bytes(data) for data in disk.charters())
        charters = Charters(first)
        for version in later:
            charters.add(version)
        ledger = Ledger(charters)
        _ = ledger.index  # it grows with the ledger from here on; made later, all at once, it would stall a node
        latest = until(charters.first) if until is not None else SLICE_MAX
        for row in disk.entries():
            signed = decode_signed(row.data)
            if check_signatures:
                verify(signed)
            if signed.entry.slice > latest:
                ahead.add(row.id, signed.entry.slice)
            elif signed.entry.id != row.id or not _is_new(disk, ledger, signed, ahead):
                raise damaged(disk.path, f"row {row.position} of its entries is not what it should be")
        for data in disk.proofs():
            try:
                rules.check_proof(ledger, ForkProof.from_bytes(data))
            except Pending:
                if not ahead:
                    raise
    except (LedgerError, CharterError, ValueError, KeyError) as error:
        raise damaged(disk.path, str(error)) from error
    except Pending:
        raise damaged(disk.path, "an entry that others refer to is missing") from None
    return ledger, ahead


def _is_new(disk: Disk, ledger: Ledger, signed: Signed, ahead: Ahead) -> bool:
    """Whether the ledger has not had it; what hangs on something left out is left out as well."""

    def history(author: bytes, wanted: Collection[bytes] | None = None, /) -> list[Signed]:
        if wanted is None:
            return [decode_signed(data) for data in disk.chain(author, 0, SEQ_MAX, SEQ_MAX)]
        return [decode_signed(data) for id_ in wanted if (data := disk.entry(id_)) is not None]

    try:
        return rules.apply(ledger, signed, history)
    except Pending:
        if not ahead:
            raise
        ahead.dependent.add(signed.entry.id)
        return True


def refuse_ahead(disk: Disk, charter: Charter, until: Until) -> None:
    """Older versions took entries of the future in. Raises ConfigError when there is one."""
    ahead = Ahead()
    for id_, slice_ in disk.later(until(charter)):
        ahead.add(id_, slice_)
    if ahead:
        raise ConfigError(
            f"in the ledger store {disk.path} {ahead.words(charter)}; {CLOCK_HINT}",
            hint="if it is: `ubcp ledger export --as-of DATE --out FILE`, move the store away, and "
            "`ubcp ledger import FILE`; they come again when it is time",
        )
