"""A real trainer process: rounds, refusals, deaths, memory and disk faults, resume, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import pytest_asyncio
import uvloop

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.errors import ConfigError, LocalIOError, TrainingError
from ubcp_p2p.models.recipe import Recipe, load_recipe, run_id
from ubcp_p2p.training.errors import (
    Diverged,
    OutOfMemory,
    RoundFailed,
    StateMismatch,
    TrainerCrashed,
    TrainerStopped,
)
from ubcp_p2p.training.outer import OuterRule, outer_step
from ubcp_p2p.training.process import Offer, Progress, TrainerProcess, TrainerSpec
from ubcp_p2p.training.state import Vector, offer_hash, state_hash, vector

pytestmark = pytest.mark.slow

ME, OTHER = b"peer-me", b"peer-other"
MODULE = pytest.mark.asyncio(loop_scope="module")
RULE = OuterRule("nesterov", 0.7, 0.6)


def recipe(*, rounds: dict[str, object] | None = None, inner: dict[str, object] | None = None) -> Recipe:
    base = load_recipe("digits-tiny")
    return base.model_copy(
        update={
            "rounds": base.rounds.model_copy(update=rounds or {}),
            "inner": base.inner.model_copy(update=inner or {}),
        }
    )


LONG = recipe(rounds={"local_steps": 100_000, "total": 100})  # minutes: a train that has to be ended


def spec_of(chosen: Recipe, folder: Path, **changes: object) -> TrainerSpec:
    fields: dict[str, object] = {
        "recipe_toml": chosen.to_toml(),
        "run_id": run_id("test", chosen.hash()),
        "peer": ME,
        "device": "cpu",
        "threads": 1,
        "checkpoint_dir": folder,
        "checkpoints_kept": 2,
    }
    return TrainerSpec(**{**fields, **changes})  # type: ignore[arg-type]


def ignore(progress: Progress) -> None:
    """For tests that do not look at progress."""


async def first_progress(trainer: TrainerProcess, round: int) -> tuple[asyncio.Task[Offer], Progress]:
    """A train that has begun for sure."""
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[Progress] = loop.create_future()

    def on_progress(progress: Progress) -> None:
        if not begun.done():
            begun.set_result(progress)

    task = loop.create_task(trainer.train(round, [ME], on_progress))

    def on_end(done: asyncio.Task[Offer]) -> None:
        if not begun.done():
            begun.set_exception(done.exception() or AssertionError("no progress was told"))

    task.add_done_callback(on_end)
    return task, await begun


async def one_round(trainer: TrainerProcess, extra_offers: int = 0) -> Offer:
    offer = await trainer.train(trainer.round, [ME, OTHER], ignore)
    with offer.buffer:
        await trainer.apply([(offer.buffer, offer.weight)] * (1 + extra_offers))
        await trainer.commit()
    return offer


def copy_of(buffer: SharedBuffer, change: Callable[[Vector], object]) -> SharedBuffer:
    copied = SharedBuffer.create(buffer.size)
    copied.view[:] = buffer.view
    change(vector(copied))
    return copied


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends in time; waits on its descriptor."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memfd_maps(pid: int) -> int:
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:ubcp")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TrainerProcess]:
    """One trainer of digits-tiny for the tests that leave it usable."""
    folder = tmp_path_factory.mktemp("shared")
    async with await TrainerProcess.start(spec_of(recipe(), folder), resume=False) as trainer:
        yield trainer


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def long(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TrainerProcess]:
    """One trainer whose rounds do not end by themselves."""
    async with await TrainerProcess.start(spec_of(LONG, tmp_path_factory.mktemp("long")), resume=False) as trainer:
        yield trainer


@MODULE
async def test_a_round_is_what_the_definition_says(shared: TrainerProcess) -> None:
    ready = shared.ready
    run = run_id("test", recipe().hash())
    assert (ready.resumed_from, ready.extra, ready.notes) == (None, {}, ())
    assert (ready.state_bytes, ready.offer_bytes) == (8 * ready.parameters, 4 * ready.parameters)
    assert ready.data_name.startswith("digits")
    seen: list[Progress] = []
    round, before = shared.round, vector(shared.state).copy()
    assert state_hash(run, round, shared.state.view) == shared.state_hash
    offer = await shared.train(round, [ME, OTHER], seen.append)
    assert seen[-1] == Progress(round, 4, 4, offer.loss)
    assert (offer.round, offer.weight, offer.digest) == (round, 64, offer_hash(offer.buffer.view))
    other = copy_of(offer.buffer, lambda values: np.negative(values, out=values))
    poisoned = copy_of(offer.buffer, lambda values: values.fill(np.nan))
    with offer.buffer, other, poisoned:
        candidate = await shared.apply([(poisoned, 9), (offer.buffer, 64), (other, 7)])
        assert candidate.rejected == (0,)
        expected = np.empty_like(before)
        outer_step(before, [(vector(offer.buffer), 64), (vector(other), 7)], RULE, expected)
        assert vector(candidate.buffer).tobytes() == expected.tobytes()
        assert candidate.state_hash == state_hash(run, round + 1, candidate.buffer.view)
        assert candidate.round == round + 1
        again = await shared.apply([(offer.buffer, 64)])
        assert candidate.buffer.fd == -1  # replaced
        assert again.state_hash != candidate.state_hash
        assert shared.round == round
        assert vector(shared.state).tobytes() == before.tobytes()  # only a commit changes it
        await shared.apply([(poisoned, 9), (offer.buffer, 64), (other, 7)])
        await shared.commit()
    assert (shared.round, shared.state_hash) == (round + 1, candidate.state_hash)
    assert vector(shared.state).tobytes() == expected.tobytes()


@MODULE
async def test_hostile_offers_are_refused_and_change_nothing(shared: TrainerProcess) -> None:
    before = shared.state_hash
    size = shared.ready.offer_bytes
    with SharedBuffer.create(4) as tiny, SharedBuffer.create(size) as fine, SharedBuffer.create(size) as nan:
        vector(nan).fill(np.nan)
        with pytest.raises(TrainingError, match="offer 1 has 4 bytes"):
            await shared.apply([(fine, 1), (tiny, 1)])
        with pytest.raises(RoundFailed):
            await shared.apply([(nan, 1)])
        with pytest.raises(TrainingError, match="weights"):
            await shared.apply([(fine, 0)])
        with pytest.raises(TrainingError, match="weights"):
            await shared.apply([])
        with pytest.raises(TrainingError, match="weights"):
            await shared.apply([(fine, 1)] * 65)
        with pytest.raises(TrainingError, match="no candidate"):
            await shared.commit()
        await shared.apply([(fine, 1)] * 64)
        await shared.discard()
        with pytest.raises(TrainingError, match="no candidate"):
            await shared.commit()
    assert shared.state_hash == before
    with pytest.raises(TrainingError, match="asked to train round 1000000"):
        await shared.train(10**6, [], ignore)
    with pytest.raises(TrainingError, match="prompt"):
        await shared.sample("x" * 5000, 10, 1)
    with pytest.raises(TrainingError, match="writes no text"):
        await shared.sample("x", 10, 1)
    await one_round(shared)


@MODULE
async def test_a_downloaded_state_is_checked_before_it_is_adopted(shared: TrainerProcess) -> None:
    run = run_id("test", recipe().hash())
    before, round = shared.state_hash, shared.round
    sound = copy_of(shared.state, lambda values: np.multiply(values, 0.5, out=values))
    poisoned = copy_of(shared.state, lambda values: values.__setitem__(7, np.inf))
    with sound, poisoned, SharedBuffer.create(4) as short:
        digest = state_hash(run, round + 7, sound.view)
        with pytest.raises(StateMismatch, match="has hash"):
            await shared.load(round + 7, sound, bytes(32))
        with pytest.raises(StateMismatch, match="has hash"):  # the hash names the round too
            await shared.load(round + 6, sound, digest)
        with pytest.raises(StateMismatch, match="non-finite"):
            await shared.load(round, poisoned, state_hash(run, round, poisoned.view))
        with pytest.raises(StateMismatch, match="4 bytes"):
            await shared.load(round, short, digest)
        assert (shared.round, shared.state_hash) == (round, before)
        assert await shared.load(round + 7, sound, digest) == digest
        vector(sound).fill(np.nan)  # it is a copy
    assert (shared.round, shared.state_hash) == (round + 7, digest)
    assert state_hash(run, round + 7, shared.state.view) == digest
    await one_round(shared)


@MODULE
async def test_calls_made_at_once_wait_for_each_other(shared: TrainerProcess) -> None:
    first, offer, second = await asyncio.gather(
        shared.evaluate(), shared.train(shared.round, [ME], ignore), shared.evaluate()
    )
    assert first == second  # of the committed state, although training lay between
    assert first.n == 360
    assert first.accuracy is not None
    offer.buffer.close()


@MODULE
async def test_a_cancelled_or_repeated_train_leaves_no_trace(long: TrainerProcess) -> None:
    fds = open_files(os.getpid()), open_files(long.pid)

    async def two_steps() -> tuple[int, bytes]:
        """The first steps of the round: how many depends on the machine, so only equal counts are compared."""
        task, _ = await first_progress(long, 0)
        long.finish_early()
        long.finish_early()  # harmless
        offer = await task
        with offer.buffer:
            return offer.weight, offer.digest

    found: dict[int, bytes] = {}
    for _ in range(6):
        weight, digest = await two_steps()
        assert 16 <= weight < 16 * 100_000
        assert found.setdefault(weight, digest) == digest
        task, progress = await first_progress(long, 0)
        assert progress.steps == 100_000
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    long.finish_early()  # nothing runs: nothing happens
    await long.evaluate()
    assert (open_files(os.getpid()), open_files(long.pid)) == fds


@MODULE
async def test_a_cancel_at_any_moment_keeps_both_sides_agreed(shared: TrainerProcess) -> None:
    """Cancel after each number of turns of the loop: the reply may be in flight, or just in."""
    run = run_id("test", recipe().hash())
    fds = open_files(os.getpid()), open_files(shared.pid)
    for turns in range(40):
        for make in (
            lambda: shared.train(shared.round, [ME], ignore),
            lambda: shared.evaluate(),
            lambda: one_round(shared),
        ):
            task = asyncio.ensure_future(make())
            for _ in range(turns * turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                result = await task
            except asyncio.CancelledError:
                continue
            if isinstance(result, Offer):
                result.buffer.close()
    await shared.discard()
    await one_round(shared)
    assert state_hash(run, shared.round, shared.state.view) == shared.state_hash
    # an offer whose round was cancelled between train and apply is the test's own to lose: one_round closes it
    assert (open_files(os.getpid()), open_files(shared.pid)) == fds


@MODULE
async def test_ctrl_c_is_not_for_the_trainer(shared: TrainerProcess) -> None:
    os.kill(shared.pid, signal.SIGINT)
    await shared.evaluate()
    assert os.getsid(shared.pid) == shared.pid
    assert psutil.Process(shared.pid).nice() >= 5


@MODULE
async def test_memory_that_runs_out_is_told_and_survived(shared: TrainerProcess) -> None:
    before = shared.state_hash
    size = psutil.Process(shared.pid).memory_info().vms
    with SharedBuffer.create(shared.ready.offer_bytes) as fine:
        resource.prlimit(shared.pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
        try:
            with pytest.raises(OutOfMemory, match="memory ran out") as caught:
                await shared.apply([(fine, 1)] * 64)
        finally:
            resource.prlimit(shared.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert caught.value.hint
    assert shared.state_hash == before
    await one_round(shared)


@MODULE
async def test_a_disk_that_refuses_is_told_and_survived(shared: TrainerProcess) -> None:
    first = await shared.checkpoint({})
    await one_round(shared)
    resource.prlimit(shared.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    try:
        with pytest.raises(LocalIOError, match="cannot write the checkpoint") as caught:
            await shared.checkpoint({"certificate": "ab"})
    finally:
        resource.prlimit(shared.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert "intact" in (caught.value.hint or "")
    assert [path.name for path in first.parent.iterdir()] == [first.name]
    with pytest.raises(ConfigError):
        await shared.checkpoint({"state_hash": "mine"})
    assert (await shared.checkpoint({"certificate": "ab"})).exists()


@pytest.mark.asyncio
async def test_resume_gives_the_same_losses_and_hashes(tmp_path: Path) -> None:
    spec = spec_of(recipe(), tmp_path)
    plain: list[tuple[float, bytes]] = []
    newest = Path()
    async with await TrainerProcess.start(spec, resume=True) as trainer:
        assert trainer.ready.resumed_from is None
        for round in range(6):
            if round in (3, 4):  # with a train that is not committed, which must leave no trace
                (await trainer.train(round, [ME, OTHER], ignore)).buffer.close()
                newest = await trainer.checkpoint({"certificate": f"c{round}"})
            offer = await one_round(trainer)
            plain.append((offer.loss, trainer.state_hash))
        final = await trainer.evaluate()
        os.kill(trainer.pid, signal.SIGKILL)
        assert "signal 9" in await trainer.exited

    for start in (4, 3):
        async with await TrainerProcess.start(spec, resume=True) as trainer:
            ready = trainer.ready
            assert (ready.round, ready.extra) == (start, {"certificate": f"c{start}"})
            assert ready.resumed_from is not None
            assert ready.state_hash == plain[start - 1][1]
            assert len(ready.notes) == 4 - start
            assert all("damaged" in note for note in ready.notes)
            for round in range(start, 6):
                offer = await one_round(trainer)
                assert (offer.loss, trainer.state_hash) == plain[round]
            assert await trainer.evaluate() == final
        if start == 4:
            spoilt = bytearray(newest.read_bytes())
            spoilt[-1] ^= 1
            newest.write_bytes(spoilt)


@pytest.mark.asyncio
async def test_a_diverging_run_is_told_and_the_trainer_lives_on(tmp_path: Path) -> None:
    wild = recipe(rounds={"local_steps": 500}, inner={"optimizer": "sgd", "lr": 1e4, "clip_norm": 0.0})
    async with await TrainerProcess.start(spec_of(wild, tmp_path), resume=False) as trainer:
        before = trainer.state_hash
        first = await trainer.evaluate()
        for _ in range(2):
            with pytest.raises(Diverged, match="round 0") as caught:
                await trainer.train(0, [], ignore)
            assert "lr" in (caught.value.hint or "")
        assert trainer.state_hash == before
        assert await trainer.evaluate() == first
        # What a trainer cannot understand, it does not survive; it says so.
        trainer._link._send(b"garbage")
        assert (await trainer.exited).startswith("ended itself: not a message of ours")


@pytest.mark.asyncio
@pytest.mark.parametrize("phase", ["idle", "train"])
async def test_a_killed_trainer_is_told_in_words(tmp_path: Path, phase: str) -> None:
    fds = open_files(os.getpid())
    trainer = await TrainerProcess.start(spec_of(LONG, tmp_path), resume=False)
    waiting: list[asyncio.Future[Any]] = []
    if phase != "idle":
        task, _ = await first_progress(trainer, 0)
        waiting += [task, asyncio.ensure_future(trainer.evaluate()), asyncio.ensure_future(trainer.discard())]
        await asyncio.sleep(0)
    os.kill(trainer.pid, signal.SIGKILL)
    assert await trainer.exited == "was killed (signal 9): out of memory or by hand"
    for call in waiting:
        with pytest.raises(TrainerCrashed, match="the trainer was killed \\(signal 9\\)"):
            await call
    with pytest.raises(TrainerCrashed) as caught:
        await trainer.evaluate()
    assert caught.value.hint
    state = trainer.state  # outlives the crash: a new trainer can go on from it
    assert state.size == trainer.ready.state_bytes
    begun = time.monotonic()
    await trainer.stop()
    await trainer.stop()
    assert time.monotonic() - begun < 0.5
    with pytest.raises(TrainerStopped):
        await trainer.evaluate()
    with pytest.raises(TrainerStopped):
        _ = trainer.state
    assert open_files(os.getpid()) == fds
    assert trainer.pid not in children()


def call(trainer: TrainerProcess, command: str, pairs: list[tuple[SharedBuffer, int]]) -> asyncio.Future[Any]:
    """The command, under way."""
    arguments: dict[str, list[Any]] = {"apply": [pairs], "checkpoint": [{}]}
    running: asyncio.Future[Any] = asyncio.ensure_future(getattr(trainer, command)(*arguments.get(command, [])))
    return running


@pytest.mark.asyncio
async def test_a_kill_within_any_command_is_a_crash_and_no_more(tmp_path: Path) -> None:
    spec = spec_of(recipe(), tmp_path)
    for command in ("apply", "commit", "checkpoint"):
        async with await TrainerProcess.start(spec, resume=True) as trainer:
            round, digest = trainer.round, trainer.state_hash
            offer = await trainer.train(round, [ME, OTHER], ignore)
            with offer.buffer:
                pairs = [(offer.buffer, offer.weight)]
                if command != "apply":
                    candidate = await trainer.apply(pairs)
                if command == "checkpoint":
                    await trainer.commit()
                task = call(trainer, command, pairs)
                await asyncio.sleep(0)  # it is sent
                os.kill(trainer.pid, signal.SIGKILL)
                await trainer.exited
            try:
                await task
                done = True
            except TrainerCrashed:
                done = False
            if command in ("apply", "commit") and not done:
                assert (trainer.round, trainer.state_hash) == (round, digest)
            elif command != "apply":
                assert (trainer.round, trainer.state_hash) == (round + 1, candidate.state_hash)


@pytest.mark.asyncio
@pytest.mark.parametrize("stopped_by_signal", [False, True])
async def test_stop_ends_any_trainer_within_two_seconds(tmp_path: Path, stopped_by_signal: bool) -> None:
    fds = open_files(os.getpid())
    trainer = await TrainerProcess.start(spec_of(LONG, tmp_path), resume=False)
    task, _ = await first_progress(trainer, 0)
    if stopped_by_signal:
        os.kill(trainer.pid, signal.SIGSTOP)
    begun = time.monotonic()
    await trainer.stop()
    assert time.monotonic() - begun < 2.0
    with pytest.raises(TrainerStopped):
        await task
    assert not trainer.exited.done()
    assert open_files(os.getpid()) == fds
    assert trainer.pid not in children()


@pytest.mark.asyncio
async def test_a_start_that_fails_or_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    fds = open_files(os.getpid())
    for changes, words in (
        ({"recipe_toml": "name = 1"}, "the run's recipe"),
        ({"recipe_toml": "x" * 70_000}, "recipe_toml"),
        ({"device": "cuda:99"}, "device"),
        ({"run_id": b"short"}, "run_id"),
    ):
        with pytest.raises((ConfigError, TrainingError), match=words):
            await TrainerProcess.start(spec_of(recipe(), tmp_path, **changes), resume=False)
    alive = children()
    task = asyncio.ensure_future(TrainerProcess.start(spec_of(recipe(), tmp_path), resume=False))
    await asyncio.sleep(0)  # one turn: it is started, and not ready by far
    assert len(children() - alive) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == alive
    assert open_files(os.getpid()) == fds


PARENT = """
import asyncio, sys
from pathlib import Path
from ubcp_p2p.training.process import TrainerProcess, TrainerSpec
async def main():
    spec = TrainerSpec(Path(sys.argv[2]).read_text(), bytes(32), b"me", "cpu", 1, Path(sys.argv[1]), 2)
    trainer = await TrainerProcess.start(spec, resume=False)
    await trainer.train(0, [], lambda progress: print(trainer.pid, flush=True))
asyncio.run(main())
"""


def test_the_trainer_dies_with_its_parent(tmp_path: Path) -> None:
    toml = tmp_path / "long.toml"
    toml.write_text(LONG.to_toml())
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), str(toml)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())  # it trains
        assert psutil.pid_exists(pid)
        parent.kill()
        assert gone(pid)
    finally:
        parent.kill()
        parent.communicate()


def test_a_crash_quotes_its_last_words_on_uvloop_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with await TrainerProcess.start(spec_of(LONG, tmp_path), resume=False) as trainer:
            task, _ = await first_progress(trainer, 0)
            trainer.finish_early()
            (await task).buffer.close()
            task, _ = await first_progress(trainer, 0)
            os.kill(trainer.pid, signal.SIGSEGV)
            words = await trainer.exited
            assert words.startswith("was ended by signal 11 (Segmentation fault); it last said: Fatal Python error")
            assert "worker.py" in trainer.last_output
            with pytest.raises(TrainerCrashed, match="Segmentation fault"):
                await task

    uvloop.run(main())


def test_the_daemon_side_imports_no_torch() -> None:
    code = "import sys, ubcp_p2p.training.process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.asyncio
async def test_fifty_rounds_leave_memory_and_descriptors_flat(tmp_path: Path) -> None:
    async with await TrainerProcess.start(spec_of(recipe(), tmp_path), resume=False) as trainer:
        ours, theirs = psutil.Process(), psutil.Process(trainer.pid)

        async def rounds(count: int) -> tuple[tuple[int, ...], tuple[int, int]]:
            for _ in range(count):
                await one_round(trainer, extra_offers=3)
                await trainer.checkpoint({"certificate": "ab"})
            await trainer.evaluate()
            counts = (open_files(ours.pid), open_files(theirs.pid), memfd_maps(ours.pid), memfd_maps(theirs.pid))
            return counts, (ours.memory_info().rss, theirs.memory_info().rss)

        counts, sizes = await rounds(10)
        counts_after, sizes_after = await rounds(50)
        assert counts_after == counts
        assert counts[3] == 1  # the state alone
        for before, after in zip(sizes, sizes_after, strict=True):
            assert after - before < 2 * 2**20
