"""The node: one asyncio process that wires network, runs and API together, once, and ends them in order."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubcp_p2p import __version__
from ubcp_p2p.api.server import ApiServer  # before the lock is taken: from then on callers expect an answer
from ubcp_p2p.api.verbs import Attachment, Emit, Verb
from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.keys import NodeKey, Ownership, peer_id_of, to_base58
from ubcp_p2p.log import fields
from ubcp_p2p.peer.config import PeerConfig
from ubcp_p2p.peer.feed import Feed
from ubcp_p2p.peer.ledger import (
    DESK_VERBS,
    LOOKUP_VERBS,
    NONE_HERE,
    OPENING,
    append,
    community_of,
    live_ledger,
    publish,
)
from ubcp_p2p.peer.owner import Keeper
from ubcp_p2p.peer.profile import Profile, ProfileLock, runtime_dir
from ubcp_p2p.peer.sweeper import instance_dir

if TYPE_CHECKING:  # heavy: imported once the API answers
    from ubcp_p2p.ledger.activity import Asked
    from ubcp_p2p.models.recipe import Recipe
    from ubcp_p2p.peer.asking.desk import Desk
    from ubcp_p2p.peer.fetching import Fetcher
    from ubcp_p2p.peer.lookups import Lookups
    from ubcp_p2p.peer.paying.contributor import Contributor
    from ubcp_p2p.peer.paying.paymaster import Paymaster
    from ubcp_p2p.peer.paying.reporter import Reporter
    from ubcp_p2p.peer.paying.worker import Worker
    from ubcp_p2p.peer.runs import Runs
    from ubcp_p2p.peer.serving.service import Service
    from ubcp_p2p.swarm.ledger import LiveLedger
    from ubcp_p2p.swarm.network import Network

log = logging.getLogger(__name__)

SERVES_NOBODY = "this node serves no requests: set serving.device_class in config.toml to one of its charter's classes"


class Node:
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
        self.profile = profile
        self.config = config
        self.key = NodeKey.load(profile.node_key)
        self.owner = Ownership.load(profile.owner_file)
        self.community = community_of(profile, config.ledger)
        self.network: Network | None = None
        self.runs: Runs | None = None
        self.ledger: LiveLedger | None = None
        self.serving: Service | None = None
        self.desk: Desk | None = None
        self.lookups: Lookups | None = None
        self.paying: tuple[Contributor, Worker] | None = None
        self.paymaster: Paymaster | None = None
        self.reporter: Reporter | None = None
        self.fetcher: Fetcher | None = None
        self.keeper = Keeper(profile, config) if trains else None  # a seed node works for nobody
        self.feed = Feed()
        self._api: ApiServer | None = None
        self._join = join
        self._trains = trains
        self._resumes = resume
        self._stage = "starting"
        self._ledger_words = NONE_HERE if self.community is None else OPENING
        self._serving_words = SERVES_NOBODY if trains else "a seed node serves no requests"
        self._started_s = time.monotonic()
        self._stop = asyncio.Event()
        self._loaded = asyncio.Event()

    async def serve(self) -> None:
        """Run until `stop`, SIGINT or SIGTERM. Raises ConfigError or LocalIOError when it cannot start."""
        sockets = runtime_dir(self.profile)
        with instance_dir(sockets) as directory, ProfileLock(self.profile, directory):
            self._api = api = ApiServer(directory, self._verbs(), port=self.config.api.port)
            await api.start()
            self._listen_for_signals()
            try:
                await self._serve_until_stopped(directory)
            finally:
                self._stage = "stopping"
                self.feed.end()
                await api.stop()
        with suppress(OSError):
            sockets.rmdir()
        log.info("stopped")

    def stop(self) -> None:
        """Ask `serve` to end."""
        self._stop.set()

    async def _serve_until_stopped(self, directory: Path) -> None:
        self._stage = "loading the network code"
        await asyncio.to_thread(
            self._load
        )  # half a second of imports, on an idle machine: `status` is answered meanwhile
        self.network = network = self._make_network(directory)
        if self.keeper is not None:
            from ubcp_p2p.peer.runs import Runs

            self._stage = "reading the owner's rules"
            found = await self.keeper.look()
            self.runs = Runs(self.profile, self.config.training, network, self.keeper.rules)
            self.runs.listeners.append(self.feed.hear_run)
            self.runs.obey(found)
        if self.community is not None:
            self._stage = "opening the ledger"
            ledger = live_ledger(self.profile, self.community, network, self.feed.hear_ledger)
            await ledger.open()
            from ubcp_p2p.peer.asking.desk import Desk
            from ubcp_p2p.peer.lookups import Lookups
            from ubcp_p2p.peer.paying.paymaster import Paymaster

            self.ledger = ledger
            self.paying = self._make_paying(network, ledger)
            self.serving = self._make_service(ledger)
            self.paymaster = Paymaster(network, ledger, self.key, self.profile.paying, self.config.training)
            self.desk = Desk(ledger, self.owner.account, self.key.public)
            self.lookups = Lookups(ledger, self.desk.book, self.owner.account, self.key.public)
            if self.runs is not None:
                from ubcp_p2p.peer.doorkeeper import Doorkeeper

                self.runs.doorkeeper = Doorkeeper(ledger, self.key.public)
        self.fetcher = self._make_fetcher(network)
        self._loaded.set()
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
            self._stage = "stopping"
            ready.cancel()
            claiming.cancel()
            obeying.cancel()
            serving_others.cancel()
            paying.cancel()
            fetching.cancel()
            await asyncio.gather(paying, fetching, return_exceptions=True)
            keeping.cancel()
            self.ledger, self.desk, self.lookups, self._ledger_words = None, None, None, "it is being closed"
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
            self._ledger_words = "stopped by an error, which is in the log; start the node again"

    def _make_service(self, ledger: LiveLedger) -> Service | None:
        if self.keeper is None or not self.config.serving.device_class:
            return None
        from ubcp_p2p.peer.serving.service import Service

        try:
            on_held = self.paying[1].obey if self.paying is not None else None
            return Service(
                ledger, self.keeper, self.config.serving, self.key.public, self.profile.seen_file, on_held=on_held
            )
        except ConfigError as error:  # training goes on; `ubcp status` says it
            log.error("no requests are served: %s; %s", error.message, error.hint)
            self._serving_words = f"{error.message}; {error.hint}"
            return None

    def _make_paying(self, network: Network, ledger: LiveLedger) -> tuple[Contributor, Worker] | None:
        """What works for leases and bills it."""
        if self.runs is None or not self.config.serving.device_class:
            return None
        from ubcp_p2p.peer.paying.contributor import Contributor
        from ubcp_p2p.peer.paying.reporter import Reporter
        from ubcp_p2p.peer.paying.worker import Worker

        config, runs = self.config.serving, self.runs

        async def stop(asked: Asked, why: str) -> None:
            await worker.stop_for(asked, why)

        contributor = Contributor(
            network, ledger, self.profile.paying, config.device_class, config.rounds_unpaid_max, stop
        )
        worker = Worker(runs, contributor)
        self.reporter = runs.checks.clients = Reporter(network, self.key, worker.paid_by)
        return contributor, worker

    async def _keep_paying(self) -> None:
        """Bills, vouchers and receipts, of both sides; and who is let in where somebody pays."""
        try:
            async with asyncio.TaskGroup() as tasks:
                if self.runs is not None and self.runs.doorkeeper is not None:
                    tasks.create_task(self.runs.doorkeeper.serve())
                if self.paymaster is not None:
                    tasks.create_task(self.paymaster.serve())
                if self.paying is not None:
                    tasks.create_task(self.paying[0].serve())
        except Exception:  # training goes on; `ubcp status` says it
            log.exception("paying has stopped")
            self.paying, self.paymaster = None, None
        finally:
            if self.reporter is not None:
                await self.reporter.close()

    def _make_fetcher(self, network: Network) -> Fetcher:
        from ubcp_p2p.peer.fetching import Fetcher

        def trained() -> list[Recipe]:
            return [run.recipe for run in self.runs.all()] if self.runs is not None else []

        return Fetcher(network, self.profile.runs, self.ledger, lambda: self.desk, trained)

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
            self.serving, self._serving_words = None, "stopped by an error, which is in the log; start the node again"

    async def _obey_owner(self) -> None:
        if self.keeper is not None and self.runs is not None:
            await self.keeper.serve(self.runs.obey)

    def _load(self) -> None:
        modules = [
            "swarm.network",
            *(["peer.runs"] if self._trains else []),
            "peer.fetching",
            *(["swarm.ledger", "peer.asking.desk", "peer.lookups", "peer.paying.paymaster"] if self.community else []),
            *(["peer.serving.service"] if self.community and self.config.serving.device_class else []),
        ]
        for name in modules:
            importlib.import_module(f"ubcp_p2p.{name}")

    def _make_network(self, directory: Path) -> Network:
        from ubcp_p2p.swarm.addresses import AddressBook
        from ubcp_p2p.swarm.network import Network
        from ubcp_p2p.swarm.p2pd import P2pdSettings
        from ubcp_p2p.swarm.ports import Ports

        config = self.config.network
        settings = P2pdSettings(
            identity=self.profile.node_key,
            listen=config.listen,
            announce=config.announce,
            nat=config.nat == "auto",
            server=config.dht_mode != "client",
        )
        return Network(
            self.key,
            settings,
            directory,
            AddressBook(self.profile.peers_file),
            (*self._join, *config.bootstrap),
            ports=Ports(self.profile.ports_file),
            client_if_unreachable=config.dht_mode == "auto",
        )

    async def _announce_ready(self, network: Network) -> None:
        await network.ready()
        self._stage = "up"
        seconds = round(time.monotonic() - self._started_s, 2)
        log.info("up after %.2f s as %s", seconds, self.peer_id, extra=fields(addresses=network.multiaddrs()))
        self.feed.tell("node", "up", {"addresses": network.multiaddrs()})
        if self.runs is not None and self._resumes:
            self.runs.resume()

    @property
    def peer_id(self) -> str:
        return to_base58(peer_id_of(self.key.public))

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

    # -- verbs ----------------------------------------------------------------------------------------------------

    def _verbs(self) -> dict[str, Any]:
        return {
            "status": self._status,
            "stop": self._on_stop,
            "peers": self._peers,
            "train": self._train,
            "follow": self._follow,
            "events": self._events,
            "leave": self._leave,
            "pause": self._pause,
            "resume": self._resume,
            "runs": self._known_runs,
            "run": self._one_run,
            "fetch": self._fetch,
            "ledger-append": self._ledger_append,
            "charter-publish": self._charter_publish,
            **{name: self._at_desk(name) for name in DESK_VERBS},
            **{name: self._lookup(name) for name in LOOKUP_VERBS},
            "sample": self._sample,
            "evaluate": self._evaluate,
        }

    async def _status(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        network = self.network
        stage = self._stage if network is None or self._stage == "stopping" else network.stage
        reach, words = (
            network.reachability() if network is not None and network.addresses else ("unknown", "not up yet")
        )
        return {
            "version": __version__,
            "pid": os.getpid(),
            "role": "peer" if self._trains else "bootstrap",
            "stage": stage,
            "loading": [] if stage == "up" else [stage],
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "peer_id": self.peer_id,
            "account": self.owner.account.hex(),
            "addresses": network.multiaddrs() if network is not None else [],
            "reachability": {"kind": reach, "words": words},
            "clock_offset_s": network.neighbours.clock_offset_s if network is not None else None,
            "connected": len(network.connected) if network is not None else 0,
            "p2pd_pid": network.p2pd_pid if network is not None else None,
            "p2pd_restarts": network.restarts if network is not None else 0,
            "runs": [run.status() for run in self.runs.all()] if self.runs is not None else [],
            "owner": self.keeper.status() if self.keeper is not None else None,
            "ledger": await self.ledger.status() if self.ledger is not None else None,
            "ledger_words": "" if self.ledger is not None else self._ledger_words,
            "serving": self.serving.status() if self.serving is not None else None,
            "earning": self.paying[1].status() if self.paying is not None else [],
            "serving_words": "" if self.serving is not None else self._serving_words,
            "api": {"url": self._api.address.url, "header_file": str(self._api.address.header_file)}
            if self._api is not None
            else None,
        }

    async def _ledger_opened(self) -> None:
        """Wait for the ledger that this node is to have; at once where it is in no community."""
        if self.community is not None:
            await self._loaded.wait()

    async def _ledger_append(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        await self._ledger_opened()
        return await append(self.ledger, request)

    def _at_desk(self, name: str) -> Verb:
        async def verb(request: dict[str, Any], emit: Emit) -> dict[str, Any]:
            await self._ledger_opened()
            if self.desk is None:
                raise ConfigError("this node has no ledger", hint=self._ledger_words)
            return await self.desk.verbs[name](request)

        return verb

    def _lookup(self, name: str) -> Verb:
        async def verb(request: dict[str, Any], emit: Emit) -> dict[str, Any] | Attachment:
            await self._ledger_opened()
            if self.lookups is None:
                raise ConfigError("this node has no ledger", hint=self._ledger_words)
            found: dict[str, Any] | Attachment = await self.lookups.verbs[name](request)
            return found

        return verb

    async def _charter_publish(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        await self._ledger_opened()
        return await publish(self.ledger, request)

    async def _on_stop(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        self.stop()
        return {"stopping": True, "pid": os.getpid()}

    async def _peers(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        network = await self._up()
        await network.neighbours.remember()
        return {
            "own": network.multiaddrs(),
            "connected": sorted(to_base58(peer_id_of(public)) for public in network.connected),
            "remembered": network.neighbours.remembered(),
        }

    async def _train(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        from ubcp_p2p.models.recipe import Recipe
        from ubcp_p2p.peer.kept import RunOptions

        recipe = Recipe.from_toml(str(request["recipe"]), where=str(request.get("where", "the recipe")))
        options = RunOptions(
            peers_min=int(request.get("peers_min", 1)),
            checkpoint_every_s=float(request.get("checkpoint_every_s", 10.0)),
            new=bool(request.get("new", False)),
        )
        await self._up()
        run = await self._require_runs().start(str(request["run"]), recipe, options)
        return run.status()

    async def _follow(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        run = self._require_runs().get(str(request["run"]))
        async for event in run.follow():
            await emit(event)
        return run.status()

    async def _events(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        async for id_, event in self.feed.follow(request.get("run"), request.get("last_event_id")):
            await emit(event, id_)
        return {}

    async def _leave(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        runs = self._require_runs()
        await runs.leave(str(request["run"]))
        return runs.get(str(request["run"])).status()

    async def _pause(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        hours = request.get("hours")
        keeper = self._require_keeper()
        await keeper.pause(None if hours is None else float(hours), bool(request.get("after_round", False)))
        return self._obeyed(keeper)

    async def _resume(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        keeper = self._require_keeper()
        await keeper.resume()
        return self._obeyed(keeper)

    def _obeyed(self, keeper: Keeper) -> dict[str, Any]:
        if self.runs is not None and keeper.verdict is not None:
            self.runs.obey(keeper.verdict)
        return keeper.status()

    async def _known_runs(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        from ubcp_p2p.peer.runs import known_runs

        network = await self._up()
        own = [run.status() for run in self.runs.all()] if self.runs is not None else []
        asked = await self.desk.requests(request) if self.desk is not None else {"requests": []}
        for row in asked["requests"]:
            row["checks"] = self.paymaster.findings(bytes.fromhex(row["request"])) if self.paymaster is not None else []
        assert self.fetcher is not None  # made before the network comes up
        return {"own": own, "claimed": await known_runs(network), **self.fetcher.status(), **asked}

    async def _fetch(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        await self._up()
        assert self.fetcher is not None  # made before the network comes up
        return await self.fetcher.fetch(request, emit)

    async def _one_run(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        from ubcp_p2p.peer.asking.listing import of_name

        return of_name(await self._known_runs(request, emit), str(request["run"]))

    async def _sample(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        run = self._require_runs().get(str(request["run"]))
        if run.trainer is None:
            raise ConfigError("the run has no trainer yet", hint="try again in a moment")
        text = await run.trainer.sample(
            str(request.get("prompt", "")), int(request.get("length", 200)), int(request.get("seed", 1))
        )
        return {"text": text}

    async def _evaluate(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        run = self._require_runs().get(str(request["run"]))
        if run.trainer is None or run.member is None:
            raise ConfigError("the run has no trainer yet", hint="try again in a moment")
        result = await run.trainer.evaluate()
        return {
            "round": run.member.round, "loss": result.loss, "stderr": result.stderr, "accuracy": result.accuracy,
            "n": result.n,
        }  # fmt: skip

    async def _up(self) -> Network:
        await self._loaded.wait()
        assert self.network is not None
        try:
            async with asyncio.timeout(20.0):
                await self.network.ready()
        except TimeoutError:
            raise UbcpError(
                f"the network is not up yet: {self.network.stage}", hint="`ubcp status` says more"
            ) from None
        return self.network

    def _require_keeper(self) -> Keeper:
        if self.keeper is None:
            raise ConfigError("this is a seed node: it trains nothing", hint="there is nothing to pause")
        return self.keeper

    def _require_runs(self) -> Runs:
        if self.runs is None:
            if not self._trains:
                raise ConfigError("this is a seed node: it trains nothing", hint="use `ubcp up` for a node that does")
            raise UbcpError("the node is still starting", hint="try again in a moment")
        return self.runs


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
