"""Every class of fault there is: its invariant, the SPEC section that forbids it, and what it says. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ubcp_p2p.errors import UbcpError


class FaultClass(NamedTuple):
    """invariant: 1 to 15, as SPEC §12 numbers them. section: of the SPEC."""

    invariant: int
    section: str
    meaning: str


FAULTS: Final[dict[str, FaultClass]] = {
    "encoding": FaultClass(1, "2.1", "not the one canonical encoding of a value of the model"),
    "version": FaultClass(1, "5.1", "an entry of an unknown version"),
    "length": FaultClass(1, "5.1", "an entry longer than 16 KiB"),
    "field": FaultClass(1, "6", "a field of another type, length or range than its kind has"),
    "network": FaultClass(1, "5.1", "an entry of another community's ledger"),
    "signature": FaultClass(2, "3.2", "a signature that does not hold under the strict rule"),
    "signer": FaultClass(2, "5.3", "signed by other keys than must sign"),
    "rotation": FaultClass(2, "6.9", "a new key or recovery key that this ROTATE may not set"),
    "opening": FaultClass(3, "5.2", "a chain that does not begin with OPEN, or a second OPEN"),
    "sequence": FaultClass(3, "5.2", "a sequence number that does not follow from the previous entry"),
    "slice-falls": FaultClass(3, "5.4", "a slice before that of the previous entry"),
    "slice-reference": FaultClass(3, "5.4", "a slice more than one before that of an entry referred to"),
    "slice-ahead": FaultClass(3, "5.4", "a slice more than one ahead of the clock"),
    "author-kind": FaultClass(3, "5.2", "a kind of entry that this author (account or node) cannot write"),
    "fork": FaultClass(4, "7.2", "several entries of one author after one entry"),
    "heal": FaultClass(4, "7.4", "a HEAL that names something else than other branches of its own chain"),
    "unknown-reference": FaultClass(5, "7.1", "refers to an entry that is not there"),
    "reference": FaultClass(5, "7.1", "refers to an entry of another kind or author than it must"),
    "two-branches": FaultClass(5, "7.3", "depends on two branches of one author"),
    "zero-sum": FaultClass(6, "8.1", "an event whose parts do not sum to zero"),
    "not-enrolled": FaultClass(7, "8.3", "a REQUEST of an account that is not enrolled in its period"),
    "expired": FaultClass(7, "8.2", "a REQUEST that only credits already expired would cover"),
    "stewards": FaultClass(8, "6.2", "fewer steward signatures than the charter asks for"),
    "enrolment": FaultClass(8, "6.2", "an ENROL whose unit or dates the charter does not allow"),
    "nullifier": FaultClass(8, "6.2", "a nullifier used twice: the stewards enrolled one person twice"),
    "overdraft": FaultClass(9, "8.4", "a REQUEST above what its author has available"),
    "debt": FaultClass(9, "8.7", "an account owes: its forks or closes, or its paymaster's, have spent twice"),
    "exposure": FaultClass(9, "8.4", "more reserved in one period than the charter's exposure cap"),
    "request": FaultClass(9, "6.3", "a REQUEST whose dates, peers, purpose or amounts do not fit together"),
    "claim": FaultClass(9, "8.3", "income claimed from a node of somebody else, or claimed backwards"),
    "allot": FaultClass(10, "6.5", "an ALLOT by another than the paymaster, too late, or not above the one before"),
    "allot-sum": FaultClass(10, "6.5", "ALLOTs above what their REQUEST reserved"),
    "receipt-allot": FaultClass(10, "6.6", "a voucher that does not belong to its ALLOT or its receiver"),
    "receipt-limit": FaultClass(10, "6.6", "a voucher above its ALLOT"),
    "receipt-late": FaultClass(10, "6.6", "a RECEIPT after the expiry and grace of its REQUEST"),
    "receipt-grows": FaultClass(10, "6.6", "a voucher that does not grow over the one before"),
    "receipt-slice": FaultClass(10, "6.6", "a second RECEIPT for one REQUEST in one slice"),
    "receipt-self": FaultClass(10, "6.6", "a RECEIPT from oneself"),
    "price": FaultClass(11, "6.6", "credits that are not the units at the price of 1"),
    "device": FaultClass(11, "6.6", "more units than the device class can do in the seconds claimed"),
    "close": FaultClass(12, "6.7", "a CLOSE by another author, too early, or not of exactly the ALLOTs"),
    "close-again": FaultClass(12, "8.5", "a CLOSE of a request that was closed on this chain before"),
    "close-voucher": FaultClass(12, "6.7", "a CLOSE below a voucher that the paymaster had signed"),
    "checkpoint-falls": FaultClass(13, "9.3", "a CHECKPOINT that is not larger than the author's one before"),
    "checkpoint-root": FaultClass(13, "9.3", "a CHECKPOINT whose root is not that of the entries before it"),
    "checkpoint-state": FaultClass(13, "9.3", "a CHECKPOINT whose state hash does not recompute"),
    "decision": FaultClass(14, "6.4", "a DECISION about another time than its own, or of an expired REQUEST"),
    "decision-twice": FaultClass(14, "6.4", "a second DECISION of one node on one slice, and no part of the first"),
    "decision-inputs": FaultClass(14, "12.1", "a DECISION that does not follow from its inputs"),
    "decision-claims": FaultClass(14, "12.1", "inputs of a DECISION that contradict what is signed"),
    "freeze": FaultClass(15, "7.2", "an account named frozen without a fork proof that holds"),
}  # fmt: skip


class LedgerError(UbcpError):
    """Something in a ledger is wrong. `code` is a key of FAULTS."""

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        assert code in FAULTS, code
        self.code = code

    @property
    def invariant(self) -> int:
        return FAULTS[self.code].invariant

    @property
    def section(self) -> str:
        return FAULTS[self.code].section


class MalformedEntry(LedgerError):
    """Bytes that are no entry, voucher or proof; the sender is at fault."""


class BadSignature(LedgerError):
    """A signature that does not hold; the sender is at fault, for anybody can make one."""


class RuleViolation(LedgerError):
    """A signed entry that breaks a rule; its author is at fault."""


class Overdraft(RuleViolation):
    """A REQUEST that is not covered."""


class Replay(RuleViolation):
    """Something that counts once, used again."""


class Pending(Exception):
    """The entry refers to entries that are not here (yet): it is neither valid nor invalid (SPEC §7.1)."""

    def __init__(self, missing: Iterable[bytes]) -> None:
        super().__init__("refers to entries that are not here")
        self.missing = tuple(missing)
