"""Who pays for a round is in its certificate: a peer names one, and votes for nobody who names two."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tests.unit.swarm.made import KEYS, card, digest, group
from tests.unit.swarm.test_catch_up import Swarm, certified, state
from ubcp_p2p.errors import RoundFailed
from ubcp_p2p.swarm.payers import Payers, nobody
from ubcp_p2p.swarm.quorum import NOBODY, Card, Group

A, B, C = KEYS[:3]
X, Y = digest("request X"), digest("request Y")


def named(payers: dict[bytes, bytes], *, round_: int = 3, base: bytes = digest("base")) -> Group:
    """A group whose members name these."""
    made = group(payers, round_=round_, base=base)
    return Group(made.run_id, round_, base, tuple(s._replace(payer=payers[s.peer]) for s in made.members))


def test_a_run_that_nobody_pays_for_names_nobody() -> None:
    assert nobody(7) == NOBODY == card(A).payer


def test_who_has_named_a_payer_names_no_other_for_that_round() -> None:
    payers = Payers()
    assert payers.contradicted(named({A.public: X, B.public: X})) == ()
    payers.note(named({A.public: X, B.public: X}))
    assert payers.contradicted(named({A.public: X, B.public: X, C.public: Y})) == ()
    assert payers.contradicted(named({A.public: Y, B.public: X})) == (A.public,)
    assert payers.contradicted(named({A.public: NOBODY, B.public: Y})) == tuple(sorted((A.public, B.public)))
    for other in (named({A.public: Y}, round_=4), named({A.public: Y}, base=digest("another state"))):
        assert payers.contradicted(other) == ()


def test_only_what_was_voted_for_counts() -> None:
    payers = Payers()
    payers.contradicted(named({A.public: X}))
    assert payers.contradicted(named({A.public: Y})) == ()


def test_the_first_name_stays_for_the_round_and_no_longer() -> None:
    payers, here, there = Payers(), (3, digest("base")), (4, digest("next"))
    assert [payers.first(here, A.public, name) for name in (X, Y)] == [X, X]
    assert [payers.first(there, A.public, name) for name in (Y, X)] == [Y, Y]


class Attempts:
    """A tries one round again and again, with B, whose cards it is told; no try gets a majority."""

    def __init__(self) -> None:
        self.swarm = Swarm(3, certified(3, [A, B, C]))
        self.member = member = self.swarm.member
        member.round, member.base_hash = 3, state(3)[1]
        self.mine: list[Card] = []
        self.voted = 0
        self.theirs = NOBODY
        trainer: Any = self.swarm.trainer
        trainer.ready = SimpleNamespace(offer_bytes=4096)
        trainer.apply = self._apply
        patched: Any = member
        patched._find_group, patched._enter = self._find_group, self._enter
        patched.exchange.gather = self._gather
        patched._polls.collect = self._collect

    async def _enter(self, phase: Any) -> None:
        pass

    async def _find_group(self, mine: bytes, companions: Any) -> list[bytes]:
        self.mine.append(Card.from_bytes(mine))
        return [mine, card(B, base=self.member.base_hash, payer=self.theirs).to_bytes()]

    async def _gather(self, group: Group, *args: Any, **options: Any) -> dict[bytes, Any]:
        return dict.fromkeys(group.peers)

    async def _apply(self, offers: Any) -> Any:
        return SimpleNamespace(state_hash=digest("next"), rejected=())

    async def _collect(self, *args: Any, **options: Any) -> Any:
        self.voted += 1
        raise RoundFailed("no majority for a result: B did not vote", (B.public,))

    async def attempt(self, theirs: bytes, mine: bytes) -> RoundFailed:
        self.theirs = theirs
        self.member.settings = replace(self.member.settings, payer=lambda round_: mine)
        offer: Any = SimpleNamespace(weight=8, digest=digest("offer"), trail=digest("trail"), buffer=None)
        with pytest.raises(RoundFailed) as failed:
            await self.member._attempt(offer, [B.public])
        return failed.value


@pytest_asyncio.fixture
async def attempts() -> Any:
    made = Attempts()
    yield made
    for keeper in made.swarm.served:
        keeper.state.close()


@pytest.mark.asyncio
async def test_a_peer_names_one_payer_however_often_a_round_is_tried(attempts: Attempts) -> None:
    for mine in (X, Y, NOBODY):
        await attempts.attempt(X, mine)
    assert [made.payer for made in attempts.mine] == [X, X, X]
    attempts.member.round, attempts.member.base_hash = 4, digest("next")
    await attempts.attempt(X, Y)
    assert attempts.mine[-1].payer == Y


@pytest.mark.asyncio
async def test_who_keeps_its_vote_back_and_names_another_payer_gets_no_second_vote(attempts: Attempts) -> None:
    """Else it has a certificate that nobody else knows of, and bills the round by that, and by the next one, too."""
    await attempts.attempt(X, X)
    assert attempts.voted == 1
    failed = await attempts.attempt(Y, X)
    assert (attempts.voted, failed.missing) == (1, (B.public,))
    assert "two payers are named" in failed.message
    await attempts.swarm.peer(B, 3, certified(3, [A, B, C]))
    await attempts.member._after_failure(failed, 1)
    assert attempts.member.view.struck(time.monotonic()) == {B.public}
    await attempts.attempt(X, X)  # by its first name, when it is back
    assert attempts.voted == 2
