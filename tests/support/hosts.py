"""Hosts of their own for nodes: network namespaces on one bridge, whose cables can be pulled. Needs root."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True)
class Host:
    """A namespace. address: its IPv4 address on the bridge. prefix: runs a command in it (and becomes it)."""

    name: str
    address: str
    prefix: tuple[str, ...]


class Lan:
    """`with Lan(4) as lan:` four hosts that reach each other, and nothing else. Raises NoNamespaces."""

    def __init__(self, count: int) -> None:
        mark = secrets.token_hex(3)
        self._ip = shutil.which("ip") or ""
        self._switch = f"uf{mark}s"  # a namespace too: the machine's own addresses and firewall are left alone
        self.hosts = [
            Host(f"uf{mark}h{n}", f"10.219.0.{n + 1}", (self._ip, "netns", "exec", f"uf{mark}h{n}"))
            for n in range(count)
        ]

    def __enter__(self) -> Lan:
        if os.geteuid() != 0 or not self._ip:
            raise NoNamespaces("network namespaces need root and the program ip")
        try:
            self._run("netns", "add", self._switch)
            self._run("-n", self._switch, "link", "add", "br0", "type", "bridge")
            self._run("-n", self._switch, "link", "set", "br0", "up")
            for number, host in enumerate(self.hosts):
                self._run("netns", "add", host.name)
                self._run("-n", host.name, "link", "set", "lo", "up")
                self._run(
                    "-n", host.name, "link", "add", "eth0", "type", "veth", "peer", "name", f"p{number}",
                    "netns", self._switch,
                )  # fmt: skip
                self._run("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
                self._run("-n", host.name, "link", "set", "eth0", "up")
                self._run("-n", self._switch, "link", "set", f"p{number}", "master", "br0", "up")
        except subprocess.CalledProcessError as error:
            self._clear()
            raise NoNamespaces(f"network namespaces are not allowed here: {error.stderr.decode().strip()}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def cut(self, number: int) -> None:
        """Pull the cable of host `number`: what is sent is lost, and nobody is told."""
        self._run("-n", self._switch, "link", "set", f"p{number}", "nomaster")

    def heal(self, number: int) -> None:
        self._run("-n", self._switch, "link", "set", f"p{number}", "master", "br0")

    def _clear(self) -> None:
        for name in (*(host.name for host in self.hosts), self._switch):
            subprocess.run([self._ip, "netns", "delete", name], capture_output=True, check=False)

    def _run(self, *arguments: str) -> None:
        subprocess.run([self._ip, *arguments], capture_output=True, check=True)


class NoNamespaces(Exception):
    """This machine does not allow them; the message says why."""
