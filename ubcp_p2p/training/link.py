"""A child process at the other end of a channel: asked one thing at a time, watched, and ended. Imports no torch.

For an asyncio or uvloop loop on Linux (pidfd, SOCK_SEQPACKET). Nothing here knows what the requests mean.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.errors import ConfigError, LocalIOError, TrainingError, UbcpError
from ubcp_p2p.training import channel, messages
from ubcp_p2p.training.errors import (
    Diverged,
    MalformedTrainerMessage,
    OutOfMemory,
    RoundFailed,
    StateMismatch,
    TrainerCrashed,
    TrainerStopped,
)

_OUTPUT_KEPT_BYTES = 4096  # of what the child wrote last, for the reason of a crash
_STOP_SECONDS = 1.0  # for a checkpoint under way to be finished; then it is killed
_KILL_SECONDS = 0.9  # for the kernel to take it down: `stop` answers within 2 s in all
_EXIT_SECONDS = 2.0  # between the child closing its channel and its end; more is a hang
_MESSAGES_A_TURN = 64  # then the loop does other things
_LAST_LINE_CHARS = 300

_ERRORS: Mapping[messages.FailureKind, type[UbcpError]] = {
    "training": TrainingError,
    "diverged": Diverged,
    "mismatch": StateMismatch,
    "round": RoundFailed,
    "memory": OutOfMemory,
    "local-io": LocalIOError,
    "config": ConfigError,
    "cancelled": TrainerStopped,  # nobody waits for this one
    "internal": TrainerCrashed,
}

_Request = TypeVar("_Request", bound=messages.Request)
_Reply = TypeVar("_Reply", bound=messages.Reply)
_Result = TypeVar("_Result")


@dataclass
class _Call:
    """A request that is not answered yet."""

    request: messages.Request
    on_reply: Callable[[messages.Reply, SharedBuffer | None], None]  # raises MalformedTrainerMessage
    on_error: Callable[[UbcpError], None]
    on_progress: Callable[[messages.Progressed], None] | None
    answered: asyncio.Future[None]  # also when nobody waits for the answer any more
    finishing: bool = False


class Link:
    """The parent's end. exited: resolves with words when the child ends unasked; not after `stop`."""

    def __init__(
        self, process: subprocess.Popen[bytes], pidfd: int, end: socket.socket, output: int, silent_s: float = 0
    ) -> None:
        """Takes over the four. silent_s: a child that owes an answer and says nothing so long is ended; 0: never."""
        self._loop = asyncio.get_running_loop()
        self._silent_s = silent_s
        self._alarm: asyncio.TimerHandle | None = None
        self._process, self._pidfd, self._end, self._output = process, pidfd, end, output
        self.pid = process.pid
        self.exited: asyncio.Future[str] = self._loop.create_future()
        self._reaped: asyncio.Future[None] = self._loop.create_future()
        self._call: _Call | None = None
        self._seq = 0
        self._stopping = False
        self._reason: str | None = None  # why we killed it, what it said before it ended, or how it ended
        self._hint: str | None = None
        self._tail = b""
        end.setblocking(False)
        os.set_blocking(output, False)
        self._loop.add_reader(end.fileno(), self._on_readable)
        self._loop.add_reader(output, self._on_output)
        self._loop.add_reader(pidfd, self._on_exit)

    @property
    def last_output(self) -> str:
        """The last 4 KiB of what the child wrote to its standard output and error."""
        return self._tail.decode("utf-8", "replace")

    async def ask(
        self,
        request_type: type[_Request],
        fields: Mapping[str, object],
        reply_type: type[_Reply],
        accept: Callable[[_Reply, SharedBuffer | None], _Result],
        *,
        fds: Sequence[int] = (),
        on_progress: Callable[[messages.Progressed], None] | None = None,
        before: Callable[[], None] = lambda: None,
        drop: Callable[[_Result], None] = lambda result: None,
    ) -> _Result:
        """Wait for the child to be free, send a request, and await the reply.

        `accept` takes over the reply's buffer, and runs also when the caller was cancelled meanwhile, so that both
        processes agree on what was done; `drop` frees a result that nobody takes. `before` runs as the request leaves.
        Raises what the child reports, TrainerCrashed, TrainerStopped, TrainingError for fields over their limits.
        """
        while self._call is not None:
            await asyncio.wait([self._call.answered])
        if self._stopping:
            raise TrainerStopped("the trainer was stopped")
        if self._reaped.done():
            raise self._crash()
        self._seq += 1
        request, data = _encoded(request_type, {"seq": self._seq, **fields})
        result: asyncio.Future[_Result] = self._loop.create_future()

        def on_reply(reply: messages.Reply, buffer: SharedBuffer | None) -> None:
            if not isinstance(reply, reply_type):
                raise MalformedTrainerMessage(f"a {reply.type} reply to a {request.type} request")
            value = accept(reply, buffer)
            if result.done():
                drop(value)
            else:
                result.set_result(value)

        def on_error(error: UbcpError) -> None:
            if not result.done():
                result.set_exception(error)

        before()
        call = self._call = _Call(request, on_reply, on_error, on_progress, self._loop.create_future())
        self._send(data, fds)
        self._watch()
        try:
            return await result
        except asyncio.CancelledError:
            if self._call is call:
                self._send(messages.encode(messages.Cancel(seq=request.seq)))
            elif not result.cancelled() and result.exception() is None:
                drop(result.result())  # it came in the very moment of the cancel
            raise

    def finish(self) -> None:
        """Ask the child to end the present call early, once; without a call, do nothing."""
        if self._call is not None and not self._call.finishing:
            self._call.finishing = True
            self._send(messages.encode(messages.Finish(seq=self._call.request.seq)))

    def tell(self, message: messages.Pace) -> None:
        """Send what has no reply; a child that is ending does not hear it."""
        self._send(messages.encode(message))

    async def stop(self, grace_s: float = _STOP_SECONDS) -> None:
        """End the child within 2 s: by a closed channel, and after `grace_s` by SIGKILL. Safe to call again."""
        self._stopping = True
        try:
            if not self._reaped.done():
                self._close_end()  # the child reads this as the order to end
                await asyncio.wait([self._reaped], timeout=grace_s)
        finally:
            if not self._reaped.done():
                self._process.kill()
        await asyncio.wait([self._reaped], timeout=_KILL_SECONDS)  # `_on_exit` reaps it, were it to take longer

    def _send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        if self._end.fileno() < 0:
            return  # it is ending: `_on_exit` answers the call
        try:
            channel.send(self._end, data, fds)
        except (BrokenPipeError, ConnectionResetError):
            pass  # likewise
        except OSError as error:
            self._break(f"did not take a message ({error.strerror or error})")

    # --- events

    def _on_readable(self) -> None:
        for _ in range(_MESSAGES_A_TURN):
            if not self._read_one():
                return

    def _read_one(self) -> bool:
        """Handle one message; False when there is none to read now, or ever."""
        if self._end.fileno() < 0:
            return False
        try:
            got = channel.receive(self._end)
            if got is not None:
                self._on_message(*got)
                return True
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True  # it died with a message of ours unread; the kernel says so once, before what it said last
        except (OSError, MalformedTrainerMessage) as error:
            self._break(f"broke the protocol: {error}")
            return False
        self._close_end()
        if self._process.returncode is None:
            self._loop.call_later(_EXIT_SECONDS, self._break, "closed its channel, but did not end")
        return False

    def _on_message(self, data: bytes, fds: list[int]) -> None:
        buffer = _map(fds)
        try:
            reply = messages.decode_reply(data)
            if isinstance(reply, messages.WithBuffer) != (buffer is not None):
                raise MalformedTrainerMessage(f"a {reply.type} reply with {len(fds)} descriptors")
            if isinstance(reply, messages.Failed) and reply.seq == 0:
                self._reason, self._hint = f"ended itself: {reply.message}", reply.hint
                return
            call = self._call
            if call is None or reply.seq != call.request.seq:
                raise MalformedTrainerMessage(f"a {reply.type} reply that nothing asked for")
            if isinstance(reply, messages.Progressed):
                self._watch()
                if call.on_progress is not None:
                    self._loop.call_soon(call.on_progress, reply)  # an error in there is the loop's to report
                return
            if isinstance(reply, messages.Failed):
                call.on_error(_ERRORS[reply.kind](reply.message, hint=reply.hint))
            else:
                call.on_reply(reply, buffer)
            self._call = None
            self._watch()
            call.answered.set_result(None)
        except BaseException:
            if buffer is not None:
                buffer.close()
            raise

    def _on_output(self) -> None:
        while self._output >= 0:
            try:
                data = os.read(self._output, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                self._close_output()
            self._tail = (self._tail + data)[-_OUTPUT_KEPT_BYTES:]

    def _on_exit(self) -> None:
        """The child is gone: hear what it said last, answer the call, say why."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        while self._read_one():
            pass
        self._on_output()
        self._close_end()
        self._close_output()
        self._reason = (self._reason or describe_exit(code)) + _last_words(self._tail)
        self._reaped.set_result(None)
        if self._call is not None:
            call, self._call = self._call, None
            self._watch()
            call.on_error(TrainerStopped("the trainer was stopped") if self._stopping else self._crash())
            call.answered.set_result(None)
        if not self._stopping:
            self.exited.set_result(self._reason)

    def _watch(self) -> None:
        """It has just said something, or been asked: the time that it may be silent begins anew, or nothing is owed."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._call is not None and self._silent_s:
            words = f"said nothing for {self._silent_s:g} s (training.silent_minutes) and was ended"
            self._alarm = self._loop.call_later(self._silent_s, self._break, words)

    def _break(self, reason: str) -> None:
        """Kill a child that cannot be trusted any more, unless it has ended."""
        self._close_end()  # nothing that it says counts any more
        if self._process.returncode is None and not self._stopping:
            self._reason = self._reason or reason
            self._process.kill()

    def _crash(self) -> TrainerCrashed:
        hint = self._hint or "start it again: it resumes from its last checkpoint, or from a peer's state"
        return TrainerCrashed(f"the trainer {self._reason}", hint=hint)

    def _close_end(self) -> None:
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end.fileno())
            self._end.close()

    def _close_output(self) -> None:
        if self._output >= 0:
            self._loop.remove_reader(self._output)
            os.close(self._output)
            self._output = -1


def describe_exit(code: int) -> str:
    """How a process with this return code ended, in words that follow "the trainer …"."""
    if code == -signal.SIGKILL:
        return "was killed (signal 9): out of memory or by hand"
    if code < 0:
        try:
            name = signal.strsignal(-code) or "unknown"
        except ValueError:
            name = "unknown"
        return f"was ended by signal {-code} ({name})"
    return f"ended unasked with exit code {code}"


def _last_words(output: bytes) -> str:
    """What a child's output tells of its end, as a suffix: the interpreter's fatal error, or else the last line."""
    lines = output.decode("utf-8", "replace").splitlines()
    lines = ["".join(c if c.isprintable() else " " for c in line).strip() for line in lines]
    told = [line for line in lines if line.startswith("Fatal Python error")] or [line for line in lines if line]
    return f"; it last said: {told[-1][:_LAST_LINE_CHARS]}" if told else ""


def _encoded(request_type: type[_Request], fields: Mapping[str, object]) -> tuple[_Request, bytes]:
    try:
        request: _Request = request_type.model_validate(fields)  # type: ignore[assignment]  # its own class
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise TrainingError(f"cannot ask the trainer this: {where}: {fault['msg']}") from None
    return request, messages.encode(request)


def _map(fds: list[int]) -> SharedBuffer | None:
    """The buffer that came with a message, if any. Closes all descriptors and raises when there is more than one."""
    if not fds:
        return None
    if len(fds) > 1:
        channel.close_all(fds)
        raise MalformedTrainerMessage(f"a reply with {len(fds)} descriptors")
    try:
        return SharedBuffer.adopt(fds[0])
    except (OSError, ValueError) as error:
        raise MalformedTrainerMessage(f"a descriptor that cannot be mapped: {error}") from None
