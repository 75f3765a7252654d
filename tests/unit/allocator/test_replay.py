"""A published decision against its published inputs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.slices import id_of, made_up
from ubcp_p2p.allocator.blob import encode_problem, inputs_hash
from ubcp_p2p.allocator.decide import decide
from ubcp_p2p.allocator.replay import Claim, replayed

PROBLEM = made_up(1, 60)
BLOB = encode_problem(PROBLEM)
DECISION = decide(PROBLEM)
CLAIM = Claim(DECISION.slice, DECISION.budget, DECISION.granule, DECISION.accepted, DECISION.refused, inputs_hash(BLOB))
REFUSED = next(one.id for one in DECISION.outcomes if not one.accepted)


def test_an_honest_one_agrees() -> None:
    assert replayed(BLOB, CLAIM).disagreements == ()
    assert replayed(BLOB, CLAIM._replace(accepted=DECISION.accepted[::-1])).disagreements == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slice": 1001}, "slice 1001, by the inputs 1000"),
        ({"budget": 9}, "budget 9, by the inputs 10000"),
        ({"granule": 2}, "granule 2, by the inputs 1"),
        ({"accepted": DECISION.accepted[1:]}, f"1 refused that the rules accept, first {DECISION.accepted[0].hex()}"),
        ({"accepted": (*DECISION.accepted, REFUSED)}, f"1 accepted that the rules refuse, first {REFUSED.hex()}"),
        ({"accepted": (*DECISION.accepted, id_of(5))}, f"1 accepted that the rules refuse, first {id_of(5).hex()}"),
        ({"accepted": (*DECISION.accepted, DECISION.accepted[0])}, "accepted twice"),
        ({"refused": ()}, "other counts of refusals than by the inputs: "),
        ({"refused": (("full", 1),)}, "full"),
        ({"inputs": bytes(32)}, "another hash"),
    ],
)
def test_each_lie_is_named(change: dict[str, Any], words: str) -> None:
    found = replayed(BLOB, CLAIM._replace(**change)).disagreements
    assert len(found) == 1
    assert words in found[0]


def test_inputs_that_are_none() -> None:
    blob = BLOB[:-1]
    (found,) = replayed(blob, CLAIM._replace(inputs=inputs_hash(blob))).disagreements
    assert found.startswith("the inputs are no problem of a slice: ")
