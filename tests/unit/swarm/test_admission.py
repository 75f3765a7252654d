"""Who is not let in: hears why, is not there for the others, and waits; a few liars keep nobody out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS, OFFER_BYTES, RUN, Wires, card, digest
from tests.unit.swarm.test_catch_up import Swarm, certified, state
from tests.unit.swarm.test_states import SIZE, STATE_HASH
from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.codec import MalformedMessage, Value
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.swarm import standing
from ubcp_p2p.swarm.admission import (
    OPEN,
    PAUSE_S,
    PAUSE_S_MAX,
    REFUSALS_MAX,
    WORDS_MAX,
    Admission,
    NotAdmitted,
    Refusals,
    refusal,
    unless_refused,
    words_of,
)
from ubcp_p2p.swarm.membership import Beat, Phase, View
from ubcp_p2p.swarm.quorum import WEIGHT_MAX, form_group
from ubcp_p2p.swarm.standing import LIED
from ubcp_p2p.swarm.states import States
from ubcp_p2p.training.outer import OuterRule, outer_step
from ubcp_p2p.training.state import FLOAT32_LE

A, B, C, D, E = KEYS[:5]
WHY = "the account is frozen"


def out(*keys: NodeKey) -> Callable[[bytes], str]:
    publics = {key.public for key in keys}
    return lambda peer: WHY if peer in publics else ""


# -- refusals --------------------------------------------------------------------------------------------------------


@given(st.text(max_size=2 * WORDS_MAX))
def test_words_arrive_bounded_and_safe_for_a_terminal(words: str) -> None:
    with pytest.raises(NotAdmitted) as refused:
        unless_refused(refusal(words))
    assert refused.value.message.isprintable()
    assert refused.value.message


@pytest.mark.parametrize("answer", [7, [], [7], [b"bytes"], ["two", "texts"], [b"hash", b"certificate"], None])
def test_only_words_are_a_refusal(answer: Value) -> None:
    assert unless_refused(answer) == answer
    with pytest.raises(MalformedMessage):
        words_of(answer)


def test_who_refuses_is_asked_again_after_a_pause_that_doubles() -> None:
    refusals, now_s, pauses = Refusals(), 100.0, []
    for _ in range(6):
        refusals.note(B.public, WHY, now_s)
        pause_s = PAUSE_S
        while not refusals.due([B.public], now_s + pause_s):
            pause_s *= 2.0
        assert not refusals.due([B.public], now_s + 0.99 * pause_s)
        pauses.append(pause_s)
        now_s += pause_s
    assert pauses == [PAUSE_S, 2.0, 4.0, PAUSE_S_MAX, PAUSE_S_MAX, PAUSE_S_MAX]
    refusals.lift(B.public)
    assert refusals.of([B.public]) == []


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_only_the_word_of_most_of_those_who_are_there_counts(there: set[int], refusing: set[int]) -> None:
    refusals = Refusals()
    for number in refusing:
        refusals.note(KEYS[number].public, WHY, 0.0)
    peers = [KEYS[number].public for number in there]
    assert refusals.by_most(peers) == (len(there & refusing) > len(there) - len(there & refusing))


def test_what_most_of_them_say_is_what_is_told() -> None:
    refusals = Refusals()
    for who, words in ((B, "b says so"), (C, WHY), (D, WHY)):
        refusals.note(who.public, words, 0.0)
    assert refusals.why([B.public, C.public, D.public, E.public]) == WHY
    assert refusals.why([B.public]) == "b says so"
    assert refusals.why([E.public]) == ""


def test_many_names_do_not_fill_the_memory() -> None:
    refusals = Refusals()
    names = [digest(f"name {number}") for number in range(REFUSALS_MAX + 10)]
    for name in names:
        refusals.note(name, WHY, 0.0)
    assert len(refusals.of(names)) <= REFUSALS_MAX


# -- groups and views ------------------------------------------------------------------------------------------------


@given(st.sets(st.sampled_from(range(12)), min_size=1), st.sets(st.sampled_from(range(12))))
def test_a_group_has_nobody_who_may_not_train(came: set[int], refused: set[int]) -> None:
    cards = [card(KEYS[number]).to_bytes() for number in came]
    only = Admission(trains=out(*(KEYS[number] for number in refused)))
    made, why = form_group(
        RUN, 3, digest("base"), cards, offer_bytes=OFFER_BYTES, weight_max=8, members_max=12, admission=only
    )
    assert set(made.peers) == {KEYS[number].public for number in came - refused}
    assert len(why) == len(came & refused)
    assert all(WHY in words for words in why)


def test_what_one_member_alone_has_seen_changes_no_group() -> None:
    """A ban at one member only, which anybody can bring about by sending it junk, would split the group in two."""
    cards = [card(key).to_bytes() for key in KEYS[:3]]
    banning = Admission(meets=out(C))
    groups = [
        form_group(RUN, 3, digest("base"), cards, offer_bytes=OFFER_BYTES, weight_max=8, admission=admission)
        for admission in (OPEN, banning)
    ]
    assert groups[0] == groups[1]
    assert banning.to_group(C.public) == banning.to_state(C.public) == WHY


@given(
    st.integers(0, WEIGHT_MAX), st.lists(st.integers(1, WEIGHT_MAX), min_size=1, max_size=7), st.integers(1, 64),
    st.integers(0, 2**63 - 1),
)  # fmt: skip
def test_who_claims_a_great_weight_moves_the_mean_no_more_than_an_honest_peer(
    claimed: int, others: list[int], weight_max: int, ceiling: int
) -> None:
    """Whatever it claims, its share of the mean is that of H full steps at most, and of its device class at most."""
    limit = Admission(weighs=lambda peer: ceiling if peer == A.public else 2**63 - 1)

    def share(claim: int) -> float:
        cards = [card(A, weight=claim), *(card(key, weight=w) for key, w in zip(KEYS[1:], others, strict=False))]
        made, _ = form_group(
            RUN, 3, digest("base"), [c.to_bytes() for c in cards], offer_bytes=OFFER_BYTES, weight_max=weight_max,
            admission=limit,
        )  # fmt: skip
        weights = {seat.peer: seat.weight for seat in made.members}
        assert weights[A.public] <= max(1, min(weight_max, ceiling))
        return weights[A.public] / sum(weights.values())

    assert share(claimed) <= share(weight_max)
    assert share(WEIGHT_MAX) <= share(min(weight_max, max(1, ceiling)))


@pytest.mark.parametrize("claimed", [1, 64, 10**9, WEIGHT_MAX])
def test_an_inflated_weight_moves_the_model_no_more_than_an_honest_one(claimed: int) -> None:
    rule = OuterRule("sgd", 1.0, 0.0)
    zeros, ones = np.zeros(4, dtype=FLOAT32_LE), np.ones(4, dtype=FLOAT32_LE)

    def moved(claim: int) -> float:
        cards = [card(KEYS[0], weight=claim), card(KEYS[1], weight=64), card(KEYS[2], weight=64)]
        made, _ = form_group(
            RUN, 3, digest("base"), [c.to_bytes() for c in cards], offer_bytes=OFFER_BYTES, weight_max=64
        )
        out = np.empty(4, dtype=FLOAT32_LE)
        offers = [(ones if seat.peer == A.public else zeros, seat.weight) for seat in made.members]
        assert outer_step(zeros, offers, rule, out) == ()
        return float(np.abs(out).max())

    assert moved(claimed) <= moved(64) == pytest.approx(1 / 3)


def test_who_is_out_is_not_there_whatever_it_says() -> None:
    inside: set[bytes] = {B.public}
    view = View(RUN, A.public, lambda peer: "" if peer in inside else WHY)
    here = Beat(RUN, 1, 3, Phase.READY, digest("base"), 0, 0)
    assert view.hear(B.public, here, 0.0, connected=True)
    assert not view.hear(C.public, here, 0.0, connected=True)
    assert view.alive(0.1, [B.public, C.public]) == [B.public]
    inside.clear()
    assert view.alive(0.2, [B.public]) == []
    assert view.companions(0.2, [B.public], 3, digest("base")) == []
    inside.update((B.public, C.public))
    assert view.hear(C.public, here, 0.3, connected=True)
    assert view.alive(0.4, [B.public, C.public]) == sorted([B.public, C.public])


# -- states ----------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def wires() -> AsyncIterator[Wires]:
    """A serves a state, lets C have it, and trains with B alone."""
    made = Wires()
    only = Admission(trains=out(C, D), reads=out(D), meets=out(E))
    server = States(made.node(A), RUN, SIZE, 50, 4, only)
    with SharedBuffer.create(SIZE) as buffer:
        server.publish(buffer, STATE_HASH, None)
        await server.open()
        yield made
        await server.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(("who", "reads", "trains"), [(B, True, True), (C, True, False), (D, False, False),
                                                      (E, False, False)])  # fmt: skip
async def test_each_gets_what_it_may_have_and_the_reason(wires: Wires, who: NodeKey, reads: bool, trains: bool) -> None:
    client = States(wires.node(who), RUN, SIZE, 50, 4)
    assert (A.public in await client.standings([A.public])) is reads
    if not reads:
        assert client.refusals.why([A.public]) == WHY
        with pytest.raises(NotAdmitted, match=WHY):
            await client.download(A.public, 0, STATE_HASH, stall_s=5.0, total_s=5.0)
    await client.ask_in([A.public])
    assert client.refusals.why([A.public]) == ("" if trains else WHY)


@pytest.mark.asyncio
async def test_who_is_refused_does_not_ask_again_at_once(wires: Wires) -> None:
    client = States(wires.node(D), RUN, SIZE, 50, 4)
    for _ in range(20):
        await client.standings([A.public])
    assert len(wires.node(D).opened) == 1
    assert client._mute[A.public][1] <= PAUSE_S_MAX


# -- who is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_who_is_refused_says_so_once_follows_and_is_let_in_again() -> None:
    swarm = Swarm(3, certified(3, [A, B, C]))
    swarm.member.round, swarm.member.base_hash = 3, state(3)[1]
    refusals = swarm.member._states.refusals
    for who in (B, C):
        await swarm.peer(who, 4, certified(4, [B, C]))
    swarm.member._network.publish = _nowhere  # type: ignore[method-assign]
    refusals.note(B.public, WHY, 0.0)
    assert not await swarm.member._is_shut_out()  # it is asked again, and B lets everybody in
    assert swarm.kinds == []
    refusals.note(B.public, WHY, 2.0**40)
    assert not await swarm.member._is_shut_out()  # one of two keeps nobody out
    refusals.lift(B.public)
    assert not await swarm.member._is_shut_out()
    assert swarm.kinds == ["refused", "let in"]
    assert swarm.events.pop(0).data == {"reason": WHY, "by": [B.public.hex()], "waits": False}
    swarm.events.clear()
    for who in (B, C):
        refusals.note(who.public, WHY, 2.0**40)
    assert await swarm.member._is_shut_out()
    assert await swarm.member._is_shut_out()
    assert (swarm.member.phase, swarm.member.refused) == (Phase.JOINING, WHY)
    assert swarm.member.round == 4  # it follows
    assert swarm.kinds == ["refused", "adopted"]
    assert swarm.events[0].data == {"reason": WHY, "by": sorted([B.public.hex(), C.public.hex()]), "waits": True}
    refusals.note(B.public, WHY, -(2.0**40))  # its pause is over
    assert not await swarm.member._is_shut_out()
    refusals.note(C.public, WHY, -(2.0**40))
    assert not await swarm.member._is_shut_out()
    assert (swarm.kinds[-1], swarm.member.refused) == ("let in", "")
    for keeper in swarm.served:
        keeper.state.close()


@pytest.mark.asyncio
async def test_who_is_out_by_its_own_word_follows_and_trains_nothing() -> None:
    """The asker's own node: alone it would make rounds that nobody has paid for."""
    swarm = Swarm(3, certified(3, [B, C]))
    swarm.member._network.publish = _nowhere  # type: ignore[method-assign]
    swarm.member.settings = replace(swarm.member.settings, admission=Admission(trains=out(A)))
    assert await swarm.member._is_shut_out()
    assert swarm.events[0].data == {"reason": WHY, "by": [], "waits": True}
    await swarm.peer(B, 4, certified(4, [B, C]))
    assert await swarm.member._is_shut_out()
    assert swarm.member.round == 4
    for keeper in swarm.served:
        keeper.state.close()


@pytest.mark.asyncio
async def test_who_was_shown_to_lie_is_out_from_one_round_on(monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = Swarm(3, certified(3, [A, B, C]))
    member = swarm.member
    member.settings = replace(member.settings, peers_min=2)  # as when its user changes his mind
    await swarm.peer(B, 3, certified(3, [A, B, C]))
    await swarm.peer(C, 3, certified(3, [A, B, C]))
    member.shun(C.public, 4, 3600.0)
    member.round = 3
    assert member.settings.admission.to_group(C.public) == ""
    assert member.peers() == sorted([B.public, C.public])
    member.round = 4
    assert member.settings.admission.to_group(C.public) == LIED
    assert member.settings.admission.to_state(C.public) == ""  # it may follow
    assert member.peers() == [B.public]
    member.shun(C.public, 4, 0.0)  # the hour is over
    assert member.peers() == sorted([B.public, C.public])
    monkeypatch.setattr(standing, "SHUN_S", 0.0)
    member.shun(C.public, 4, 3600.0)  # never for longer than that
    assert member.peers() == sorted([B.public, C.public])
    for keeper in swarm.served:
        keeper.state.close()


@pytest.mark.asyncio
async def test_who_was_seen_to_lie_by_one_alone_is_struck_there_and_in_all_groups() -> None:
    swarm = Swarm(3, certified(3, [A, B, C]))
    await swarm.peer(C, 3, certified(3, [A, B, C]))
    swarm.member.strike(C.public)
    assert swarm.member.view.struck(time.monotonic() + 3000.0) == {C.public}
    assert swarm.member.settings.admission.trains(C.public) == ""
    for keeper in swarm.served:
        keeper.state.close()


async def _nowhere(topic: str, payload: bytes) -> None:
    """A network without gossip."""
