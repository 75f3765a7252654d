"""What a node is made of, as far as it has come, and how each part is made."""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.keys import NodeKey, Ownership, peer_id_of, to_base58
from ubcp_p2p.peer.config import PeerConfig
from ubcp_p2p.peer.feed import Feed
from ubcp_p2p.peer.ledger import NONE_HERE, OPENING, community_of
from ubcp_p2p.peer.owner import Keeper
from ubcp_p2p.peer.profile import Profile

if TYPE_CHECKING:  # heavy: imported once the API answers
    from ubcp_p2p.api.server import ApiServer
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


class Parts:
    """A part that is None is not made yet, has ended, or is none of this node's; words say which where people ask."""

    def __init__(self, profile: Profile, config: PeerConfig, *, trains: bool) -> None:
        """trains: False for a seed node. Raises ConfigError, LocalIOError."""
        self.profile = profile
        self.config = config
        self.trains = trains
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
        self.api: ApiServer | None = None
        self.stage = "starting"
        self.ledger_words = NONE_HERE if self.community is None else OPENING
        self.serving_words = SERVES_NOBODY if trains else "a seed node serves no requests"
        self.troubles: list[str] = []  # of what has ended by a bug: what follows, and what to do
        self.started_s = time.monotonic()
        self.loaded = asyncio.Event()  # all parts are made; the network may still be coming up

    @property
    def peer_id(self) -> str:
        return to_base58(peer_id_of(self.key.public))

    def _load(self) -> None:
        modules = [
            "swarm.network",
            *(["peer.runs"] if self.trains else []),
            "peer.fetching",
            *(["swarm.ledger", "peer.asking.desk", "peer.lookups", "peer.paying.paymaster"] if self.community else []),
            *(["peer.serving.service"] if self.community and self.config.serving.device_class else []),
        ]
        for name in modules:
            importlib.import_module(f"ubcp_p2p.{name}")

    def _make_network(self, directory: Path, join: tuple[str, ...]) -> Network:
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
            (*join, *config.bootstrap),
            ports=Ports(self.profile.ports_file),
            client_if_unreachable=config.dht_mode == "auto",
        )

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
            self.serving_words = f"{error.message}; {error.hint}"
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

    def _make_fetcher(self, network: Network) -> Fetcher:
        from ubcp_p2p.peer.fetching import Fetcher

        def trained() -> list[Recipe]:
            return [run.recipe for run in self.runs.all()] if self.runs is not None else []

        return Fetcher(network, self.profile.runs, self.ledger, lambda: self.desk, trained)
