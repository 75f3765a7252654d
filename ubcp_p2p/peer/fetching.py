"""Fetches the model of a run that this node does not train, and keeps it in the profile: the verb `fetch`.

What was downloaded is checked against the run, the recipe, and the certificate of the round's group (swarm/fetching);
then it takes the place of an older copy in one step. The daemon needs no torch for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ubcp_p2p.errors import ConfigError, LocalIOError, NetworkError, TrainingError, UbcpError
from ubcp_p2p.models.recipe import Recipe, load_recipe, run_id, shipped_recipes
from ubcp_p2p.models.run_name import check_name
from ubcp_p2p.swarm import directory
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.events import Event, Observer
from ubcp_p2p.swarm.fetching import Copy, NobodyThere, Wanted, fetch
from ubcp_p2p.swarm.quorum import Certificate
from ubcp_p2p.training.model_file import Facts, read_facts, write
from ubcp_p2p.training.outer import OuterRule
from ubcp_p2p.training.state import ITEM_BYTES, is_finite, vector

if TYPE_CHECKING:
    from ubcp_p2p.api.verbs import Emit
    from ubcp_p2p.peer.asking.desk import Desk
    from ubcp_p2p.peer.asking.paid import PaidRun
    from ubcp_p2p.swarm.ledger import LiveLedger
    from ubcp_p2p.swarm.network import Network

log = logging.getLogger(__name__)

COPIES_MAX: Final = 1024  # that are listed
NAMES_TOLD: Final = 20


@dataclass(frozen=True)
class Sought:
    """One run, and who is asked for its model."""

    name: str
    recipe: Recipe
    peers: tuple[bytes, ...]

    @property
    def run_id(self) -> bytes:
        return run_id(self.name, self.recipe.hash())

    @property
    def wanted(self) -> Wanted:
        """What its states must be."""
        recipe = self.recipe
        rule = OuterRule(recipe.outer.optimizer, recipe.outer.lr, recipe.outer.momentum)
        size = ITEM_BYTES * rule.state_values(recipe.parameters())
        return Wanted(self.run_id, size, recipe.rounds.total, recipe.rounds.peers_max)


class Fetcher:
    """Of one node. folder: where copies are kept. trained: the recipes of the runs that this node is in."""

    def __init__(
        self, network: Network, folder: Path, ledger: LiveLedger | None, desk: Callable[[], Desk | None],
        trained: Callable[[], Iterable[Recipe]],
    ) -> None:  # fmt: skip
        self._network, self._folder, self._ledger, self._desk, self._trained = network, folder, ledger, desk, trained
        self._one = asyncio.Lock()  # a state may take gigabytes of memory
        self._troubles: dict[bytes, tuple[str, str]] = {}  # run → its name, and why its model was not fetched last time

    async def fetch(self, request: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The verb: `run`, and `recipe` (TOML) where peers cannot show it. Emits what happens. Raises UbcpError."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        work = asyncio.create_task(self._fetch(request, events.put_nowait))
        work.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                await emit({"kind": event.kind, "round": event.round, **event.data})
            return await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _fetch(self, request: Mapping[str, Any], observe: Observer) -> dict[str, Any]:
        sought = await self._find(request)
        try:
            return {**await self.copy(sought, observe), "words": ""}
        except NobodyThere as error:
            kept = self._kept(sought.run_id)
            if kept is None:
                raise NobodyThere(
                    f"the model of {sought.name!r} cannot be had now: {error.message}",
                    hint="try again when its peers are there: `ubcp runs` lists what peers claim to be in",
                ) from None
            return {**kept, "words": f"{error.message}: this is the copy that the node has kept"}

    async def copy(self, sought: Sought, observe: Observer) -> dict[str, Any]:
        """Fetch the newest state, unless it is kept already; what is kept then. Raises UbcpError."""
        async with self._one:
            path, wanted = self._path(sought.run_id), sought.wanted
            kept = self._kept(sought.run_id)
            place = (kept["round"], bytes.fromhex(kept["state_hash"])) if kept is not None else None
            try:
                self._require_room(wanted.state_bytes)
                try:
                    got = await fetch(self._network, wanted, sought.peers, observe, kept=place)
                except OSError as error:
                    raise LocalIOError(f"no memory for a model of {wanted.state_bytes:,} bytes: {error}") from None
                if got is not None:
                    with got.state:
                        await asyncio.to_thread(_write, path, sought, got, place)
                    log.info("fetched round %d of the run %s from %s", got.certificate.round, sought.name,
                             short(got.peer))  # fmt: skip
            except UbcpError as error:
                if len(self._troubles) >= COPIES_MAX:
                    self._troubles.clear()
                self._troubles[sought.run_id] = sought.name, error.message
                raise
            self._troubles.pop(sought.run_id, None)
        found = self._kept(sought.run_id)
        assert found is not None
        return found

    def status(self) -> dict[str, Any]:
        """JSON for people and programs: the copies by name, and by run's name why a newer one could not be had."""
        paths = sorted(self._folder.glob("*.safetensors"))[:COPIES_MAX]
        rows = sorted((row for path in paths if (row := _row(path)) is not None), key=lambda row: str(row["name"]))
        troubles: dict[str, list[str]] = {}
        for name, words in self._troubles.values():
            troubles.setdefault(name, []).append(words)
        return {"fetched": rows, "fetch_troubles": troubles}

    def _kept(self, run: bytes) -> dict[str, Any] | None:
        return _row(self._path(run))

    def _path(self, run: bytes) -> Path:
        return self._folder / f"{run.hex()[:32]}.safetensors"

    def _require_room(self, size: int) -> None:
        """Before minutes of download, not after them. Raises LocalIOError."""
        try:
            for stale in self._folder.glob(".*.safetensors.*.tmp"):
                stale.unlink()  # of a node that was killed while it wrote
            found = os.statvfs(self._folder)
        except OSError as error:
            raise LocalIOError(f"cannot write into {self._folder}: {error.strerror}") from None
        if found.f_bavail * found.f_frsize < size:
            raise LocalIOError(
                f"the disk is full: the model takes {size:,} bytes in {self._folder}",
                hint="make room there; a copy that was fetched before is untouched",
            )

    # -- which run is meant ---------------------------------------------------------------------------------------

    async def _find(self, request: Mapping[str, Any]) -> Sought:
        """Raises ConfigError, UbcpError, NetworkError."""
        name = str(request.get("run", ""))
        check_name(name)
        claims = await directory.lookup(self._network, name)
        desk = self._desk()
        paid = await desk.paid(name) if desk is not None else []
        own = [run for run in await desk.paid() if run.name == name] if desk is not None else []
        if request.get("recipe") is not None:
            recipe = Recipe.from_toml(str(request["recipe"]), where=str(request.get("where", "the recipe")))
        else:
            recipe = await self.recipe(_only(own, paid, name, claims), name)
        return self.sought(name, recipe, claims, next((run for run in paid if run.recipe == recipe.hash()), None))

    def sought(
        self, name: str, recipe: Recipe, claims: list[tuple[bytes, directory.Entry]], paid: PaidRun | None
    ) -> Sought:
        """Where the ledger says who earns with a run, those are asked and nobody else: a claim costs nothing."""
        wanted = run_id(name, recipe.hash())
        if paid is not None and paid.earners:
            return Sought(name, recipe, tuple(sorted(paid.earners)))
        return Sought(name, recipe, tuple(author for author, entry in claims if entry.run_id == wanted))

    async def recipe(self, hash_: bytes, name: str) -> Recipe:
        """By its hash: of a run here, a shipped one, or as a blob from peers. Raises ConfigError."""
        for recipe in self._trained():
            if recipe.hash() == hash_:
                return recipe
        for shipped in shipped_recipes():
            if (recipe := load_recipe(shipped)).hash() == hash_:
                return recipe
        parse = partial(Recipe.from_bytes, where=f"the recipe of {name!r}")
        found = await self._ledger.find(hash_, parse) if self._ledger is not None else None
        if found is None:
            raise ConfigError(
                f"no peer could show the recipe of {name!r} ({hash_.hex()[:16]}…), and it is none of the shipped ones",
                hint="name it: --recipe FILE",
            )
        return found


def _only(own: list[PaidRun], paid: list[PaidRun], name: str, claims: list[tuple[bytes, directory.Entry]]) -> bytes:
    """The hash of the recipe of the one run that is called so: the newest that this account pays for, else the one that
    anybody pays for, else by claims."""
    if own:
        return own[-1].recipe
    if len(paid) > 1:
        raise _several(name, [f"{run.recipe.hex()[:16]}… (asked for with {run.credits} µcredits)" for run in paid])
    if paid:
        return paid[0].recipe
    counts = Counter(
        (entry.recipe_hash, entry.recipe) for _, entry in claims if entry.run_id == run_id(name, entry.recipe_hash)
    )
    if not counts:
        raise UbcpError(f"nobody is in a run called {name!r}", hint="`ubcp runs` lists what peers claim to be in")
    if len({hash_ for hash_, _ in counts}) > 1:
        raise _several(name, [f"{recipe} ({count} peers)" for (_, recipe), count in counts.most_common()])
    return next(iter(counts))[0]


def _several(name: str, recipes: list[str]) -> ConfigError:
    rows = ", ".join(recipes[:NAMES_TOLD])
    return ConfigError(
        f"several runs are called {name!r}, by the recipes {rows}", hint="say which: --recipe NAME or FILE"
    )


def _write(path: Path, sought: Sought, got: Copy, kept: tuple[int, bytes] | None) -> None:
    """Raises LocalIOError, TrainingError; NetworkError for an older round than the one that is kept.

    Who is the last one there can sign a round alone. So a copy that fewer have signed than the one before does not
    drive it out: both are kept, until one comes that as many have signed.
    """
    certificate, recipe = got.certificate, sought.recipe
    if kept is not None and certificate.round < kept[0]:
        raise NetworkError(
            f"its peers stand on round {certificate.round}, and the copy here is of round {kept[0]}: it is kept",
            hint="they may have begun anew; move the copy away to fetch theirs",
        )
    values = vector(got.state)
    finite = is_finite(values)
    del values  # a view keeps the buffer open
    if not finite:
        raise TrainingError(
            f"round {certificate.round} holds values that are no numbers: its group signed a model that is of no use"
        )
    facts = Facts(
        run=sought.name, run_id=sought.run_id.hex(), recipe=recipe.name, recipe_hash=recipe.hash().hex(),
        recipe_toml=Recipe.from_bytes(recipe.to_bytes(), "the recipe").to_toml(),  # without this machine's paths
        round=certificate.round, rounds=recipe.rounds.total, state_hash=certificate.state_hash.hex(),
        certificate=certificate.to_bytes().hex(),
    )  # fmt: skip
    with got.state.view as view:
        signers, before = len(certificate.signatures), _before(path)
        if kept is not None and signers < _signers(path):
            _keep_both(path)
        write(path, facts, view)
    if signers >= _signers(before):
        with suppress(OSError):  # it costs room, and nothing else
            before.unlink(missing_ok=True)


def _signers(path: Path) -> int:
    """How many have signed the state of a copy; 0 where that cannot be read."""
    with suppress(UbcpError, ValueError):
        facts = read_facts(path)
        return len(Certificate.from_bytes(bytes.fromhex(facts.certificate), bytes.fromhex(facts.run_id)).signatures)
    return 0


def _before(path: Path) -> Path:
    """Where an older copy is kept beside that one."""
    return path.with_suffix(f".before{path.suffix}")


def _keep_both(path: Path) -> None:
    """Raises LocalIOError."""
    before = _before(path)
    try:
        before.unlink(missing_ok=True)
        os.link(path, before)
    except OSError as error:
        raise LocalIOError(f"cannot keep the older copy as {before}: {error.strerror}") from None


def _row(path: Path) -> dict[str, Any] | None:
    """None where there is no such file, or it is damaged: then it is fetched anew."""
    with suppress(ConfigError, OSError):
        facts, found = read_facts(path), path.stat()
        return {
            "name": facts.run, "run_id": facts.run_id, "recipe": facts.recipe, "recipe_hash": facts.recipe_hash,
            "round": facts.round, "rounds": facts.rounds, "state_hash": facts.state_hash, "bytes": found.st_size,
            "path": str(path), "fetched": int(found.st_mtime),
        }  # fmt: skip
    return None
