"""Addresses that a light node can dial, and what it says to the others."""

from __future__ import annotations

import pytest

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.keys import NodeKey, peer_id_of, to_base58
from ubcp_p2p.light.address import parse_node_address

PUBLIC = NodeKey(bytes([7]) * 32).public
PEER = to_base58(peer_id_of(PUBLIC))


@pytest.mark.parametrize(
    ("start", "kind", "host"),
    [
        ("/ip4/203.0.113.5", "ip4", "203.0.113.5"),
        ("/ip6/2001:db8::1", "ip6", "2001:db8::1"),
        ("/dns4/node.example", "dns4", "node.example"),
        ("/dns/node.example", "dns", "node.example"),
    ],
)
def test_tcp_by_number_or_name(start: str, kind: str, host: str) -> None:
    address = parse_node_address(f"{start}/tcp/4001/p2p/{PEER}")
    assert (address.kind, address.host, address.port, address.public) == (kind, host, 4001, PUBLIC)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("127.0.0.1:4001", "does not start with '/'"),
        ("/ip4/127.0.0.1/tcp/4001", "does not say which node it is"),
        (f"/ip4/127.0.0.1/udp/4001/quic-v1/p2p/{PEER}", "not one over plain TCP"),
        (f"/ip4/127.0.0.1/tcp/4001/ws/p2p/{PEER}", "not one over plain TCP"),
        (f"/dnsaddr/node.example/tcp/4001/p2p/{PEER}", "not one over plain TCP"),
        (f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}/p2p-circuit/p2p/{PEER}", "not one over plain TCP"),
        ("/ip4/127.0.0.1/tcp/4001/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "Ed25519"),
        ("/ip4/127.0.0.1/tcp/99999/p2p/" + PEER, "a port is a number"),
    ],
)
def test_others_are_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_node_address(text)
    assert said in caught.value.message
    assert caught.value.hint
