"""The node: one asyncio process that wires network, runs and API together, once, and ends them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ubcp_p2p.api.server import ApiServer  # before the lock is taken: from then on callers expect an answer
from ubcp_p2p.api.verbs import Verb
from ubcp_p2p.log import fields
from ubcp_p2p.peer.config import PeerConfig
from ubcp_p2p.peer.ledger import live_ledger
from ubcp_p2p.peer.parts import Parts
from ubcp_p2p.peer.profile import Profile, ProfileLock, runtime_dir
from ubcp_p2p.peer.sweeper import instance_dir
from ubcp_p2p.peer.verbs import Verbs

if TYPE_CHECKING:  # heavy: imported once the API answers
    from ubcp_p2p.swarm.network import Network

log = logging.getLogger(__name__)


async def _nothing(words: str) -> None:
    pass


class PayingPart(NamedTuple):
    """serve: for the life of the daemon. follows: what is so where it has ended; ended: what is to be done then."""

    what: str
    serve: Callable[[], Awaitable[None]]
    follows: str
    ended: Callable[[str], Awaitable[None]] = _nothing

    @property
    def trouble(self) -> str:
        """What is said where it has ended by a bug."""
        return f"{self.what} has stopped by an error, which is in the log: {self.follows}; start the node again"


async def serve_each(parts: Sequence[PayingPart], troubles: list[str]) -> None:
    """Serve all until cancelled. One that ends by a bug takes no other with it; the log and `troubles` say so."""

    async def serve(part: PayingPart) -> None:
        try:
            await part.serve()
        except Exception:
            log.exception("%s has stopped; start the node again", part.what)
            troubles.append(part.trouble)
            try:
                await part.ended(part.trouble)
            except Exception:
                log.exception("what follows from that could not be done")

    async with asyncio.TaskGroup() as tasks:
        for part in parts:
            tasks.create_task(serve(part))


class Node(Parts):
    """One running node. `trains` is False for a seed node: it serves the DHT and takes part in no run.

    resume: go on with the runs that it was in when it ended.
    """

    def __init__(
        self,
        profile: Profile,
        config: PeerConfig,
        *,
        join: tuple[str, ...] = (),
        trains: bool = True,
        resume: bool = True,
    ) -> None:
        super().__init__(profile, config, trains=trains)
        self._join = join
        self._resumes = resume
        self._stop = asyncio.Event()

    async def serve(self) -> None:
        """Run until `stop`, SIGINT or SIGTERM. Raises ConfigError or LocalIOError when it cannot start."""
        sockets = runtime_dir(self.profile)
        with instance_dir(sockets) as directory, ProfileLock(self.profile, directory):
            self.api = api = ApiServer(directory, self._verbs(), port=self.config.api.port)
            await api.start()
            self._listen_for_signals()
            try:
                await self._serve_until_stopped(directory)
            finally:
                self.stage = "stopping"
                self.feed.end()
                await api.stop()
        with suppress(OSError):
            sockets.rmdir()
        log.info("stopped")

    def stop(self) -> None:
        """Ask `serve` to end."""
        self._stop.set()

    async def _serve_until_stopped(self, directory: Path) -> None:
        self.stage = "loading the network code"
        await asyncio.to_thread(
            self._load
        )  # half a second of imports, on an idle machine: `status` is answered meanwhile
        self.network = network = self._make_network(directory, self._join)
        if self.keeper is not None:
            from ubcp_p2p.peer.runs import Runs

            self.stage = "reading the owner's rules"
            found = await self.keeper.look()
            self.runs = Runs(self.profile, self.config.training, network, self.keeper.rules)
            self.runs.listeners.append(self.feed.hear_run)
            self.runs.obey(found)
        if self.community is not None:
            self.stage = "opening the ledger"
            ledger = live_ledger(self.profile, self.community, network, self.feed.hear_ledger)
            await ledger.open()
            from ubcp_p2p.peer.asking.desk import Desk
            from ubcp_p2p.peer.lookups import Lookups
            from ubcp_p2p.peer.paying.paymaster import Paymaster
            from ubcp_p2p.peer.serving.book import Book

            self.ledger = ledger
            self.paying = self._make_paying(network, ledger)
            self.serving = self._make_service(ledger)
            # One for all: each reads the whole ledger, and keeps its requests in memory.
            book = self.serving.book if self.serving is not None else Book(self.key.public)
            self.paymaster = Paymaster(network, ledger, book, self.key, self.profile.paying, self.config.training)
            self.desk = Desk(ledger, book, self.owner.account, self.key.public)
            self.lookups = Lookups(ledger, book, self.owner.account, self.key.public)
            if self.runs is not None:
                from ubcp_p2p.peer.doorkeeper import Doorkeeper

                self.runs.doorkeeper = Doorkeeper(ledger, book, self.key.public)
        self.fetcher = self._make_fetcher(network)
        self.loaded.set()
        serving = asyncio.create_task(network.serve(), name="network")
        stopping = asyncio.create_task(self._stop.wait())
        ready = asyncio.create_task(self._announce_ready(network))
        claiming = asyncio.create_task(self.runs.keep_claiming() if self.runs is not None else asyncio.sleep(0))
        keeping = asyncio.create_task(self._keep_ledger(), name="ledger")
        obeying = asyncio.create_task(self._obey_owner(), name="owner")
        serving_others = asyncio.create_task(self._keep_serving(), name="serving")
        paying = asyncio.create_task(self._keep_paying(), name="paying")
        fetching = asyncio.create_task(self._keep_fetching(network), name="fetching")
        try:
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving  # raises: the network can never start
        finally:
            self.stage = "stopping"
            ready.cancel()
            claiming.cancel()
            obeying.cancel()
            serving_others.cancel()
            paying.cancel()
            fetching.cancel()
            await asyncio.gather(paying, fetching, return_exceptions=True)
            keeping.cancel()
            self.ledger, self.desk, self.lookups, self.ledger_words = None, None, None, "it is being closed"
            if self.runs is not None:
                await self.runs.stop()
            stopping.cancel()
            if network.connected:
                await network.neighbours.remember()
            serving.cancel()
            await asyncio.gather(
                serving, stopping, ready, claiming, keeping, obeying, serving_others, return_exceptions=True
            )

    async def _keep_ledger(self) -> None:
        try:
            if self.ledger is not None:
                await self.ledger.serve()
        except Exception:  # training goes on; `ubcp status` says it
            log.exception("the ledger has stopped")
            self.ledger, self.desk, self.lookups = None, None, None
            self.ledger_words = "stopped by an error, which is in the log; start the node again"

    async def _keep_paying(self) -> None:
        """Bills, vouchers and receipts, of both sides; and who is let in where somebody pays."""
        parts = []
        if self.runs is not None and self.runs.doorkeeper is not None:
            follows = "leases that begin or end from now on change nothing in the runs here"
            parts.append(PayingPart("looking up who is let in", self.runs.doorkeeper.serve, follows))
        if self.paymaster is not None:
            follows = "this node pays for no work any more, and who is owed too much leaves the runs that it pays for"
            parts.append(PayingPart("paying", self.paymaster.serve, follows, self._stop_paying))
        if self.paying is not None:
            contributor, worker = self.paying
            follows = "this node earns nothing, and has left the runs of its leases"
            parts.append(PayingPart("billing", contributor.serve, follows, worker.end))
        try:
            await serve_each(parts, self.troubles)
        finally:
            if self.reporter is not None:
                await self.reporter.close()

    async def _stop_paying(self, words: str) -> None:
        self.paymaster = None

    async def _keep_fetching(self, network: Network) -> None:
        """The models that this account pays for."""
        if self.desk is None or self.fetcher is None:
            return
        from ubcp_p2p.peer.rescue import Rescue

        def promised(request: bytes) -> int:
            return self.paymaster.promised(request) if self.paymaster is not None else 0

        try:
            await network.ready()
            await Rescue(network, self.fetcher, lambda: self.desk, promised).serve()
        except Exception:  # the rest of the node goes on; `ubcp runs fetch` says what is wrong
            log.exception("fetching models has stopped")

    async def _keep_serving(self) -> None:
        try:
            if self.serving is not None:
                await self.serving.serve()
        except Exception:  # the rest of the node goes on; `ubcp status` says it
            log.exception("serving has stopped")
            self.serving, self.serving_words = None, "stopped by an error, which is in the log; start the node again"

    async def _obey_owner(self) -> None:
        if self.keeper is not None and self.runs is not None:
            await self.keeper.serve(self.runs.obey)

    async def _announce_ready(self, network: Network) -> None:
        await network.ready()
        self.stage = "up"
        seconds = round(time.monotonic() - self.started_s, 2)
        log.info("up after %.2f s as %s", seconds, self.peer_id, extra=fields(addresses=network.multiaddrs()))
        self.feed.tell("node", "up", {"addresses": network.multiaddrs()})
        if self.runs is not None and self._resumes:
            self.runs.resume()

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            log.warning("asked twice: ending at once")
            os._exit(130)  # p2pd, the trainers and the socket directory go with us (PDEATHSIG, sweeper)
        log.info("stopping: leaving runs, keeping checkpoints (press Ctrl-C again to end at once)")
        self.stop()

    def _verbs(self) -> dict[str, Verb]:
        """What the API answers; fault tests add to it."""
        return Verbs(self, self.stop).table()


def run_node(node: Node) -> None:
    """Run the node on uvloop until it ends; raises as `Node.serve`."""
    import uvloop

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(_on_stray_exception)
        await node.serve()

    uvloop.run(main())


def _on_stray_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """hivemind drops tasks that it never awaits and writes to sockets of a dead p2pd.

    Both are noise, and only noise.
    """
    message, error = context.get("message", ""), context.get("exception")
    if "Task was destroyed but it is pending" in message or isinstance(error, OSError | EOFError):
        log.debug("stray: %s %r", message, error)
        return
    log.error("%s", message, exc_info=error)
