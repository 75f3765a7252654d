"""What a pull finds out about the other side's charters: between two stores, with everything but the network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.community import fresh_charters, second_charter
from ubcp_p2p.charter.values import CharterConflict, CharterError, SignedCharter
from ubcp_p2p.ledger.intake import Taken
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.world import World
from ubcp_p2p.swarm.books import Books, Puller

PEER = b"p" * 32


class Pair:
    """Two nodes of one community; `pull` is what the first takes from the second."""

    def __init__(self, folder: Path) -> None:
        self.world = World(1)
        self.mine, self.theirs = (
            Books(lambda path=folder / name: Store.create(path, fresh_charters(self.world)))  # type: ignore[misc]
            for name in ("mine", "theirs")
        )
        self.taken: list[Taken] = []

    def version(self, **changes: Any) -> bytes:
        return second_charter(self.world.charters, self.world, effective=9, **changes).to_bytes()

    async def pull(self) -> str | None:
        puller = Puller(self.mine, PEER, self.taken.append)
        question = await self.mine.run(puller.advance, None)
        while question is not None:
            answer = await self.theirs.run(self.theirs.answer, question)
            question = await self.mine.run(puller.advance, answer)
        return puller.versions


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    made = Pair(tmp_path)
    await made.mine.open()
    await made.theirs.open()
    yield made
    await made.mine.close()
    await made.theirs.close()


@pytest.mark.asyncio
async def test_the_same_versions(pair: Pair) -> None:
    assert await pair.pull() is None


@pytest.mark.asyncio
async def test_a_newer_version_is_taken(pair: Pair) -> None:
    assert await pair.theirs.run(pair.theirs.add_charter, pair.version()) is True
    assert await pair.pull() is None
    assert (await pair.mine.run(pair.mine.figures))["charters"] == 2
    assert await pair.mine.run(pair.mine.add_charter, pair.version()) is False


@pytest.mark.asyncio
async def test_a_peer_that_is_behind_is_told_of(pair: Pair) -> None:
    await pair.mine.run(pair.mine.add_charter, pair.version())
    assert await pair.pull() == "has 1 of the 2 versions of the charter so far, and judges by those"


@pytest.mark.asyncio
async def test_a_conflict_is_told_of(pair: Pair) -> None:
    await pair.mine.run(pair.mine.add_charter, pair.version())
    await pair.theirs.run(pair.theirs.add_charter, pair.version(grace_slices=1))
    words = await pair.pull()
    assert words is not None and words.startswith("has another version 2 of the charter")
    assert isinstance(pair.taken[0].conflict, CharterConflict)


@pytest.mark.asyncio
async def test_only_what_enough_have_signed_is_published(pair: Pair) -> None:
    signed = SignedCharter.from_bytes(pair.version())
    few = SignedCharter(signed.charter, signed.signatures[:1]).to_bytes()
    with pytest.raises(CharterError, match="1 steward signed the charter; 2 must"):
        await pair.mine.run(pair.mine.add_charter, few)
    with pytest.raises(CharterError, match="not a signed charter"):
        await pair.mine.run(pair.mine.add_charter, b"\xc1")
    assert (await pair.mine.run(pair.mine.figures))["charters"] == 1
