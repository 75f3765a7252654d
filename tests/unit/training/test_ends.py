"""The end of a stretch in drawn pieces: what the trail commits to passes, everything else is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trails import made_up, values
from ubcp_p2p.codec import MalformedMessage, Value
from ubcp_p2p.training.ends import DrawnEnd, WholeEnd, drawn_by, end_of
from ubcp_p2p.training.opening import Opening, require_committed
from ubcp_p2p.training.pieces import DRAWN_MIN, PIECE, Pieces, count, drawn, pick, show
from ubcp_p2p.training.points import Shape

LENGTH = 20 * PIECE + 3  # 21 pieces, of which eight are drawn
SHAPE = Shape(LENGTH, LENGTH, ("exp_avg",), 2)
STEPS = 5
SEED = b"s" * 32


def opened(index: int, seed: bytes = SEED) -> Opening:
    return made_up(STEPS, index, SHAPE)[1].as_asked(drawn_by(seed))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_part_survives_its_bytes_and_is_what_the_card_commits_to(index: int) -> None:
    claim, whole = made_up(STEPS, index, SHAPE)
    sent = whole.as_asked(drawn_by(SEED)).to_bytes()
    received = Opening.from_bytes(sent, SHAPE)
    assert received.to_bytes() == sent
    require_committed(claim, received, SHAPE)
    start, end = whole.ends(LENGTH)
    before, claimed, redone = received.drawn_ends(end)
    for whole_point, part in ((start, before), (end, claimed), (end, redone)):
        shown = drawn(SEED, LENGTH)
        assert len(shown) == DRAWN_MIN
        theta = whole_point.theta if index == 2 else pick(whole_point.theta, shown)  # an offer is shown whole
        assert part.theta.tobytes() == theta.tobytes()
        memory = whole_point.memory.vectors["exp_avg"]
        assert part.memory.vectors["exp_avg"].tobytes() == pick(memory, shown).tobytes()
        assert part.memory.steps == whole_point.memory.steps


def test_a_part_is_a_part_of_the_bytes() -> None:
    lean, part, whole = (
        len(opening.to_bytes()) for opening in (replace(opened(1), end=None), opened(1), made_up(STEPS, 1, SHAPE)[1])
    )
    assert (part - lean) / (whole - lean) == pytest.approx(
        len(pick(values(LENGTH, 0), drawn(SEED, LENGTH))) / LENGTH, rel=0.01
    )
    big = 1_025_408
    assert len(drawn(SEED, big)) / count(big) < 0.13


@given(st.integers(1, 300 * PIECE), st.binary(min_size=32, max_size=32))
def test_what_a_seed_draws_is_an_eighth_of_the_pieces_or_all_of_few(length: int, seed: bytes) -> None:
    shown = drawn(seed, length)
    assert list(shown) == sorted(set(shown))
    assert set(shown) <= set(range(count(length)))
    assert len(shown) == min(count(length), max(DRAWN_MIN, -(-count(length) // 8)))


def test_another_seed_draws_other_pieces() -> None:
    """A lie in one piece is seen as often as that piece is drawn."""
    seen = sum(3 in drawn(bytes([number]) * 32, LENGTH) for number in range(200))
    assert seen / 200 == pytest.approx(DRAWN_MIN / count(LENGTH), abs=0.12)


def with_after(change: Callable[[Pieces], Pieces]) -> Callable[[DrawnEnd], DrawnEnd]:
    def changed(end: DrawnEnd) -> DrawnEnd:
        assert end.after is not None
        return replace(end, after=change(end.after))

    return changed


def nudged(pieces: Pieces) -> Pieces:
    more = np.array(pieces.values)
    more[0] += 1
    return Pieces(pieces.hashes, more)


def rehashed(pieces: Pieces) -> Pieces:
    """Other values, and the hashes that go with them: not what the trail names."""
    full = values(LENGTH, 99)
    return show(full, drawn(SEED, LENGTH))


CHANGES: dict[str, Callable[[DrawnEnd], Any]] = {
    "another seed": lambda end: replace(end, seed=bytes(32)),
    "another value": with_after(nudged),
    "other values with their hashes": with_after(rehashed),
    "a piece less": with_after(lambda pieces: Pieces(pieces.hashes, pieces.values[:-PIECE])),
    "a hash less": with_after(lambda pieces: Pieces(pieces.hashes[:-32], pieces.values)),
    "no parameters": lambda end: replace(end, after=None),
    "an offer beside them": lambda end: replace(end, offer=values(LENGTH, 1)),
    "a memory of more steps": lambda end: replace(end, steps=end.steps + 1),
    "too many steps": lambda end: replace(end, steps=2**48 + 1),
    "no memory": lambda end: replace(end, memory={}),
    "another memory": lambda end: replace(end, memory={"exp_avg": rehashed(end.memory["exp_avg"])}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_card_does_not_commit_to_is_refused(change: str) -> None:
    claim, opening = made_up(STEPS, 1, SHAPE)
    end = opening.as_asked(drawn_by(SEED)).end
    assert isinstance(end, DrawnEnd)
    changed = replace(opening, end=CHANGES[change](end)).to_bytes()
    with pytest.raises(MalformedMessage):
        require_committed(claim, Opening.from_bytes(changed, SHAPE), SHAPE)


def test_values_that_are_not_finite_are_refused() -> None:
    vector = values(LENGTH, 0)
    vector[:] = np.inf
    shown = drawn(SEED, LENGTH)
    with pytest.raises(MalformedMessage, match="non-finite"):
        Pieces.of(show(vector, shown).value(), LENGTH, shown)


@pytest.mark.parametrize("value", [b"", 0, [b""], [b"", b"", b"", b""], [[], [], []], [bytes(31), b"", [], 0, []]])
def test_noise_is_no_end(value: Value) -> None:
    with pytest.raises(MalformedMessage):
        end_of(value, SHAPE)


def test_a_part_is_not_cut_out_of_a_part() -> None:
    with pytest.raises(MalformedMessage, match="whole"):
        opened(1).as_asked(drawn_by(bytes(32)))
    assert isinstance(made_up(STEPS, 1, SHAPE)[1].end, WholeEnd)
