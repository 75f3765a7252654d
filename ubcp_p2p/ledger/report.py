"""What an audit found, as values and as the JSON document of `ubcp audit --json`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ubcp_p2p.ledger.balances import Balance
from ubcp_p2p.ledger.export import Roots
from ubcp_p2p.ledger.faults import FAULTS


class Fault(NamedTuple):
    """One fault. entry: its id, or empty where there is none.

    account: the key of the author at fault, of the log's node for what its export says of others; empty for nobody.
    """

    code: str
    entry: bytes
    account: bytes
    message: str

    def line(self) -> str:
        """For people."""
        class_ = FAULTS[self.code]
        where = f" in entry {self.entry.hex()}" if self.entry else ""
        who = f" by {self.account.hex()}" if self.account else ""
        return f"fault {class_.invariant} ({self.code}, SPEC §{class_.section}){who}{where}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        class_ = FAULTS[self.code]
        return {
            "invariant": class_.invariant, "code": self.code, "entry": self.entry.hex(), "account": self.account.hex(),
            "section": class_.section, "message": self.message,
        }  # fmt: skip


@dataclass
class Counts:
    """Of ENTRY records, but for signatures, blobs and checkpoints. read = valid + what is below it + the faulty ones.

    dependent: not judged, as they refer to a faulty or missing entry. later: after the slice of --as-of. uncheckable:
    CHECKPOINTs of other nodes, whose append order is not here. replayed: decisions held against their inputs.
    unknown_asks: requests in these inputs that are not here, so that nothing can be said of them.
    """

    read: int = 0
    valid: int = 0
    dependent: int = 0
    duplicate: int = 0
    later: int = 0
    signatures: int = 0
    checkpoints: int = 0
    uncheckable: int = 0
    replayed: int = 0
    unknown_asks: int = 0


class Totals(NamedTuple):
    """µcredits of all accounts together, as the rows of SPEC §8.6 have them."""

    available: int
    reserved: int
    uncollected: int
    debt: int

    @classmethod
    def of(cls, rows: Iterable[Balance]) -> Totals:
        total = [0, 0, 0, 0]
        for row in rows:
            total = [sum(pair) for pair in zip(total, row[1:], strict=True)]
        return cls(*total)


@dataclass(frozen=True)
class Report:
    """What an audit found. signatures: verified in this audit; `counts` are of the whole ledger.

    debts: (account, µcredits) of who owes. is_open: some charter asks for no steward, so that whoever forks may HEAL
    itself (SPEC §7.4).
    """

    network: bytes
    counts: Counts
    accounts: int
    faults: tuple[Fault, ...]
    roots: Roots
    slice: int
    frozen: tuple[bytes, ...]
    totals: Totals
    debts: tuple[tuple[bytes, int], ...]
    is_open: bool
    blobs: int
    blobs_missing: int
    resumed: int
    seconds: float
    signatures: int

    def to_json(self) -> dict[str, Any]:
        """The document of `ubcp audit --json`."""
        return {
            "entries": self.counts.read,
            "accounts": self.accounts,
            "valid": self.counts.valid,
            "faults": [fault.to_json() for fault in self.faults],
            "balances_root": self.roots.balances.hex(),
            "entries_root": self.roots.entries.hex(),
            "seconds": round(self.seconds, 3),
            "verified_per_s": round(self.signatures / self.seconds, 1) if self.seconds else 0.0,
            "totals": self.totals._asdict(),
            "network": self.network.hex(),
            "slice": self.slice,
            "signatures": self.signatures,
            "dependent": self.counts.dependent,
            "duplicate": self.counts.duplicate,
            "later": self.counts.later,
            "checkpoints": {"checked": self.counts.checkpoints, "not_checkable_here": self.counts.uncheckable},
            "decisions_replayed": self.counts.replayed,
            "requests_not_here": self.counts.unknown_asks,
            "blobs": {"present": self.blobs, "missing": self.blobs_missing},
            "frozen": [account.hex() for account in self.frozen],
            "debts": [{"account": account.hex(), "debt": debt} for account, debt in self.debts],
            "open_network": self.is_open,
            "resumed_after": self.resumed,
        }
