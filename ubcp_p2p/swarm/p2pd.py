"""Starts, watches and ends one p2pd (the go-libp2p daemon that hivemind's wheel carries).

We start it with our own arguments instead of through hivemind: its start gives up after 15 s, cannot enable pubsub, and
leaves the process behind when the parent is killed. Here the kernel ends it with its parent (PDEATHSIG), a pidfd
reports its death, and its log lines become ours.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import signal
import subprocess
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from ubcp_p2p.errors import ConfigError, NetworkError
from ubcp_p2p.processes import die_with_parent

log = logging.getLogger(__name__)

STOP_S = 2.0  # p2pd ends on SIGTERM within 0.1 s when healthy (measured); after this it is killed
LINE_BYTES_MAX = 4096


@dataclass(frozen=True)
class P2pdSettings:
    """How this node's p2pd is started.

    `listen` and `announce` are multiaddrs; nat=False keeps every packet to our peers.
    """

    identity: Path
    listen: tuple[str, ...]
    announce: tuple[str, ...] = ()
    nat: bool = False
    server: bool = True  # a DHT server; peers that cannot be reached must be clients


def p2pd_path() -> Path:
    """The p2pd binary inside the installed hivemind. Raises ConfigError when the extra `peer` is missing."""
    spec = importlib.util.find_spec("hivemind")
    if spec is not None and spec.submodule_search_locations:
        path = Path(next(iter(spec.submodule_search_locations))) / "hivemind_cli" / "p2pd"
        if path.is_file():
            return path
    raise ConfigError("the p2pd program is not installed", hint="pip install 'ubcp-p2p[peer]'")


def arguments(settings: P2pdSettings, control: Path) -> list[str]:
    """p2pd's command line. Raises ConfigError like `p2pd_path`."""
    nat = int(settings.nat)
    return [
        str(p2pd_path()),
        f"-listen=/unix{control}",
        f"-id={settings.identity}",
        f"-hostAddrs={','.join(settings.listen)}",
        *([f"-announceAddrs={','.join(settings.announce)}"] if settings.announce else []),
        "-dhtServer=1" if settings.server else "-dhtClient=1",
        "-pubsub=1",
        "-pubsubSign=1",
        "-pubsubSignStrict=1",
        "-tls=1",
        "-connManager=1",
        f"-natPortMap={nat}",
        f"-autonat={nat}",
        f"-autoRelay={nat}",
        f"-relay={nat}",
        f"-relayService={nat}",
    ]


class P2pd:
    """One running p2pd process. `exited` resolves with its last words when it ends, asked or not."""

    def __init__(self, process: subprocess.Popen[bytes], control: Path) -> None:
        self.control = control
        self.pid = process.pid
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process = process
        self._words: deque[str] = deque(maxlen=6)
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)
        assert process.stdout is not None
        self._output = process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._partial = b""
        self._loop.add_reader(self._output, self._on_output)

    @classmethod
    def start(cls, settings: P2pdSettings, control: Path) -> P2pd:
        """Start p2pd with its control socket at `control`. Call from the main thread: PDEATHSIG follows the thread."""
        control.unlink(missing_ok=True)
        environment = {"GOLOG_LOG_LEVEL": "error", **os.environ, "GOLOG_LOG_FMT": "json"}
        try:
            process = subprocess.Popen(
                arguments(settings, control),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is for the daemon, which then ends p2pd in order
                preexec_fn=die_with_parent(os.getpid()),
            )
        except OSError as error:
            raise NetworkError(
                f"p2pd could not be started: {error}", hint="is this an x86-64 or arm64 Linux?"
            ) from None
        return cls(process, control)

    async def stop(self) -> None:
        """End it within STOP_S and reap it; safe to call twice."""
        if not self.exited.done():
            self._signal(signal.SIGTERM)
            _, late = await asyncio.wait([self.exited], timeout=STOP_S)
            if late:
                self._signal(signal.SIGKILL)
                await asyncio.wait([self.exited], timeout=STOP_S)
        self.control.unlink(missing_ok=True)

    def kill(self) -> None:
        """End it at once, for a p2pd that no longer answers."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._on_output()
        self._loop.remove_reader(self._output)
        code = self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        if not self.exited.done():
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            words = "; ".join(self._words)
            self.exited.set_result(f"p2pd {how}" + (f": {words}" if words else ""))

    def _on_output(self) -> None:
        try:
            data = os.read(self._output, 65536)
        except (BlockingIOError, OSError):
            return
        if not data:
            self._loop.remove_reader(self._output)
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-LINE_BYTES_MAX:]
        for line in lines:
            text = _words(line[:LINE_BYTES_MAX].decode(errors="replace").strip())
            if text:
                self._words.append(text)
                log.debug("p2pd: %s", text)


def _words(line: str) -> str:
    """The message of a go-log JSON line, or the line itself."""
    if not line.startswith("{"):
        return line
    try:
        record = json.loads(line)
    except ValueError:
        return line
    return f"{record.get('msg', line)} {record.get('error', '')}".strip() if isinstance(record, dict) else line
