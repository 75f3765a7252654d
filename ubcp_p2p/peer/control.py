"""How `ubcp status`, `train` and the rest find the node of a profile, and ask it over its HTTP API."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ubcp_p2p.api.address import Address
from ubcp_p2p.api.client import ask, connect
from ubcp_p2p.api.problems import NodeRefused
from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.peer.profile import Profile, read_holder

__all__ = ["NodeRefused", "NotRunning", "address_of", "call", "stream"]

APPEAR_S = 1.0  # the API is there within 0.1 s of the lock (measured); a caller may come between the two


class NotRunning(ConfigError):
    """No node runs on this profile."""


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
    address, connection = _connect(profile, timeout_s)
    try:
        yield from ask(connection, address.token, verb, arguments)
    except TimeoutError:
        raise LocalIOError(f"the node did not answer within {timeout_s:.0f} s", hint="is it stopped?") from None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise LocalIOError(f"the connection to the node broke: {error!r}", hint="has it just ended?") from None


def address_of(profile: Profile) -> Address:
    """Where the API of the node of `profile` is. Raises as `call`."""
    address, connection = _connect(profile, None)
    connection.close()
    return address


def _connect(profile: Profile, timeout_s: float | None) -> tuple[Address, http.client.HTTPConnection]:
    deadline_s = time.monotonic() + APPEAR_S
    while True:
        holder = read_holder(profile)
        if holder is not None and holder.runtime_dir is not None:
            with suppress(OSError):
                address = Address.load(holder.runtime_dir)
                return address, connect(address, timeout_s)
        elif holder is None and time.monotonic() > deadline_s - APPEAR_S + 0.2:
            raise NotRunning(f"no node is running on {profile.root}", hint=f"ubcp up --profile {profile.root}")
        if time.monotonic() > deadline_s:
            raise LocalIOError(f"the node on {profile.root} does not answer", hint="it may be starting; try again")
        time.sleep(0.02)
