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
    """What `directory` asks of a Network."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    async def claim(self, key: str, value: Any, lifetime_s: float) -> bool:
        self.values.append(value)
        return True

    async def claims(self, key: str) -> list[Claim]:
        return [Claim(A, value, 0.0) for value in self.values]


def found(*values: Any) -> list[tuple[bytes, Entry]]:
    records: Any = Records(*values)
    return asyncio.run(directory.lookup(records))


def test_what_is_published_is_found() -> None:
    records: Any = Records()
    entries = [Entry(*ROW), Entry(*ROW[:6])]
    asyncio.run(directory.publish(records, entries))
    assert asyncio.run(directory.lookup(records)) == [(A, entry) for entry in entries]


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
