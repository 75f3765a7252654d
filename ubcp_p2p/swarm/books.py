"""The ledger's one thread: store, verification and rules run here, so that the event loop never waits for them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ubcp_p2p.charter.values import SignedCharter
from ubcp_p2p.codec import MalformedMessage, Value
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.balances import balances, balances_root, entries_root
from ubcp_p2p.ledger.entry import Entry, Position
from ubcp_p2p.ledger.faults import LedgerError, MalformedEntry
from ubcp_p2p.ledger.intake import NOBODY, Intake, Item, Taken
from ubcp_p2p.ledger.pull import Ask, Hello, Take, pull
from ubcp_p2p.ledger.shared import Shared
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.versions import differs
from ubcp_p2p.ledger.wire import Signed, verify

T = TypeVar("T")


class StaleHead(LedgerError):
    """An entry that does not follow the head of its author's chain as it is here."""


ROOTS_WAIT = 20.0  # roots are computed again after this many times what computing them took: under 5 % of the thread
REFUSED_MAX = 64  # of what a peer gives as applied there; more is no difference of opinion


class Books:
    """A Store and what is done with it. Methods run in the thread; call them by `run`."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open_store = open_store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._roots: tuple[Any, float, float, dict[str, str]] | None = None  # (state, took, when, roots)
        self.store: Store
        self.shared: Shared
        self.intake: Intake

    async def open(self) -> None:
        """Raises what the opening of the store raises."""
        await self.run(self._open)

    async def close(self) -> None:
        """After what is in progress."""
        await self.run(self._close)
        self._thread.shutdown(wait=False)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call it in the thread. When this is cancelled, the function is carried out all the same."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _open(self) -> None:
        self.store = self._open_store()
        self.shared = Shared(self.store)
        self.intake = Intake(self.store)

    def _close(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    @property
    def network(self) -> bytes:
        """The community's network id."""
        return self.shared.network

    # -- in the thread --------------------------------------------------------------------------------------------

    def now(self) -> int:
        """The slice of this machine's clock."""
        return self.store.ledger.charters.first.slice_at(time.time())

    def take(self, items: Sequence[Item]) -> Taken:
        """Raises StoreError."""
        return self.intake.take(items, self.now())

    def submit(self, entries: Sequence[Signed]) -> Taken:
        """As `take`, for our own user's. Raises MalformedEntry, BadSignature: then nothing is taken in."""
        for signed in entries:
            if signed.entry.network != self.network:
                raise MalformedEntry("network", "an entry of another community's ledger")
            verify(signed)
        return self.take([Item(NOBODY, signed) for signed in entries])

    def check_next(self, entry: Entry) -> None:
        """Raises StaleHead where this is not the next entry of its author, by what is here."""
        head = self.store.ledger.branch_of(entry.author)
        after = head.head if head is not None else None
        if after is None or (entry.seq, entry.prev) != (after.seq + 1, after.id):
            raise StaleHead(
                "sequence", "the account has written something else meanwhile: signed after it, this would be a fork",
                hint="do it again: nothing was told or reserved",
            )  # fmt: skip

    def lacks(self, author: bytes, heads: Iterable[Position]) -> bool:
        """Whether one of these heads is not here; what a charter has dropped is no news."""
        dropped = set(self.store.dropped(author))
        return any(head not in dropped and not self.store.ledger.contains(*head) for head in heads)

    def add_charter(self, data: bytes) -> bool:
        """Take a charter version in; False when it is known. Raises CharterError, StoreError."""
        return self.store.add_charter(SignedCharter.from_bytes(data))

    def answer(self, question: Value) -> Value:
        """Raises MalformedMessage."""
        return sync.answer(question, self.shared, random.getrandbits(32))

    def figures(self) -> dict[str, Any]:
        """For `ubcp status`."""
        store = self.store
        return {
            "community": store.ledger.charters.newest.name,
            "network": store.ledger.network.hex(),
            "charters": len(store.ledger.charters),
            "entries": store.ledger.entries,
            "accounts": len(store.ledger.accounts()),
            "frozen": [author.hex() for author in store.ledger.frozen()],
            "pending": store.pending_count,
            "held_back": self.intake.early_count,
            **self._current_roots(),
        }

    def _current_roots(self) -> dict[str, str]:
        ledger, now_s = self.store.ledger, time.monotonic()
        state = (id(ledger), ledger.entries, len(ledger.charters))
        if self._roots is not None:
            known, took_s, when_s, roots = self._roots
            if known == state or now_s - when_s < ROOTS_WAIT * took_s:
                return roots
        roots = {
            "entries_root": entries_root(ledger).hex(),
            "balances_root": balances_root(balances(ledger, self.store.history)).hex(),
        }
        self._roots = (state, time.monotonic() - now_s, time.monotonic(), roots)
        return roots


class Puller:
    """One pull, a step at a time; `advance` runs in the thread of the books.

    At the end: new, how many entries; versions, in words how the peer's charters differ from ours, or None.
    """

    def __init__(self, books: Books, peer: bytes, on_taken: Callable[[Taken], None]) -> None:
        self._books = books
        self._peer = peer
        self._on_taken = on_taken
        self._steps = pull(books.shared)
        self._refused = 0
        self._theirs: tuple[bytes, ...] | None = None
        self.new = 0
        self.versions: str | None = None

    def advance(self, reply: Value | None) -> Value | None:
        """The next question; None at the end. Raises OtherNetwork, MalformedMessage (the peer's fault), StoreError."""
        if reply is not None and self._theirs is None:
            self._theirs = Hello.of(reply, self._books.network).charter_ids
        while True:
            try:
                step = self._steps.send(reply)
            except StopIteration as done:
                self.new = done.value
                self.versions = differs(self._books.shared.charter_ids(), self._theirs or ())
                return None
            if isinstance(step, Ask):
                return step.question
            self._take(step)
            reply = None

    def _take(self, step: Take) -> None:
        taken = self._books.intake.take_pulled(step, self._peer, self._books.now())
        self._on_taken(taken)
        self._refused += len(taken.refused)
        if taken.junk:
            raise MalformedMessage(taken.junk[0].error.message)
        if self._refused > REFUSED_MAX:
            raise MalformedMessage(f"more than {REFUSED_MAX} entries that break the rules")
