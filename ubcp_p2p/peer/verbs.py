"""The verbs: what the node answers when a program on this machine asks (api/routes.py has the table of them)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ubcp_p2p import __version__
from ubcp_p2p.api.verbs import Attachment, Emit, Verb
from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.keys import peer_id_of, to_base58
from ubcp_p2p.peer.ledger import DESK_VERBS, LOOKUP_VERBS, append, publish
from ubcp_p2p.peer.owner import Keeper
from ubcp_p2p.peer.parts import Parts

if TYPE_CHECKING:  # heavy: imported once the API answers
    from ubcp_p2p.peer.runs import Runs
    from ubcp_p2p.swarm.network import Network


class Verbs:
    """Of one node, at any time of its life. stop: asks the node to end."""

    def __init__(self, node: Parts, stop: Callable[[], None]) -> None:
        self._node = node
        self._stop = stop

    def table(self) -> dict[str, Verb]:
        """By name."""
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
        node, network = self._node, self._node.network
        stage = node.stage if network is None or node.stage == "stopping" else network.stage
        reach, words = (
            network.reachability() if network is not None and network.addresses else ("unknown", "not up yet")
        )
        return {
            "version": __version__,
            "pid": os.getpid(),
            "role": "peer" if node.trains else "bootstrap",
            "stage": stage,
            "loading": [] if stage == "up" else [stage],
            "uptime_s": round(time.monotonic() - node.started_s, 1),
            "peer_id": node.peer_id,
            "account": node.owner.account.hex(),
            "addresses": network.multiaddrs() if network is not None else [],
            "reachability": {"kind": reach, "words": words},
            "clock_offset_s": network.neighbours.clock_offset_s if network is not None else None,
            "connected": len(network.connected) if network is not None else 0,
            "p2pd_pid": network.p2pd_pid if network is not None else None,
            "p2pd_restarts": network.restarts if network is not None else 0,
            "runs": [run.status() for run in node.runs.all()] if node.runs is not None else [],
            "owner": node.keeper.status() if node.keeper is not None else None,
            "ledger": await node.ledger.status() if node.ledger is not None else None,
            "ledger_words": "" if node.ledger is not None else node.ledger_words,
            "serving": node.serving.status() if node.serving is not None else None,
            "earning": node.paying[1].status() if node.paying is not None else [],
            "serving_words": "" if node.serving is not None else node.serving_words,
            "troubles": list(node.troubles),
            "api": {"url": node.api.address.url, "header_file": str(node.api.address.header_file)}
            if node.api is not None
            else None,
        }

    async def _ledger_opened(self) -> None:
        """Wait for the ledger that this node is to have; at once where it is in no community."""
        if self._node.community is not None:
            await self._node.loaded.wait()

    async def _ledger_append(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        await self._ledger_opened()
        return await append(self._node.ledger, request)

    def _at_desk(self, name: str) -> Verb:
        async def verb(request: dict[str, Any], emit: Emit) -> dict[str, Any]:
            await self._ledger_opened()
            if self._node.desk is None:
                raise ConfigError("this node has no ledger", hint=self._node.ledger_words)
            return await self._node.desk.verbs[name](request)

        return verb

    def _lookup(self, name: str) -> Verb:
        async def verb(request: dict[str, Any], emit: Emit) -> dict[str, Any] | Attachment:
            await self._ledger_opened()
            if self._node.lookups is None:
                raise ConfigError("this node has no ledger", hint=self._node.ledger_words)
            found: dict[str, Any] | Attachment = await self._node.lookups.verbs[name](request)
            return found

        return verb

    async def _charter_publish(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        await self._ledger_opened()
        return await publish(self._node.ledger, request)

    async def _on_stop(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        self._stop()
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
        async for id_, event in self._node.feed.follow(request.get("run"), request.get("last_event_id")):
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
        if self._node.runs is not None and keeper.verdict is not None:
            self._node.runs.obey(keeper.verdict)
        return keeper.status()

    async def _known_runs(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        from ubcp_p2p.peer.runs import known_runs

        node, network = self._node, await self._up()
        own = [run.status() for run in node.runs.all()] if node.runs is not None else []
        asked = await node.desk.requests(request) if node.desk is not None else {"requests": []}
        for row in asked["requests"]:
            row["checks"] = node.paymaster.findings(bytes.fromhex(row["request"])) if node.paymaster is not None else []
        assert node.fetcher is not None  # made before the network comes up
        return {"own": own, "claimed": await known_runs(network), **node.fetcher.status(), **asked}

    async def _fetch(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        await self._up()
        assert self._node.fetcher is not None  # made before the network comes up
        return await self._node.fetcher.fetch(request, emit)

    async def _one_run(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        from ubcp_p2p.peer.asking.listing import of_name
        from ubcp_p2p.peer.runs import known_runs

        name, document = str(request["run"]), await self._known_runs(request, emit)
        others = [row for row in document["claimed"] if row["name"] != name]
        document["claimed"] = others + await known_runs(await self._up(), name)
        return of_name(document, name)

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
        await self._node.loaded.wait()
        network = self._node.network
        assert network is not None
        try:
            async with asyncio.timeout(20.0):
                await network.ready()
        except TimeoutError:
            raise UbcpError(f"the network is not up yet: {network.stage}", hint="`ubcp status` says more") from None
        return network

    def _require_keeper(self) -> Keeper:
        if self._node.keeper is None:
            raise ConfigError("this is a seed node: it trains nothing", hint="there is nothing to pause")
        return self._node.keeper

    def _require_runs(self) -> Runs:
        if self._node.runs is None:
            if not self._node.trains:
                raise ConfigError("this is a seed node: it trains nothing", hint="use `ubcp up` for a node that does")
            raise UbcpError("the node is still starting", hint="try again in a moment")
        return self._node.runs
