"""forks.json: many entries at one place, what HEALs cover together, keys no longer in force (SPEC §7.2, §7.4)."""

from __future__ import annotations

import copy

from tests.vectors.ledger.files import Finding, Vectors
from tests.vectors.ledger.scene import Key, Scene
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, Heal, OpenAccount, Rotate
from ubcp_p2p.ledger.wire import ForkProof, Signed

P = (1000, 0, 0, 0)


def add_to(file: Vectors) -> None:
    _places(file)
    _one_after_another(file)
    _in_part(file)
    _apart(file)
    _old_keys(file)
    _keys_in_force(file)


def forked_at(*signed: Signed) -> list[Finding]:
    """All that stand at one place: each but the one with the least id is a finding."""
    return [("fork", one, one.entry.author.hex()) for one in sorted(signed, key=lambda one: one.entry.id)[1:]]


def _scene(seed: int) -> tuple[Scene, Author, Author]:
    """`a`, enrolled, and a paymaster of `p`."""
    s = Scene(seed)
    a, p = s.account("a"), s.account("p")
    return s, a, s.node(p, "pay")


def _places(file: Vectors) -> None:
    s, a, pay = _scene(101)
    before = s.back(a, 1)
    five = [s.request(s.back(a, 1), pay, 10 + n) for n in range(5)]
    file.state("7.2", "five entries after one", "four faults: each but the one with the least id", s,
               {"a": (940, 60, 0, 0), "p": P}, frozen=[a.public], findings=forked_at(*five))  # fmt: skip
    over = [s.draft(before, s.ask(pay, 5000 + n)) for n in range(2)]
    file.state("7.2", "two entries that keep no rule beside five that do", "one proof shows both", s,
               {"a": (940, 60, 0, 0), "p": P}, proofs=[(ForkProof.of(*over), "ok")], frozen=[a.public],
               findings=forked_at(*five, *over))  # fmt: skip
    file.state("7.2", "two entries that keep no rule beside one that does", "the valid one is at their place",
               s, {"a": (990, 10, 0, 0), "p": P}, proofs=[(ForkProof.of(*over), "ok")], frozen=[a.public],
               entries=[e for e in s.entries if e not in five[1:]], findings=forked_at(five[0], *over))  # fmt: skip


def _heal(s: Scene, author: Author, *abandoned: Signed, refused: tuple[bytes, ...] = ()) -> None:
    rows = tuple(sorted((one.entry.seq, one.entry.id) for one in abandoned))
    s.write(author, Heal(rows, tuple(sorted(refused))), s.stewards[:2])


def _one_after_another(file: Vectors) -> None:
    s, a, pay = _scene(102)
    first, second = s.request(a, pay, 10), s.request(s.back(a, 1), pay, 20)
    _heal(s, a, second)
    third = s.request(s.back(a, 1), pay, 40)
    file.state("7.4", "a third branch after the HEAL", "it was not there to be abandoned", s,
               {"a": (930, 70, 0, 0), "p": P}, frozen=[a.public], findings=forked_at(first, second, third))  # fmt: skip
    _heal(s, a, third)
    file.state("7.4", "healed one after another", "a HEAL covers what the HEALs before it do", s,
               {"a": (930, 70, 0, 0), "p": P})  # fmt: skip
    over = s.draft(s.back(a, 1), s.ask(pay, 5000))
    _heal(s, a, refused=(over.entry.id,))
    file.state("7.4", "healed a third time, by refusing", "", s, {"a": (930, 70, 0, 0), "p": P},
               proofs=[(ForkProof.of(first, over), "ok")])  # fmt: skip


def _in_part(file: Vectors) -> None:
    s, a, pay = _scene(110)
    before = s.back(a, 1)
    first = s.request(a, pay, 10)
    over = [s.draft(before, s.ask(pay, 5000 + n)) for n in range(2)]
    _heal(s, a, refused=(over[0].entry.id,))
    file.state("7.4", "one of two that keep no rule refused", "the other one is not covered", s,
               {"a": (990, 10, 0, 0), "p": P}, frozen=[a.public], findings=forked_at(first, *over),
               proofs=[(ForkProof.of(*over), "ok")])  # fmt: skip

    s, a, pay = _scene(111)
    other = s.back(a, 1)
    s.request(a, pay, 10)
    second = s.request(other, pay, 20)
    over_ = s.draft(other, s.ask(pay, 5000))
    beyond = s.request(other, pay, 30)
    _heal(s, a, second, refused=(over_.entry.id,))
    file.state("7.4", "what follows an abandoned entry", "it is not covered, though the one beside it is refused", s,
               {"a": (940, 60, 0, 0), "p": P}, frozen=[a.public], findings=forked_at(beyond, over_),
               proofs=[(ForkProof.of(beyond, over_), "ok")])  # fmt: skip


def _apart(file: Vectors) -> None:
    s, a, pay = _scene(103)
    other = s.back(a, 1)
    first, second = s.request(a, pay, 10), s.request(other, pay, 20)
    for writer in (a, other):
        _heal(s, writer, refused=(bytes([7]) * 32,))
    file.state("7.4", "two HEALs that know nothing of each other", "each covers its own branch, and none both", s,
               {"a": (970, 30, 0, 0), "p": P}, frozen=[a.public], findings=forked_at(first, second))  # fmt: skip
    _heal(s, a, s.history(a.public)[-1])
    file.state("7.4", "a HEAL that abandons the branch of another", "", s, {"a": (970, 30, 0, 0), "p": P})


def _leaked(seed: int, recovery: bytes = ZERO) -> tuple[Scene, Author, Author, Key, Signed]:
    """The first key of `a` is known to a thief: it has forked; then `a` has changed its key."""
    s = Scene(seed)
    a, p = s.account("a", recovery=recovery), s.account("p")
    pay = s.node(p, "pay")
    old = a.key
    thief = s.back(a, 1)
    stolen = s.request(thief, pay, 100)
    s.write(a, Rotate(s.key("new").public, recovery), [s.key("new")])
    return s, a, pay, old, stolen


def _again(s: Scene, author: Author, seq: int, key: Key) -> Author:
    """Who has an old key, after the entry `seq` of the first branch."""
    other = s.back(author, seq)
    other.key = key
    return other


def _old_keys(file: Vectors) -> None:
    s, a, pay, old, stolen = _leaked(104)
    turned = next(one for one in s.history(a.public) if isinstance(one.entry.body, Rotate))
    file.state("7.4", "a key that leaked and was changed", "a ROTATE alone settles nothing", s,
               {"a": (900, 100, 0, 0), "p": P}, frozen=[a.public], findings=forked_at(stolen, turned))  # fmt: skip
    _heal(s, a, stolen)
    rows = {"a": (900, 100, 0, 0), "p": P}
    file.state("7.4", "a key that leaked and was changed, healed", "", s, rows)
    more = s.request(_again(s, a, 1, old), pay, 50)
    rows = {"a": (850, 150, 0, 0), "p": P}
    file.state("7.4", "the old key forks after the HEAL", "where a key was in force that was not at the HEAL", s, rows)
    thief = _again(s, a, 1, old)
    thief.head = more.entry.position
    deeper = [s.request(thief, pay, 1) for _ in range(5)][-1]
    twin = _again(s, a, 1, old)
    twin.head = deeper.entry.position
    for amount in (2, 3):
        s.request(Author(a.network, old, public=a.public, head=twin.head), pay, amount)
    rows = {"a": (840, 160, 0, 0), "p": P}
    file.state("7.4", "the old key forks its own branch", "whatever the numbers: the branch began with the old key", s,
               rows)  # fmt: skip
    s.write(_again(s, a, 1, old), Rotate(s.key("stolen").public, ZERO), [s.key("stolen")])
    file.state("7.4", "the old key changes itself", "a ROTATE is an entry like any other", s, rows)
    again = Author(a.network, old, public=a.public)
    s.write(again, OpenAccount(bytes([5]) * 32))
    file.state("7.4", "the first key opens a second chain", "before number 0 the first key was in force", s, rows)
    for name in ("one", "two"):
        s.write(copy.copy(again), Rotate(s.key(name).public, bytes([5]) * 32), [s.key(name)])
    file.state("7.4", "the first key forks its second chain", "it has nothing in common with the HEAL's", s, rows)
    over = [s.draft(_again(s, a, 0, old), s.ask(pay, 5000 + n)) for n in range(2)]
    file.state("7.4", "a proof by the old key after the HEAL", "it holds, and freezes nobody", s, rows,
               proofs=[(ForkProof.of(*over), "ok")])  # fmt: skip


def _keys_in_force(file: Vectors) -> None:
    s, a, pay = _scene(105)
    first, second = s.request(a, pay, 10), s.request(s.back(a, 1), pay, 20)
    _heal(s, a, second)
    third = s.request(s.back(a, 1), pay, 40)
    file.state("7.4", "the same key forks after the HEAL", "nothing was changed: it answers", s,
               {"a": (930, 70, 0, 0), "p": P}, frozen=[a.public], findings=forked_at(first, second, third))  # fmt: skip

    s, a, pay, old, stolen = _leaked(106)
    s.write(a, Rotate(old.public, ZERO), [old])
    _heal(s, a, stolen)
    more = s.request(_again(s, a, 1, old), pay, 50)
    found = forked_at(stolen, s.history(a.public)[3], more)
    file.state("7.4", "a key that was changed and changed back", "it is in force at the HEAL", s,
               {"a": (850, 150, 0, 0), "p": P}, frozen=[a.public], findings=found)  # fmt: skip

    s, a, pay, old, stolen = _leaked(112)
    new, turned = a.key, copy.copy(a)
    s.write(a, Rotate(old.public, ZERO), [old])
    _heal(s, a, stolen)
    turned.key = new
    for amount in (1, 2):
        s.request(copy.copy(turned), pay, amount)
    file.state("7.4", "forks where the key between was in force", "at the HEAL the first key was, again", s,
               {"a": (897, 103, 0, 0), "p": P})  # fmt: skip

    s, a, pay, old, stolen = _leaked(107)
    _heal(s, a, stolen)
    other = s.back(a, 3)  # after the HEAL
    pair = s.request(a, pay, 1), s.request(other, pay, 2)
    file.state("7.4", "the new key forks after the HEAL", "", s, {"a": (897, 103, 0, 0), "p": P},
               frozen=[a.public], findings=forked_at(*pair))  # fmt: skip

    s, a, pay, old, stolen = _leaked(108)
    fork = copy.copy(a)  # after the ROTATE, before the HEAL, with the new key
    _heal(s, a, stolen)
    heal = s.history(a.public)[-1]
    third = s.request(fork, pay, 1)
    file.state("7.4", "the new key forks before the HEAL", "it was in force there, as it was at the HEAL", s,
               {"a": (899, 101, 0, 0), "p": P}, frozen=[a.public], findings=forked_at(heal, third))  # fmt: skip
