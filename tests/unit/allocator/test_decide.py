"""One slice's decision: what is out at once, the newcomers' reserve, figures and words for every request."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.slices import RULES, ask, brute_force, id_of, made_up, problem, user
from ubcp_p2p.allocator.allocation import allocate
from ubcp_p2p.allocator.decide import Decision, Outcome, decide
from ubcp_p2p.allocator.displacement import displaced
from ubcp_p2p.allocator.problem import Ask, Cleaner, Reason, UnitUse
from ubcp_p2p.allocator.words import duration, explain

RESERVE = RULES._replace(newcomer_permille=100)


def outcome(*asks: Ask, **fields: Any) -> Outcome:
    """Of the first of these asks."""
    return next(one for one in decide(problem(asks, **fields)).outcomes if one.id == asks[0].id)


# -- what is out before it is weighed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [Reason.FROZEN, Reason.NOT_ENROLLED, Reason.OWNER_REFUSED])
def test_standing_comes_first(reason: Reason) -> None:
    assert outcome(ask(1, 10**9, purpose="other", standing=reason)).reason is reason


def test_purposes_that_the_charter_does_not_allow() -> None:
    assert outcome(ask(1, 1, purpose="other")).reason is Reason.PURPOSE


def test_what_never_fits_is_refused_at_once() -> None:
    assert outcome(ask(1, 1000)).reason is Reason.ACCEPTED
    assert outcome(ask(1, 1001)).reason is Reason.TOO_LARGE
    assert outcome(ask(1, 900), rules=RESERVE).reason is Reason.ACCEPTED
    assert outcome(ask(1, 901), rules=RESERVE).reason is Reason.TOO_LARGE


def test_what_fits_another_slice_waits() -> None:
    assert outcome(ask(1, 1001), budget_max=2000).reason is Reason.SMALL_SLICE
    assert outcome(ask(1, 2001), budget_max=2000).reason is Reason.TOO_LARGE
    assert outcome(ask(1, 1), budget=0, budget_max=2000).reason is Reason.SMALL_SLICE
    assert outcome(ask(1, 1), budget=0).reason is Reason.TOO_LARGE


def test_a_coarser_grid_of_the_best_slice_refuses_nothing_that_fits_here() -> None:
    assert outcome(ask(1, 50_000), budget=50_000, budget_max=50_001).reason is Reason.ACCEPTED


def test_a_quantum_is_cut_to_what_fits_where_its_request_allows() -> None:
    found = outcome(ask(1, 5000, units_min=900), rules=RESERVE)
    assert (found.reason, found.units, found.cost) == (Reason.ACCEPTED, 900, 900)


@pytest.mark.parametrize(
    ("carbon", "cleaner", "reason"),
    [
        (100, Cleaner(80, 5), Reason.HELD),
        (100, Cleaner(81, 5), Reason.ACCEPTED),
        (100, None, Reason.ACCEPTED),
        (None, Cleaner(0, 5), Reason.ACCEPTED),
        (0, Cleaner(0, 5), Reason.ACCEPTED),
        (1, Cleaner(0, 5), Reason.HELD),
    ],
)
def test_slack_waits_for_a_slice_a_fifth_cleaner(carbon: int | None, cleaner: Cleaner | None, reason: Reason) -> None:
    found = outcome(ask(1, 10, cleaner=cleaner), carbon=carbon)
    assert found.reason is reason
    assert found.wait_s == (5 * 900 if reason is Reason.HELD else 0)


def test_what_is_out_is_in_nobodys_queue() -> None:
    out = ask(1, 500, standing=Reason.FROZEN, waited=99), ask(2, 500, purpose="other"), ask(3, 10**6, waited=9)
    alone = decide(problem([ask(9, 100), ask(8, 100, user=2)]))
    beside = decide(problem([ask(9, 100), ask(8, 100, user=2), *out]))
    assert beside.value == alone.value
    assert beside.outcomes[3:] == alone.outcomes


# -- newcomers --------------------------------------------------------------------------------------------------------


def newcomers_and_others(**fields: Any) -> Decision:
    """A veteran who has waited long and wants everything; newcomers with 60 each."""
    users = [user(1), user(2, newcomer=True), user(3, newcomer=True)]
    asks = [ask(1, 900, waited=900), ask(2, 60, user=2), ask(3, 60, user=3)]
    return decide(problem(asks, users, rules=RESERVE, **fields))


def test_the_reserve_is_the_newcomers() -> None:
    assert newcomers_and_others().accepted == (id_of(1), id_of(2))


def test_unused_reserve_carries_over() -> None:
    assert newcomers_and_others().reserve_unused == 40
    found = newcomers_and_others(reserve_carried=40)
    assert found.accepted == (id_of(2), id_of(3))  # 880 are left, and the veteran needs 900
    assert found.reserve_unused == 100 - (120 - 40)
    assert newcomers_and_others(reserve_carried=19).accepted == (id_of(1), id_of(2))
    assert decide(problem([], rules=RESERVE)).reserve_unused == 100


def test_what_newcomers_leave_goes_to_all() -> None:
    found = decide(problem([ask(1, 900), ask(2, 100)], rules=RESERVE))
    assert found.accepted == (id_of(1), id_of(2))
    assert found.reserve_unused == 100


def test_newcomers_compete_for_the_rest_too() -> None:
    found = decide(problem([ask(2, 500, user=2)], [user(2, newcomer=True)], rules=RESERVE))
    assert found.accepted == (id_of(2),)
    assert found.reserve_unused == 100


# -- figures ----------------------------------------------------------------------------------------------------------


def test_the_decision_as_a_whole() -> None:
    found = decide(problem([ask(1, 600), ask(2, 500, user=2, waited=3), ask(3, 7, purpose="other")]))
    (one, two, three) = found.outcomes
    assert found.accepted == (id_of(2),) or found.accepted == (id_of(1),)
    assert found.refused == (("full", 1), ("purpose-not-allowed", 1))
    assert (found.slice, found.budget, found.granule) == (1000, 1000, 1)
    assert found.used == sum(o.units for o in (one, two) if o.accepted)
    assert found.value == sum(o.value for o in (one, two) if o.accepted)
    assert (three.value, three.cost, three.queue, three.wait_s) == (0, 0, 0, None)


def test_displacement_is_what_all_sets_together_give() -> None:
    for seed in range(30):
        allocation = allocate(made_up(seed, 9, budget=60 + seed, load=3))
        costs, values, capacity = allocation.instance
        best = brute_force(costs.tolist(), values.tolist(), capacity)
        assert best is not None
        for near in (0, 2, 200):
            least, most = displaced(allocation.instance, allocation.solution, near)
            for place in range(len(costs)):
                if allocation.solution.taken[place]:
                    assert least[place] == most[place] == 0
                    continue
                forced = brute_force(costs.tolist(), values.tolist(), capacity, forced=place)
                true = -1 if forced is None else best[0] - forced[0]
                assert least[place] <= true <= most[place]
                assert near < 200 or least[place] == most[place]


@pytest.mark.slow
def test_bounds_hold_where_the_exact_figures_are_known() -> None:
    """The same 600 requests with 20 and with all of them exact."""
    for seed in range(4):
        allocation = allocate(made_up(seed, 600, load=5))
        exact = displaced(allocation.instance, allocation.solution, 10_000)
        some = displaced(allocation.instance, allocation.solution, 20)
        assert (exact.least == exact.most).all()
        assert (some.least <= exact.least).all()
        assert (exact.most <= some.most).all()
        refused = ~allocation.solution.taken
        assert (some.least == some.most)[refused].sum() >= 20
        assert not (some.least == some.most)[refused].all()


def test_displacement_is_per_mille_of_ones_own_value_rounded_up() -> None:
    found = decide(problem([ask(1, 600), ask(2, 600, user=2, waited=96)], capacity=10**9))
    refused = found.outcomes[0]
    loss = found.outcomes[1].value - refused.value
    assert refused.displaces == (-(-1000 * loss // refused.value),) * 2
    assert 999 <= refused.displaces[0] <= 1001
    assert found.outcomes[1].displaces is None


def test_the_queue_is_by_value_for_a_granule() -> None:
    asks = [ask(1, 900, user=1, waited=50), ask(2, 900, user=2), ask(3, 900, user=3, waited=20)]
    found = decide(problem(asks, capacity=10**9)).outcomes
    assert [one.queue for one in found] == [0, 2, 1]


def test_the_expected_wait_is_the_queue_before_it() -> None:
    asks = [ask(n, 900, user=n) for n in (1, 2, 3)]
    found = decide(problem(asks, capacity=10**9)).outcomes
    assert [one.wait_s for one in found] == [0, 900, 1800]


def test_a_running_job_is_waited_for_until_ones_own_value_has_grown() -> None:
    """It needs 1000 slices more, but one that waits is worth twice as much after 96."""
    asks = [ask(1, 900, user=1, waited=96, slices_left=1000), ask(2, 900, user=2)]
    found = decide(problem(asks, capacity=10**9)).outcomes
    assert found[1].queue == 1
    assert found[1].wait_s in [900 * -(-(grown * 900 + 900) // 1000) for grown in (96, 97)]
    short = decide(problem([asks[0]._replace(slices_left=4), asks[1]], capacity=10**9)).outcomes
    assert short[1].wait_s == 900 * -(-(3 * 900 + 900) // 1000)


def test_an_estimate_without_end_is_none() -> None:
    slow = RULES._replace(ageing_slices=2**20)
    asks = [ask(1, 900, user=1, waited=2**22, slices_left=2**32 - 1), ask(2, 900, user=2)]
    assert decide(problem(asks, capacity=10**9, rules=slow)).outcomes[1].wait_s is None


def test_use_is_told_against_the_worse_share() -> None:
    users = [user(1, unit="a", use=100), user(2, unit="b", use=300), user(3, unit="b")]
    asks = [ask(n, 1, user=n) for n in (1, 2, 3)]
    found = decide(problem(asks, users, units=[UnitUse("a", 1, 100), UnitUse("b", 1, 300)], capacity=0)).outcomes
    assert [(one.use_permille, one.of_unit) for one in found] == [(500, False), (3000, False), (1500, True)]


def test_one_with_no_budget_at_all() -> None:
    found = decide(problem([], budget=0))
    assert (found.accepted, found.value, found.used, found.granule, found.outcomes) == ((), 0, 0, 1, ())


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_the_same_problem_gives_the_same_bytes_in_any_order_of_its_rows() -> None:
    one = made_up(5, 40)
    for turn in range(1, 5):
        asks, users = one.asks[turn * 7 :] + one.asks[: turn * 7], one.applicants[::-1]
        other = problem(asks, users, slice=one.slice, rules=one.rules, budget=one.budget, capacity=one.capacity,
                        units=one.units[::-1])  # fmt: skip
        assert other == one
        assert decide(other).to_bytes() == decide(one).to_bytes()


def test_bytes_tell_every_field() -> None:
    found = decide(problem([ask(1, 600), ask(2, 600, user=2)]))
    changes: list[dict[str, Any]] = [
        {"value": 1}, {"cost": 1}, {"units": 1}, {"displaces": (1, 2)}, {"queue": 9}, {"wait_s": 1},
        {"use_permille": 7}, {"of_unit": True}, {"reason": Reason.FROZEN},
    ]  # fmt: skip
    forms = {found.to_bytes()}
    for change in changes:
        outcomes = (found.outcomes[0]._replace(**change), *found.outcomes[1:])
        forms.add(Decision(**{**vars(found), "outcomes": outcomes}).to_bytes())
    for name in ("slice", "budget", "granule", "value", "used", "reserve_unused"):
        forms.add(Decision(**{**vars(found), name: 12345}).to_bytes())
    assert len(forms) == 1 + len(changes) + 6


# -- words ------------------------------------------------------------------------------------------------------------


def words(*asks: Ask, **fields: Any) -> str:
    one = problem(asks, **fields)
    return explain(one, asks[0], next(found for found in decide(one).outcomes if found.id == asks[0].id))


def test_words_of_a_refusal() -> None:
    users = [user(1, use=1800), user(2, use=200)]
    text = words(ask(1, 600, waited=8), ask(2, 600, user=2), users=users, capacity=0)
    assert text == (
        "not this slice: full; yours would displace 47.4 % more value than its own; your use is 1.8× your fair share; "
        "waited 2 h; number 1 in the queue; expected within 15 min"
    )


@pytest.mark.parametrize(
    ("one", "fields", "expected"),
    [
        (ask(1, 600), {}, "accepted: 600 GFLOP; your use is 0.0× your fair share; new in this slice"),
        (ask(1, 2000, units_min=1), {}, "accepted: 1,000 GFLOP (of 2,000 asked for); your use is"),
        (ask(1, 2000), {}, "refused: too large for every slice of this node; yours needs 2,000 GFLOP at once"),
        (ask(1, 2000), {"budget_max": 2000}, "not this slice: it is too small; yours needs 2,000 GFLOP at once"),
        (ask(1, 10, cleaner=Cleaner(140, 12)), {"carbon": 204}, "held: power is 31 % cleaner in 3 h, before its"),
        (ask(1, 10, purpose="mining"), {}, 'refused: the community\'s charter does not allow the purpose "mining"'),
        (ask(1, 10, standing=Reason.FROZEN), {}, "refused: the account is frozen"),
        (ask(1, 10, standing=Reason.NOT_ENROLLED), {}, "refused: the account is not enrolled"),
        (ask(1, 10, standing=Reason.OWNER_REFUSED), {}, "refused: the owner of this node does not serve it"),
    ],
)
def test_words_of_the_others(one: Ask, fields: dict[str, Any], expected: str) -> None:
    assert words(one, **fields).startswith(expected)


def test_words_of_a_tie() -> None:
    first, second = ask(1, 600, user=1), ask(2, 600, user=2)
    users = [user(1, unit="a"), user(2, unit="b")]
    assert "others of the same value were first by their ids" in words(second, first, users=users)


def test_words_of_bounds_and_of_a_unit() -> None:
    one = problem([ask(1, 1)])
    found = Outcome(id_of(1), Reason.FULL, 1, 1, 1, (12, 3456), 3, None, 1449, True)
    assert explain(one, one.asks[0], found) == (
        "not this slice: full; yours would displace 1.2 to 345.6 % more value than its own; "
        "your unit's use is 1.4× its fair share; new in this slice; number 3 in the queue; nobody can say when"
    )


def test_every_reason_has_words() -> None:
    one = problem([ask(1, 1, cleaner=Cleaner(1, 1))], carbon=100)
    texts = {explain(one, one.asks[0], Outcome(id_of(1), reason)) for reason in Reason}
    assert len(texts) == len(Reason)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(1, "1 s"), (119, "119 s"), (120, "2 min"), (900, "15 min"), (7199, "120 min"), (7200, "2 h"), (7201, "3 h"),
     (172_799, "48 h"), (172_800, "2 days"), (10**8, "1,158 days")],
)  # fmt: skip
def test_durations(seconds: int, expected: str) -> None:
    assert duration(seconds) == expected
