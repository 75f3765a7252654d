"""Decisions as an audit and the leases take them: parts joined, a second one on a slice told from the first. Pure.

A node that accepts more requests than one DECISION holds tells several, equal but for what they accept: parts of one.
The allocator's rules, by which a decision is held against its inputs (invariant 14), are somebody else's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ubcp_p2p.ledger.entry import Decision, Entry
from ubcp_p2p.ledger.state import Finding, Ledger


class Decided(NamedTuple):
    """One DECISION of one node; of parts that are joined, the first, and what all of them accept.

    told: the slice of the entry; body.slice: the one that it decides on.
    """

    id: bytes
    node: bytes
    seq: int
    told: int
    body: Decision

    @classmethod
    def of(cls, entry: Entry, body: Decision) -> Decided:
        return cls(entry.id, entry.author, entry.seq, entry.slice, body)


def joined(decisions: Iterable[Decided]) -> Iterator[Decided]:
    """Parts of one decision as one: by node, slice, inputs."""
    groups: dict[tuple[bytes, Decision], list[Decided]] = defaultdict(list)
    for one in decisions:
        groups[one.node, _whole(one)].append(one)
    for (_, whole), rows in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1].slice, item[0][1].inputs)):
        accepted = tuple(sorted(id_ for row in rows for id_ in row.body.accepted))
        yield min(rows, key=_place)._replace(body=whole._replace(accepted=accepted))


def by_slice(decisions: Iterable[Decided]) -> list[list[Decided]]:
    """All of one node on one slice together, as they follow on its chain: by (seq, id)."""
    groups: dict[tuple[bytes, int], list[Decided]] = defaultdict(list)
    for one in decisions:
        groups[one.node, one.body.slice].append(one)
    return [sorted(rows, key=_place) for _, rows in sorted(groups.items())]


def again(rows: list[Decided], ledger: Ledger) -> list[Decided]:
    """Of one group of `by_slice`: those that are no part of the first (SPEC §6.4).

    None of a chain that has forked: it is named for that; and if its decisions counted no more, a second branch would
    take back what the first has charged to people.
    """
    if len(rows) == 1 or len(ledger.chains.get(rows[0].node, ())) > 1:
        return []
    whole = _whole(rows[0])
    return [row for row in rows[1:] if _whole(row) != whole]


def told_twice(decisions: Iterable[Decided], ledger: Ledger) -> Iterator[Finding]:
    """Each DECISION that a node had no right to tell (`decision-twice`)."""
    for rows in by_slice(decisions):
        for one in again(rows, ledger):
            message = f"decides on slice {one.body.slice} once more, after {rows[0].id.hex()[:16]}…"
            yield Finding("decision-twice", one.id, one.node, message)


def _whole(one: Decided) -> Decision:
    """What parts of one decision have in common."""
    return one.body._replace(accepted=())


def _place(one: Decided) -> tuple[int, bytes]:
    return one.seq, one.id
