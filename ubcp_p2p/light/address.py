"""Where a node is and who it must be, as `ubcp peers` prints it. Imports no network library."""

from __future__ import annotations

from typing import NamedTuple

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.keys import MalformedPeerId, from_base58, public_of
from ubcp_p2p.multiaddr import MalformedAddress, parse_address, peer_id_text


class NodeAddress(NamedTuple):
    """kind: ip4, ip6, or a way to look a name up (dns, dns4, dns6). public: the node's key, which the dial proves."""

    text: str
    kind: str
    host: str
    port: int
    peer_id: str
    public: bytes


def parse_node_address(text: str) -> NodeAddress:
    """`/ip4/…/tcp/…/p2p/12D3…`, or with a DNS name. Raises ConfigError for what a light node cannot dial."""
    try:
        parts = parse_address(text)
        peer_id = peer_id_text(parts)
        if peer_id is None:
            raise ConfigError(
                f"address {text!r} does not say which node it is",
                hint="it must end in /p2p/12D3KooW…: copy it from `ubcp peers`",
            )
        public = public_of(from_base58(peer_id))
    except (MalformedAddress, MalformedPeerId) as error:
        raise ConfigError(error.message, hint=error.hint or "copy it from `ubcp peers`") from None
    kinds = [protocol for protocol, _ in parts]
    if kinds not in ([kind, "tcp", "p2p"] for kind in ("ip4", "ip6", "dns", "dns4", "dns6")):
        raise ConfigError(
            f"address {text!r} is not one over plain TCP",
            hint="take one of the form /ip4/…/tcp/…/p2p/12D3KooW…; `ubcp peers` on the node prints it",
        )
    (kind, host), (_, port), _ = parts
    return NodeAddress(text, kind, host, int(port), peer_id, public)
