"""The control socket: how `ubcp status`, `train` and the rest talk to the running node.

One JSON object a line, both ways. A request is {"verb": …, …}; the answer is any number of {"event": {…}} lines and
then one {"ok": …} or {"error": {"message", "hint", "exit"}}. The socket lies in a directory that only this user may
enter.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from ubcp_p2p.errors import ConfigError, Exit, LocalIOError, UbcpError
from ubcp_p2p.peer.profile import Profile, read_holder

log = logging.getLogger(__name__)

SOCKET_NAME = "control.sock"
LINE_BYTES_MAX = 1 << 20  # a recipe has at most 64 KiB
APPEAR_S = 1.0  # the socket appears within 0.2 s of the lock (measured); a caller may come between the two

Emit = Callable[[dict[str, Any]], Awaitable[None]]
Verb = Callable[[dict[str, Any], Emit], Awaitable[Any]]


class NotRunning(ConfigError):
    """No node runs on this profile."""


class ControlServer:
    """Serves verbs on the socket in `directory`."""

    def __init__(self, directory: Path, verbs: dict[str, Verb]) -> None:
        self._path = directory / SOCKET_NAME
        self._verbs = verbs
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, path=str(self._path), limit=LINE_BYTES_MAX)

    async def stop(self) -> None:
        """Stop listening; calls in progress get 1 s to end (the one that asked for the stop is among them)."""
        if self._server is not None:
            self._server.close()
        if self._calls:
            await asyncio.wait(self._calls, timeout=1.0)
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.create_task(self._serve(reader, writer))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def emit(event: dict[str, Any]) -> None:
            await _write(writer, {"event": event})

        try:
            request = json.loads(await reader.readline())
            verb = self._verbs.get(str(request.get("verb")))
            if verb is None:
                raise ConfigError(
                    f"the node does not know the verb {request.get('verb')!r}", hint="is it an older ubcp?"
                )
            # A caller that hangs up (Ctrl-C in `ubcp train`) ends its call.
            work, hung_up = asyncio.ensure_future(verb(request, emit)), asyncio.ensure_future(reader.read(1))
            try:
                await asyncio.wait([work, hung_up], return_when=asyncio.FIRST_COMPLETED)
            finally:
                hung_up.cancel()
                if not work.done():
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
            if not work.cancelled():
                await _write(writer, {"ok": work.result()})
        except UbcpError as error:
            await _answer_error(writer, error)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            log.exception("a control request failed")
            await _answer_error(writer, UbcpError(f"the request was not understood: {error!r}"))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("a control request failed")
            await _answer_error(writer, UbcpError(f"a bug in the node: {error!r}", hint="its log has the traceback"))
        finally:
            writer.close()


async def _write(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


async def _answer_error(writer: asyncio.StreamWriter, error: UbcpError) -> None:
    document = {"message": error.message, "hint": error.hint, "exit": int(error.exit_code)}
    try:
        await _write(writer, {"error": document})
    except ConnectionError:
        pass


class NodeRefused(UbcpError):
    """The node's answer was an error; it carries the node's own words and exit code."""

    def __init__(self, message: str, hint: str | None, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = Exit(exit_code)


def call(profile: Profile, verb: str, *, timeout_s: float | None = 30.0, **arguments: Any) -> Any:
    """Ask the node of `profile` one thing. Raises NotRunning, NodeRefused or LocalIOError."""
    for message in stream(profile, verb, timeout_s=timeout_s, **arguments):
        if "ok" in message:
            return message["ok"]
    raise LocalIOError("the node hung up without an answer", hint="look at its log: log/ubcp.log in the profile")


def stream(
    profile: Profile, verb: str, *, timeout_s: float | None = None, **arguments: Any
) -> Iterator[dict[str, Any]]:
    """Ask the node of `profile`, yielding each {"event": …} and last the {"ok": …}. Raises as `call`."""
    with _connect(profile) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    message = json.loads(line)
                    if "error" in message:
                        error = message["error"]
                        raise NodeRefused(error["message"], error["hint"], error["exit"])
                    yield message
        except TimeoutError:
            raise LocalIOError(f"the node did not answer within {timeout_s:.0f} s", hint="is it stopped?") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LocalIOError(f"the connection to the node broke: {error!r}", hint="has it just ended?") from None


def _connect(profile: Profile) -> socket.socket:
    deadline_s = time.monotonic() + APPEAR_S
    while True:
        holder = read_holder(profile)
        if holder is not None and holder.runtime_dir is not None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(str(holder.runtime_dir / SOCKET_NAME))
                return connection
            except OSError:
                connection.close()
        elif holder is None and time.monotonic() > deadline_s - APPEAR_S + 0.2:
            raise NotRunning(f"no node is running on {profile.root}", hint=f"ubcp up --profile {profile.root}")
        if time.monotonic() > deadline_s:
            raise LocalIOError(f"the node on {profile.root} does not answer", hint="it may be starting; try again")
        time.sleep(0.02)
