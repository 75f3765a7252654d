"""A real trainer process from start to end: starts that fail, deaths, stops, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from tests.support.processes import ended
from tests.support.trainer import LONG, ME, OTHER, children, first_progress, ignore, open_files, recipe, spec_of
from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.errors import ConfigError, TrainingError
from ubcp_p2p.training.errors import TrainerCrashed, TrainerStopped
from ubcp_p2p.training.process import TrainerProcess

pytestmark = pytest.mark.slow


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


@pytest.mark.full
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
        assert ended(pid, 10.0)
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
