"""Who has forked where, and which of it a HEAL has settled (SPEC §7.2, §7.4). Pure.

Entries of one author after one entry are a *place*: n of them are one set of n ids, and not n² pairs. A place is judged
when it is asked for, and again only when something about it has changed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple, TypeAlias

from ubcp_p2p.ledger.chain import Chain
from ubcp_p2p.ledger.entry import Entry, Position

# A branch that passes through a position; None when that entry is not here.
Find: TypeAlias = Callable[[Position], "Chain | None"]


class Place(NamedTuple):
    """Where several entries of one author stand: their number, and the id before them."""

    seq: int
    prev: bytes


class Fork(NamedTuple):
    """Two entries of one place. first: the least id there."""

    seq: int
    first: bytes
    second: bytes


class Healing(NamedTuple):
    """What one HEAL settles. key: in force at it. before: the entry that it follows.

    earlier: the newest HEALs on the branches up to `before` and up to the abandoned entries.
    """

    position: Position
    key: bytes
    before: Position
    abandoned: tuple[Position, ...]
    refused: frozenset[bytes]
    earlier: frozenset[bytes]


class Forks:
    """Of all authors."""

    def __init__(self) -> None:
        self.places: dict[bytes, dict[Place, set[bytes]]] = {}
        self.healings: dict[bytes, dict[bytes, Healing]] = {}  # author → HEAL's id
        self.changes = 0  # rises with all that may make somebody frozen, or free
        self._newest: dict[bytes, set[bytes]] = {}  # HEALs that no other one has before it
        self._open: dict[bytes, set[Place]] = {}  # as last judged
        self._unjudged: set[tuple[bytes, Place]] = set()
        self._frozen: list[bytes] = []  # as last judged, sorted

    # -- noting -------------------------------------------------------------------------------------------------

    def ids_at(self, author: bytes, place: Place) -> Collection[bytes]:
        """All that is known to stand there; nothing where there is no fork."""
        return self.places.get(author, {}).get(place, ())

    def has(self, entry: Entry) -> bool:
        """Whether it is one of several at its place."""
        return entry.id in self.ids_at(entry.author, Place(entry.seq, entry.prev))

    def note(self, author: bytes, place: Place, ids: Collection[bytes]) -> None:
        """These stand there, two at least, each signed by its author."""
        known = self.places.setdefault(author, {}).setdefault(place, set())
        if not known.issuperset(ids):
            known.update(ids)
            self._look_again(author, place)

    def arrived(self, entry: Entry) -> None:
        """It has become part of the ledger: one more at its place, where there is a fork, and none that is refused."""
        place = Place(entry.seq, entry.prev)
        known = self.places[entry.author].get(place)
        if known is not None:
            known.add(entry.id)
            self._look_again(entry.author, place)

    def heal(self, healing: Healing) -> None:
        """A HEAL has become part of the ledger; once more changes nothing."""
        author, id_ = healing.position.author, healing.position.id
        if id_ in self.healings.get(author, ()):
            return
        self.healings.setdefault(author, {})[id_] = healing
        newest = self._newest.setdefault(author, set())
        newest.difference_update(healing.earlier)
        newest.add(id_)
        for place in self._open.get(author, ()):  # what is settled stays so
            self._look_again(author, place)

    def _look_again(self, author: bytes, place: Place) -> None:
        self._unjudged.add((author, place))
        self.changes += 1

    # -- asking -------------------------------------------------------------------------------------------------

    def frozen(self, find: Find) -> list[bytes]:
        """All authors with a place that is not settled, sorted."""
        self._judge(find)
        return list(self._frozen)

    def is_frozen(self, author: bytes, find: Find) -> bool:
        self._judge(find)
        return author in self._open

    def open_forks(self, author: bytes, find: Find) -> list[Fork]:
        """Of each place that is not settled: every id there with the least one, by number."""
        self._judge(find)
        found = []
        for place in self._open.get(author, ()):
            first, *others = sorted(self.places[author][place])
            found += [Fork(place.seq, first, other) for other in others]
        return sorted(found)

    def _judge(self, find: Find) -> None:
        for author, place in self._unjudged:
            open_ = self._open.get(author)
            if not self._is_settled(author, place, find):
                if open_ is None:
                    open_ = self._open[author] = set()
                    insort(self._frozen, author)
                open_.add(place)
            elif open_ is not None:
                open_.discard(place)
                if not open_:
                    del self._open[author]
                    del self._frozen[bisect_left(self._frozen, author)]
        self._unjudged.clear()

    # -- what a HEAL settles (§7.4) -----------------------------------------------------------------------------

    def _is_settled(self, author: bytes, place: Place, find: Find) -> bool:
        """Whether one HEAL covers every entry there; a HEAL covers what those before it do, so the newest suffice."""
        return any(self._covers(author, id_, place, find) for id_ in self._newest.get(author, ()))

    def _covers(self, author: bytes, heal: bytes, place: Place, find: Find) -> bool:
        left = set(self.places[author][place])
        for healing in self._with_earlier(author, heal):
            if _is_outdated(healing, author, place, find):
                return True  # all but the one on the HEAL's branch, which is before the HEAL
            for position in (healing.before, *healing.abandoned):
                branch = find(position) if position.seq >= place.seq else None
                if branch is not None:
                    left -= {branch.id_at(place.seq)}
            for id_ in healing.refused & left:
                if find(Position(author, place.seq, id_)) is None:
                    left.discard(id_)
            if not left:
                return True
        return False

    def _with_earlier(self, author: bytes, heal: bytes) -> Iterator[Healing]:
        healings, known, todo = self.healings[author], {heal}, [heal]
        while todo:
            healing = healings[todo.pop()]
            yield healing
            todo += healing.earlier - known
            known |= healing.earlier


def _is_outdated(healing: Healing, author: bytes, place: Place, find: Find) -> bool:
    """Whether what stands there left the HEAL's branch where another key was in force than at the HEAL."""
    ours = find(healing.position)
    assert ours is not None
    if place.seq == 0:
        return author != healing.key  # a chain's first key is its author's
    theirs = find(Position(author, place.seq - 1, place.prev))
    assert theirs is not None
    last = _last_in_common(ours, theirs, min(healing.position.seq, place.seq - 1))
    return ours.powers_at(last).key != healing.key  # who left it after the HEAL had the key that was in force at it


def _last_in_common(one: Chain, other: Chain, most: int) -> int:
    """The greatest number up to `most` at which both have the same entry; 0 too where they have none in common.

    After number 0 as before it the author's first key is in force.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if one.id_at(middle) == other.id_at(middle):
            low = middle
        else:
            high = middle - 1
    return low
