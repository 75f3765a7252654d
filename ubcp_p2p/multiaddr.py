"""Multiaddrs as text (`/ip4/203.0.113.5/tcp/4001/p2p/12D3KooW…`): split and checked, without a network library.

Only what p2pd understands and we use: an IP or DNS name, TCP or UDP with QUIC or WebSocket, peer ids, relay circuits.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, TypeAlias

from ubcp_p2p.errors import UbcpError

ADDRESS_CHARS_MAX: Final = 512  # a relayed address with two peer ids and a long DNS name has under 400

Multiaddr: TypeAlias = "tuple[tuple[str, str], ...]"  # (protocol, value); value is "" for protocols without one

_HOSTS: Final = frozenset({"ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr"})
_WITH_VALUE: Final = _HOSTS | {"tcp", "udp", "p2p", "certhash", "ip6zone", "sni"}
_BARE: Final = frozenset({"quic", "quic-v1", "ws", "wss", "tls", "webtransport", "p2p-circuit"})
_DNS_NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
_WORD: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class MalformedAddress(UbcpError):
    """Text that is not a multiaddr we can use."""


def parse_address(text: str) -> Multiaddr:
    """Split a multiaddr into (protocol, value) pairs. Raises MalformedAddress, saying which part is wrong."""
    if len(text) > ADDRESS_CHARS_MAX:
        raise MalformedAddress(f"address of {len(text)} characters; at most {ADDRESS_CHARS_MAX} are allowed")
    if not text.startswith("/"):
        raise MalformedAddress(f"address {text!r} does not start with '/'", hint="write it as /ip4/127.0.0.1/tcp/4001")
    words = iter(text[1:].split("/"))
    parts: list[tuple[str, str]] = []
    for protocol in words:
        if protocol in _BARE:
            parts.append((protocol, ""))
        elif protocol in _WITH_VALUE:
            value = next(words, "")
            _check_value(protocol, value, text)
            parts.append((protocol, value))
        else:
            raise MalformedAddress(f"address {text!r}: unknown protocol {protocol!r}")
    if parts[0][0] not in _HOSTS | {"p2p", "ip6zone"}:
        raise MalformedAddress(f"address {text!r} must start with an IP address or a DNS name")
    return tuple(parts)


def peer_id_text(address: Multiaddr) -> str | None:
    """The base58 peer id that the address ends at, or None when it names no peer."""
    return address[-1][1] if address[-1][0] == "p2p" else None


def _check_value(protocol: str, value: str, text: str) -> None:
    try:
        if protocol == "ip4":
            ipaddress.IPv4Address(value)
        elif protocol == "ip6":
            ipaddress.IPv6Address(value)
        elif protocol in ("tcp", "udp"):
            if not re.fullmatch(r"[0-9]{1,5}", value) or int(value) > 65535:
                raise ValueError("a port is a number from 0 to 65535")
        elif protocol in _HOSTS:
            if not _DNS_NAME.fullmatch(value):
                raise ValueError("not a DNS name")
        elif not _WORD.fullmatch(value):
            raise ValueError("a value of letters and digits is missing")
    except ValueError as error:
        raise MalformedAddress(f"address {text!r}: bad value {value!r} after {protocol!r}: {error}") from None
