"""The trainer's sandbox against a trainer that a stranger has taken over; for an honest one it changes nothing.

Each crime succeeds where the owner has switched the sandbox off: what refuses it is the sandbox and nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.support.processes import ended
from tests.support.trainer import LONG, ME, children, first_progress, ignore, one_round, recipe, spec_of
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models.recipe import load_recipe
from ubcp_p2p.training import process
from ubcp_p2p.training.errors import OutOfMemory, TrainerCrashed
from ubcp_p2p.training.process import TrainerProcess, TrainerSpec
from ubcp_p2p.training.sandbox import seccomp
from ubcp_p2p.training.sandbox.values import Mode, SandboxSpec
from ubcp_p2p.training.spawn import spawn_worker

pytestmark = pytest.mark.slow
REFUSED = {"EACCES", "EPERM"}
MODES: tuple[Mode, ...] = ("auto", "off")
Order = tuple[str, ...]


@pytest.fixture
def taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers run the intruder's program."""
    monkeypatch.setattr(process, "spawn_worker", partial(spawn_worker, program="tests.support.intruder"))


def confined(folder: Path, mode: Mode, memory_mb: int = 0) -> TrainerSpec:
    return spec_of(recipe(), folder, sandbox=SandboxSpec(mode, memory_mb))


async def outcomes(trainer: TrainerProcess, orders: Sequence[Order]) -> dict[Order, str]:
    return dict(zip(orders, json.loads(await trainer.sample(json.dumps(orders), 0, 0)), strict=True))


def statuses(pid: int) -> list[str]:
    """What the kernel says of each thread of a process."""
    return [thread.read_text() for thread in Path(f"/proc/{pid}/task").glob("*/status")]


async def train_once(spec: TrainerSpec) -> None:
    async with await TrainerProcess.start(spec, resume=False) as trainer:
        need(trainer, "limits")
        (await trainer.train(0, [ME], ignore)).buffer.close()


def need(trainer: TrainerProcess, layer: str) -> None:
    """Skip where this machine's kernel has no such layer."""
    (found,) = (made for made in trainer.ready.sandbox if made.name == layer)
    if not found.active:
        pytest.skip(f"no {layer} here: {found.words}")


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES)
async def test_files_of_the_node_are_out_of_reach(tmp_path: Path, mode: Mode, taken_over: None) -> None:
    profile, run = tmp_path / "profile", tmp_path / "profile" / "runs" / "r"
    run.mkdir(parents=True)
    for name in ("node.key", "ledger.sqlite3", "config.toml", "gone", "other"):
        (profile / name).write_bytes(b"secret")
    crimes: list[Order] = [
        ("read", str(profile / "node.key")),
        ("read", str(profile / "ledger.sqlite3")),
        ("list", str(profile)),
        ("list", str(Path.home())),
        ("read", f"/proc/{os.getpid()}/environ"),
        ("list", f"/proc/{os.getpid()}/fd"),
        ("read", f"/proc/self/root{profile}/node.key"),
        ("write", str(profile / "new")),
        ("write", str(profile / "runs" / "beside")),
        ("append", str(profile / "config.toml")),
        ("truncate", str(profile / "config.toml")),
        ("unlink", str(profile / "gone")),
        ("rename", str(profile / "other"), str(run / "taken")),
        ("link", str(profile / "node.key"), str(run / "linked")),
        ("mkdir", str(run / "folder")),
    ]
    async with await TrainerProcess.start(confined(run, mode), resume=False) as trainer:
        if mode == "auto":
            need(trainer, "files")
        found = await outcomes(trainer, crimes)
        if mode == "off":
            assert set(found.values()) == {"done"}
        else:
            assert set(found.values()) <= REFUSED | {"EXDEV"}  # the latter: a file may not change folders
            assert (profile / "config.toml").read_bytes() == b"secret"
        allowed: list[Order] = [
            ("write", str(run / "mine")),
            ("append", str(run / "mine")),
            ("unlink", str(run / "mine")),
            ("list", str(run)),
            ("read", json.__file__),
        ]
        assert set((await outcomes(trainer, allowed)).values()) == {"done"}


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES)
async def test_no_network_no_programs_no_hand_on_others(tmp_path: Path, mode: Mode, taken_over: None) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as control:
        control.bind(str(tmp_path / "s"))
        control.listen()
        daemon = str(os.getpid())
        crimes: list[Order] = [
            ("connect", str(server.getsockname()[1])),
            ("connect-unix", str(tmp_path / "s")),
            ("socketpair",),
            ("fork",),
            ("run",),
            ("signal", daemon),
            ("pidfd", daemon),
            ("limits-of", daemon),
            ("outlive",),
            ("chmod", str(mine)),
            ("chmod-new", str(mine)),
            ("utime", str(mine)),
        ]
        async with await TrainerProcess.start(confined(tmp_path / "run", mode), resume=False) as trainer:
            if mode == "auto":
                need(trainer, "calls")
            found = await outcomes(trainer, crimes)
            if mode == "off":
                assert set(found.values()) <= {"done", "ENOSYS"}  # the latter: a kernel that is older than one call
                assert found[crimes[0]] == found[crimes[4]] == "done"
            else:
                assert set(found.values()) == {"EPERM"}
            assert set((await outcomes(trainer, [("thread",), ("signal", str(trainer.pid))])).values()) == {"done"}


@pytest.mark.asyncio
async def test_every_thread_of_a_trainer_at_work_is_inside(tmp_path: Path) -> None:
    spec = spec_of(LONG, tmp_path, threads=2)
    async with await TrainerProcess.start(spec, resume=False) as trainer:
        need(trainer, "calls")
        task, _ = await first_progress(trainer, 0)
        seen = statuses(trainer.pid)
        assert len(seen) > 1
        assert all("\nSeccomp:\t2\n" in status and "\nNoNewPrivs:\t1\n" in status for status in seen)
        trainer.finish_early()
        (await task).buffer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES)
async def test_too_much_memory_is_refused_in_words_and_the_trainer_lives_on(
    tmp_path: Path, mode: Mode, taken_over: None
) -> None:
    async with await TrainerProcess.start(confined(tmp_path, mode, 1024), resume=False) as trainer:
        if mode == "auto":
            need(trainer, "limits")
        found = await outcomes(trainer, [("allocate", "1024")])
        assert list(found.values()) == ["done" if mode == "off" else "MemoryError"]
        (await trainer.train(0, [ME], ignore)).buffer.close()


@pytest.mark.asyncio
async def test_a_run_that_needs_more_than_the_limit_says_so(tmp_path: Path) -> None:
    base = load_recipe("shakespeare-nano")
    large = base.model_copy(update={"model": base.model.model_copy(update={"width": 1024, "layers": 8})})
    spec = spec_of(large, tmp_path, sandbox=SandboxSpec("auto", 512))
    alive = children()
    with pytest.raises(OutOfMemory, match="memory ran out") as caught:
        await train_once(spec)
    assert "training.memory_mb" in str(caught.value.hint)
    assert children() == alive


@pytest.mark.asyncio
async def test_confined_or_not_a_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    short = recipe(rounds={"local_steps": 20})
    hashes = []
    for mode in MODES:
        spec = spec_of(short, tmp_path / mode, sandbox=SandboxSpec(mode))
        async with await TrainerProcess.start(spec, resume=False) as trainer:
            if mode == "off":
                assert not any(layer.active for layer in trainer.ready.sandbox)
            else:
                for layer in trainer.ready.sandbox:
                    need(trainer, layer.name)
            await one_round(trainer)
            await one_round(trainer)
            await trainer.checkpoint({})
            hashes.append(trainer.state_hash)
    assert hashes[0] == hashes[1]
    confined_again = spec_of(short, tmp_path / "off")
    async with await TrainerProcess.start(confined_again, resume=True) as again:
        assert again.state_hash == hashes[0]


@pytest.mark.asyncio
async def test_the_passphrase_stays_with_the_daemon(
    tmp_path: Path, taken_over: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UBCP_PASSPHRASE", "open sesame")
    monkeypatch.setenv("UBCP_HARMLESS", "seen")
    async with await TrainerProcess.start(confined(tmp_path, "off"), resume=False) as trainer:
        found = await outcomes(trainer, [("environment", "UBCP_PASSPHRASE"), ("environment", "UBCP_HARMLESS")])
        assert list(found.values()) == ["unset", "seen"]


@pytest.mark.asyncio
async def test_a_trainer_that_hangs_is_ended_by_the_daemon(tmp_path: Path) -> None:
    async with await TrainerProcess.start(spec_of(LONG, tmp_path, silent_s=20.0), resume=False) as trainer:
        trainer._link._silent_s = 0.5  # the start, with torch's import, had to fit into the time
        task, _ = await first_progress(trainer, 0)
        os.kill(trainer.pid, signal.SIGSTOP)
        assert "said nothing for 0.5 s (training.silent_minutes) and was ended" in await trainer.exited
        with pytest.raises(TrainerCrashed, match="said nothing"):
            await task
        assert ended(trainer.pid, 10.0)


@pytest.mark.asyncio
async def test_required_refuses_to_train_without_a_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if seccomp.load() is None:
        pytest.skip("no libseccomp here: with it the test takes Landlock away")
    monkeypatch.setattr(process, "spawn_worker", partial(spawn_worker, program="tests.support.old_kernel"))
    with pytest.raises(ConfigError, match=r"lacks files: this kernel has no Landlock") as caught:
        await TrainerProcess.start(confined(tmp_path, "required"), resume=False)
    assert "Linux 5.13" in str(caught.value.hint)
    async with await TrainerProcess.start(confined(tmp_path, "auto"), resume=False) as trainer:
        assert {layer.name: layer.active for layer in trainer.ready.sandbox} == {
            "limits": True, "privileges": True, "files": False, "calls": True,
        }  # fmt: skip
        (await trainer.train(0, [ME], ignore)).buffer.close()
