"""Gossip of ledger entries and fork proofs: a hint only, for what is lost comes by reconciling.

One topic for each community; a message is `[what, wire form]`, what = 0 for an entry, 1 for a fork proof. p2pd checks
that a message is signed by its sender, nothing else: size, form and rate are checked here, before anything costs much.
Whom an entry names is not sure before its signatures are verified, so only the sender pays for a message; an author
pays for what was added (`charge`), and nobody but the sender for a fork proof.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final

from ubcp_p2p.codec import MalformedMessage, decode, encode
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.ledger.faults import LedgerError
from ubcp_p2p.ledger.intake import Item
from ubcp_p2p.ledger.wire import PROOF_BYTES_MAX, ForkProof, Signed, decode_signed
from ubcp_p2p.swarm.conduct import Buckets
from ubcp_p2p.swarm.network import Network

ENTRY, PROOF = 0, 1
MESSAGE_BYTES_MAX: Final = PROOF_BYTES_MAX + 16
TAKE_PER_S, TAKE_BURST = 50.0, 400.0  # messages of one sender, and valid entries of one author
SEND_PER_S, SEND_BURST = 40.0, 320.0  # below what others take, so that an honest burst is never dropped
DROPS_PER_STRIKE: Final = 64  # messages above the rate
DROPPERS_MAX: Final = 4096
INBOX_MAX: Final = 4096  # entries that wait to be taken in, or proofs; what does not fit comes again by reconciling
OUTBOX_MAX: Final = 4096
SEEN_MAX: Final = 16_384


class EntryGossip:
    """on_junk(sender, why): its fault. on_lost(sender): something of it was let go of, and should be asked for."""

    def __init__(
        self,
        network: Network,
        *,
        is_banned: Callable[[bytes], bool],
        on_junk: Callable[[bytes, str], None],
        on_lost: Callable[[bytes], None],
    ) -> None:
        self._network = network
        self._is_banned = is_banned
        self._on_junk = on_junk
        self._on_lost = on_lost
        self._senders: Buckets[bytes] = Buckets(TAKE_PER_S, TAKE_BURST)
        self._authors: Buckets[bytes] = Buckets(TAKE_PER_S, TAKE_BURST)
        self._sending: Buckets[bytes] = Buckets(SEND_PER_S, SEND_BURST)
        self._drops: dict[bytes, int] = {}
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._inbox: deque[Item] = deque()
        self._proofs_in: deque[Item] = deque()
        self._outbox: deque[bytes] = deque()
        self._proofs: deque[bytes] = deque()
        self._to_send = asyncio.Event()
        self._topic = ""
        self.arrived = asyncio.Event()

    async def open(self, ledger: bytes) -> None:
        """Listen. ledger: the network id of the community."""
        self._topic = topic_of(ledger)
        await self._network.subscribe(self._topic, self.hear, capped=False)

    def close(self) -> None:
        self._network.unsubscribe(self._topic)

    # -- in -------------------------------------------------------------------------------------------------------

    def hear(self, sender: bytes, payload: bytes) -> None:
        """One message: into the inbox, unless something is wrong with it."""
        if sender == self._network.public or self._is_banned(sender):
            return
        if len(payload) > MESSAGE_BYTES_MAX:
            self._on_junk(sender, f"a message of {len(payload)} bytes")
            return
        digest = hashlib.sha256(payload).digest()  # of all of it: a copy with a bad signature is another message
        if digest in self._seen:
            return
        now_s = time.monotonic()
        if not self._senders.allow(sender, now_s):
            self._drop(sender)
            return
        try:
            thing = parse(payload)
        except (MalformedMessage, LedgerError) as error:
            self._on_junk(sender, error.message)
            return
        inbox = self._proofs_in if isinstance(thing, ForkProof) else self._inbox  # nobody's entries keep a proof out
        if len(inbox) >= INBOX_MAX or (isinstance(thing, Signed) and not self._authors.has(thing.entry.author, now_s)):
            self._on_lost(sender)
            return
        self._note(digest)
        inbox.append(Item(sender, thing))
        self.arrived.set()

    def gathered(self, count_max: int) -> list[Item]:
        """What has come, fork proofs before all else, then the oldest first."""
        batch: list[Item] = []
        for inbox in (self._proofs_in, self._inbox):
            batch += [inbox.popleft() for _ in range(min(count_max - len(batch), len(inbox)))]
        if not self._proofs_in and not self._inbox:
            self.arrived.clear()
        return batch

    def charge(self, authors: Iterable[bytes]) -> None:
        """Entries of these authors were told here, and are valid."""
        now_s = time.monotonic()
        for author in authors:
            self._authors.allow(author, now_s)

    def _drop(self, sender: bytes) -> None:
        """A message above the rate; many of them are a strike."""
        if len(self._drops) > DROPPERS_MAX:
            self._drops.clear()
        self._drops[sender] = self._drops.get(sender, 0) + 1
        if self._drops[sender] % DROPS_PER_STRIKE == 0:
            self._on_junk(sender, f"more than {TAKE_PER_S:.0f} messages a second")
        elif self._drops[sender] == 1:
            self._on_lost(sender)

    def _note(self, digest: bytes) -> None:
        self._seen[digest] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)

    # -- out ------------------------------------------------------------------------------------------------------

    def tell(self, thing: Signed | ForkProof) -> None:
        """Send it to everybody, fork proofs before all else; what does not fit is found by reconciling."""
        payload = encode([PROOF if isinstance(thing, ForkProof) else ENTRY, thing.to_bytes()])
        self._note(hashlib.sha256(payload).digest())
        queue = self._proofs if isinstance(thing, ForkProof) else self._outbox
        if len(queue) < OUTBOX_MAX:
            queue.append(payload)
        self._to_send.set()

    async def keep_sending(self) -> None:
        """One after the other, for ever: of concurrent ones many are lost (measured)."""
        while True:
            await self._to_send.wait()
            queue = self._proofs or self._outbox
            if not queue:
                self._to_send.clear()
            elif queue is self._outbox and not self._sending.allow(b"", time.monotonic()):
                await asyncio.sleep(1.0 / SEND_PER_S)
            else:
                try:
                    await self._network.publish(self._topic, queue[0])
                    queue.popleft()
                except NetworkError:  # p2pd is down
                    await self._network.ready()


def topic_of(ledger: bytes) -> str:
    """The gossip topic of the community with this network id."""
    return f"ubcp/ledger/1/{ledger.hex()[:32]}"


def parse(payload: bytes) -> Signed | ForkProof:
    """One message. Raises MalformedMessage, MalformedEntry."""
    message = decode(payload, bytes_max=MESSAGE_BYTES_MAX)
    if not isinstance(message, list) or len(message) != 2 or not isinstance(message[1], bytes):
        raise MalformedMessage("a message is a number and bytes")
    if message[0] == ENTRY:
        return decode_signed(message[1])
    if message[0] == PROOF:
        return ForkProof.from_bytes(message[1])
    raise MalformedMessage("a message is an entry (0) or a fork proof (1)")
