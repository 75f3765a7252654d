"""Limits of what a paymaster takes in, and what a restart leaves of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.unit.swarm.made import KEYS, digest
from ubcp_p2p.peer.paying.cabinet import COMING_MAX, UPLOADS_EACH_MAX, UPLOADS_MAX, Cabinet, Place
from ubcp_p2p.peer.paying.holding import Stage
from ubcp_p2p.peer.paying.tab import NotYet

A = KEYS[0].public


def place(number: int) -> Place:
    return Place(digest("request"), A, number)


def test_so_many_uploads_at_once_and_no_more(tmp_path: Path) -> None:
    cabinet = Cabinet(tmp_path)
    validators = [key.public for key in KEYS]
    with ExitStack() as stack:
        for number in range(UPLOADS_EACH_MAX):
            stack.enter_context(cabinet.room(place(number), validators[0]))
        with pytest.raises(NotYet, match="of this validator"):
            stack.enter_context(cabinet.room(place(99), validators[0]))
        for number in range(UPLOADS_EACH_MAX, UPLOADS_MAX):
            stack.enter_context(cabinet.room(place(number), validators[number]))
        with pytest.raises(NotYet, match="as much evidence"):
            stack.enter_context(cabinet.room(place(99), validators[-1]))
    with pytest.raises(NotYet, match="coming already"), cabinet.room(place(0), validators[0]):
        pass
    for number in range(UPLOADS_MAX, COMING_MAX):  # they wait to be verified
        with cabinet.room(place(number), validators[0]):
            pass
    with pytest.raises(NotYet, match="as much evidence"), cabinet.room(place(99), validators[0]):
        pass
    cabinet.drop(place(0))
    with cabinet.room(place(99), validators[0]):
        pass


def test_a_start_leaves_what_is_needed(tmp_path: Path) -> None:
    before = Cabinet(tmp_path)
    for number in (1, 2, 3, 5):
        before.coming(place(number)).write_bytes(b"evidence %d" % number)
        before.put_bill(place(number), b"a bill")
    before.keep(place(3), digest("proof"))
    cabinet = Cabinet(tmp_path)
    waiting = {place(1): Stage.EVIDENCE, place(4): Stage.EVIDENCE, place(5): Stage.REPORT}
    cabinet.sweep(waiting)
    bills = {cabinet.coming(place(number)).with_suffix(".bill") for number in (1, 5)}
    assert set(tmp_path.iterdir()) == {cabinet.coming(place(1)), *bills, cabinet.kept(digest("proof"))}
    assert cabinet.read(place(1), digest("other")) == b"evidence 1"
    assert cabinet.read(place(3), digest("proof")) == b"evidence 3"
    assert cabinet.read(place(4), digest("other")) is None
    with pytest.raises(NotYet, match="coming already"), cabinet.room(place(1), A):
        pass
    with cabinet.room(place(5), A):  # half of it had come when the node ended: it comes again
        pass


def test_own_evidence_takes_a_place_as_others_do(tmp_path: Path) -> None:
    cabinet = Cabinet(tmp_path)
    cabinet.put_coming(place(0), b"a lie")
    assert cabinet.read(place(0), digest("other")) == b"a lie"
    with pytest.raises(NotYet), cabinet.room(place(0), A):
        pass
    for number in range(1, COMING_MAX):
        with cabinet.room(place(number), A):
            pass
    for taken in (place(1), place(99)):
        with pytest.raises(NotYet):
            cabinet.put_coming(taken, b"a lie")


def test_two_rounds_never_share_a_file(tmp_path: Path) -> None:
    cabinet = Cabinet(tmp_path)
    places = [Place(digest(f"request {r}"), key.public, n) for r in range(3) for key in KEYS for n in range(3)]
    assert len({cabinet.coming(each) for each in places}) == len(places)
