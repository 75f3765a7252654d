"""The runs that this node takes part in: started, kept, and ended; resting when the owner's rules say so."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubcp_p2p.api.problems import NotFound
from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.errors import ConfigError, LocalIOError, NetworkError, TrainingError, UbcpError
from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.models.run_name import check_name
from ubcp_p2p.owner.values import FREE, Manner, Rules, Verdict
from ubcp_p2p.owner.verdict import refusal
from ubcp_p2p.peer.checking.checks import Checks
from ubcp_p2p.peer.config import TrainingConfig
from ubcp_p2p.peer.kept import KeptRun, RunOptions, forget, keep, kept_runs
from ubcp_p2p.peer.profile import Profile
from ubcp_p2p.peer.run import ENDED, PAUSED, Run
from ubcp_p2p.peer.seats import allocated
from ubcp_p2p.swarm import directory
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.admission import OPEN
from ubcp_p2p.swarm.events import Committed
from ubcp_p2p.swarm.membership import Phase
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.quorum import NOBODY, Certificate
from ubcp_p2p.swarm.run import Event, Observer, RunMember, RunSettings
from ubcp_p2p.training.process import TrainerProcess, TrainerSpec
from ubcp_p2p.training.sandbox.reach import data_folders, within

if TYPE_CHECKING:
    from ubcp_p2p.peer.doorkeeper import Doorkeeper

__all__ = ["OtherData", "Run", "Runs", "known_runs"]

log = logging.getLogger(__name__)

CLAIM_EVERY_S = 20.0
FINAL_CHECKPOINT_S = 20.0
ROUND_S = 3600.0  # a round that is to be finished is left when it takes longer
RUNS_LISTED_MAX = 1000  # of those that peers claim
EARLY_S = 120.0  # and one that was offered early: the others train on meanwhile


class NoSuchRun(NotFound, ConfigError):
    """This node is in no run of that name."""


class OtherData(ConfigError):
    """Peers claim other data. A claim passes: the next start of the node tries the run again."""


class Runs:
    """Starts, watches and ends the runs of one node."""

    def __init__(
        self,
        profile: Profile,
        config: TrainingConfig,
        network: Network,
        rules: Rules = Rules(),  # noqa: B008  # frozen
    ) -> None:
        self._profile = profile
        self._config = config
        self._network = network
        self._rules = rules
        self._verdict = FREE
        self._runs: dict[str, Run] = {}
        self.doorkeeper: Doorkeeper | None = None  # of a node in a community
        self.listeners: list[Callable[[Run, Event], None]] = []  # hear each event of each run
        self.committed: list[Callable[[Run, Committed], None]] = []  # hear of each round that this node was in
        self.payer: Callable[[bytes, int], bytes] = lambda run, round_: NOBODY  # whom a run's round is billed to
        self.checks = Checks(network)
        self._changed = asyncio.Event()

    def all(self) -> list[Run]:
        return list(self._runs.values())

    def get(self, name: str) -> Run:
        """Raises NoSuchRun for an unknown name, listing the known ones."""
        run = self._runs.get(name)
        if run is None:
            known = ", ".join(sorted(self._runs)) or "none"
            raise NoSuchRun(f"this node is in no run called {name!r}", hint=f"its runs: {known}; `ubcp runs` lists all")
        return run

    async def start(self, name: str, recipe: Recipe, options: RunOptions) -> Run:
        """Join or begin a run, and keep it for the node's next start.

        While the owner's rules say no it is paused. Raises ConfigError when the name is bad, taken here, or used with
        another recipe, when the owner refuses it, or when its data lies where recipes may not read; LocalIOError when
        the profile cannot be written.
        """
        check_name(name)
        self._refuse_far_data(recipe)
        refused = refusal(self._rules, name, run_id(name, recipe.hash()))
        if refused is not None:
            raise ConfigError(refused, hint="see refuse_runs under [owner] in config.toml")
        present = self._present(name, recipe)
        if present is None and not options.new:
            await self._refuse_other_recipe(name, recipe)
            present = self._present(name, recipe)  # it may have been resumed meanwhile
        if present is not None:
            if present.options != options:
                present.choose(options)
                keep(self._profile.runs, KeptRun(name, recipe, options))
            return present
        keep(self._profile.runs, KeptRun(name, recipe, options))
        return self._begin(Run(name, recipe, options))

    def resume(self) -> None:
        """Go on with the runs that this node was in when it ended."""
        runs, faults = kept_runs(self._profile.runs, directory.RUNS_PER_NODE_MAX)
        for fault in faults:
            log.warning("%s", fault)
        for kept in runs:
            if refused := refusal(self._rules, kept.name, run_id(kept.name, kept.recipe.hash())):
                log.warning("%s: it is not resumed", refused)
            elif kept.name not in self._runs:
                log.info("going on with the run %s, which this node was in when it ended", kept.name)
                self._begin(Run(kept.name, kept.recipe, kept.options, resumed=True))

    async def leave(self, name: str) -> None:
        """Announce the leave, keep a checkpoint, end the trainer; the node's next start does not go on with it.

        Raises ConfigError for an unknown name.
        """
        run = self.get(name)
        forget(self._profile.runs, name)
        await self._end(run)

    def obey(self, verdict: Verdict) -> None:
        """Let the runs go on or rest, as the owner's rules say. To be called again and again: it does what is due."""
        self._verdict = verdict
        for run in self.all():
            if verdict.works:
                self._let_go_on(run)
            else:
                self._let_rest(run, verdict)
            run.pace(verdict.share_permille)

    def _let_go_on(self, run: Run) -> None:
        if run.stage == PAUSED and (run.task is None or run.task.done()):
            self._begin(run)
            run.observe(Event("goes on", 0))
        elif run.member is not None and not run.cancelled:
            run.member.retiring, run.retire_by_s, run.resting = False, None, ""

    def _let_rest(self, run: Run, verdict: Verdict) -> None:
        """Finish the round and leave the group, or leave at once: what is committed is kept either way."""
        if run.stage in ENDED:
            return
        run.resting = verdict.words
        if run.task is None or run.task.done() or run.cancelled:
            return
        now_s = time.monotonic()
        in_round = run.member is not None and run.member.phase not in (Phase.JOINING, Phase.DONE)
        late = run.retire_by_s is not None and now_s > run.retire_by_s
        if verdict.manner == Manner.NOW or not in_round or late:
            run.cancelled = True
            run.task.cancel()
            return
        assert run.member is not None
        run.member.retiring = True
        limit_s = EARLY_S if verdict.manner == Manner.EARLY else ROUND_S
        run.retire_by_s = min(now_s + limit_s, run.retire_by_s if run.retire_by_s is not None else now_s + limit_s)
        if verdict.manner == Manner.EARLY and run.trainer is not None:
            run.trainer.finish_early()

    def _present(self, name: str, recipe: Recipe) -> Run | None:
        """The run of that name that goes on here. Raises ConfigError when it has another recipe."""
        run = self._runs.get(name)
        if run is None or run.stage in ENDED:
            return None
        if run.run_id != run_id(name, recipe.hash()):
            raise ConfigError(
                f"this node is already in the run {name!r} with another recipe",
                hint=f"ubcp leave {name}, or another --run",
            )
        return run

    def _begin(self, run: Run) -> Run:
        self._runs[run.name] = run
        run.begin_anew()
        if not self._verdict.works:
            run.pause(self._verdict.words)
            return run
        run.task = asyncio.create_task(self._live(run), name=f"run {run.name}")
        return run

    async def _end(self, run: Run) -> None:
        run.leaving = True
        if run.task is not None:
            if not run.cancelled:
                run.cancelled = True
                run.task.cancel()
            await asyncio.wait([run.task])
        if run.stage == PAUSED:
            run.leave()

    async def stop(self) -> None:
        """Leave every run, for the end of the node; its next start goes on with them."""
        await asyncio.gather(*(self._end(run) for run in self.all()))
        await self.checks.close()

    async def keep_claiming(self) -> None:
        """Tell the DHT which runs this node is in, so that newcomers find it; soon after each change."""
        while True:
            entries = [claim for run in self.all() if (claim := run.claim()) is not None]
            self._changed.clear()
            if entries:
                with suppress(NetworkError):
                    await directory.publish(self._network, entries)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLAIM_EVERY_S if self._network.connected else 2.0):
                    await self._changed.wait()

    def _refuse_far_data(self, recipe: Recipe) -> None:
        """A recipe may come from a stranger: where on this machine it reads is the owner's to say."""
        path = recipe.data_path()
        folders = data_folders(self._config.confinement().read_dirs)
        if path is not None and not within(path, folders):
            raise ConfigError(
                f"the recipe {recipe.name} takes its data from {path}, which is in none of "
                f"{', '.join(map(str, folders))}",
                hint="name its folder in read_dirs under [training] in config.toml, or change data.path",
            )

    async def _refuse_other_recipe(self, name: str, recipe: Recipe) -> None:
        try:
            entries = await directory.lookup(self._network, name)
        except NetworkError:
            return
        wanted = run_id(name, recipe.hash())
        if any(entry.run_id == wanted for _, entry in entries):
            return  # others claim this very run: one claim of another recipe must not keep anybody out
        for author, entry in entries:
            if entry.recipe_hash != recipe.hash() and author != self._network.public:
                raise ConfigError(
                    f"peers are in a run called {name!r} with another recipe ({entry.recipe!r}; claimed by "
                    f"{short(author)})",
                    hint="use that very recipe to join them, another --run name, or --new to start your own anyway",
                )

    async def _refuse_other_data(self, run: Run) -> None:
        """Peers whose data differ from ours would each pull the one model elsewhere, and nobody would see it."""
        if run.recipe.private:  # each has its own
            return
        try:
            claims = await directory.lookup(self._network, run.name)
        except NetworkError:
            return
        others = directory.with_other_data(claims, self._network.public, run.run_id, run.data_hash)
        if others:
            raise OtherData(
                f"peers in this run train on other data than this node has: {', '.join(map(short, others[:3]))}"
                + (f" and {len(others) - 3} more" if len(others) > 3 else ""),
                hint="get the data that the recipe names (a fallback is other data), or take another --run name; --new "
                "goes on anyway",
            )

    async def _live(self, run: Run) -> None:
        """The life of one run until it ends or rests: with the trainer gone and, where possible, a checkpoint kept."""
        try:
            await self._take_part(run)
            run.pause(run.resting)  # it returns only when it was to retire
            self._changed.set()
        except asyncio.CancelledError:
            if run.leaving:
                run.leave()
            else:
                run.pause(run.resting)
            raise
        except UbcpError as error:
            if isinstance(error, ConfigError) and not isinstance(error, OtherData):
                self._forget(run)  # it would fail again
            self._failed(run, error)
        except Exception as error:
            log.exception("run %s failed", run.name)
            self._failed(run, TrainingError(f"a bug: {error!r}", hint="the node's log has the traceback"))

    async def _take_part(self, run: Run) -> None:
        self._refuse_far_data(run.recipe)  # the owner may have changed his mind since the run began
        spec = TrainerSpec(
            recipe_toml=run.recipe.to_toml(),
            run_id=run.run_id,
            peer=self._network.public,
            device=self._config.device,
            threads=self._config.threads,
            checkpoint_dir=self._folder(run),
            checkpoints_kept=self._config.checkpoints_kept,
            sandbox=self._config.confinement(),
            silent_s=self._config.silent_minutes * 60.0,
        )
        async with await TrainerProcess.start(spec, resume=True) as trainer:
            run.trainer = trainer
            run.pace(self._verdict.share_permille)
            for note in trainer.ready.notes:
                run.observe(Event("note", trainer.ready.round, {"text": note}))
            if not run.options.new:
                await self._refuse_other_data(run)
            await self._train_with(run, trainer)

    async def _train_with(self, run: Run, trainer: TrainerProcess) -> None:
        recipe, observe = run.recipe, partial(self._observe, run)
        door = await self.doorkeeper.open(run.run_id, recipe) if self.doorkeeper is not None else None
        settings = RunSettings(
            name=run.name,
            run_id=run.run_id,
            recipe=recipe.name,
            recipe_hash=recipe.hash(),
            rounds=recipe.rounds.total,
            peers_max=recipe.rounds.peers_max,
            weight_max=recipe.rounds.local_steps * recipe.inner.batch,
            evaluate_every=recipe.evaluation.every,
            peers_min=run.options.peers_min,
            checkpoint_every_s=run.options.checkpoint_every_s,
            seats=door.seats if door is not None else allocated,
            admission=door.admission if door is not None else OPEN,
            payer=lambda round_: self.payer(run.run_id, round_),
        )
        run.member = member = self.member(settings, trainer, observe)
        member.certificate = _restored(trainer, run.run_id, settings.peers_max)
        checker = await self.checks.checker(
            run.name, recipe, self._folder(run), trainer, member, settings.admission, observe
        )
        run.stage = "running"
        self._changed.set()

        def on_commit(committed: Committed) -> None:
            checker.on_commit(committed)
            for listener in self.committed:
                listener(run, committed)

        member.on_commit = on_commit
        checking = asyncio.create_task(checker.serve())
        taking_part = asyncio.create_task(member.run())
        in_order = True
        try:
            ends: list[asyncio.Future[Any]] = [taking_part, trainer.exited]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not taking_part.done():
                raise TrainingError(f"the trainer {trainer.exited.result()}", hint="start the run again: it resumes")
            await taking_part
        except UbcpError:
            in_order = False  # a state that made training fail must not become the newest checkpoint
            raise
        finally:
            run.cancelled = True  # as good as: from here on it is cleaned up
            taking_part.cancel()
            checking.cancel()
            await asyncio.gather(taking_part, checking, return_exceptions=True)
            await member.close()
            if self.doorkeeper is not None:
                self.doorkeeper.close(run.run_id)
            with suppress(UbcpError, TimeoutError):
                if in_order and not trainer.exited.done() and member.round > 0:
                    async with asyncio.timeout(FINAL_CHECKPOINT_S):
                        await member.keep_checkpoint(due=True)

    def _folder(self, run: Run) -> Path:
        return self._profile.runs / run.run_id.hex()[:32]

    def member(self, settings: RunSettings, trainer: TrainerProcess, observe: Observer) -> RunMember:
        """The RunMember of a run; fault tests replace this to inject faults by place and step."""
        return RunMember(self._network, trainer, settings, observe)

    def _observe(self, run: Run, event: Event) -> None:
        run.observe(event)
        for listener in self.listeners:
            listener(run, event)
        if run.stage == "done" and event.kind in ("done", "checkpointed") and run.checkpoint_trouble is None:
            self._forget(run)  # a trainer of hundreds of MB, only to serve a state that others have too

    def _forget(self, run: Run) -> None:
        try:
            forget(self._profile.runs, run.name)
        except LocalIOError as error:
            log.warning("%s; %s", error, error.hint)

    def _failed(self, run: Run, error: UbcpError) -> None:
        run.stage, run.error = "failed", error
        log.error("run %s failed: %s", run.name, error.message)
        data = {"message": error.message, "hint": error.hint}
        run.observe(Event("failed", run.member.round if run.member else 0, data))


async def known_runs(network: Network, name: str | None = None) -> list[dict[str, Any]]:
    """Runs that peers claim in the DHT to be in, with how many claim it; labelled as claims. Neighbours' come first.

    name: of those that are called so all, else as many as directory.lookup finds without one.
    """
    found: dict[bytes, dict[str, Any]] = {}
    for _, entry in await directory.lookup(network, name):
        if entry.run_id not in found and len(found) >= RUNS_LISTED_MAX:
            continue
        row = found.setdefault(
            entry.run_id,
            {"name": entry.name, "run_id": entry.run_id.hex(), "recipe": entry.recipe, "peers": 0, "round": 0,
             "rounds": entry.rounds},
        )  # fmt: skip
        row["peers"] += 1
        row["round"] = max(row["round"], entry.round)
    return sorted(found.values(), key=lambda row: (row["name"], row["run_id"]))


def _restored(trainer: TrainerProcess, run: bytes, members_max: int) -> Certificate | None:
    """The certificate that lay in the checkpoint, if it is for the very state that was restored."""
    text = trainer.ready.extra.get("certificate")
    if not text:
        return None
    try:
        certificate = Certificate.from_bytes(bytes.fromhex(text), run, members_max=members_max)
    except (ValueError, MalformedMessage):
        return None
    return certificate if certificate.state_hash == trainer.ready.state_hash else None
