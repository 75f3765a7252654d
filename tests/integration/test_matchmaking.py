"""Matchmaking between real nodes: who is not let in hears the reason from whoever it asks, and the others go on."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.test_dht_records import three
from tests.unit.swarm.made import RUN, card, digest
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.swarm.admission import WORDS_MAX
from ubcp_p2p.swarm.matchmaking import Matchmaker, NoGroup
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.quorum import Card

pytestmark = pytest.mark.slow

WHY = "frozen \x1b[2J" + "x" * 2 * WORDS_MAX
FIND_S = 4.0


@pytest.mark.asyncio
async def test_a_refused_peer_hears_the_words_and_the_others_find_each_other() -> None:
    async with three() as (first, second, out):

        def refuses(peer: bytes) -> str:
            return WHY if peer == out.public else ""

        makers = [Matchmaker(first, RUN, refuses), Matchmaker(second, RUN, refuses), Matchmaker(out, RUN)]
        for maker in makers:
            await maker.open()
        makers[0].expect([second.public], banned=())
        makers[1].expect([first.public], banned=())
        makers[2].expect([first.public, second.public], banned=())

        async def find(maker: Matchmaker, network: Network, size: int) -> set[bytes]:
            key: NodeKey = network.key
            found = await maker.find(digest("key"), card(key).to_bytes(), size, FIND_S)
            return {Card.from_bytes(data).peer for data in found}

        searches = [find(makers[0], first, 2), find(makers[1], second, 2), find(makers[2], out, 3)]
        groups = await asyncio.gather(*searches, return_exceptions=True)
        assert groups[:2] == [{first.public, second.public}] * 2
        assert isinstance(groups[2], NoGroup)
        heard = makers[2].refusals
        assert heard.keys() <= {first.public, second.public}
        assert heard, "it asked whoever led"
        assert all(words.startswith("frozen \\x1b[2J") and words.isprintable() for words in heard.values())
        assert all(len(words) < WORDS_MAX + 10 for words in heard.values())
        assert makers[0].refusals == makers[1].refusals == {}
