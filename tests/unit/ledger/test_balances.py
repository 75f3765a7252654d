"""Statements, and what is found without making an entry invalid; rows are in ledger/vectors/balances.json."""

from __future__ import annotations

import pytest

from tests.support.ledger import ids_of
from tests.vectors.ledger.scene import Scene
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.balances import Balance, balances, balances_root, entries_root, statement
from ubcp_p2p.ledger.entry import Close, Enrol
from ubcp_p2p.ledger.merkle import EMPTY, root_of
from ubcp_p2p.ledger.purse import ALLOWANCE, EARNED, Vintage
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.world import World


def _earned() -> tuple[Scene, Author, Author, Author]:
    """`b` has earned 70 with its first node and 20 with its second, and claimed 50."""
    s = Scene()
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, one, two = s.node(p, "pay"), s.node(b, "one"), s.node(b, "two")
    request = s.request(a, pay, 500)
    allots = [s.allot(pay, request, node, 200) for node in (one, two)]
    s.now = 1
    s.write(one, s.pay(one, pay, allots[0], 50))
    s.write(two, s.pay(two, pay, allots[1], 20))
    assert one.head is not None
    s.request(b, pay, 10, income=[one.head])
    s.now = 2
    s.write(one, s.pay(one, pay, allots[0], 70))
    return s, b, one, two


def test_a_statement_says_what_a_balance_consists_of() -> None:
    s, b, one, two = _earned()
    found = statement(s.ledger, b.public, s.history)
    assert found.balance == Balance(b.public, 1040, 10, 40, 0)
    assert found.purse.vintages == {Vintage(2, 0, ALLOWANCE): 990, Vintage(3, 0, EARNED): 50}
    assert found.income == {one.public: 20, two.public: 20}
    assert found.enrolment is not None
    assert found.enrolment.covers(0)
    assert not found.frozen


def test_a_statement_is_as_of_the_newest_slice_at_least() -> None:
    s, b, _, _ = _earned()
    now = statement(s.ledger, b.public, s.history)
    assert statement(s.ledger, b.public, s.history, 0) == now
    later = statement(s.ledger, b.public, s.history, 30)
    assert later.balance == Balance(b.public, 2000, 10, 0, 0)
    assert statement(s.ledger, b.public, s.history) == now  # asking changes nothing


def test_who_is_no_account_has_no_statement() -> None:
    s, _, one, _ = _earned()
    for stranger in (bytes(32), one.public):
        with pytest.raises(KeyError):
            statement(s.ledger, stranger, s.history)


def test_the_frozen_are_said_to_be() -> None:
    s, b, _, _ = _earned()
    s.write(s.back(b, 1), s.ask(b, 1))
    assert statement(s.ledger, b.public, s.history).frozen
    assert not statement(s.ledger, s.names["a"].public, s.history).frozen


def test_roots() -> None:
    s, _, _, _ = _earned()
    assert entries_root(s.ledger) == root_of(sorted(signed.entry.id for signed in s.entries))
    assert entries_root(Ledger(s.charters)) == balances_root([]) == EMPTY
    rows = balances(s.ledger, s.history)
    assert [row.account for row in rows] == sorted(author.public for author in s.names.values())
    assert balances_root(rows) != balances_root(rows[::-1])
    assert balances_root(rows) != balances_root([rows[0]._replace(debt=1), *rows[1:]])


def test_heads_and_ids_of_a_ledger_that_forked() -> None:
    s, b, one, _ = _earned()
    s.write(s.back(b, 1), s.ask(b, 1))
    assert ids_of(s.ledger) == sorted(signed.entry.id for signed in s.entries)
    assert len(list(s.ledger.heads())) == len(s.ledger.chains) + 1
    assert s.ledger.accounts() == sorted(author.public for author in s.names.values())
    assert s.ledger.contains_id(s.id_at(one, 2))
    assert not s.ledger.contains_id(bytes(32))


def test_findings_speak_to_people() -> None:
    s, b, one, _ = _earned()
    fork = s.write(s.back(b, 1), s.ask(b, 1))
    request = next(iter(s.ledger.requests.values()))
    s.now = 40
    close = s.write(s.names["a"], Close(request.id, ((s.opening(one), 0),), 500))
    found = {finding.code: finding for finding in s.ledger.findings()}
    assert set(found) == {"fork", "close-voucher"}
    assert found["fork"].author == b.public
    assert "two entries with number 2" in found["fork"].message
    assert fork.entry.id.hex()[:16] in found["fork"].message
    assert (found["close-voucher"].entry, found["close-voucher"].author) == (close.entry.id, s.names["a"].public)
    assert "says 0 where a voucher over" in found["close-voucher"].message


def test_a_finding_names_the_stewards_who_enrolled_one_person_twice() -> None:
    s = Scene()
    a, b = s.account("a", enrol=False), s.account("b", enrol=False)
    body = Enrol(False, "lab", 0, 1, bytes(32))
    s.write(a, body, s.stewards[:2])
    assert s.ledger.findings() == []
    s.now = 1
    s.write(b, body, s.stewards[1:])
    (found,) = s.ledger.findings()
    names = ", ".join(sorted(key.public.hex()[:16] + "…" for key in s.stewards))
    assert found.message == f"one person enrolled twice; signed by {names}"
    assert (found.code, found.author) == ("nullifier", b.public)


def test_in_an_open_network_nobody_answers_for_an_enrolment() -> None:
    s = Scene(threshold=0)
    for name in ("a", "b"):
        s.enrol(s.account(name, enrol=False), "one person", periods=1)
    assert [finding.message for finding in s.ledger.findings()] == [
        "one person enrolled twice; signed by none: an open network"
    ]


def test_a_close_that_leaves_out_who_was_paid_least() -> None:
    s = Scene()
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    request = s.request(a, pay, 100, slices=1)
    allot = s.allot(pay, request, node, 100)
    s.write(node, s.pay(node, pay, allot, 1))
    s.now = 6
    close = s.write(a, Close(request.entry.id, (), 100))
    (found,) = s.ledger.findings()
    assert (found.code, found.entry) == ("close-voucher", close.entry.id)
    assert found.message == "says 0 where a voucher over 1 was signed"
    assert statement(s.ledger, a.public, s.history).balance.available == 999


def test_an_empty_ledger() -> None:
    ledger = Ledger(Scene().charters)
    assert (ledger.slice, ledger.entries, ledger.accounts(), list(ledger.heads())) == (0, 0, [], [])
    assert (ledger.findings(), ledger.frozen(), balances(ledger, World().history)) == ([], [], [])
