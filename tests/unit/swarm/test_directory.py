"""Claims of runs as rows: what is read, what is refused, and who has other data."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.swarm.made import KEYS, OTHER_RUN, RUN, digest
from ubcp_p2p.swarm import directory
from ubcp_p2p.swarm.directory import Entry, with_other_data
from ubcp_p2p.swarm.records import VALUE_BYTES_MAX, Claim

ME, A, B, C = (key.public for key in KEYS[:4])
OURS, THEIRS = digest("our data"), digest("their data")
ROW: list[Any] = ["run", RUN, "recipe", digest("recipe"), 3, 50, OURS]


class Records:
    """What `directory` asks of a Network: the records under each key, by author."""

    def __init__(self) -> None:
        self.values: dict[str, dict[bytes, Any]] = {}
        self.connected = frozenset[bytes]()

    async def claim(self, key: str, value: Any, lifetime_s: float) -> bool:
        self.values.setdefault(key, {})[A] = value
        return True

    async def claims(self, key: str) -> list[Claim]:
        return [Claim(author, value, 0.0) for author, value in self.values.get(key, {}).items()]


def found(value: Any) -> list[tuple[bytes, Entry]]:
    records: Any = Records()
    records.values[directory.KEY] = {A: value}
    return asyncio.run(directory.lookup(records))


def test_what_is_published_is_found_among_all_and_by_its_name() -> None:
    records: Any = Records()
    entries = [Entry(*ROW), Entry("other", OTHER_RUN, *ROW[2:6])]
    asyncio.run(directory.publish(records, entries))
    assert asyncio.run(directory.lookup(records)) == [(A, entry) for entry in entries]
    for entry in entries:
        assert asyncio.run(directory.lookup(records, entry.name)) == [(A, entry)]
    assert asyncio.run(directory.lookup(records, "a third")) == []


def crowd(row: list[Any]) -> dict[bytes, Any]:
    """More strangers than count of a run, each with that claim."""
    return {digest(f"stranger {number}"): [row] for number in range(directory.NODES_MAX + 1)}


@pytest.mark.parametrize("row", [["run", OTHER_RUN, *ROW[2:]], ["other", OTHER_RUN, *ROW[2:]], ["other", *ROW[1:]]])
def test_claims_of_other_runs_crowd_none_out(row: list[Any]) -> None:
    records: Any = Records()
    records.values[directory.key_of("run")] = {**crowd(row), A: [ROW]}
    assert (A, Entry(*ROW)) in asyncio.run(directory.lookup(records, "run"))


def test_of_one_run_the_neighbours_come_first_and_of_the_others_each_has_its_turn() -> None:
    records: Any = Records()
    records.values[directory.key_of("run")] = {**crowd(ROW), A: [ROW], B: [ROW]}
    records.connected = frozenset({A})
    looks = [[author for author, _ in asyncio.run(directory.lookup(records, "run"))] for _ in range(50)]
    assert all(len(authors) == directory.NODES_MAX and authors[0] == A for authors in looks)
    assert any(B in authors for authors in looks)
    assert len({tuple(authors) for authors in looks}) == len(looks)


def test_who_is_asked_for_is_found_among_any_number_of_strangers() -> None:
    records: Any = Records()
    records.values[directory.key_of("run")] = {**crowd(ROW), A: [ROW]}
    assert asyncio.run(directory.lookup(records, "run", {A, B})) == [(A, Entry(*ROW))]


def test_a_run_is_claimed_once_by_a_node() -> None:
    assert found([ROW] * directory.RUNS_PER_NODE_MAX) == [(A, Entry(*ROW))]


def test_a_row_of_an_older_version_names_no_data() -> None:
    assert found([ROW[:6]]) == [(A, Entry(*[*ROW[:6], b""]))]


@pytest.mark.parametrize(
    "row",
    [
        ROW[:5], [*ROW, 1], 7, [], [*ROW[:6], b"short"], [*ROW[:6], "text" * 8], [*ROW[:6], None], [*ROW[:6], OURS * 2],
        [*ROW[:4], -1, *ROW[5:]], ["", *ROW[1:]], ["a\nb", *ROW[1:]], ["run", b"short", *ROW[2:]],
    ],
)  # fmt: skip
def test_a_row_that_is_not_sound_is_left_out(row: Any) -> None:
    assert found([row, ROW]) == [(A, Entry(*ROW))]


def test_claims_of_as_many_runs_as_a_node_may_have_fit_into_one_record() -> None:
    from ubcp_p2p.swarm.hivemind_parts import node

    longest = ["n" * 64, RUN, "r" * 40, OURS, 10**6, 10**6, OURS]
    size = len(node.MSGPackSerializer.dumps([longest] * directory.RUNS_PER_NODE_MAX))
    assert size + 100 < VALUE_BYTES_MAX  # with its signature


def claim(author: bytes, data: bytes, run: bytes = RUN) -> tuple[bytes, Entry]:
    return author, Entry("run", run, "recipe", digest("recipe"), 3, 50, data)


def test_peers_with_other_data_are_named() -> None:
    assert with_other_data([claim(B, THEIRS), claim(A, THEIRS)], ME, RUN, OURS) == sorted([A, B])


def test_one_peer_with_our_data_is_enough() -> None:
    """One liar among honest peers keeps nobody out."""
    assert with_other_data([claim(A, THEIRS), claim(B, THEIRS), claim(C, OURS)], ME, RUN, OURS) == []


@pytest.mark.parametrize("claims", [[], [claim(ME, THEIRS)], [claim(A, b"")], [claim(A, THEIRS, OTHER_RUN)]])
def test_own_claims_other_runs_and_the_untold_say_nothing(claims: list[tuple[bytes, Entry]]) -> None:
    assert with_other_data(claims, ME, RUN, OURS) == []
