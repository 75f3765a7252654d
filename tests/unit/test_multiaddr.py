"""Multiaddrs: what is split, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.multiaddr import MalformedAddress, parse_address, peer_id_text

PEER = "12D3KooWBW5SX6ERrnXbS3keZNcfpgRYoqCR9t9sH9RmnkqbxdcL"


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/tcp/0",
        "/ip6/2001:db8::1/udp/4001/quic-v1",
        f"/dns4/node.example.org/tcp/443/wss/p2p/{PEER}",
        f"/ip4/10.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
        f"/p2p/{PEER}",
    ],
)
def test_it_splits_into_what_was_joined(text: str) -> None:
    parts = parse_address(text)
    assert "/" + "/".join(word for pair in parts for word in pair if word) == text
    assert peer_id_text(parts) == (PEER if text.endswith(PEER) else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "//",
        "ip4/1.2.3.4",
        "/ip4",
        "/ip4/",
        "/ip4/1.2.3.4/",
        "/ip4/::1/tcp/1",
        "/ip6/1.2.3.4/tcp/1",
        "/ip4/1.2.3.4/tcp/x",
        "/ip4/1.2.3.4/tcp/65536",
        "/ip4/1.2.3.4/tcp/-1",
        "/ip4/1.2.3.4/tcp/\u0661",  # a digit, but not one of 0 to 9
        "/tcp/1",
        "/dns/-bad/tcp/1",
        "/dns/a b/tcp/1",
        "/dns/a\n/tcp/1",
        "/ip4/1.2.3.4/p2p/",
        "/ip4/1.2.3.4/p2p/\x1b[2J",
        "/ip4/1.2.3.4" + "/ws" * 300,
    ],
)
def test_malformed_addresses_are_refused(text: str) -> None:
    with pytest.raises(MalformedAddress):
        parse_address(text)


@given(st.text(alphabet="/ip46tcdnsp2 .:01a\n", max_size=60))
def test_any_text_is_split_or_refused(text: str) -> None:
    try:
        parts = parse_address(text)
    except MalformedAddress:
        return
    assert parts
    assert text.isprintable()
