"""What a store shows of itself to a peer: a sync.Source and a pull.Local. In the thread of the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import ForkProof, decode_signed
from ubcp_p2p.ledger.writer import Writer

_PAGE: Final = 128  # entries read at once: an answer has at most 512, of which the bytes may allow 40


class Shared:
    """Reads are of the moment; between two calls the store may have grown."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer: Writer | None = None
        self._heads: sync.Heads | None = None
        self._heads_of: tuple[object, int, bytes | None] | None = None  # the state that they were read from

    def guard(self, writer: Writer) -> None:
        """From now on nothing of this writer's chain is shown while it is not sure of it (Writer.shows)."""
        self._writer = writer

    def _hidden(self) -> bytes | None:
        """The author of whom nothing is shown now."""
        return self._writer.author if self._writer is not None and not self._writer.shows else None

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
        return self._store.proof_ids(but_of=self._hidden())

    def proof(self, id_: bytes) -> bytes | None:
        data = self._store.proof(id_)
        return data if data is not None and ForkProof.from_bytes(data).author != self._hidden() else None

    def heads(self) -> sync.Heads:
        ledger, hidden = self._store.ledger, self._hidden()
        if self._heads is None or self._heads_of != (ledger, ledger.entries, hidden):
            self._heads = sync.Heads(head for head in ledger.heads() if head.author != hidden)
            self._heads_of = (ledger, ledger.entries, hidden)
        return self._heads

    def range(self, author: bytes, first: int, last: int) -> Iterator[bytes]:
        """A page at a time; the entries of one number are never split, of which a page may have more than _PAGE."""
        while first <= last and author != self._hidden():
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
        return signed.to_bytes() if signed is not None and signed.entry.author != self._hidden() else None

    def blob(self, hash_: bytes) -> bytes | None:
        return self._store.blob(hash_)

    def log(self, after: int) -> Iterator[tuple[int, bytes]]:
        hidden = self._hidden()
        while page := self._store.after(after, _PAGE):
            for row in page:
                if hidden is None or decode_signed(row.data).entry.author != hidden:
                    yield row.position, row.data
            after = page[-1].position

    def contains(self, author: bytes, seq: int, id_: bytes) -> bool:
        return self._store.ledger.contains(author, seq, id_)

    def length(self, author: bytes) -> int:
        return max((len(chain) for chain in self._store.ledger.chains.get(author, ())), default=0)

    def missing(self) -> Iterable[bytes]:
        return self._store.pending_missing()
