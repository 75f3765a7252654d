"""What the inputs of a decision may say, and for what a node is named: SPEC §12.1, line by line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.serving import CREDIT, SLICE, Scene
from ubcp_p2p.allocator.problem import Cleaner, Problem, Reason
from ubcp_p2p.charter.values import SignedCharter
from ubcp_p2p.ledger.facts import Facts
from ubcp_p2p.peer.serving.held import WORDS_MAX, contradictions
from ubcp_p2p.peer.serving.rules import rules_of


class Held:
    """Ann asks for 1000 credits, 100 in a slice of each of two peers, from slice 30 to 200; Cid's node decides."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.id = self.scene.asks(self.scene.ann, self.scene.ann_pc, at=30, peers=(2, 3)).entry.id
        self.scene.decides(self.scene.ben_pc, SLICE)  # there is another peer
        self.problem = self.scene.problem(SLICE)
        (self.ask,) = self.problem.asks

    def found(self, problem: Problem) -> tuple[str, ...]:
        world = self.scene.world
        return contradictions(problem, self.scene.cid_pc.public, Facts(world.ledger, world.history))[0]

    def asking(self, **changes: Any) -> tuple[str, ...]:
        return self.found(replace(self.problem, asks=(self.ask._replace(**changes),)))

    def applicant(self, **changes: Any) -> Problem:
        (user,) = self.problem.applicants
        return replace(self.problem, applicants=(user._replace(**changes),))


@pytest.fixture(scope="module")
def held() -> Held:
    return Held()


def test_what_an_honest_node_says(held: Held) -> None:
    ask = held.ask
    assert (ask.waited, ask.units, ask.slices_left, ask.standing) == (SLICE - 30, 100 * CREDIT, 5, None)
    assert held.found(held.problem) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"waited": 0},  # it may have come only now, or been served
        {"slices_left": 1},  # 100 to 200 credits are left
        {"units": 99 * CREDIT, "slices_left": 1},
        {"units": 1, "slices_left": 1},
        {"standing": Reason.FROZEN},  # a fork that nobody else has heard of
        {"standing": Reason.INDEBTED},
        {"standing": Reason.OWNER_REFUSED},
        {"standing": Reason.TOO_FEW_PEERS},
        {"cleaner": Cleaner(1, 156)},  # five slices of work, the last of them the deadline
    ],
)
def test_what_a_node_alone_can_know_is_its_own_word(held: Held, changes: dict[str, Any]) -> None:
    assert held.asking(**changes) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"purpose": "research"}, "purpose research, in the REQUEST education"),
        ({"urgency": 1001}, "urgency 1001, in the REQUEST 1000"),
        ({"units_min": 2}, "least quantum 2, in the REQUEST 1"),
        ({"waited": SLICE - 29}, "has waited 11 slices since slice 30"),
        ({"units": 100 * CREDIT + 1}, "a quantum of 100000001, in the REQUEST 100000000 at most"),
        ({"slices_left": 6}, "6 slices left for 100000000 to 1000000000 units"),
        ({"units": 99 * CREDIT, "slices_left": 2}, "2 slices left for 99000000 to 99000000 units"),
        ({"cleaner": Cleaner(1, 157)}, "held until after its deadline"),
        ({"standing": Reason.NOT_ENROLLED}, "is enrolled in that slice"),
    ],
)
def test_what_contradicts_the_request_is_named(held: Held, changes: dict[str, Any], words: str) -> None:
    (found,) = held.asking(**changes)
    assert words in found


def test_whose_request_it_is(held: Held) -> None:
    (user,) = held.problem.applicants
    ben = held.scene.ben.public
    problem = held.problem
    units = tuple(unit._replace(use=0) for unit in problem.units)
    asks = (problem.asks[0]._replace(applicant=ben),)
    (found,) = held.found(replace(problem, units=units, applicants=(user._replace(id=ben),), asks=asks))[:1]
    assert f"account {ben.hex()[:16]}, in the REQUEST {held.scene.ann.public.hex()[:16]}" in found
    world = held.scene.world
    own = contradictions(problem, held.scene.ann_pc.public, Facts(world.ledger, world.history))[0]
    assert own == (f"request {held.id.hex()[:16]}… is of the node's own account",)


@pytest.mark.parametrize("slice_", [29, 201])
def test_a_request_is_asked_for_in_its_own_time(held: Held, slice_: int) -> None:
    (ask,) = held.problem.asks
    found = held.found(replace(held.problem, slice=slice_, asks=(ask._replace(waited=0),)))
    assert any("slices 30 to 200 alone" in words for words in found)


def test_one_peer_is_never_too_few() -> None:
    held = Held()
    held.scene.asks(held.scene.ben, held.scene.ben_pc, at=SLICE, peers=(1, 1))
    problem = held.scene.problem(SLICE)
    asks = tuple(ask._replace(standing=Reason.TOO_FEW_PEERS) for ask in problem.asks)
    (found,) = held.found(replace(problem, asks=asks))
    assert found.endswith("refused for too few peers, and one is enough")


def test_unit_and_class_are_those_of_the_enrolment(held: Held) -> None:
    (user,) = held.problem.applicants
    (other, *_) = (unit.name for unit in held.problem.units if unit.name != user.unit)
    for problem in (held.applicant(unit=other), held.applicant(newcomer=True)):
        (found,) = held.found(problem)
        assert found == f"account {user.id.hex()[:16]}… is enrolled as member of {user.unit!r}"


def test_rules_and_weights_are_those_of_a_charter_that_was_in_force(held: Held) -> None:
    rules, units = held.problem.rules, held.problem.units
    for problem in (
        replace(held.problem, rules=rules._replace(ageing_slices=1)),
        replace(held.problem, rules=rules._replace(purposes=rules.purposes[:1])),
        replace(held.problem, units=(units[0]._replace(weight=999), *units[1:])),
    ):
        (found,) = held.found(problem)
        assert "of no version of the charter" in found


def test_rules_that_are_not_in_force_yet_are_none() -> None:
    held = Held()
    first, stewards = held.scene.world.charter, held.scene.world.stewards
    later = replace(first, number=2, previous=first.id, effective=1, ageing_slices=first.ageing_slices + 1)
    signatures = ((key.public, key.sign("charter", later.id)) for key in stewards)
    held.scene.world.charters.add(SignedCharter(later).signed(signatures))
    assert held.found(held.problem) == ()
    newer = replace(held.problem, rules=rules_of(later))
    (found,) = held.found(newer)
    assert "of no version of the charter" in found
    (ask,) = held.problem.asks
    in_force = replace(newer, slice=first.period_slices, asks=(ask._replace(waited=0),))
    assert not any("charter" in words for words in held.found(in_force))
    behind = replace(held.problem, slice=first.period_slices, asks=in_force.asks)
    assert held.found(behind) == held.found(in_force)


def test_the_last_slice_of_a_request_is_its_deadline(held: Held) -> None:
    asks = (held.ask._replace(waited=0),)
    assert held.found(replace(held.problem, slice=200, asks=asks)) == ()
    first = replace(held.problem, slice=30, asks=asks)
    assert held.found(first) == ()
    (found,) = held.found(replace(first, asks=(held.ask._replace(waited=1),)))
    assert found.endswith("has waited 1 slices since slice 30")


def test_one_of_several_asks_cannot_be_of_somebody_who_is_not_enrolled() -> None:
    held = Held()
    held.scene.asks(held.scene.ann, held.scene.ann_pc, at=SLICE)
    problem = held.scene.problem(SLICE)
    one, other = problem.asks
    (found,) = held.found(replace(problem, asks=(one, other._replace(standing=Reason.NOT_ENROLLED))))
    assert found.endswith("is enrolled in that slice")


def test_of_an_enrolment_that_has_ended_nothing_is_said() -> None:
    scene = Scene()
    eve = scene.world.account("eve", enrol=False)
    scene.world.enrol(eve, "eve", periods=1)
    length = scene.world.charter.period_slices
    scene.asks(eve, scene.world.node(eve, "eve"), at=length - 10, deadline=length + 10)
    problem = scene.problem(length)
    (user,) = problem.applicants
    facts = Facts(scene.world.ledger, scene.world.history)
    for said in (problem, replace(problem, applicants=(user._replace(newcomer=True),))):
        assert contradictions(said, scene.cid_pc.public, facts) == ((), 0)


def test_a_request_that_is_not_here_says_nothing_of_its_account(held: Held) -> None:
    """It may have been before one that is here, on another branch, after another enrolment."""
    scene = Held().scene
    more = scene.asks(scene.ann, scene.ann_pc, at=SLICE)
    problem = scene.problem(SLICE)
    assert {ask.id for ask in problem.asks} == {held.id, more.entry.id}
    (user,) = problem.applicants
    moved = replace(problem, applicants=(user._replace(newcomer=True),))
    world = held.scene.world  # has not heard of the second
    found, unknown = contradictions(moved, scene.cid_pc.public, Facts(world.ledger, world.history))
    assert (found, unknown) == ((), 1)


def test_a_few_contradictions_are_named_and_the_others_counted() -> None:
    held = Held()
    for _ in range(WORDS_MAX + 2):
        held.scene.asks(held.scene.ben, held.scene.ben_pc, at=SLICE - 1)
    problem = held.scene.problem(SLICE)
    asks = tuple(ask._replace(urgency=1999) for ask in problem.asks)
    found = held.found(replace(problem, asks=asks))
    assert len(asks) == WORDS_MAX + 3
    assert (len(found), found[-1]) == (WORDS_MAX + 1, "and 3 more")
    exactly = replace(problem, asks=(*asks[:WORDS_MAX], *problem.asks[WORDS_MAX:]))
    assert len(held.found(exactly)) == WORDS_MAX
    assert all("urgency" in words for words in held.found(exactly))
