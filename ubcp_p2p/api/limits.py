"""What one caller may take of the node: bounds on each length, number and time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Those of a node; tests make some of them small."""

    body_bytes_max: int = 1 << 20  # a recipe has at most 64 KiB, 256 entries in hexadecimal half of this
    head_bytes_max: int = 16 << 10  # the request line and all headers
    connections_max: int = 64  # of each listener
    token_s: float = 3.0  # until a connection has shown the token
    followers_max: int = 32  # a connection each, for hours
    arrive_s: float = 10.0  # for a whole request, head and body; it comes from this machine
    idle_s: float = 30.0  # between two requests of one connection
    stall_s: float = 30.0  # for a reader that does not read
    heartbeat_s: float = 15.0  # proxies and readers take a silent connection for a dead one
    end_s: float = 1.0  # for calls in progress when the node stops; the one that asked for the stop is among them


LIMITS = Limits()
