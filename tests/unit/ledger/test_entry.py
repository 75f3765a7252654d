"""Entries made, read and signed; every limit of every field is in ledger/vectors/entries.json."""

from __future__ import annotations

import pytest

from tests.support.story import Story, numbers
from tests.vectors.ledger.scene import Scene
from ubcp_p2p.keys import signed_prefix
from ubcp_p2p.ledger import entry, wire
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, Close, Heal, Kind, OpenAccount, Position, Rotate, references
from ubcp_p2p.ledger.faults import FAULTS, BadSignature, LedgerError, MalformedEntry, RuleViolation
from ubcp_p2p.ledger.parse import make

A = b"A" * 32


def test_what_breaks_a_limit_is_not_made() -> None:
    for network, seq, slice_ in ((b"short", 0, 0), (ZERO, 2**32, 0), (ZERO, 0, -1)):
        with pytest.raises(MalformedEntry):
            make(network, A, seq, ZERO, slice_, OpenAccount(ZERO))
    with pytest.raises(MalformedEntry) as error:
        make(ZERO, A, 0, ZERO, 0, Heal(((2, A), (1, A)), ()))
    assert (error.value.code, error.value.invariant, error.value.section) == ("field", 1, "6")


def test_the_id_is_that_of_the_bytes() -> None:
    made, data = make(ZERO, A, 0, ZERO, 7, OpenAccount(A))
    assert made.id == entry.entry_id(data) != entry.entry_id(data + b"\0")
    assert made.position == Position(A, 0, made.id)
    assert (made.kind, made.slice, made.body) == (Kind.OPEN, 7, OpenAccount(A))
    assert entry.encode(made) == data


def test_what_each_kind_refers_to() -> None:
    seen: dict[int, set[bool]] = {}
    for story in (Story(numbers(n)) for n in range(6)):
        known = {signed.entry.id for signed in story.scene.entries}
        for signed in story.scene.entries:
            found = references(signed.entry)
            assert set(found) <= known
            seen.setdefault(signed.entry.kind, set()).add(bool(found))
    always = {Kind.ALLOT, Kind.RECEIPT, Kind.CLOSE}
    never = {Kind.ENROL, Kind.CHECKPOINT, Kind.ROTATE}
    assert all(seen[kind] == {True} for kind in always)
    assert all(seen[kind] == {False} for kind in never)
    assert seen[Kind.OPEN] == {True, False}  # of a node, of an account


def test_signatures_are_sorted_and_each_must_hold() -> None:
    s = Scene()
    a = s.account("a", enrol=False)
    signed = s.draft(a, Rotate(s.key("new").public, ZERO), [s.key("new")])
    assert [key for key, _ in signed.signatures] == sorted(signed.signers)
    wire.verify(signed)
    (one, first), (two, second) = signed.signatures
    with pytest.raises(BadSignature, match="under the entry does not hold"):
        wire.verify(signed._replace(signatures=((one, second), (two, first))))


def test_a_voucher_is_verified_with_its_receipt() -> None:
    s = Scene()
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    allot = s.allot(pay, s.request(a, pay, 100), node, 100)
    receipt = s.pay(node, pay, allot, 10)
    wire.verify(s.draft(node, receipt))
    with pytest.raises(BadSignature, match="under the voucher does not hold"):
        wire.verify(s.draft(node, receipt._replace(signature=bytes(64))))
    checks = wire.signatures_of(s.draft(node, receipt))
    assert [(public, role) for public, role, _, _ in checks] == [(node.public, "entry"), (pay.public, "voucher")]


def test_what_is_verified_at_once_is_what_is_verified_one_by_one() -> None:
    s = Scene()
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")  # signed by two each
    receipt = s.draft(node, s.pay(node, pay, s.allot(pay, s.request(a, pay, 100), node, 100), 10))
    entries = [*s.entries, receipt]
    singly = [check for signed in entries for check in wire.signatures_of(signed)]
    assert len(singly) > len(entries) + 2
    expected = [(public, signature + signed_prefix(role) + digest) for public, role, digest, signature in singly]
    assert list(zip(*wire.signatures_of_all(entries), strict=True)) == expected


def test_an_author_goes_on_from_its_head() -> None:
    s = Scene()
    new = s.key("new")
    author = Author(s.charters.network, s.key("a"))
    first = author.write(3, OpenAccount(ZERO))
    draft = author.draft(4, Rotate(new.public, ZERO), [new])
    assert author.head == first.entry.position
    second = author.write(4, Rotate(new.public, ZERO), [new])
    assert second == draft
    assert (author.key.public, author.public) == (new.public, first.entry.author)
    third = author.write(5, Close(ZERO, (), 0))
    assert (third.entry.seq, third.entry.prev, third.signers) == (2, second.entry.id, frozenset({new.public}))


def test_every_class_of_fault_says_where_it_stands() -> None:
    for code, fault in FAULTS.items():
        error = RuleViolation(code, "what happened")
        assert (error.invariant, error.section) == (fault.invariant, fault.section)
        assert 1 <= fault.invariant <= 15
        assert isinstance(error, LedgerError)
    assert {fault.invariant for fault in FAULTS.values()} == set(range(1, 16))
    with pytest.raises(AssertionError):
        RuleViolation("no such code", "")
