"""A real trainer process at work: rounds, refusals, cancels, memory and disk faults, resume."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import pytest_asyncio

from tests.support.trainer import (
    LONG,
    ME,
    OTHER,
    copy_of,
    first_progress,
    ignore,
    memfd_maps,
    one_round,
    open_files,
    recipe,
    spec_of,
)
from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.errors import ConfigError, LocalIOError, TrainingError
from ubcp_p2p.models.recipe import run_id
from ubcp_p2p.training.errors import Diverged, OutOfMemory, RoundFailed, StateMismatch
from ubcp_p2p.training.outer import OuterRule, outer_step
from ubcp_p2p.training.process import Offer, Progress, TrainerProcess
from ubcp_p2p.training.state import offer_hash, state_hash, vector

pytestmark = pytest.mark.slow

MODULE = pytest.mark.asyncio(loop_scope="module")
RULE = OuterRule("nesterov", 0.7, 0.6)


async def warm_up(trainer: TrainerProcess) -> None:
    """The first backward pass opens files for good where there is a GPU's driver, also on the CPU."""
    task, _ = await first_progress(trainer, 0)
    trainer.finish_early()
    (await task).buffer.close()
    await trainer.evaluate()  # after this the trainer has let go of the offer too


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TrainerProcess]:
    """One trainer of digits-tiny for the tests that leave it usable."""
    folder = tmp_path_factory.mktemp("shared")
    async with await TrainerProcess.start(spec_of(recipe(), folder), resume=False) as trainer:
        await warm_up(trainer)
        yield trainer


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def long(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TrainerProcess]:
    """One trainer whose rounds do not end by themselves."""
    async with await TrainerProcess.start(spec_of(LONG, tmp_path_factory.mktemp("long")), resume=False) as trainer:
        await warm_up(trainer)
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
    async def two_steps() -> tuple[int, bytes]:
        """The first steps of the round: how many depends on the machine, so only equal counts are compared."""
        task, _ = await first_progress(long, 0)
        long.finish_early()
        long.finish_early()  # harmless
        offer = await task
        with offer.buffer:
            return offer.weight, offer.digest

    fds = open_files(os.getpid()), open_files(long.pid)
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
async def test_a_smaller_share_gives_the_same_offer_later(shared: TrainerProcess) -> None:
    digests = []
    for permille in (1000, 200, 1000):
        shared.pace(permille)
        with (await shared.train(shared.round, [ME], ignore)).buffer as offer:
            digests.append(offer_hash(offer.view))
    assert len(set(digests)) == 1


@pytest.mark.full
@MODULE
async def test_a_trainer_that_rests_hears_the_daemon(long: TrainerProcess) -> None:
    long.pace(1)  # a step, then up to a minute of rest
    task, _ = await first_progress(long, 0)
    long.finish_early()
    with (await task).buffer as offer:
        assert offer.size == long.ready.offer_bytes
    task, _ = await first_progress(long, 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    task, first = await first_progress(long, 0)
    long.pace(1000)  # also in the middle of a rest
    long.finish_early()
    offered = await task
    offered.buffer.close()
    assert offered.weight >= 16 * first.step


@MODULE
async def test_a_cancel_at_any_moment_keeps_both_sides_agreed(shared: TrainerProcess) -> None:
    """Cancel after each number of turns of the loop: the reply may be in flight, or just in."""
    run = run_id("test", recipe().hash())
    await shared.discard()
    await one_round(shared)  # what an earlier case has left open is closed by now
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
    limits = resource.prlimit(shared.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(shared.pid, resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(LocalIOError, match="cannot write the checkpoint") as caught:
            await shared.checkpoint({"certificate": "ab"})
    finally:
        resource.prlimit(shared.pid, resource.RLIMIT_FSIZE, limits)
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
