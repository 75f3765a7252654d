"""Openings as bytes: what a card commits to passes, everything else is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trails import SHAPE, made_up, values
from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.training.ends import WholeEnd
from ubcp_p2p.training.opening import Opening, fault_in_leaves, require_committed
from ubcp_p2p.training.state import InnerState
from ubcp_p2p.training.verdict import Claim, Finding

STEPS = 7  # stretches of 2, 2, 2 and 1
stretches = st.integers(0, 3)


@given(st.integers(1, 9), st.data())
def test_an_opening_survives_its_bytes_and_is_what_the_card_commits_to(steps: int, data: st.DataObject) -> None:
    claim, opening = made_up(steps, data.draw(st.integers(0, (steps - 1) // 2)))
    sent = opening.to_bytes()
    assert len(sent) <= SHAPE.bytes_max()
    received = Opening.from_bytes(sent, SHAPE)
    assert received.to_bytes() == sent
    require_committed(claim, received, SHAPE)
    assert fault_in_leaves(claim, received, opening.members) is None
    start, end = received.ends(3)
    assert len(start.theta) == len(end.theta) == 3


@given(stretches, st.data())
def test_a_changed_byte_is_refused(index: int, data: st.DataObject) -> None:
    claim, opening = made_up(STEPS, index)
    sent = bytearray(opening.to_bytes())
    place = data.draw(st.integers(0, len(sent) - 1))
    sent[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(MalformedMessage):
        require_committed(claim, Opening.from_bytes(bytes(sent), SHAPE), SHAPE)


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Opening.from_bytes(data, SHAPE)


def whole(opening: Opening) -> WholeEnd:
    assert isinstance(opening.end, WholeEnd)
    return opening.end


def in_end(change: Callable[[WholeEnd], WholeEnd]) -> Callable[[Opening], Opening]:
    return lambda opening: replace(opening, end=change(whole(opening)))


CHANGES: dict[str, Callable[[Opening], Opening]] = {
    "other members": lambda o: replace(o, members=(b"me",)),
    "another stretch": lambda o: replace(o, index=o.index + 1),
    "a stretch beyond the last": lambda o: replace(o, index=2**40),
    "a leaf less": lambda o: replace(o, leaves={k: v for k, v in o.leaves.items() if k != 0}),
    "another path": lambda o: replace(o, leaves={**o.leaves, 0: (o.leaves[0][0], (bytes(32),))}),
    "no state before": lambda o: replace(o, before=None),
    "no state after": in_end(lambda e: replace(e, after=None)),
    "a base too many": lambda o: replace(o, base=values(6, 0)),
    "an offer too many": in_end(lambda e: replace(e, offer=values(3, 0))),
    "another state before": lambda o: replace(o, before=values(3, 77)),
    "another state after": in_end(lambda e: replace(e, after=values(3, 77))),
    "another memory before": lambda o: replace(o, before_memory=whole(o).memory),
    "a memory of more steps": in_end(lambda e: replace(e, memory=replace(e.memory, steps=99))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_card_does_not_commit_to_is_refused(change: str) -> None:
    claim, opening = made_up(STEPS, 1)
    changed = Opening.from_bytes(CHANGES[change](opening).to_bytes(), SHAPE)
    with pytest.raises(MalformedMessage):
        require_committed(claim, changed, SHAPE)


LIMITS: dict[str, Callable[[Opening], Opening]] = {
    "too long a vector": lambda o: replace(o, before=values(4, 0)),
    "too short a vector": lambda o: replace(o, before=values(2, 0)),
    "not finite": lambda o: replace(o, before=np.full(3, np.nan, dtype=np.float32)),
    "too many members": lambda o: replace(o, members=tuple(b"%d" % i for i in range(257))),
    "too long a name": lambda o: replace(o, members=(bytes(65),)),
    "too long a path": lambda o: replace(o, leaves={**o.leaves, 0: (o.leaves[0][0], (bytes(32),) * 20)}),
    "too many leaves": lambda o: replace(o, leaves=dict.fromkeys(range(5), o.leaves[0])),
    "too few memories": in_end(lambda e: replace(e, memory=InnerState(1, {"exp_avg": values(3, 0)}))),
    "an empty memory": in_end(lambda e: replace(e, memory=InnerState(1, {"a": values(0, 0), "b": values(3, 0)}))),
    "too many steps": in_end(lambda e: replace(e, memory=replace(e.memory, steps=2**48 + 1))),
    "too many bytes": lambda o: replace(o, base=values(20_000, 0)),
}


@pytest.mark.parametrize("change", LIMITS)
def test_each_limit_is_kept(change: str) -> None:
    _, opening = made_up(STEPS, 1)
    with pytest.raises(MalformedMessage):
        Opening.from_bytes(LIMITS[change](opening).to_bytes(), SHAPE)


@given(stretches)
def test_the_ends_of_every_trail_show(index: int) -> None:
    """Whichever stretch is opened, a trail from another base or to another tensor is known by its leaves."""
    claim, opening = made_up(STEPS, index)
    elsewhere: list[tuple[Claim, Finding]] = [
        (claim._replace(base_hash=bytes(32)), Finding.BASE),
        (claim._replace(offer_hash=bytes(32)), Finding.OFFER),
    ]
    for other, finding in elsewhere:
        verdict = fault_in_leaves(other, opening, None)
        assert verdict is not None
        assert verdict.finding == finding
    assert (
        fault_in_leaves(claim, opening, None) is None
    )  # before the first certificate nothing says who the members are
    verdict = fault_in_leaves(claim, opening, (b"me", b"third"))
    assert verdict is not None
    assert verdict.finding == Finding.DATA
