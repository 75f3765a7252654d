"""The runs of one node with a trainer and a member of the test: what is refused, and that nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.swarm.made import KEYS, digest
from ubcp_p2p.errors import ConfigError, TrainingError, UbcpError
from ubcp_p2p.models.recipe import load_recipe, run_id
from ubcp_p2p.owner.values import FREE, Block, Cause, Manner, Rules, Verdict
from ubcp_p2p.peer.config import TrainingConfig
from ubcp_p2p.peer.kept import RunOptions, kept_runs
from ubcp_p2p.peer.profile import Profile
from ubcp_p2p.peer.runs import RUNS_LISTED_MAX, OtherData, Run, Runs, known_runs
from ubcp_p2p.swarm.directory import KEY, NODES_MAX, key_of
from ubcp_p2p.swarm.events import Event, Observer, RunSettings
from ubcp_p2p.swarm.membership import Phase
from ubcp_p2p.swarm.records import Claim
from ubcp_p2p.training.process import TrainerProcess, TrainerSpec
from ubcp_p2p.training.sandbox.values import SandboxSpec

ME, A, B = (key.public for key in KEYS[:3])
RECIPE = load_recipe("digits-tiny")
OURS, THEIRS = digest("our data"), digest("their data")


class FakeNetwork:
    """Holds what others claim in the DHT."""

    public = ME
    connected = frozenset({A})

    def __init__(self) -> None:
        self.claimed_by: dict[str, list[Claim]] = {}  # key of the DHT → what lies there
        self.while_asked: Callable[[], None] = lambda: None

    def claimed(self, author: bytes, name: str, data: bytes, recipe_hash: bytes = RECIPE.hash()) -> None:
        row = [name, run_id(name, recipe_hash), "a recipe", recipe_hash, 3, 50, data]
        for key in (KEY, key_of(name)):
            self.claimed_by.setdefault(key, []).append(Claim(author, [row], 0.0))

    async def handle(self, protocol: str, handler: object) -> None:
        """Nobody asks."""

    async def unhandle(self, protocol: str) -> None:
        """Nobody has asked."""

    async def claims(self, key: str) -> list[Claim]:
        self.while_asked()
        return self.claimed_by.get(key, [])


class FakeTrainer:
    """A trainer that is ready at once."""

    pid = 7

    def __init__(self) -> None:
        self.ready = SimpleNamespace(
            data_sha256=OURS.hex(), notes=(), round=0, extra={}, device="cpu", state_hash=bytes(32), sandbox=()
        )
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.stopped = False
        self.shares: list[int] = []
        self.finished_early = 0

    def pace(self, permille: int) -> None:
        self.shares.append(permille)

    def finish_early(self) -> None:
        self.finished_early += 1

    async def __aenter__(self) -> FakeTrainer:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopped = True


class FakeMember:
    """A member that trains until it is cancelled, or is to retire and its round has ended."""

    phase, round, step, loss, retries, base_hash, certificate = Phase.TRAINING, 0, 0, None, 0, bytes(32), None

    def __init__(self, settings: RunSettings, running: asyncio.Event) -> None:
        self.settings = settings
        self.retiring = False
        self.round_ends = asyncio.Event()
        self.closed = asyncio.Event()
        self.close_begun = asyncio.Event()
        self.closing = asyncio.Event()
        self.closing.set()
        self._running = running

    async def run(self) -> None:
        self._running.set()
        while not self.retiring:
            await self.round_ends.wait()
            self.round_ends.clear()

    async def close(self) -> None:
        self.close_begun.set()
        await self.closing.wait()
        self.closed.set()


class House:
    """Runs of one profile, and the trainers that they started."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.profile = Profile(root)
        self.profile.make()
        self.network = FakeNetwork()
        self.trainers: list[FakeTrainer] = []
        self.members: list[FakeMember] = []
        self.specs: list[TrainerSpec] = []
        self.running = asyncio.Event()  # a member trains
        self.fails: UbcpError | None = None
        self.observe: Observer
        monkeypatch.setattr(TrainerProcess, "start", self._start)

    async def _start(self, spec: TrainerSpec, **__: object) -> FakeTrainer:
        self.specs.append(spec)
        if self.fails is not None:
            raise self.fails
        self.trainers.append(FakeTrainer())
        return self.trainers[-1]

    async def begun(self, run: Run) -> Run:
        """The run, once it trains or has ended."""
        assert run.task is not None
        running = asyncio.ensure_future(self.running.wait())
        await asyncio.wait([running, run.task], return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        return run

    def runs(self, rules: Rules = Rules(), training: TrainingConfig = TrainingConfig()) -> Runs:  # noqa: B008  # frozen
        network: Any = self.network
        self.running.clear()  # of a node before
        made = Runs(self.profile, training, network, rules)

        def member(settings: RunSettings, trainer: object, observe: Observer) -> Any:
            self.observe = observe
            self.members.append(FakeMember(settings, self.running))
            return self.members[-1]

        made.member = member  # type: ignore[method-assign]  # takes the place of a method
        return made


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(tmp_path, monkeypatch)


@pytest.mark.asyncio
async def test_a_run_among_peers_with_other_data_is_refused_and_its_trainer_ended(house: House) -> None:
    house.network.claimed(A, "r", THEIRS)
    run = await house.begun(await house.runs().start("r", RECIPE, RunOptions()))
    assert run.stage == "failed"
    assert isinstance(run.error, OtherData)
    assert "peers in this run train on other data than this node has" in run.error.message
    assert "--new" in (run.error.hint or "")
    assert house.trainers[0].stopped


@pytest.mark.asyncio
@pytest.mark.parametrize("honest", [True, False])
async def test_one_honest_peer_or_new_lets_it_in(house: House, honest: bool) -> None:
    house.network.claimed(A, "r", THEIRS)
    if honest:
        house.network.claimed(B, "r", OURS)
    runs = house.runs()
    run = await house.begun(await runs.start("r", RECIPE, RunOptions(new=not honest)))
    assert run.stage == "running"
    claim = run.claim()
    assert claim is not None
    assert (claim.run_id, claim.data_hash) == (run.run_id, OURS)
    await runs.stop()


@pytest.mark.asyncio
async def test_strangers_with_other_recipes_and_data_hide_no_honest_peer(house: House) -> None:
    for number in range(NODES_MAX + 1):
        house.network.claimed(digest(f"stranger {number}"), "r", THEIRS, digest("another recipe"))
    for number in range(NODES_MAX - 1):  # as many as there is room for beside one neighbour
        house.network.claimed(digest(f"stranger {number}"), "r", THEIRS)
    house.network.claimed(B, "r", OURS)
    runs = house.runs()
    run = await house.begun(await runs.start("r", RECIPE, RunOptions()))
    assert run.stage == "running"
    await runs.stop()


@pytest.mark.asyncio
async def test_however_many_runs_are_claimed_those_of_neighbours_are_listed(house: House) -> None:
    for number in range(RUNS_LISTED_MAX):
        house.network.claimed(digest(f"stranger {number}"), f"run {number}", THEIRS)
    house.network.claimed(A, "r", OURS)
    network: Any = house.network
    rows = await known_runs(network)
    assert len(rows) == RUNS_LISTED_MAX
    assert "r" in {row["name"] for row in rows}
    (row,) = await known_runs(network, "run 7")
    assert (row["name"], row["peers"]) == ("run 7", 1)


@pytest.mark.asyncio
async def test_private_data_differ_and_nothing_is_told_of_them(house: House) -> None:
    base = load_recipe("fashion-cnn")
    data = base.data.model_copy(update={"private": True, "fallback": "none"})
    recipe = base.model_copy(update={"data": data})
    house.network.claimed(A, "r", THEIRS, recipe.hash())
    runs = house.runs()
    run = await house.begun(await runs.start("r", recipe, RunOptions()))
    assert run.stage == "running"
    claim = run.claim()
    assert claim is not None
    assert (claim.run_id, claim.data_hash) == (run.run_id, b"")
    await runs.stop()
    assert house.trainers[0].stopped


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("path", "fine"),
    [
        ("/usr/share/datasets/fashion-mnist", True),
        ("/usr/share", True),
        ("{tmp}/data/fashion", True),
        ("{tmp}/data", True),
        ("{tmp}/database", False),
        ("{tmp}/data/../secret", False),
        ("{tmp}/data/link", False),
        ("{tmp}/data/inner", True),
        ("/", False),
        ("/usr/share/../../etc", False),
        ("relative", False),
        (".", False),
    ],
)
async def test_a_recipe_reads_where_the_owner_lets_recipes_read(
    house: House, tmp_path: Path, path: str, fine: bool
) -> None:
    for name in ("data", "secret"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "data" / "inner").symlink_to(tmp_path / "data")
    base = load_recipe("fashion-cnn")
    data = base.data.model_copy(update={"path": path.format(tmp=tmp_path)})
    recipe = base.model_copy(update={"data": data})
    runs = house.runs(training=TrainingConfig(read_dirs=(str(tmp_path / "data"),)))
    if fine:
        assert (await house.begun(await runs.start("r", recipe, RunOptions()))).stage == "running"
        await runs.stop()
    else:
        with pytest.raises(ConfigError, match="takes its data from") as caught:
            await runs.start("r", recipe, RunOptions())
        assert "read_dirs" in str(caught.value.hint)
        assert not house.trainers
        assert not list(house.profile.runs.iterdir())


@pytest.mark.asyncio
async def test_what_the_owner_says_of_the_sandbox_reaches_the_trainer(house: House, tmp_path: Path) -> None:
    said = TrainingConfig(sandbox="required", memory_mb=600, read_dirs=(str(tmp_path),), silent_minutes=2)
    for training in (TrainingConfig(), said):
        runs = house.runs(training=training)
        await house.begun(await runs.start("r", RECIPE, RunOptions()))
        await runs.stop()
    assert [(spec.sandbox, spec.silent_s) for spec in house.specs] == [
        (SandboxSpec("auto", 0, ()), 1800.0),
        (SandboxSpec("required", 600, (tmp_path,)), 120.0),
    ]


@pytest.mark.asyncio
async def test_a_kept_run_is_refused_once_the_owner_takes_its_folder_back(house: House, tmp_path: Path) -> None:
    base = load_recipe("fashion-cnn")
    recipe = base.model_copy(update={"data": base.data.model_copy(update={"path": str(tmp_path)})})
    before = house.runs(training=TrainingConfig(read_dirs=(str(tmp_path),)))
    await house.begun(await before.start("r", recipe, RunOptions()))
    await before.stop()
    after = house.runs()
    after.resume()
    run = await house.begun(after.get("r"))
    assert run.stage == "failed"
    assert run.error is not None and "takes its data from" in run.error.message
    assert len(house.trainers) == 1


# -- over a restart of the node --------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_stopped_node_goes_on_with_its_runs_and_one_that_left_does_not(house: House) -> None:
    before = house.runs()
    options = RunOptions(peers_min=2, checkpoint_every_s=1.0)
    await before.start("r", RECIPE, options)
    await before.start("left", RECIPE, RunOptions())
    await before.leave("left")
    await before.stop()

    after = house.runs()
    after.resume()
    (run,) = after.all()
    assert (run.name, run.options, run.resumed, run.recipe) == ("r", options, True, RECIPE)
    assert run.status()["resumed"]
    assert (await house.begun(run)).stage == "running"
    assert await after.start("r", RECIPE, RunOptions()) is run  # `ubcp train` finds it there
    assert run.member is not None
    assert run.member.settings.peers_min == 1  # and may ask for less company
    assert kept_runs(house.profile.runs, 1)[0][0].options == RunOptions()
    await after.stop()


@pytest.mark.asyncio
async def test_a_run_that_is_resumed_while_train_looks_around_is_there_once(house: House) -> None:
    before = house.runs()
    await before.start("r", RECIPE, RunOptions())
    await before.stop()
    after = house.runs()
    starting = asyncio.create_task(after.start("r", RECIPE, RunOptions()))
    house.network.while_asked = after.resume
    assert (await starting).resumed
    assert len(after.all()) == 1
    await after.stop()
    assert all(trainer.stopped for trainer in house.trainers)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "again"),
    [(ConfigError("no such device"), False), (TrainingError("crashed"), True), (OtherData("a claim"), True)],
)
async def test_a_run_that_failed_comes_back_unless_it_would_fail_again(
    house: House, error: UbcpError, again: bool
) -> None:
    house.fails = error
    run = await house.begun(await house.runs().start("r", RECIPE, RunOptions()))
    assert run.stage == "failed"
    after = house.runs()
    after.resume()
    assert [run.name for run in after.all()] == (["r"] if again else [])
    await after.stop()


@pytest.mark.asyncio
async def test_a_run_that_is_done_does_not_come_back(house: House) -> None:
    before = house.runs()
    await house.begun(await before.start("r", RECIPE, RunOptions()))
    house.observe(Event("done", 50))
    assert before.get("r").stage == "done"
    await before.stop()
    after = house.runs()
    after.resume()
    assert after.all() == []


@pytest.mark.asyncio
async def test_a_damaged_file_is_one_warning(house: House, caplog: pytest.LogCaptureFixture) -> None:
    before = house.runs()
    await before.start("r", RECIPE, RunOptions())
    await before.start("s", RECIPE, RunOptions())
    await before.stop()
    next(house.profile.runs.glob("*.json")).write_bytes(b"{")
    after = house.runs()
    after.resume()
    assert len(after.all()) == 1
    assert caplog.text.count("is not resumed") == 1
    await after.stop()


# -- what the owner's rules say --------------------------------------------------------------------------------------


def no(manner: Manner) -> Verdict:
    return Verdict(False, 1000, "on battery", None, (Block(Cause.BATTERY, "on battery", manner),))


async def rested(run: Run) -> None:
    assert run.task is not None
    await asyncio.wait([run.task])


@pytest.mark.asyncio
async def test_a_round_is_finished_before_the_run_rests_and_it_goes_on_later(house: House) -> None:
    runs = house.runs()
    run = await house.begun(await runs.start("r", RECIPE, RunOptions()))
    runs.obey(no(Manner.ROUND))
    assert run.resting == "on battery"
    assert run.stage == "running"
    assert house.trainers[0].finished_early == 0
    house.members[0].round_ends.set()
    await rested(run)
    assert (run.stage, run.trainer, run.claim()) == ("paused", None, None)
    assert house.trainers[0].stopped
    assert house.members[0].closed.is_set()
    runs.obey(replace(no(Manner.ROUND), words="outside your hours"))
    assert run.resting == "outside your hours"
    assert kept_runs(house.profile.runs, 1)[0][0].name == "r"

    house.running.clear()
    runs.obey(FREE)
    assert (await house.begun(run)).stage == "running"
    assert run.resting == ""
    assert len(house.trainers) == 2
    kinds = [document["kind"] for document in run._events]
    assert [kind for kind in kinds if kind in ("paused", "goes on")] == ["paused", "goes on"]
    await runs.stop()


@pytest.mark.asyncio
async def test_the_others_get_the_steps_that_are_done(house: House) -> None:
    runs = house.runs()
    await house.begun(await runs.start("r", RECIPE, RunOptions()))
    runs.obey(no(Manner.EARLY))
    assert house.trainers[0].finished_early == 1
    runs.obey(FREE)  # plugged in again before the round has ended
    assert not house.members[0].retiring
    house.members[0].round_ends.set()
    assert runs.get("r").stage == "running"
    await runs.stop()


@pytest.mark.asyncio
@pytest.mark.parametrize("phase", [Phase.TRAINING, Phase.JOINING, Phase.DONE])
async def test_an_immediate_pause_and_one_outside_of_a_round_do_not_wait(house: House, phase: Phase) -> None:
    runs = house.runs()
    run = await house.begun(await runs.start("r", RECIPE, RunOptions()))
    house.members[0].phase = phase
    runs.obey(no(Manner.NOW if phase == Phase.TRAINING else Manner.ROUND))
    await rested(run)
    assert run.stage == "paused"
    assert house.members[0].closed.is_set()
    assert house.trainers[0].stopped


@pytest.mark.asyncio
async def test_a_round_that_takes_too_long_is_left(house: House) -> None:
    runs = house.runs()
    run = await house.begun(await runs.start("r", RECIPE, RunOptions()))
    runs.obey(no(Manner.ROUND))
    assert run.retire_by_s is not None
    patient_s = run.retire_by_s
    runs.obey(no(Manner.EARLY))
    assert run.retire_by_s < patient_s
    run.retire_by_s = 0.0
    runs.obey(no(Manner.ROUND))
    await rested(run)
    assert run.stage == "paused"


@pytest.mark.asyncio
async def test_nothing_breaks_off_a_clean_up(house: House) -> None:
    runs = house.runs()
    run = await house.begun(await runs.start("r", RECIPE, RunOptions()))
    member = house.members[0]
    member.closing.clear()
    runs.obey(no(Manner.ROUND))
    member.round_ends.set()
    ends = asyncio.create_task(runs.leave("r"))
    await member.close_begun.wait()
    for manner in (Manner.NOW, Manner.NOW):
        runs.obey(no(manner))
    runs.obey(FREE)
    member.closing.set()
    await ends
    assert member.closed.is_set()
    assert run.stage == "left"
    runs.obey(FREE)
    assert run.stage == "left"
    assert len(house.trainers) == 1


@pytest.mark.asyncio
async def test_what_begins_while_the_rules_say_no_waits_also_over_a_restart(house: House) -> None:
    before = house.runs()
    before.obey(no(Manner.ROUND))
    run = await before.start("r", RECIPE, RunOptions())
    assert (run.stage, run.resting, run.task) == ("paused", "on battery", None)
    await before.stop()
    assert run.stage == "left"

    after = house.runs()
    after.obey(no(Manner.ROUND))
    after.resume()
    run = after.get("r")
    assert run.stage == "paused"
    assert house.trainers == []
    after.obey(FREE)
    assert (await house.begun(run)).stage == "running"
    await after.stop()


@pytest.mark.asyncio
async def test_the_share_reaches_the_trainer_when_it_changes(house: House) -> None:
    runs = house.runs()
    half, third = Verdict(True, 500, "", None), Verdict(True, 333, "", None)
    runs.obey(half)
    await house.begun(await runs.start("r", RECIPE, RunOptions()))
    for found in (half, third, third, FREE):
        runs.obey(found)
    assert house.trainers[0].shares == [500, 333, 1000]
    await runs.stop()


@pytest.mark.asyncio
async def test_a_run_that_the_owner_refuses(house: House, caplog: pytest.LogCaptureFixture) -> None:
    before = house.runs()
    await before.start("r", RECIPE, RunOptions())
    await before.stop()
    for refused in ("r", run_id("r", RECIPE.hash()).hex()):
        after = house.runs(Rules(runs_refused=frozenset({refused})))
        with pytest.raises(ConfigError, match="refuses the run 'r'") as caught:
            await after.start("r", RECIPE, RunOptions())
        assert "refuse_runs" in str(caught.value.hint)
        after.resume()
        assert after.all() == []
    assert caplog.text.count("it is not resumed") == 2
