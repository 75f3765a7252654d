"""Decisions held against their inputs (invariant 14); the allocator's rules are somebody else's. Pure.

A node that accepts more requests than one DECISION holds tells several with the same inputs: together they are one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeAlias

from ubcp_p2p.ledger.entry import Decision, Entry


class Decided(NamedTuple):
    """One decision: of one entry, or of several of them joined. entry: the id of the (first) one."""

    entry: bytes
    node: bytes
    slice: int
    budget: int
    granule: int
    accepted: tuple[bytes, ...]
    refused: tuple[tuple[str, int], ...]
    inputs: bytes

    @classmethod
    def of(cls, entry: Entry, body: Decision) -> Decided:
        return cls(
            entry.id, entry.author, body.slice, body.budget, body.granule, body.accepted, body.refused, body.inputs
        )


# In what a decision is not what its inputs (the blob) give, in words; empty when it is right.
Replay: TypeAlias = Callable[[bytes, Decided], tuple[str, ...]]


def joined(decisions: Iterable[Decided]) -> Iterator[Decided]:
    """Decisions of one node on one slice that are equal but for what they accept, as one: by node, slice, inputs."""
    groups: dict[tuple[object, ...], list[Decided]] = {}
    for one in decisions:
        groups.setdefault(one._replace(entry=b"", accepted=()), []).append(one)
    for rows in sorted(groups.values(), key=lambda rows: (rows[0].node, rows[0].slice, rows[0].inputs)):
        first = min(rows)
        yield first._replace(accepted=tuple(sorted(id_ for row in rows for id_ in row.accepted)))
