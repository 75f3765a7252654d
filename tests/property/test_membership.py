"""The view of the other peers: what heartbeats of any kind, order and timing can and cannot do to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS, OTHER_RUN, RUN, digest
from ubcp_p2p.codec import MalformedMessage, decode, encode
from ubcp_p2p.swarm.membership import (
    BEAT_BYTES_MAX,
    BEAT_S,
    FORGET_S,
    MEMBERS_SEEN_MAX,
    SILENCE_MAX_S,
    SILENCE_MIN_S,
    STRIKE_S_MAX,
    Beat,
    Phase,
    View,
)
from ubcp_p2p.swarm.quorum import ROUND_MAX

ME, A, B, C = (key.public for key in KEYS[:4])
HERE, THERE = digest("here"), digest("there")


def beat(sequence: int = 1, round_: int = 3, phase: Phase = Phase.READY, base: bytes = HERE) -> Beat:
    return Beat(RUN, sequence, round_, phase, base, 0, 100)


def view(*beats: tuple[bytes, Beat], at_s: float = 100.0) -> View:
    made = View(RUN, ME)
    for peer, heard in beats:
        assert made.hear(peer, heard, at_s, connected=False)
    return made


# -- heartbeats --------------------------------------------------------------------------------------------------


@given(
    st.integers(0, 2**48), st.integers(0, ROUND_MAX), st.sampled_from(Phase), st.integers(0, 2**48), st.integers(0, 99)
)
def test_a_beat_survives_its_bytes(sequence: int, round_: int, phase: Phase, step: int, train_ms: int) -> None:
    made = Beat(RUN, sequence, round_, phase, HERE, step, train_ms)
    assert Beat.from_bytes(made.to_bytes()) == made
    assert len(made.to_bytes()) <= BEAT_BYTES_MAX


@given(st.binary(max_size=300))
def test_bytes_that_are_no_beat_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Beat.from_bytes(data)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, b"short"), (1, 2**48 + 1), (2, ROUND_MAX + 1), (3, Phase.LEAVING + 1), (3, b"2"), (4, "x"), (5, 2**49),
     (6, 2**49)],
)  # fmt: skip
def test_a_beat_with_a_field_out_of_range_is_refused(place: int, value: int | bytes | str) -> None:
    fields = decode(beat().to_bytes(), bytes_max=BEAT_BYTES_MAX)
    assert isinstance(fields, list)
    fields[place] = value
    with pytest.raises(MalformedMessage):
        Beat.from_bytes(encode(fields))


def test_a_longer_message_than_any_beat_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedMessage, match="at most 256"):
        Beat.from_bytes(b"\0" * (BEAT_BYTES_MAX + 1))


@given(st.lists(st.integers(0, 20), min_size=1))
def test_only_newer_beats_are_heard(sequences: list[int]) -> None:
    made = View(RUN, ME)
    newest = -1
    for number, sequence in enumerate(sequences):
        assert made.hear(A, beat(sequence), float(number), connected=False) == (sequence > newest)
        newest = max(newest, sequence)
        assert made.members[A].beat.sequence == newest


def test_my_own_beats_and_those_of_other_runs_are_not_heard() -> None:
    made = View(RUN, ME)
    assert not made.hear(ME, beat(), 1.0, connected=True)
    assert not made.hear(A, replace(beat(), run_id=OTHER_RUN), 1.0, connected=True)
    assert made.members == {}


def crowded() -> View:
    """A view full of invented names, heard one after the other from 1.0 s on."""
    made = View(RUN, ME)
    for number in range(MEMBERS_SEEN_MAX):
        assert made.hear(digest(f"sybil {number}"), beat(), 1.0 + number / 1000.0, connected=False)
    return made


def test_the_view_is_bounded() -> None:
    made = crowded()
    assert not made.hear(A, beat(), 2.0, connected=False)
    made.drop_silent(2.0 + FORGET_S)
    assert made.hear(A, beat(), 70.0, connected=False)


def test_a_connected_peer_takes_the_place_of_the_name_heard_longest_ago() -> None:
    made = crowded()
    assert made.hear(digest("sybil 0"), beat(2), 2.0, connected=False)
    assert made.hear(A, beat(), 2.0, connected=True)
    assert made.members.keys() >= {A, digest("sybil 0")}
    assert digest("sybil 1") not in made.members
    assert len(made.members) == MEMBERS_SEEN_MAX


@given(st.lists(st.tuples(st.integers(0, 2 * MEMBERS_SEEN_MAX), st.booleans()), max_size=60), st.integers(0, 300))
def test_names_never_push_out_who_was_connected(heard: list[tuple[int, bool]], linked: int) -> None:
    made, now_s = crowded(), 2.0
    for number in range(min(linked, MEMBERS_SEEN_MAX)):
        made.hear(digest(f"sybil {number}"), beat(2), now_s, connected=True)
    met = {peer for peer, member in made.members.items() if member.was_connected}
    for number, connected in heard:
        now_s += 0.01
        peer, full = digest(f"sybil {number}"), len(met) == MEMBERS_SEEN_MAX
        newcomer = peer not in made.members
        taken = made.hear(peer, beat(int(now_s * 1000)), now_s, connected=connected)
        if newcomer:
            assert taken == (connected and not full)
        met |= {peer} if connected and taken else set()
        assert met <= made.members.keys()
        assert len(made.members) == MEMBERS_SEEN_MAX


def test_who_is_heard_while_connected_counts_as_gone_when_the_connection_breaks() -> None:
    made = View(RUN, ME)
    assert made.hear(A, beat(), 100.0, connected=True)
    assert made.alive(101.1, []) == []


# -- who is there ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.0, 60.0), min_size=1, max_size=50))
def test_the_silence_allowed_stays_within_its_bounds(gaps: list[float]) -> None:
    made, now_s = view((A, beat(0)), at_s=0.0), 0.0
    for number, gap_s in enumerate(gaps):
        now_s += gap_s
        made.hear(A, beat(number + 1), now_s, connected=False)
        assert SILENCE_MIN_S <= made.members[A].silence_allowed_s() <= SILENCE_MAX_S


def heard_every(gap_s: float, count: int = 60) -> tuple[View, float]:
    made, now_s = view((A, beat(0)), at_s=0.0), 0.0
    for number in range(count):
        now_s += gap_s * (0.5 if number % 2 else 1.5)
        made.hear(A, beat(number + 1), now_s, connected=False)
    return made, now_s


def test_an_irregular_peer_is_allowed_more_silence_than_a_regular_one() -> None:
    regular, steady = view((A, beat(0)), at_s=0.0), 0.0
    for number in range(60):
        steady += BEAT_S
        regular.hear(A, beat(number + 1), steady, connected=False)
    slow, _ = heard_every(2.0)
    assert regular.members[A].silence_allowed_s() == SILENCE_MIN_S
    assert slow.members[A].silence_allowed_s() > 3.0


def test_beats_at_a_change_of_phase_say_nothing_about_the_network() -> None:
    made, now_s = view((A, beat(0)), at_s=0.0), 0.0
    for number in range(60):
        now_s += 0.01
        made.hear(A, beat(number + 1), now_s, connected=False)
    assert made.members[A].gap_s == BEAT_S


def test_a_silent_peer_is_gone_after_what_it_is_allowed_and_forgotten_later() -> None:
    made = view((A, beat()))
    assert made.alive(100.0 + SILENCE_MIN_S, []) == [A]
    assert made.alive(100.1 + SILENCE_MIN_S, []) == []
    made.drop_silent(100.0 + FORGET_S)
    assert A in made.members
    made.drop_silent(100.1 + FORGET_S)
    assert A not in made.members


def test_one_whose_connection_broke_is_gone_after_two_beats() -> None:
    made = view((A, beat()))
    assert made.alive(100.0, [A]) == [A]
    assert made.alive(100.9, []) == [A]
    assert made.alive(101.1, []) == []
    assert made.alive(101.1, [A]) == [A]


def test_one_that_was_never_connected_directly_is_judged_by_its_beats_alone() -> None:
    made = view((A, beat()))
    assert made.alive(101.9, []) == [A]


def test_one_that_leaves_is_gone_at_once() -> None:
    assert view((A, beat(phase=Phase.LEAVING))).alive(100.0, [A]) == []


# -- with whom ---------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.sampled_from([A, B, C]),
        st.builds(beat, phase=st.sampled_from(Phase), round_=st.integers(2, 4), base=st.sampled_from([HERE, THERE])),
    )
)
def test_a_peer_is_a_companion_or_a_stranger_or_neither_but_never_both(beats: dict[bytes, Beat]) -> None:
    made = view(*beats.items())
    companions = set(made.companions(100.0, [], 3, HERE))
    strangers = set(made.strangers(100.0, [], 3, HERE))
    alive = set(made.alive(100.0, []))
    assert not companions & strangers
    assert companions | strangers <= alive
    for peer, heard in beats.items():
        here = (heard.round, heard.base_hash) == (3, HERE)
        working = heard.phase in (Phase.TRAINING, Phase.READY, Phase.ROUND)
        assert (peer in companions) == (here and working)
        assert (peer in strangers) == (not here and heard.phase not in (Phase.JOINING, Phase.LEAVING))


def test_one_that_is_behind_on_another_branch_is_a_stranger_too() -> None:
    """Else a fast peer on a branch of its own never hears that the majority is elsewhere."""
    assert view((A, beat(round_=1, base=THERE))).strangers(100.0, [], 3, HERE) == [A]


def test_those_who_are_about_to_commit_what_i_committed_are_coming() -> None:
    made = view((A, beat(round_=2, base=THERE)), (B, beat(round_=2, base=HERE)), (C, beat(round_=1, base=THERE)))
    assert made.coming(100.0, [], 3, THERE) == [A]


@given(st.floats(1.0, 50.0), st.integers(1, 30))
def test_a_struck_peer_is_no_companion_for_a_time_that_doubles(seconds: float, times: int) -> None:
    made = view((A, beat()))
    for number in range(times):
        before = made.members[A].struck_until_s
        made.strike(A, 100.0, seconds)
        assert made.members[A].struck_until_s >= before
        assert made.members[A].struck_until_s <= 100.0 + min(seconds * 2.0**number, STRIKE_S_MAX)
    until = made.members[A].struck_until_s
    made.members[A].heard_s = until
    assert A in made.struck(until - 0.001)
    assert made.companions(until, [], 3, HERE) == [A]
    assert made.struck(until) == set()


def test_each_round_made_together_takes_one_strike_back() -> None:
    made = view((A, beat()))
    for _ in range(3):
        made.strike(A, 100.0, 5.0)
    assert made.members[A].struck_until_s == 120.0
    for _ in range(5):
        made.forgive([A, B])
    made.strike(A, 200.0, 5.0)
    assert made.members[A].struck_until_s == 205.0


def test_a_struck_peer_is_not_waited_for() -> None:
    made = view((A, beat()), (B, beat(round_=2, base=THERE)))
    made.strike(A, 100.0, 5.0)
    made.strike(B, 100.0, 5.0)
    made.strike(C, 100.0, 5.0)  # unknown: nothing to strike
    assert made.companions(100.0, [], 3, HERE) == []
    assert made.coming(100.0, [], 3, THERE) == []
    assert made.alive(100.0, []) == sorted([A, B])
    assert made.struck(100.0) == {A, B}
