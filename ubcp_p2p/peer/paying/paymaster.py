"""The paymaster of this community's REQUESTs: answers contributors, allots, signs vouchers, closes what is over.

What a voucher says is on the disk before it is sent, so a paymaster that is killed never signs less than it has, and
its CLOSE agrees with what contributors hold.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ubcp_p2p.codec import Value
from ubcp_p2p.errors import NetworkError, UbcpError
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger.chain import NodeChain
from ubcp_p2p.ledger.entry import TEXT_BYTES_MAX, Allot, Voucher, voucher_digest
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.peer.config import TrainingConfig
from ubcp_p2p.peer.paying.bill import Bill
from ubcp_p2p.peer.paying.cabinet import Cabinet, Place
from ubcp_p2p.peer.paying.closing import Closer
from ubcp_p2p.peer.paying.job import Job
from ubcp_p2p.peer.paying.jobs import Jobs
from ubcp_p2p.peer.paying.leased import leased_of
from ubcp_p2p.peer.paying.settling import Settler
from ubcp_p2p.peer.paying.share import capped, limit_of
from ubcp_p2p.peer.paying.tab import BillRefused, NothingMore, NotYet, allotment
from ubcp_p2p.peer.paying.verifier import Verifier
from ubcp_p2p.peer.paying.wire import (
    ANSWER_S,
    MESSAGE_BYTES_MAX,
    PROTOCOL,
    Promise,
    Statement,
    What,
    answer,
    asked,
    refusal,
)
from ubcp_p2p.peer.serving.book import Book
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.verification.draw import draws_of

if TYPE_CHECKING:
    from ubcp_p2p.swarm.frames import Stream
    from ubcp_p2p.swarm.ledger import LiveLedger
    from ubcp_p2p.swarm.network import Network

log = logging.getLogger(__name__)

CLOSE_EVERY_S: Final = 30.0


@dataclass(frozen=True)
class _Contributor:
    """What the ledger says of who asks. leased: who holds a lease of any REQUEST for the run.

    peak: GFLOP/s of its device class, 0 for a class that the charter lacks. kin: OPEN ids of all nodes of its account
    that have an ALLOT. others: the other REQUESTs for the run that this node pays for, closed ones, too.
    """

    opening: bytes
    kin: frozenset[bytes]
    leased: frozenset[bytes]
    others: frozenset[bytes]
    peak: int


class Paymaster:
    """`serve` for the life of the daemon. book: the node's. folder: where tabs are kept.

    training: how work is verified here. clock: Unix seconds.
    """

    def __init__(
        self, network: Network, ledger: LiveLedger, book: Book, key: NodeKey, folder: Path,
        training: TrainingConfig, *, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._network, self._ledger, self._book, self._key = network, ledger, book, key
        self._folder, self._clock = folder, clock
        self._jobs = Jobs(ledger, key.public, folder)
        self._closer = Closer(ledger, key.public, self._jobs, clock=clock)
        verifier = Verifier(network, training, folder / "verifying")
        self._cabinet = Cabinet(folder / "evidence")
        self._settler = Settler(network, ledger, verifier, self._cabinet, self._settled, clock=clock)

    async def serve(self) -> None:
        """Answer contributors until cancelled; settle what waits for checks, and close what is over."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(self._sweep)
        await self._network.handle(PROTOCOL, self._serve)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._settler.serve(self._jobs.all, self._slice))
                tasks.create_task(self._keep_closing())
        finally:
            await self._network.unhandle(PROTOCOL)
            await self._jobs.close()

    def _sweep(self) -> None:
        """Drop what was coming when the node ended, and what no round waits for any more."""
        held = self._jobs.on_disk()
        self._cabinet.sweep(
            {Place(request, *at): hold.stage for request, tab in held for at, hold in tab.holds.items()}
        )

    async def _keep_closing(self) -> None:
        while True:
            try:
                await self._closer.look()
            except UbcpError as error:
                log.warning("no request is closed now: %s", error.message)
            await asyncio.sleep(CLOSE_EVERY_S)

    def _slice(self) -> int:
        return self._ledger.charters.first.slice_at(self._clock())

    def findings(self, request: bytes) -> list[dict[str, Any]]:
        """What checks led to, of each contributor of a REQUEST that this node pays for: JSON for `ubcp runs`."""
        job = self._jobs.get(request)
        if job is None:
            return []
        rows = []
        for node, account in sorted(job.tab.accounts.items()):
            proof = self._cabinet.kept(account.proof)
            rows.append(
                {
                    "node": node.hex(), "waiting": len(job.tab.held(node)), "withheld": account.withheld,
                    "barred": bool(account.barred), "words": account.barred or account.words,
                    "evidence": str(proof) if any(account.proof) else None,
                }
            )  # fmt: skip
        return rows

    def promised(self, request: bytes) -> int:
        """What the vouchers of this node say together, µcredits; 0 for a REQUEST that nobody has billed lately."""
        job = self._jobs.get(request)
        return sum(account.units for account in job.tab.accounts.values()) if job is not None else 0

    async def _serve(self, stream: Stream) -> None:
        what, request, payload = asked(await stream.receive(timeout_s=ANSWER_S, bytes_max=MESSAGE_BYTES_MAX))
        try:
            if what is What.REPORT:
                async with self._jobs.using(request) as job:
                    await self._settler.hear(job, stream, payload)
                return
            said = answer(await self._answer(stream.peer, what, request, payload))
        except NetworkError:
            raise
        except UbcpError as error:
            log.info("%s is refused (%s): %s", short(stream.peer), what.name.lower(), error.message)
            said = refusal(error)
        await stream.send(said, timeout_s=ANSWER_S, bytes_max=MESSAGE_BYTES_MAX)

    async def _answer(self, peer: bytes, what: What, request: bytes, payload: bytes) -> Value:
        async with self._jobs.using(request) as job, job.lock:
            if what is What.AGAIN:
                return (await self._say_again(job, peer)).to_value()
            if job.closed:
                raise NothingMore("this request is closed")
            if what is What.HELLO:
                await self._welcome(job, peer, payload)
                return b""
            return (await self._pay(job, peer, payload)).to_value()

    async def _welcome(self, job: Job, peer: bytes, payload: bytes) -> None:
        try:
            device = payload[:TEXT_BYTES_MAX].decode()
        except UnicodeDecodeError:
            raise BillRefused("a device class that is no text") from None
        known = await self._known(job, peer, device)
        if not known.peak:
            raise BillRefused(f"the charter has no device class {device!r}")
        job.tab.welcome(peer, known.opening, device, int(self._clock()))
        await self._allot(job, known, 0)
        await self._jobs.keep(job)

    async def _pay(self, job: Job, peer: bytes, payload: bytes) -> Statement:
        """Meter one round, and sign all that is owed by then. The newest bill may come again: its answer was lost."""
        account = job.tab.accounts.get(peer)
        if account is None:
            raise NotYet("a bill before the first word")
        bill = await asyncio.to_thread(Bill.from_bytes, payload, job.terms.run_id, members_max=job.terms.peers_max)
        certificate, round_ = bill.certificate, bill.certificate.group.round
        known = await self._known(job, peer, account.device)
        limit = limit_of(job.terms, job.amounts(), known.opening, known.kin)
        now_s = int(self._clock())
        drawn = draws_of(certificate, job.recipe).get(peer)
        if drawn is not None and (bill.card is None or bill.card.peer != peer or not job.tab.is_on_line(bill.base)):
            raise BillRefused(f"a check of round {round_} is drawn, and the bill does not have the card and the base")
        if account.barred or not job.tab.is_newest_of(peer, certificate):
            if (words := capped(job.terms, limit, account.units)) is not None:
                raise NothingMore(words)
            async with self._jobs.beside(known.others) as others:
                if any(other.tab.has_billed(peer, round_) for other in others):
                    raise BillRefused(f"round {round_} was billed to another request for this run")
                job.tab.meter(peer, certificate, known.leased, drawn, now_s)
            said = hashlib.sha256(certificate.to_bytes()).digest()
            account.evidence = hashlib.sha256(account.evidence + said).digest()
        if (peer, round_) in job.tab.holds:
            await asyncio.to_thread(self._cabinet.put_bill, Place(job.request, peer, round_), payload)
        await self._allot(job, known, job.tab.due(peer, 0, known.peak, now_s).wanted)
        job.tab.promise(peer, job.tab.due(peer, job.allots[account.opening][1], known.peak, now_s), account.evidence)
        account.words = capped(job.terms, limit, account.units) or account.words
        await self._jobs.keep(job)
        return self._statement(job, peer)

    async def _say_again(self, job: Job, peer: bytes) -> Statement:
        """How a contributor stands now, whose rounds may have been checked since its last bill."""
        account = job.tab.accounts.get(peer)
        if account is None or account.opening not in job.allots:
            raise BillRefused("nothing was billed yet")
        if account.barred:
            raise NothingMore(account.barred)
        if job.unkept:
            await self._jobs.keep(job)
        return self._statement(job, peer)

    async def _settled(self, job: Job, peer: bytes) -> None:
        """Promise what is owed by now, and keep the tab: a CLOSE pays it, whether it is asked for again or not."""
        account = job.tab.accounts[peer]
        allot = job.allots.get(account.opening)
        if allot is not None and not account.barred and not job.closed:
            peak = await self._ledger.read(lambda store: self._peak(store, job, peer, account.device))
            if peak:
                job.tab.promise(peer, job.tab.due(peer, allot[1], peak, int(self._clock())), account.evidence)
        await self._jobs.keep(job)

    def _peak(self, store: Store, job: Job, peer: bytes, device: str) -> int:
        """GFLOP/s of a device class; 0 where nothing more may be promised."""
        ledger, fact = store.ledger, store.ledger.requests[job.request]
        chain = ledger.branch_of(peer)
        owners = {chain.owner} if isinstance(chain, NodeChain) else set()
        if set(ledger.frozen()) & {peer, fact.author, self._key.public, *owners}:
            return 0
        return ledger.charter_at(fact.slice).peak_of(device) or 0

    def _statement(self, job: Job, peer: bytes) -> Statement:
        """What the tab says, signed; it is on the disk already."""
        account = job.tab.accounts[peer]
        voucher = Voucher(
            self._ledger.charters.network, self._key.public, job.request, job.allots[account.opening][0], peer,
            account.units, account.units, account.rounds, account.device, account.seconds, account.evidence,
        )  # fmt: skip
        promise = Promise(voucher, self._key.sign("voucher", voucher_digest(voucher)))
        return Statement(promise, len(job.tab.held(peer)), account.words)

    async def _allot(self, job: Job, known: _Contributor, wanted: int) -> None:
        """See to it that the contributor has an ALLOT over `wanted`, as far as the REQUEST and its share go."""
        amounts, opening = job.amounts(), known.opening
        limit = limit_of(job.terms, amounts, opening, known.kin)
        credits_ = allotment(job.terms, amounts, opening, wanted, limit)
        if credits_ <= amounts.get(opening, 0):
            if (words := capped(job.terms, limit, 0)) is not None:
                raise NothingMore(words)
            if not amounts.get(opening):
                raise BillRefused("all credits of this request are allotted")
            return
        may_write = await self._ledger.may_write()  # else each bill that comes again would leave a draft
        signed = await self._ledger.write(Allot(job.request, opening, credits_)) if may_write else None
        if signed is None:
            raise NotYet("this node may not sign yet: no peer has said how far it knows its chain; ask again")
        job.allots[opening] = (signed.entry.id, credits_)

    # -- what the ledger says -------------------------------------------------------------------------------------

    async def _known(self, job: Job, peer: bytes, device: str) -> _Contributor:
        return await self._ledger.read(lambda store: self._look_up(store, job, peer, device))

    def _look_up(self, store: Store, job: Job, peer: bytes, device: str) -> _Contributor:
        """Raises BillRefused for who may not earn from this REQUEST."""
        ledger, now = store.ledger, self._slice()
        fact, chain = ledger.requests[job.request], ledger.branch_of(peer)
        own = ledger.branch_of(self._key.public)
        if not isinstance(chain, NodeChain) or not isinstance(own, NodeChain):
            raise NotYet("the ledger here has no OPEN of this node yet; ask again")
        frozen = set(ledger.frozen())
        if frozen & {peer, chain.owner, fact.author, self._key.public}:
            raise BillRefused("an account or node of this request is frozen by a fork")
        if chain.owner in (fact.author, own.owner):
            raise BillRefused("nobody is paid by the owner's own request or node")
        if now > fact.expiry:
            raise BillRefused(f"the request expired in slice {fact.expiry}")
        self._book.read(store, now)
        leased = leased_of(ledger, self._book.activity, job.request, now)
        if peer not in leased.own:
            raise NotYet("no lease of this node on that request holds now")
        peak = ledger.charter_at(fact.slice).peak_of(device)
        others = self._others(job.request)
        return _Contributor(chain.opening, self._kin(ledger, job, chain.owner), leased.run, others, peak or 0)

    def _others(self, request: bytes) -> frozenset[bytes]:
        requests = self._book.activity.requests
        run = requests[request].body
        return frozenset(
            one.id
            for one in requests.values()
            if one.id != request
            and one.body.paymaster == self._key.public
            and (one.body.run, one.body.recipe) == (run.run, run.recipe)
        )

    def _kin(self, ledger: Ledger, job: Job, owner: bytes) -> frozenset[bytes]:
        return frozenset(
            chain.opening
            for node in ledger.nodes_of.get(owner, ())
            for chain in ledger.chains.get(node, ())
            if isinstance(chain, NodeChain) and chain.owner == owner and chain.opening in job.allots
        )
