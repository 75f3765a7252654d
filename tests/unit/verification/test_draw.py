"""The public draw: the rate, the validator, the stretches."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS, certificate, digest
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.training.verdict import PPM
from ubcp_p2p.verification.draw import STRETCHES_MAX, CheckRule, draw, seed_of

hashes = st.binary(min_size=32, max_size=32)
ALWAYS = CheckRule(PPM, 1)


@given(
    hashes, st.lists(hashes, min_size=1, max_size=8, unique=True), st.integers(1, 100), st.integers(1, STRETCHES_MAX)
)
def test_a_check_has_another_validator_and_stretches_that_are_there(
    seed: bytes, members: list[bytes], stretches: int, opened: int
) -> None:
    peer = members[0]
    found = draw(seed, peer, members, stretches, CheckRule(PPM, opened))
    assert found is not None
    assert found == draw(seed, peer, sorted(members, reverse=True), stretches, CheckRule(PPM, opened))
    assert found.validator in members[1:] if len(members) > 1 else found.validator is None
    assert len(set(found.stretches)) == len(found.stretches) == min(opened, stretches)
    assert list(found.stretches) == sorted(found.stretches)
    assert all(0 <= index < stretches for index in found.stretches)


@given(hashes, hashes)
def test_at_rate_0_nobody_is_checked_and_at_rate_1_everybody(seed: bytes, peer: bytes) -> None:
    assert draw(seed, peer, [peer], 5, CheckRule(0, 1)) is None
    assert draw(seed, peer, [peer], 5, ALWAYS) is not None


def test_draws_are_even() -> None:
    """10,000 fixed seeds: the rate, each validator and each stretch within four standard deviations."""
    members = [digest(f"member {number}") for number in range(4)]
    seeds = [hashlib.sha256(b"%d" % number).digest() for number in range(10_000)]
    rule = CheckRule(20_000, 1)
    checked = sum(draw(seed, members[0], members, 5, rule) is not None for seed in seeds)
    assert abs(checked - 200) <= 4 * 14
    found = [draw(seed, members[0], members, 5, ALWAYS) for seed in seeds]
    for member in members[1:]:
        assert abs(sum(one is not None and one.validator == member for one in found) - 3333) <= 4 * 48
    for index in range(5):
        assert abs(sum(one is not None and one.stretches == (index,) for one in found) - 2000) <= 4 * 40


def test_the_seed_is_the_results_and_not_the_signatures() -> None:
    seed = seed_of(certificate(KEYS[:4], KEYS[:3]))
    assert seed == seed_of(certificate(KEYS[:4], KEYS[1:4]))
    assert seed != seed_of(certificate(KEYS[:4], KEYS[:3], state=digest("another")))
    assert seed != seed_of(certificate(KEYS[:3], KEYS[:3]))
    made = certificate(KEYS[:4], KEYS[:3])
    assert seed != seed_of(replace(made, group=replace(made.group, round=4)))


@pytest.mark.parametrize(("rate", "stretches"), [(-1, 1), (PPM + 1, 1), (0, 0), (0, STRETCHES_MAX + 1)])
def test_rules_that_cannot_be_are_refused(rate: int, stretches: int) -> None:
    with pytest.raises(ConfigError) as caught:
        CheckRule(rate, stretches)
    assert caught.value.hint
