"""The live ledger: takes in what peers gossip, reconciles with them, tells them of forks, and writes own entries.

Everything that touches the store runs in the thread of `Books`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ubcp_p2p.charter.values import Charters
from ubcp_p2p.ledger.author import Key
from ubcp_p2p.ledger.database import StoreError
from ubcp_p2p.ledger.entry import Body, Position
from ubcp_p2p.ledger.intake import NOBODY, Taken
from ubcp_p2p.ledger.store import Outcome, Store
from ubcp_p2p.ledger.wire import ForkProof, Signed, decode_signed
from ubcp_p2p.ledger.writer import EndedByCharter, ForkedBackup, Standing, Writer, Written, WrongClock, check_clock
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.books import Books
from ubcp_p2p.swarm.conduct import STRIKES_MAX, Conduct
from ubcp_p2p.swarm.entry_gossip import EntryGossip
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.reconcile import Reconciler

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_MAX: Final = 512  # entries in one transaction: 0.1 s of verification
PULL_EVERY_S: Final = (10.0, 30.0)
LOOK_S: Final = 0.5  # how often new neighbours are looked for, and what was early
GAP_S: Final = 1.0  # the least between two pulls for what refers to something that is not here
GAPS_MAX: Final = 64
AGAIN_S: Final = 3.0  # GossipSub takes a new neighbour into its mesh within a heartbeat or two, of 1 s each
CONFIRM_EVERY_S: Final = 5.0
DISK_RETRY_S: Final = 5.0
CONFIRMED: Final = "confirmed: all that this node has written is here"
UNCONFIRMED: Final = "unconfirmed: no peer has said yet how far it knows this node's own chain; entries wait as drafts"


@dataclass(frozen=True)
class LedgerEvent:
    """What happened: "added" (entries), "frozen" (author), "banned" (peer, seconds, why), "forked" (words)."""

    kind: str
    data: dict[str, Any]


class LiveLedger:
    """One node's part in its community's ledger: `open`, then `serve` for the life of the daemon.

    open_store: called in the ledger's thread. alone: this profile is new, so that its node may sign without asking.
    observe: hears LedgerEvents, in the event loop.
    """

    def __init__(
        self,
        network: Network,
        open_store: Callable[[], Store],
        *,
        alone: bool = False,
        observe: Callable[[LedgerEvent], None] = lambda event: None,
    ) -> None:
        self._network = network
        self._alone = alone
        self._observe = observe
        self._books = Books(open_store)
        self._conduct = Conduct()
        self._gossip = EntryGossip(
            network, is_banned=self._is_banned, on_junk=self._on_junk, on_lost=self._wants
        )  # fmt: skip
        self._reconciler = Reconciler(
            network, self._books, is_banned=self._is_banned, on_junk=self._on_liar, on_taken=self._on_pulled
        )
        self._loop = asyncio.get_running_loop()
        self._gap, self._unconfirmed, self._met = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._gap_from: set[bytes] = set()
        self._submitting = asyncio.Lock()
        self._writer: Writer
        self._words = UNCONFIRMED
        self._trouble: str | None = None

    # -- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store. Raises ConfigError, LocalIOError, StoreError."""
        await self._books.open()
        self._writer = Writer(self._books.store, self._network.key, alone=self._alone)
        self._books.shared.guard(self._writer)
        self._unconfirmed.set()

    async def serve(self) -> None:
        """Take part until cancelled, then close the store."""
        try:
            await self._gossip.open(self._books.network)
            await self._reconciler.open()
            async with asyncio.TaskGroup() as tasks:
                for duty in (
                    self._take_in, self._gossip.keep_sending, self._meet, self._keep_pulling, self._fill_gaps,
                    self._keep_confirmed,
                ):  # fmt: skip
                    tasks.create_task(duty(), name=f"ledger: {duty.__name__}")
        finally:
            self._gossip.close()
            await self._reconciler.close()
            await self.close()

    async def close(self) -> None:
        """Close the store; for one that never came to `serve`."""
        await self._books.close()

    # -- for the node ---------------------------------------------------------------------------------------------

    async def submit(self, forms: Iterable[bytes]) -> list[dict[str, Any]]:
        """Take in signed entries that this node's user brings, checked like any other, and tell others of them.

        For each its id, its outcome, what it waits for, and why it was refused. Raises LedgerError for what is no
        signed entry or has a bad signature; nothing is taken in then.
        """
        entries = [decode_signed(data) for data in forms]
        taken = await self._books.run(self._books.submit, entries)
        self._after(taken)
        by_id = {verdict.id: verdict for verdict in taken.verdicts}
        found = []
        for signed in entries:
            verdict = by_id.get(signed.entry.id)
            outcome = verdict.outcome.value if verdict else "early" if signed.entry.id in taken.early else "known"
            if verdict is None or verdict.outcome is not Outcome.REFUSED:
                self._gossip.tell(signed)
            found.append(
                {
                    "id": signed.entry.id.hex(),
                    "outcome": outcome,
                    "missing": [id_.hex() for id_ in verdict.missing] if verdict else [],
                    "error": verdict.error.message if verdict and verdict.error else None,
                }
            )
        return found

    async def submit_next(self, signed: Signed) -> list[dict[str, Any]]:
        """As `submit`, of the next entry of a chain that this node does not write itself; StaleHead where it is not.

        So two callers who have drafted after one head cannot make a fork of it here.
        """
        async with self._submitting:
            await self._books.run(self._books.check_next, signed.entry)
            return await self.submit([signed.to_bytes()])

    async def learn_chain(self, author: bytes) -> int:
        """Take from peers what they know of a chain that another key of ours writes; how many then say that it is here.

        0: nobody could be asked, or who was asked has more than could be had, and what is signed now may be a fork.
        Raises WrongClock, StoreError.
        """
        check_clock(self.charters.first, self._offsets_s())
        reports = await self._reconciler.heads(author)
        for peer, heads in list(reports.items()):
            if await self._books.run(self._books.lacks, author, heads):
                await self._pull(peer)
                if await self._books.run(self._books.lacks, author, heads):
                    del reports[peer]  # it cannot show what it has claimed
        return len(reports)

    async def publish(self, form: bytes) -> bool:
        """Take in a version of the charter, which peers then get when they ask; False when it is known.

        Raises CharterError, also when too few stewards have signed it; StoreError.
        """
        return await self._books.run(self._books.add_charter, form)

    async def may_write(self) -> bool:
        """Whether an own entry would be signed at once, and not be kept as a draft."""
        standing, drafts = await self._books.run(self._standing)
        return standing is Standing.CONFIRMED and not drafts

    async def write(self, body: Body, cosigners: Sequence[Key] = ()) -> Signed | None:
        """The node's own next entry, signed, stored and told; None: a draft until peers have confirmed its head.

        Raises ForkedBackup, EndedByCharter, WrongClock, LedgerError, StoreError.
        """
        signed = await self._books.run(self._write, body, cosigners)
        if signed is None:
            self._unconfirmed.set()
        else:
            self._tell_own(signed)
        return signed

    @property
    def charters(self) -> Charters:
        """All versions that are known; changes only in the ledger's thread."""
        return self._books.store.ledger.charters

    async def read(self, function: Callable[[Store], T]) -> T:
        """What `function` makes of the store, in the ledger's thread; it must not write. Raises StoreError."""
        return await self._books.run(lambda: function(self._books.store))

    async def keep(self, blob: bytes) -> bytes:
        """Keep evidence, or a decision's inputs, for whoever audits; its SHA-256. Raises StoreError."""
        return await self._books.run(self._books.store.put_blob, blob)

    async def find(self, hash_: bytes, parse: Callable[[bytes], T]) -> T | None:
        """What `parse` makes of the blob with this SHA-256, from here or from a peer. None where nobody has it.

        Anybody may name any blob: one from a peer is kept if `parse` takes it and there is room, else it is had anew
        each time. Raises StoreError, and what `parse` raises.
        """
        found = await self._books.run(self._books.store.blob, hash_)
        if found is not None:
            return parse(found)
        found = await self._reconciler.blob(hash_)
        if found is None:
            return None
        parsed = parse(found)
        try:
            await self.keep(found)
        except StoreError as error:
            log.warning("a blob that a peer has shown is not kept: %s", error.message)
        return parsed

    async def forget(self, blobs: Iterable[bytes]) -> None:
        """Keep these blobs no longer. Raises StoreError."""
        await self._books.run(self._books.store.drop_blobs, list(blobs))

    def why_banned(self, peer: bytes) -> str:
        """Why this node ignores a peer for a while, in words; "" where it does not."""
        why = self._conduct.why_banned(peer, time.monotonic())
        return f"ignored for a while, because it sent junk to the ledger: {why}" if why else ""

    async def status(self) -> dict[str, Any]:
        """For `ubcp status`: JSON types only."""
        now_s = time.monotonic()
        last = self._reconciler.last
        figures = await self._books.run(self._books.figures)
        standing, drafts = await self._books.run(self._standing)
        return {
            **figures,
            "last_sync": last and {"with": short(last.peer), "ago_s": round(now_s - last.when_s, 1), "new": last.new},
            "banned": [
                {"peer": short(ban.peer), "left_s": round(ban.left_s), "why": ban.why}
                for ban in self._conduct.bans(now_s)
            ],
            "writing": {"standing": standing.value, "words": self._words, "drafts": drafts},
            "versions": [
                {"peer": short(peer), "words": words}
                for peer, words in self._reconciler.versions.items()
                if peer in self._network.connected
            ],
            "trouble": self._trouble,
        }

    # -- taking in ------------------------------------------------------------------------------------------------

    async def _take_in(self) -> None:
        """Batches of what was gossiped; also what was early, when its time has come."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._gossip.arrived.wait()
            batch = self._gossip.gathered(BATCH_MAX)
            if not batch and not self._books.intake.early_count:
                continue
            try:
                taken = await self._books.run(self._books.take, batch)
            except StoreError as error:
                self._gap.set()
                await self._disk_trouble(error)
                continue
            self._gossip.charge(signed.entry.author for signed in taken.added)
            self._after(taken)

    def _after(self, taken: Taken) -> None:
        """Tell of what has happened, fork proofs first."""
        for data in taken.proofs:
            proof = ForkProof.from_bytes(data)
            if proof.author != self._network.public:  # after a restored backup it may be of what nobody has seen
                self._gossip.tell(proof)
        for author in taken.frozen:
            log.warning("frozen: %s has signed two entries with one number", author.hex())
            self._observe(LedgerEvent("frozen", {"author": author.hex()}))
        for junk in taken.junk:
            if junk.sender != NOBODY:
                self._on_junk(junk.sender, junk.error.message)
        for sender, signed, error in taken.refused:
            entry = signed.entry
            log.info("refused: entry %s of %s: %s", entry.id.hex()[:16], entry.author.hex()[:16], error.message)
            if sender == entry.author:  # else it may have known no better
                self._on_junk(sender, f"an entry of its own that breaks a rule: {error.message}")
        if taken.conflict is not None:
            self._trouble = f"{taken.conflict.message}; {taken.conflict.hint}"
            log.error("%s", self._trouble)
        for sender in taken.waiting:
            self._wants(sender)
        if taken.added:
            self._observe(LedgerEvent("added", {"entries": taken.added}))
            if any(signed.entry.author == self._network.public for signed in taken.added):
                self._unconfirmed.set()
                self._met.set()  # what `_confirm` found lacking: a pull that went on meanwhile has brought it
        if taken.charters:  # one may have dropped entries of our own, or brought them back
            self._unconfirmed.set()

    def _on_pulled(self, taken: Taken) -> None:
        """In the thread of the books: on to the event loop."""
        self._loop.call_soon_threadsafe(self._after, taken)

    # -- reconciling ----------------------------------------------------------------------------------------------

    async def _pull(self, peer: bytes) -> None:
        try:
            await self._reconciler.pull(peer)
        except StoreError as error:
            await self._disk_trouble(error)
        except Exception:  # whatever one peer has made of this: the others are asked all the same
            log.exception("taking from %s failed", short(peer))

    async def _meet(self) -> None:
        """Ask whoever is newly connected."""
        known: frozenset[bytes] = frozenset()
        async with asyncio.TaskGroup() as tasks:
            while True:
                connected = self._network.connected
                for peer in connected - known:
                    self._reconciler.met(peer)
                    self._met.set()
                    tasks.create_task(self._get_acquainted(peer))
                known = connected
                await asyncio.sleep(LOOK_S)

    async def _get_acquainted(self, peer: bytes) -> None:
        """Pull at once, and again when gossip surely reaches both: what was told in between, one of them missed."""
        await self._pull(peer)
        await asyncio.sleep(AGAIN_S)
        if peer in self._network.connected:
            await self._pull(peer)

    async def _keep_pulling(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(*PULL_EVERY_S))
            for peer in self._reconciler.idle(self._network.connected)[:1]:
                await self._pull(peer)

    def _wants(self, sender: bytes) -> None:
        """Something that `sender` has is not here."""
        if len(self._gap_from) < GAPS_MAX:
            self._gap_from.add(sender)
        self._gap.set()

    async def _fill_gaps(self) -> None:
        while True:
            await self._gap.wait()
            self._gap.clear()
            senders, self._gap_from = self._gap_from, set()
            connected = self._network.connected
            among = self._reconciler.idle(senders & connected) or self._reconciler.idle(connected)
            busy = set() if among else self._reconciler.busy(senders)  # as of now: the pull may end in the pause
            for peer in among[:1]:
                await self._pull(peer)
            await asyncio.sleep(GAP_S)
            for sender in busy:
                self._wants(sender)  # the pull that goes on may be past what is missing: once more after it

    # -- own chain ------------------------------------------------------------------------------------------------

    async def _keep_confirmed(self) -> None:
        """Whenever it is needed, learn this node's own head from peers, then sign the drafts."""
        while True:
            await self._unconfirmed.wait()
            self._unconfirmed.clear()
            try:
                done = await self._confirm()
            except ForkedBackup as error:
                self._words = f"forked backup: {error.message}; {error.hint}"
                log.error("%s", self._words)
                self._observe(LedgerEvent("forked", {"words": self._words}))
                continue  # until another entry of its own comes
            except (EndedByCharter, WrongClock, StoreError) as error:
                self._words = f"nothing is signed: {error.message}; {error.hint}"
                log.error("%s", self._words)
                done = False
            if not done:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CONFIRM_EVERY_S):
                        await self._met.wait()
                self._met.clear()
                self._unconfirmed.set()

    async def _confirm(self) -> bool:
        """Whether the chain is confirmed and no draft is left. Raises what `write` raises, but for LedgerError."""
        standing, drafts = await self._books.run(self._standing)
        if standing is Standing.FORKED:
            await self._books.run(self._writer.confirm, [])  # raises
        if standing is Standing.ENDED:
            self._end(await self._books.run(self._why_ended))
        elif standing is Standing.UNCONFIRMED:
            self._words = UNCONFIRMED
        if not await self._books.run(self._shows):  # of a chain that has ended too: what it has earned must be seen
            reports = await self._reconciler.heads(self._network.public)
            for peer, heads in list(reports.items()):
                if await self._lacks(heads):
                    await self._pull(peer)
                    if await self._lacks(heads):
                        del reports[peer]  # it cannot show what it has claimed
            if not reports:
                return False
            if await self._books.run(self._writer.confirm, list(reports.values())):
                return False
        if standing is Standing.ENDED:
            return True  # until another charter comes
        for written in await self._books.run(self._write_drafts) if drafts else ():
            if written.signed is not None:
                self._tell_own(written.signed)
            else:
                log.warning("a draft breaks a rule by now and is dropped: %s", written.error)
        standing, drafts = await self._books.run(self._standing)
        if standing is Standing.CONFIRMED and self._words != CONFIRMED:
            self._words = CONFIRMED
            # Until now the own chain was shown to nobody: who lacks what comes before this will ask for it.
            for signed in await self._books.run(self._books.store.newest, self._writer.author, 1):
                self._gossip.tell(signed)
        return standing is Standing.CONFIRMED and not drafts

    async def _lacks(self, heads: Iterable[Position]) -> bool:
        """Whether a peer knows more of this node's chain than is here."""
        return bool(await self._books.run(self._writer.missing, [heads]))

    def _tell_own(self, signed: Signed) -> None:
        self._gossip.tell(signed)
        self._observe(LedgerEvent("added", {"entries": [signed]}))

    def _standing(self) -> tuple[Standing, int]:
        return self._writer.standing, len(self._books.store.drafts(self._writer.author))

    def _shows(self) -> bool:
        return self._writer.shows

    def _why_ended(self) -> str:
        with suppress(ForkedBackup):
            try:
                self._writer.check()
            except EndedByCharter as error:
                return f"ended by a charter: {error.message}; {error.hint}"
        return UNCONFIRMED

    def _end(self, words: str) -> None:
        if words != self._words:
            self._words = words
            log.error("%s", words)

    def _write(self, body: Body, cosigners: Sequence[Key]) -> Signed | None:
        return self._writer.write(body, now_s=time.time(), offsets_s=self._offsets_s(), cosigners=cosigners)

    def _write_drafts(self) -> list[Written]:
        return self._writer.write_drafts(now_s=time.time(), offsets_s=self._offsets_s())

    def _offsets_s(self) -> list[float]:
        offset_s = self._network.neighbours.clock_offset_s
        return [] if offset_s is None else [offset_s]

    # -- conduct --------------------------------------------------------------------------------------------------

    def _is_banned(self, peer: bytes) -> bool:
        return self._conduct.is_banned(peer, time.monotonic())

    def _on_liar(self, peer: bytes, why: str) -> None:
        """Junk on a stream, which no accident makes."""
        self._on_junk(peer, why, STRIKES_MAX)

    def _on_junk(self, peer: bytes, why: str, strikes: int = 1) -> None:
        seconds = self._conduct.strike(peer, why, time.monotonic(), strikes)
        log.debug("%s sent junk to the ledger: %s", short(peer), why)
        if seconds is not None:
            log.warning("%s is ignored for %.0f s: %s", short(peer), seconds, why)
            self._observe(LedgerEvent("banned", {"peer": peer.hex(), "seconds": seconds, "why": why}))

    async def _disk_trouble(self, error: StoreError) -> None:
        self._trouble = f"{error.message}; {error.hint}"
        log.error("%s", self._trouble)
        await asyncio.sleep(DISK_RETRY_S)
        self._trouble = None
