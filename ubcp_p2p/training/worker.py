"""The trainer process: `python -m ubcp_p2p.training.worker FD PARENT_PID` serves the daemon's commands until FD closes.

One thread, one command at a time, in a sandbox (sandbox/). It dies with its parent, ignores Ctrl-C (the daemon
decides), and ends itself after any error that it does not understand: the daemon starts a fresh one from the last
checkpoint.
"""

from __future__ import annotations

import faulthandler
import gc
import math
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ubcp_p2p.errors import ConfigError, LocalIOError, TrainingError, UbcpError
from ubcp_p2p.processes import die_with_parent
from ubcp_p2p.training import channel
from ubcp_p2p.training.errors import Diverged, MalformedTrainerMessage, OutOfMemory, RoundFailed, StateMismatch
from ubcp_p2p.training.limits import NOTES_MAX, PERMILLE, WORDS_CHARS_MAX
from ubcp_p2p.training.messages import (
    Apply,
    Cancel,
    Check,
    Checkpoint,
    Command,
    Commit,
    Discard,
    Done,
    Evaluate,
    Evaluated,
    Failed,
    FailureKind,
    Finish,
    LayerMade,
    Load,
    Open,
    Pace,
    Progressed,
    ReadyMade,
    Reply,
    Sample,
    Sampled,
    Saved,
    Start,
    Task,
    Train,
    decode_command,
    decode_start,
    encode,
)
from ubcp_p2p.training.sandbox.enter import enter
from ubcp_p2p.training.sandbox.reach import unused_gpu
from ubcp_p2p.training.sandbox.values import SandboxSpec

if TYPE_CHECKING:
    from ubcp_p2p.training.inner import AfterStep
    from ubcp_p2p.training.session import Session

_NICENESS = 5  # the daemon answers the network while the trainer computes
_REST_SECONDS_MAX = 60.0  # after one step: a machine that slept in between took hours for it
_REST_SECONDS_MIN = 0.01  # a sleep is a millisecond or more too long
_PROGRESS_SECONDS_MIN = 0.2  # between two progress messages; a person reads no faster

_NO_ROOM = "failed to map segment"  # the loader's words where a library needs more memory than is left

_KINDS: tuple[tuple[type[UbcpError], FailureKind], ...] = (  # the most special first
    (StateMismatch, "mismatch"),
    (RoundFailed, "round"),
    (Diverged, "diverged"),
    (OutOfMemory, "memory"),
    (TrainingError, "training"),
    (ConfigError, "config"),
    (LocalIOError, "local-io"),
)


class _Cancelled(Exception):
    """Nobody waits for the present command."""


class _ParentGone(Exception):
    """The daemon closed the channel, or died."""


def main(arguments: list[str]) -> int:
    """Serve until the daemon closes the channel; 0 then, 1 after an error that ends the trainer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    die_with_parent(int(arguments[1]))()
    os.nice(_NICENESS)
    # cuBLAS is deterministic only with a fixed workspace, and reads this when torch loads it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    gc.disable()  # while torch is imported: what is made then stays, and looking through it takes a tenth of the time
    with socket.socket(fileno=int(arguments[0])) as end:
        seq = 0
        try:
            start = _receive_start(end)
            seq = start.seq
            layers = _confine(start)
            session = _open(start)
            gc.freeze()
            gc.enable()
            channel.send(end, encode(_ready(start, session.ready, layers)), [session.state.fd])
            seq = 0
            _Server(end, session).serve()
        except (_ParentGone, BrokenPipeError, ConnectionResetError):
            return 0
        except BaseException as error:
            if not isinstance(error, UbcpError):
                traceback.print_exc()
            _send(end, _failed(seq, error))
    return 1


def _receive_start(end: socket.socket) -> Start:
    got = channel.receive(end)
    if got is None:
        raise _ParentGone
    data, fds = got
    channel.close_all(fds)
    return decode_start(data)


def _confine(start: Start) -> tuple[LayerMade, ...]:
    """Enter the sandbox: before torch has threads, and before the recipe and any data are read."""
    spec = SandboxSpec(start.sandbox, start.memory_mb, tuple(Path(os.fsdecode(folder)) for folder in start.read_dirs))
    layers = enter(spec, Path(os.fsdecode(start.checkpoint_dir)), start.device)
    return tuple(LayerMade(name=made.name, active=made.active, words=made.words, remedy=made.remedy) for made in layers)


def _ready(start: Start, ready: ReadyMade, layers: tuple[LayerMade, ...]) -> ReadyMade:
    """The session's word that it is ready, with what it does not know: where it is."""
    note = unused_gpu(start.device, ready.device) if start.sandbox != "off" else None
    notes = ready.notes if note is None else (note, *ready.notes[: NOTES_MAX - 1])
    return ready.model_copy(update={"sandbox": layers, "notes": notes})


def _open(start: Start) -> Session:
    try:
        from ubcp_p2p.training.session import Session  # torch takes a second or more: only now, where a failure is told
    except ImportError as error:
        if _NO_ROOM in str(error):
            raise _out_of_memory(error) from error
        raise ConfigError(
            f"a package that training needs is missing or broken: {error}",
            hint="install the extra: pip install 'ubcp-p2p[peer]'",
        ) from error
    return Session(start)


class _Server:
    """Reads commands, answers each."""

    def __init__(self, end: socket.socket, session: Session) -> None:
        self._end, self._session = end, session
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)
        self._told_at = 0.0
        self._permille = PERMILLE  # of the device's speed

    def serve(self) -> None:
        """Answer commands. Raises _ParentGone, or what is no ordinary failure of a command."""
        from ubcp_p2p.training.inner import release_memory

        while True:
            command, fds = self._receive()
            if isinstance(command, Finish | Cancel):
                channel.close_all(fds)
                continue  # for a command that was answered meanwhile
            if isinstance(command, Pace):
                channel.close_all(fds)
                self._permille = command.permille
                continue
            if self._attempt(command, fds) == "memory":
                # now that the error is gone, and with it the frames that hold tensors
                gc.collect()
                release_memory()

    def _attempt(self, command: Task, fds: list[int]) -> FailureKind | None:
        """Answer one command, with its failure if it fails; the kind of that failure."""
        try:
            self._answer(command, fds)
            return None
        except _Cancelled:
            failed = Failed(seq=command.seq, kind="cancelled", message="cancelled", hint=None)
        except Exception as error:
            failed = _failed(command.seq, error)
            if failed.kind == "internal":
                raise
        _send(self._end, failed)
        return failed.kind

    def _receive(self) -> tuple[Command, list[int]]:
        got = channel.receive(self._end)
        if got is None:
            raise _ParentGone
        data, fds = got
        try:
            return decode_command(data), fds
        except BaseException:
            channel.close_all(fds)
            raise

    def _answer(self, command: Task, fds: list[int]) -> None:
        session = self._session
        if fds and not isinstance(command, Apply | Load | Check):
            channel.close_all(fds)
            raise MalformedTrainerMessage(f"a {command.type} command takes no descriptors")
        match command:
            case Train(seq=seq, round=round, members=members):
                reply, offer = session.train(seq, round, members, self._watcher(seq, round))
                with offer:
                    self._reply(reply, offer.fd)
            case Apply(seq=seq, weights=weights):
                candidate, buffer = session.apply(seq, fds, weights)
                self._reply(candidate, buffer.fd)
            case Load(seq=seq, round=round, expected_hash=expected_hash):
                if len(fds) != 1:
                    channel.close_all(fds)
                    raise MalformedTrainerMessage(f"a load command takes one descriptor, not {len(fds)}")
                loaded, buffer = session.load(seq, fds[0], round, expected_hash)
                self._reply(loaded, buffer.fd)
            case Commit(seq=seq):
                session.commit()
                self._reply(Done(seq=seq))
            case Discard(seq=seq):
                session.discard()
                self._reply(Done(seq=seq))
            case Open():
                opened, buffer = session.open(command)
                with buffer:
                    self._reply(opened, buffer.fd)
            case Check():
                if len(fds) != 1:
                    channel.close_all(fds)
                    raise MalformedTrainerMessage(f"a check command takes one descriptor, not {len(fds)}")
                self._reply(session.check(command, fds[0]))
            case Evaluate(seq=seq):
                found = session.evaluate()
                self._reply(
                    Evaluated(seq=seq, loss=found.loss, accuracy=found.accuracy, stderr=found.stderr, n=found.n)
                )
            case Sample(seq=seq):
                text = session.sample(command.prompt, command.length, command.seed, command.temperature)
                self._reply(Sampled(seq=seq, text=text))
            case Checkpoint(seq=seq, extra=extra):
                self._reply(Saved(seq=seq, path=os.fsencode(session.checkpoint(extra))))

    def _reply(self, message: Reply, fd: int | None = None) -> None:
        channel.send(self._end, encode(message), [] if fd is None else [fd])

    def _watcher(self, seq: int, round: int) -> AfterStep:
        """What to do after each local step: hear the daemon, rest for its share, tell it where we are."""
        began_s = time.monotonic()
        owed_s = 0.0  # of rest; carried on, since a step may take less time than the shortest sleep

        def hear() -> bool:
            """Take one message; whether to go on."""
            nonlocal owed_s
            command, fds = self._receive()
            channel.close_all(fds)
            if isinstance(command, Pace):
                self._permille, owed_s = command.permille, 0.0
            elif isinstance(command, Cancel) and command.seq == seq:
                raise _Cancelled
            elif not isinstance(command, Finish | Cancel):
                raise MalformedTrainerMessage(f"a {command.type} command came while another was under way")
            return not (isinstance(command, Finish) and command.seq == seq)

        def rest(mean_loss: Callable[[], float]) -> bool:
            """Do nothing for so long that the steps took this peer's share of the time; whether to go on."""
            nonlocal owed_s
            if self._permille < PERMILLE:
                mean_loss()  # waits for a GPU's queue: its time counts, not the time in which it was filled
            took_s = time.monotonic() - began_s
            owed_s += min(took_s * (PERMILLE - self._permille) / self._permille, _REST_SECONDS_MAX)
            while True:
                wait_s = owed_s if owed_s >= _REST_SECONDS_MIN else 0.0
                asleep_s = time.monotonic()
                heard = self._poll.poll(math.ceil(wait_s * 1000))
                if wait_s:  # a process that was stopped in its sleep gets no credit for that
                    owed_s = max(owed_s - (time.monotonic() - asleep_s), -_REST_SECONDS_MIN)
                if not heard:
                    return True
                if not hear():
                    return False

        def tell(step: int, steps: int, mean_loss: Callable[[], float]) -> None:
            self._told_at = time.monotonic()
            progress = Progressed(seq=seq, round=round, step=step, steps=steps, loss=mean_loss())
            try:
                channel.send(self._end, encode(progress), flags=socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass  # the daemon is behind: the next one tells it more

        def after_step(step: int, steps: int, mean_loss: Callable[[], float]) -> bool:
            nonlocal began_s
            if time.monotonic() - self._told_at >= _PROGRESS_SECONDS_MIN or step == steps:
                tell(step, steps, mean_loss)
            go_on = rest(mean_loss)
            if not go_on:
                tell(step, steps, mean_loss)
            began_s = time.monotonic()
            return go_on

        return after_step


def _failed(seq: int, error: BaseException) -> Failed:
    """The error as a message; kind "internal" for one that means a mistake of ours or a broken device."""
    if not isinstance(error, UbcpError) and _is_out_of_memory(error):
        error = _out_of_memory(error)
    kind: FailureKind = "internal"
    hint = None
    if isinstance(error, UbcpError):
        message, hint = error.message, error.hint
        if not isinstance(error, MalformedTrainerMessage):
            kind = next((kind for class_, kind in _KINDS if isinstance(error, class_)), "internal")
    elif isinstance(error, OSError):
        kind, message = "local-io", f"the system refused: {error.strerror or error}"
        hint = "look at this machine's limits on memory and open files"
    else:
        message = f"{type(error).__name__}: {_first_line(error)}"
    if hint is not None:
        hint = hint[:WORDS_CHARS_MAX]
    return Failed(seq=seq, kind=kind, message=_clean(message), hint=hint)


def _out_of_memory(error: BaseException) -> OutOfMemory:
    return OutOfMemory(
        f"memory ran out: {_first_line(error)}",
        hint="train a smaller model or batch, close other programs, or let it have more (training.memory_mb); the "
        "run's state is unharmed",
    )


def _is_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from ubcp_p2p.training.inner import is_out_of_memory

    return is_out_of_memory(error)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _clean(text: str) -> str:
    """Text that any message can hold."""
    return text.encode("utf-8", "replace").decode()[:WORDS_CHARS_MAX]


def _send(end: socket.socket, message: Failed) -> None:
    """Tell the daemon of a failure; where the channel itself is the failure, stderr has told it."""
    try:
        channel.send(end, encode(message))
    except OSError:
        pass


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # taking torch down module by module would cost a second, and there is nothing left to save
