"""Ledgers compared: everything in one, as a value; and the same entries delivered in any order."""

from __future__ import annotations

import random
from array import array
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ubcp_p2p.charter.values import Charters
from ubcp_p2p.ledger import balances, rules
from ubcp_p2p.ledger.chain import ID_BYTES
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.state import DERIVED, Ledger
from ubcp_p2p.ledger.wire import ForkProof, Signed


def picture(ledger: Ledger) -> Any:
    """All of a ledger's state but its forks, comparable."""
    return {name: _plain(value) for name, value in vars(ledger).items() if name not in {"charters", "forks", *DERIVED}}


def ids_of(ledger: Ledger) -> list[bytes]:
    """Of all entries, sorted."""
    ids = ledger.ids()
    return sorted(ids[i : i + ID_BYTES] for i in range(0, len(ids), ID_BYTES))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | array):
        return [_plain(item) for item in value]
    if isinstance(value, bytearray):
        return bytes(value)
    return {name: _plain(item) for name, item in vars(value).items()} if hasattr(value, "__dict__") else value


class Replica:
    """A peer's ledger: keeps what is pending and tries it again."""

    def __init__(self, charters: Charters) -> None:
        self.ledger = Ledger(charters)
        self.refused: dict[bytes, str] = {}
        self._pending: list[Signed] = []
        self._proofs: list[ForkProof] = []
        self._by_author: dict[bytes, list[Signed]] = {}

    def history(self, author: bytes, wanted: Collection[bytes] | None = None) -> Sequence[Signed]:
        return self._by_author.get(author, [])

    def take(self, batch: Iterable[Signed], proofs: Iterable[ForkProof] = ()) -> None:
        """Whatever comes, in its order; then what was pending, until nothing moves."""
        todo = [*batch, *self._pending]
        self._pending = []
        while todo:
            rest = [signed for signed in todo if not self._try(signed)]
            if len(rest) == len(todo):
                break
            todo = rest
        self._pending = todo
        self._proofs = [proof for proof in (*proofs, *self._proofs) if not self._prove(proof)]

    @property
    def pending(self) -> set[bytes]:
        """Ids of entries and of proofs."""
        return {signed.entry.id for signed in self._pending} | {proof.id for proof in self._proofs}

    def summary(self) -> Any:
        """All that two peers compare."""
        rows = balances.balances(self.ledger, self.history)
        return (
            rows,
            balances.balances_root(rows),
            balances.entries_root(self.ledger),
            self.ledger.frozen(),
            self.ledger.findings(),
            self.ledger.entries,
            self.refused,
            self.pending,
        )

    def _try(self, signed: Signed) -> bool:
        try:
            if rules.apply(self.ledger, signed, self.history):
                self._by_author.setdefault(signed.entry.author, []).append(signed)
        except Pending:
            return False
        except LedgerError as error:
            self.refused[signed.entry.id] = error.code
        return True

    def _prove(self, proof: ForkProof) -> bool:
        try:
            rules.check_proof(self.ledger, proof)
        except Pending:
            return False
        except LedgerError as error:
            self.refused[proof.id] = error.code
        return True


def shuffled(entries: Sequence[Signed], seed: int) -> list[list[Signed]]:
    """All of them in parts, in any order, some of them again."""
    rng = random.Random(seed)
    order = [*entries, *rng.choices(entries, k=len(entries) // 3)] if entries else []
    rng.shuffle(order)
    parts = []
    while order:
        size = rng.randint(1, max(1, len(entries)))
        parts.append(order[:size])
        order = order[size:]
    return parts
