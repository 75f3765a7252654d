"""What a store shows of itself to a peer: a sync.Source and a pull.Local. In the thread of the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.entry import Position
from ubcp_p2p.ledger.store import Store

_PAGE: Final = 128  # entries read at once: an answer has at most 512, of which the bytes may allow 40


class Shared:
    """Reads are of the moment; between two calls the store may have grown."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def network(self) -> bytes:
        return self._store.ledger.network

    @property
    def size(self) -> int:
        return self._store.ledger.entries

    def charter_ids(self) -> list[bytes]:
        return [signed.charter.id for signed in self._store.ledger.charters.versions]

    def charter(self, number: int) -> bytes | None:
        versions = self._store.ledger.charters.versions
        return versions[number - 1].to_bytes() if 1 <= number <= len(versions) else None

    def proof_ids(self) -> list[bytes]:
        return self._store.proof_ids()

    def proof(self, id_: bytes) -> bytes | None:
        return self._store.proof(id_)

    def heads(self) -> Iterator[Position]:
        return self._store.ledger.heads()

    def range(self, author: bytes, first: int, last: int) -> Iterator[bytes]:
        """A page at a time; the entries of one number are never split, of which a page may have more than _PAGE."""
        while first <= last:
            page = self._store.chain(author, first, last, _PAGE)
            if len(page) < _PAGE:
                yield from (signed.to_bytes() for signed in page)
                return
            end = page[-1].entry.seq
            yield from (signed.to_bytes() for signed in page if signed.entry.seq < end)
            yield from (signed.to_bytes() for signed in self._store.chain(author, end, end, sync.ENTRIES_MAX))
            first = end + 1

    def entry(self, id_: bytes) -> bytes | None:
        signed = self._store.entry(id_)
        return signed.to_bytes() if signed is not None else None

    def blob(self, hash_: bytes) -> bytes | None:
        return self._store.blob(hash_)

    def log(self, after: int) -> Iterator[tuple[int, bytes]]:
        while page := self._store.after(after, _PAGE):
            yield from ((row.position, row.data) for row in page)
            after = page[-1].position

    def contains(self, author: bytes, seq: int, id_: bytes) -> bool:
        return self._store.ledger.contains(author, seq, id_)

    def length(self, author: bytes) -> int:
        return max((len(chain) for chain in self._store.ledger.chains.get(author, ())), default=0)

    def missing(self) -> Iterable[bytes]:
        return self._store.pending_missing()
