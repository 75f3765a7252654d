"""Seats in a run's group."""

from __future__ import annotations

import random

import pytest

from tests.support.slices import id_of
from ubcp_p2p.allocator.problem import BadProblem, Reason
from ubcp_p2p.allocator.seats import Candidate, decide_seats
from ubcp_p2p.units import AMOUNT_MAX


def seated(candidates: list[Candidate], seats: int) -> list[bytes]:
    return [one.id for one in decide_seats(candidates, seats) if one.accepted]


def test_the_most_verified_work_gets_the_seats_and_ids_decide_ties() -> None:
    rng = random.Random(4)
    for _ in range(50):
        rows = [Candidate(id_of(n), rng.choice((0, 5, rng.randrange(1000)))) for n in range(rng.randint(0, 20))]
        rng.shuffle(rows)
        seats = rng.randint(0, 12)
        best = sorted(rows, key=lambda row: (-row.verified, row.id))[:seats]
        assert seated(rows, seats) == sorted(row.id for row in best)


def test_one_seat_costs_what_its_holder_is_worth() -> None:
    found = decide_seats([Candidate(id_of(1), 99), Candidate(id_of(2), 49), Candidate(id_of(3), 0)], 1)
    assert [one.value for one in found] == [100, 50, 1]
    assert [one.displaces for one in found] == [None, (1000, 1000), (99_000, 99_000)]
    assert [one.queue for one in found] == [0, 1, 2]
    assert [one.wait_s for one in found] == [0, None, None]


def test_standing_comes_first() -> None:
    rows = [Candidate(id_of(1), AMOUNT_MAX, Reason.FROZEN), Candidate(id_of(2), 0)]
    assert [one.reason for one in decide_seats(rows, 1)] == [Reason.FROZEN, Reason.ACCEPTED]


def test_no_seats() -> None:
    assert [(one.reason, one.displaces) for one in decide_seats([Candidate(id_of(1), 5)], 0)] == [(Reason.FULL, None)]


def test_amounts_beyond_the_scale_keep_their_order() -> None:
    rows = [Candidate(id_of(n), AMOUNT_MAX - n * 2**40) for n in range(20)]
    assert seated(rows, 3) == [id_of(0), id_of(1), id_of(2)]


@pytest.mark.parametrize(
    ("rows", "seats"),
    [
        ([], -1),
        ([], 10_001),
        ([Candidate(b"", 1)], 1),
        ([Candidate(id_of(1), -1)], 1),
        ([Candidate(id_of(1), AMOUNT_MAX + 1)], 1),
        ([Candidate(id_of(1), 1), Candidate(id_of(1), 2)], 1),
        ([Candidate(id_of(1), 1, Reason.FULL)], 1),
        ([Candidate(id_of(n), 1) for n in range(10_001)], 1),
    ],
)
def test_what_breaks_a_limit(rows: list[Candidate], seats: int) -> None:
    with pytest.raises(BadProblem):
        decide_seats(rows, seats)
