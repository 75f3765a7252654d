"""Who pays for a round is in its certificate: a peer names one, and votes for nobody who names two."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tests.unit.swarm.made import KEYS, card, digest, group
from tests.unit.swarm.test_catch_up import Swarm, certified, state
from ubcp_p2p.errors import RoundFailed
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.swarm import standing
from ubcp_p2p.swarm.payers import NAMES_S, PLACES_KEPT, Payers, nobody, two_faced
from ubcp_p2p.swarm.quorum import NOBODY, Card, Certificate, Group, vote_digest

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
    payers.note(named({A.public: X, B.public: X}), 0.0)
    assert payers.contradicted(named({A.public: X, B.public: X, C.public: Y}), 1.0) == ()
    assert payers.contradicted(named({A.public: Y, B.public: X}), 1.0) == (A.public,)
    assert payers.contradicted(named({A.public: Y, B.public: Y}), 1.0) == tuple(sorted((A.public, B.public)))
    for other in (named({A.public: Y}, round_=4), named({A.public: Y}, base=digest("another state"))):
        assert payers.contradicted(other, 1.0) == ()


def test_what_nobody_pays_contradicts_nothing_and_hides_nothing() -> None:
    payers = Payers()
    for payer in (NOBODY, X, NOBODY):
        assert payers.contradicted(named({A.public: payer}), 0.0) == ()
        payers.note(named({A.public: payer}), 0.0)
    assert payers.contradicted(named({A.public: Y}), 0.0) == (A.public,)


def test_only_what_was_voted_for_counts() -> None:
    payers = Payers()
    payers.contradicted(named({A.public: X}), 0.0)
    assert payers.contradicted(named({A.public: Y}), 0.0) == ()


def test_a_name_is_forgotten_after_a_while_and_so_many_rounds() -> None:
    payers = Payers()
    payers.note(named({A.public: X}), 0.0)
    assert payers.contradicted(named({A.public: Y}), NAMES_S) == (A.public,)
    assert payers.contradicted(named({A.public: Y}), NAMES_S + 1.0) == ()
    payers.note(named({A.public: X}), 0.0)
    for round_ in range(4, 4 + PLACES_KEPT):
        payers.note(named({A.public: X}, round_=round_), 0.0)
    assert payers.contradicted(named({A.public: Y}), 0.0) == ()


def test_the_first_name_stays_for_the_round_and_no_longer() -> None:
    payers, here, there = Payers(), (3, digest("base")), (4, digest("next"))
    assert [payers.mine(here, name) for name in (NOBODY, X, Y, NOBODY)] == [NOBODY, X, X, X]
    assert [payers.mine(there, name) for name in (Y, X)] == [Y, Y]
    for round_ in range(PLACES_KEPT):
        payers.mine((round_ + 10, digest("later")), X)
    assert payers.mine(here, Y) == Y


def made(payers: dict[bytes, bytes], *signers: bytes, base: bytes = digest("base")) -> Certificate:
    return Certificate(named(payers, base=base), digest("state"), tuple((peer, b"") for peer in sorted(signers)))


def test_who_signs_two_payers_of_one_round_is_found_and_nobody_else() -> None:
    a, b, c = (key.public for key in (A, B, C))
    one = made({a: X, b: X, c: X}, a, b)
    assert two_faced(one, made({a: Y, b: X, c: X}, a, c)) == {a}
    assert two_faced(one, made({a: X, b: X, c: Y}, a, b)) == set()  # c was made up by others, and they may have erred
    assert two_faced(one, made({a: Y, b: X, c: X}, c)) == set()
    for other in (one, made({a: NOBODY, b: X}, a, b), made({a: X, b: X}, a, b)):  # tried again, without a third
        assert two_faced(one, other) == set()
    assert two_faced(one, made({a: Y, b: X, c: X}, a, c, base=digest("another"))) == set()


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
            await self.member._attempt(offer, [B.public], 0)
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


def signed(payer: bytes, *signers: NodeKey) -> Certificate:
    """Round 2 of A, B and C by a leader that shows its members two cards: C names this payer."""
    base = certified(3, [A, B, C]).group.base_hash
    group = named({A.public: X, B.public: X, C.public: payer}, round_=2, base=base)
    vote = vote_digest(group.digest, state(3)[1])
    return Certificate(group, state(3)[1], tuple(sorted((k.public, k.sign("vote", vote)) for k in signers)))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "BEAT_S", 0.01)
    monkeypatch.setattr(standing, "COMPARE_S", 0.2)


@pytest.mark.asyncio
async def test_two_certificates_of_one_state_are_found_by_those_who_stand_on_them() -> None:
    swarm = Swarm(3, signed(X, A, C))
    await swarm.peer(B, 3, signed(Y, B, C))
    await swarm.peer(C, 3, signed(X, A, C))
    await swarm.member.compare(signed(X, A, C))
    assert swarm.member.view.struck(time.monotonic()) == {C.public}
    assert swarm.kinds == ["two payers"]
    assert not await swarm.catch_up()


@pytest.mark.asyncio
async def test_who_is_a_little_later_is_asked_again() -> None:
    swarm = Swarm(3, signed(X, A, C))
    await swarm.peer(B, 2, certified(2, [A, B, C]))
    comparing = asyncio.create_task(swarm.member.compare(signed(X, A, C)))
    await asyncio.sleep(0)
    await swarm.peer(B, 3, signed(Y, B, C))
    await swarm.peer(C, 3, signed(X, A, C))
    await comparing
    assert swarm.member.view.struck(time.monotonic()) == {C.public}
    await swarm.catch_up()


@pytest.mark.asyncio
@pytest.mark.parametrize("theirs", [signed(X, B, C), signed(NOBODY, A, B), signed(Y, A)], ids=["same", "none", "junk"])
async def test_nobody_is_struck_for_a_vote_that_came_late(theirs: Certificate) -> None:
    swarm = Swarm(3, signed(X, A, C))
    await swarm.peer(B, 3, theirs)
    await swarm.member.compare(signed(X, A, C))
    assert swarm.member.view.struck(time.monotonic()) == set()
    await swarm.catch_up()


@pytest.mark.asyncio
async def test_whose_vote_was_kept_for_a_secret_certificate_knows_it_by_the_one_that_stands() -> None:
    """B has voted for C's other name, got no majority, and takes over what A and C have made."""
    swarm = Swarm(2, certified(2, [A, B, C]))
    for who in (B, C):
        await swarm.peer(who, 3, signed(X, B, C))
    hidden = signed(Y, A).group
    swarm.member._payers.note(hidden, time.monotonic())
    assert await swarm.catch_up()
    assert swarm.member.view.struck(time.monotonic()) == {C.public}


@pytest.mark.asyncio
async def test_nobody_is_struck_for_a_name_that_others_have_signed() -> None:
    """B has voted for one name of C's; A and B certify another, which C has not signed."""
    swarm = Swarm(2, certified(2, [A, B, C]))
    for who in (A, B):
        await swarm.peer(who, 3, signed(X, A, B))
    swarm.member._payers.note(signed(Y, A).group, time.monotonic())
    assert await swarm.catch_up()
    assert swarm.member.view.struck(time.monotonic()) == set()
