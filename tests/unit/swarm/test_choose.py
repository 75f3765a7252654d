"""Cases of `choose`, each a small story; what holds for any case is in tests/property/test_quorum_choose.py."""

from __future__ import annotations

from collections.abc import Iterable

from tests.unit.swarm.made import digest, unsigned
from ubcp_p2p.swarm.quorum import Standing, choose

A, B, C, D, E = (digest(name) for name in "ABCDE")
LIAR, THROWAWAY = digest("liar"), digest("throwaway")
SEATS = 8


def state(round_: int, branch: str = "") -> bytes:
    return digest(f"state {round_}{branch}")


def at(
    round_: int, by: Iterable[bytes], branch: str = "", base: str | None = None, of: Iterable[bytes] = ()
) -> Standing:
    """Standing on the state at `round_`, reached by a round of `of` that `by` signed."""
    signers = list(by)
    before = state(round_ - 1, branch if base is None else base)
    return unsigned({*signers, *of}, signers, round_ - 1, before, state(round_, branch))


FRESH = Standing(state(0), None)


def goes(
    mine: Standing, others: dict[bytes, Standing], known: Iterable[bytes] = (), seats: int = SEATS
) -> bytes | None:
    chosen = choose(mine, others, me=A, known=set(known), seats=seats)
    return None if chosen is None else chosen.state_hash


def test_alone_i_stay() -> None:
    assert goes(at(3, [A]), {}) is None
    assert goes(FRESH, {}) is None


def test_who_missed_the_end_of_a_round_takes_it_from_one_member() -> None:
    assert goes(at(3, [A, B, C]), {B: at(4, [B, C], of=[A]), C: at(3, [A, B, C])}, known=[B, C]) == state(4)


def test_who_signed_a_round_takes_it_though_the_other_signers_are_gone() -> None:
    mine, others = at(3, [A, B, C]), {B: at(4, [A, D, E], of=[B]), C: at(3, [A, B, C])}
    assert goes(mine, others) == state(4)
    others[B] = at(4, [B, D, E], of=[A])  # the same, not signed by me
    assert goes(mine, others) is None


def test_one_peer_cannot_extend_the_state_of_two() -> None:
    others = {B: at(3, [A, B]), LIAR: at(4, [LIAR, THROWAWAY], branch="evil", base="")}
    assert goes(at(3, [A, B]), others, known=[B, LIAR]) is None


def test_nor_the_state_that_one_of_them_left_behind() -> None:
    """A is a round ahead of B; the liar builds on what B stands on, to count B as its own."""
    others = {B: at(3, [A, B]), C: at(3, [A, B]), LIAR: at(4, [LIAR], branch="evil", base="")}
    assert goes(at(4, [A, B, C]), others, known=[B, C, LIAR]) is None


def test_two_liars_cannot_carry_along_the_one_who_is_ahead() -> None:
    """A is a round ahead of all: those behind it count against what would be built on its state."""
    others = {peer: at(3, [A, B, C]) for peer in (B, C, D, E, LIAR)}
    others[THROWAWAY] = at(5, [LIAR, THROWAWAY], branch="evil", base="")
    assert goes(at(4, [A, B, C]), others, known=[B, C, D, E, LIAR]) is None


def test_another_round_number_on_the_state_of_the_majority_is_another_place() -> None:
    """The hash alone would let a liar answer for it: A would stand at round 50 of a run that is at 4."""
    forged = unsigned([LIAR], [LIAR], 49, state(9), state(4))
    for liar in (b"\0" * 32, b"\xff" * 32):  # first and last of the answers
        others = {B: at(4, [B, C], of=[A]), C: at(4, [B, C], of=[A]), liar: forged}
        chosen = choose(at(3, [A, B, C]), others, me=A, known={B, C}, seats=SEATS)
        assert chosen is not None
        assert chosen.round == 4


def test_the_certificate_with_most_live_signers_speaks_for_a_state() -> None:
    weak = unsigned([LIAR], [LIAR], 3, state(9), state(4))
    for liar in (b"\0" * 32, b"\xff" * 32):
        others = {B: at(4, [A, B, C]), C: at(4, [A, B, C]), liar: weak}
        chosen = choose(at(3, [A, B, C]), others, me=A, known={B, C}, seats=SEATS)
        assert chosen is not None
        assert len(chosen.signatures) == 3


def test_of_two_lone_companions_the_higher_round_wins() -> None:
    """A was stopped while B went on alone; they are two, so neither can outvote the other."""
    mine, theirs = at(3, [A, B]), at(9, [B], branch="lone")
    assert goes(mine, {B: theirs}, known=[B]) == state(9, "lone")
    assert choose(theirs, {A: mine}, me=B, known={A}, seats=SEATS) is None


def test_a_lone_stranger_overrides_nobody_with_any_round_or_second_key() -> None:
    stranger = at(49, [LIAR, THROWAWAY], branch="evil")
    assert goes(at(3, [A]), {LIAR: stranger}, known=[B]) is None
    assert goes(at(3, [B, C]), {LIAR: stranger}, known=[B, C]) is None  # I only downloaded it; its signers are gone


def test_the_larger_part_wins_whatever_its_round() -> None:
    others = {peer: at(5, [B, C, D], branch="theirs") for peer in (B, C, D)}
    assert goes(at(40, [A], branch="mine"), others) == state(5, "theirs")


def test_equal_parts_go_by_round_then_by_hash() -> None:
    def other(round_: int) -> dict[bytes, Standing]:
        return {C: at(round_, [C, D], "y"), D: at(round_, [C, D], "y"), B: at(5, [A, B], "x")}

    assert goes(at(5, [A, B], "x"), other(6), known=[B, C, D]) == state(6, "y")
    assert goes(at(5, [A, B], "x"), other(4), known=[B, C, D]) is None
    lower = state(5, "y") < state(5, "x")
    assert goes(at(5, [A, B], "x"), other(5), known=[B, C, D]) == (state(5, "y") if lower else None)


# -- beginnings --------------------------------------------------------------------------------------------------


def test_a_newcomer_takes_the_state_of_whoever_is_there() -> None:
    for round_ in (1, 2, 40):
        assert goes(FRESH, {B: at(round_, [B])}) == state(round_)


def test_before_the_first_round_one_certificate_does_not_outvote_those_who_wait() -> None:
    for forged in (at(1, [LIAR], "evil", base=""), at(40, [LIAR], "evil")):
        assert goes(FRESH, {B: FRESH, LIAR: forged}) is None
        assert goes(FRESH, {B: FRESH, C: FRESH, LIAR: forged}) is None


# -- my own past -------------------------------------------------------------------------------------------------


def test_those_behind_me_on_my_own_line_do_not_pull_me_back() -> None:
    others = {B: at(3, [A, B, C]), C: at(3, [A, B, C]), D: at(2, [A, B, C])}
    assert goes(at(4, [A, B, C]), others, known=[B, C, D]) is None


def test_a_replayed_certificate_of_my_grandparent_does_not_gain_my_parents_peers() -> None:
    # Two liars, one on an old state of ours, one on the state before it, so that its line has most peers.
    others = {peer: at(4, [A, B, C, D]) for peer in (B, C, D)}
    others |= {LIAR: at(3, [A, B, C, D]), THROWAWAY: at(2, [A, B, C, D]), E: at(4, [A, B, C, D])}
    assert goes(at(5, [A, B, C, D]), others, known=[B, C, D, E, LIAR]) is None


def test_a_liar_on_my_past_cannot_declare_the_majority_to_be_my_past_too() -> None:
    """A is alone on a branch; it must still come back to the majority, which is some rounds behind."""
    majority = {peer: at(3, [B, C, D], "theirs") for peer in (B, C, D)}
    liar = unsigned([LIAR], [LIAR], 3, state(3, "theirs"), state(4, "mine"))  # "before your 4 there was their 3"
    assert goes(at(5, [A], "mine"), majority | {LIAR: liar}, known=[B, C, D, LIAR]) == state(3, "theirs")


# -- more peers than seats ---------------------------------------------------------------------------------------


def test_a_full_group_speaks_for_those_who_had_no_seat() -> None:
    waiting = {digest(f"waiting {n}"): at(3, [A, B]) for n in range(9)}
    seated = {peer: at(4, [B, C]) for peer in (B, C)}
    assert goes(at(3, [A, B]), waiting | seated, seats=2) == state(4)
    assert goes(at(3, [A, B]), waiting | seated, seats=8) is None
