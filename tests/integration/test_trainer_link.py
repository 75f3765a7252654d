"""The daemon's end of the channel against children that break every rule of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import pytest

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.errors import TrainingError
from ubcp_p2p.training import channel, messages
from ubcp_p2p.training.errors import TrainerCrashed, TrainerStopped
from ubcp_p2p.training.link import Link, describe_exit

CHILD = """
import array, json, os, socket, sys, time
end = socket.socket(fileno=int(sys.argv[1]))
def hear():
    return json.loads(end.recv(65536))
def say(data, *fds):
    data = json.dumps(data).encode() if isinstance(data, dict) else data
    end.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
def memory():
    fd = os.memfd_create("x")
    os.ftruncate(fd, 8)
    return fd
"""
DONE = '{"type": "done", "seq": hear()["seq"]}'


def start(code: str, silent_s: float = 0) -> Link:
    """A link to a child that runs `code`."""
    ours, theirs = channel.pair()
    output, output_theirs = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD + code, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdout=output_theirs,
        stderr=output_theirs,
    )
    theirs.close()
    os.close(output_theirs)
    return Link(process, os.pidfd_open(process.pid), ours, output, silent_s)


@pytest.mark.asyncio
async def test_a_child_that_owes_an_answer_and_is_silent_is_ended() -> None:
    link = start("hear(); time.sleep(600)", silent_s=0.1)
    with pytest.raises(TrainerCrashed, match=r"said nothing for 0\.1 s \(training\.silent_minutes\) and was ended"):
        await commit(link)
    await link.stop()


def alarm(link: Link) -> asyncio.TimerHandle | None:
    """What would end the child."""
    return link._alarm


@pytest.mark.asyncio
async def test_progress_begins_the_time_anew_and_an_answer_ends_it() -> None:
    code = """
seq = hear()["seq"]
say({"type": "progress", "seq": seq, "round": 0, "step": 1, "steps": 2, "loss": 1.0})
hear()
say({"type": "failed", "seq": seq, "kind": "training", "message": "enough", "hint": None})
hear()
"""
    link = start(code, silent_s=600.0)
    assert alarm(link) is None  # nobody has asked it anything
    told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked = asyncio.ensure_future(
        link.ask(
            messages.Train, {"round": 0, "members": ()}, messages.Offered, lambda reply, buffer: None,
            on_progress=lambda progress: told.set_result(None),
        )
    )  # fmt: skip
    await asyncio.sleep(0)  # it is sent
    first = alarm(link)
    await told
    second = alarm(link)
    assert first is not None and second is not None and first.cancelled() and not second.cancelled()
    link.finish()
    with pytest.raises(TrainingError, match="enough"):
        await asked
    assert second.cancelled() and alarm(link) is None
    await link.stop()


async def commit(link: Link) -> str:
    return await link.ask(messages.Commit, {}, messages.Done, lambda reply, buffer: reply.type)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('hear(); say(b"garbage")', "not a message of ours"),
        ('hear(); say(b"x" * 70_000)', "more than 65536 bytes"),
        ('say({"type": "done", "seq": hear()["seq"] + 1})', "nothing asked for"),
        ('say({"type": "saved", "seq": hear()["seq"], "path": "00"})', "a saved reply to a commit request"),
        (f"say({DONE}, memory())", "a done reply with 1 descriptors"),
        (f"say({DONE}, memory(), memory())", "a reply with 2 descriptors"),
        (f"r, w = os.pipe(); say({DONE}, r)", "cannot be mapped|with 1 descriptors"),
        ('say({"type": "loaded", "seq": hear()["seq"], "state_hash": "00" * 32})', "a loaded reply with 0 descriptors"),
        (
            'say({"type": "loaded", "seq": hear()["seq"], "state_hash": "00" * 32}, memory())',
            "a loaded reply to a commit request",
        ),
    ],
)
async def test_a_breach_of_the_protocol_ends_the_child(code: str, words: str) -> None:
    fds = len(os.listdir("/proc/self/fd"))
    link = start(code + "\ntime.sleep(60)")
    with pytest.raises(TrainerCrashed, match=words):
        await commit(link)
    assert "broke the protocol" in await link.exited
    await link.stop()
    assert len(os.listdir("/proc/self/fd")) == fds


@pytest.mark.asyncio
async def test_what_a_child_wrote_last_is_quoted_and_bounded() -> None:
    link = start(
        'hear(); print("noise " * 200_000, flush=True)\n'
        'print("\\x1b[31mno such device\\n\\n", file=sys.stderr); sys.exit(3)'
    )
    with pytest.raises(TrainerCrashed, match=r"ended unasked with exit code 3; it last said: .*no such device"):
        await commit(link)
    assert len(link.last_output) <= 4096
    assert "\x1b" not in await link.exited
    with pytest.raises(TrainerCrashed):
        await commit(link)


@pytest.mark.asyncio
async def test_its_own_reason_comes_before_ours() -> None:
    link = start(
        "hear()\n"
        'say({"type": "failed", "seq": 0, "kind": "internal", "message": "the device fell off", "hint": "look"})\n'
        "sys.exit(1)"
    )
    with pytest.raises(TrainerCrashed, match="the trainer ended itself: the device fell off") as caught:
        await commit(link)
    assert caught.value.hint == "look"


@pytest.mark.asyncio
async def test_a_reply_sent_just_before_the_end_counts() -> None:
    link = start(f"say({DONE})")
    assert await commit(link) == "done"
    assert "exit code 0" in await link.exited


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_child_that_hangs_up_but_lingers_is_killed() -> None:
    link = start("hear(); end.close(); time.sleep(60)")
    with pytest.raises(TrainerCrashed, match="closed its channel, but did not end"):
        await commit(link)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_stop_kills_a_child_that_does_not_listen() -> None:
    link = start(f"say({DONE}); time.sleep(60)")
    await commit(link)
    task = asyncio.ensure_future(commit(link))
    await asyncio.sleep(0)
    begun = time.monotonic()
    await link.stop()
    assert time.monotonic() - begun < 2.0
    with pytest.raises(TrainerStopped):
        await task
    with pytest.raises(TrainerStopped):
        await commit(link)
    assert not link.exited.done()


@pytest.mark.asyncio
async def test_an_abandoned_reply_is_freed_and_the_next_is_told_apart() -> None:
    fds = len(os.listdir("/proc/self/fd"))
    link = start(
        f"""
say({{"type": "loaded", "seq": hear()["seq"], "state_hash": "00" * 32}}, memory())
assert hear()["type"] == "cancel"
say({DONE})
"""
    )
    kept: list[SharedBuffer] = []
    freed: list[SharedBuffer] = []

    def accept(reply: messages.Loaded, buffer: SharedBuffer | None) -> SharedBuffer:
        assert buffer is not None
        kept.append(buffer)
        return buffer

    def drop(buffer: SharedBuffer) -> None:
        freed.append(buffer)
        buffer.close()

    fields = {"round": 0, "expected_hash": bytes(32)}
    task = asyncio.ensure_future(link.ask(messages.Load, fields, messages.Loaded, accept, drop=drop))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await commit(link) == "done"
    assert kept == freed
    assert len(kept) == 1
    await link.exited
    await link.stop()
    assert len(os.listdir("/proc/self/fd")) == fds


@pytest.mark.asyncio
async def test_a_request_over_its_limits_never_leaves() -> None:
    link = start(f"say({DONE})")
    with pytest.raises(TrainingError, match="members"):
        await link.ask(messages.Train, {"round": 0, "members": (b"x",) * 300}, messages.Offered, lambda r, b: None)
    assert await commit(link) == "done"
    await link.stop()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "was killed (signal 9): out of memory or by hand"),
        (-11, "was ended by signal 11 (Segmentation fault)"),
        (-7, "was ended by signal 7 (Bus error)"),
        (-99, "was ended by signal 99 (unknown)"),
        (1, "ended unasked with exit code 1"),
    ],
)
def test_ends_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words
