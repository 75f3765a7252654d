"""The accounts' part of rules.json: enrolment, requests, cover, income, closes (SPEC §6.2, §6.3, §8)."""

from __future__ import annotations

from tests.vectors.ledger.files import Vectors
from tests.vectors.ledger.scene import Scene
from ubcp_p2p.charter.values import Allowance
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, Allot, Close, Enrol, OpenNode, Position, Request
from ubcp_p2p.ledger.wire import Signed

RICH = 10**9  # an exposure cap out of the way


def add_to(file: Vectors) -> None:
    _enrolments(file)
    _enrolment_by_version(file)
    _requests(file)
    _cover(file)
    _exposure(file)
    _versions(file)
    _income(file)
    _two_owners(file)
    _closes_claimed(file)
    _closes_by_account(file)


def _enrolments(file: Vectors) -> None:
    s = Scene(11)
    a = s.account("a", enrol=False)
    s.now = 25  # period 2
    body = Enrol(False, "lab", 2, 8, bytes([1]) * 32)

    def case(name: str, shows: str, body: Enrol, expected: str = "ok", stewards: int = 2) -> None:
        file.entry("6.2", name, shows, s, s.draft(a, body, s.stewards[:stewards]), expected)

    case("enrol", "by two stewards, from now on, for as long as possible", body)
    case("enrol by one steward", "the charter asks for two", body, "stewards", 1)
    case("enrol by no steward", "", body, "stewards", 0)
    case("enrol in an unknown unit", "the charter has lab and village", body._replace(unit="school"), "enrolment")
    case("enrol from the period before", "first is not below now", body._replace(first=1, until=7), "enrolment")
    case("enrol from the last period possible", "first ≤ now + longest", body._replace(first=8, until=9))
    case("enrol from a period later", "", body._replace(first=9, until=10), "enrolment")
    case("enrol for no period", "first < until", body._replace(until=2), "enrolment")
    case("enrol for minus one period", "", body._replace(first=3, until=2), "enrolment")
    case("enrol for one period", "", body._replace(until=3))
    case("enrol for a period too long", "until ≤ first + longest", body._replace(until=9), "enrolment")
    s.write(a, body._replace(until=5), s.stewards[:2])
    case("enrol again within the first", "first is not below the until before", body._replace(first=4), "enrolment")
    case("enrol again after the first", "", body._replace(first=5))
    case("enrol again with a gap", "", body._replace(first=6))
    s.write(a, body._replace(first=6, until=7), s.stewards[:2])
    case("enrol a third time within the second", "what counts is the ENROL before", body._replace(first=6),
         "enrolment")  # fmt: skip
    case("enrol a third time after the second", "", body._replace(first=7))
    open_ = Scene(12, threshold=0)
    b = open_.account("b", enrol=False)
    file.entry("6.2", "enrol in an open network", "threshold 0: no steward need sign", open_,
               open_.draft(b, body._replace(first=0, until=1)))  # fmt: skip


def _enrolment_by_version(file: Vectors) -> None:
    s = Scene(13)
    s.amend(3, threshold=3)
    a = s.account("a", enrol=False)
    body = Enrol(True, "lab", 3, 4, ZERO)
    for slice_, stewards, expected in ((29, 2, "ok"), (30, 2, "stewards"), (30, 3, "ok")):
        s.now = slice_
        file.entry("4.2", f"{stewards} stewards in slice {slice_}", "from period 3 on three must sign", s,
                   s.draft(a, body, s.stewards[:stewards]), expected)  # fmt: skip


def _requests(file: Vectors) -> None:
    s = Scene(14)
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    s.now = 12
    body = s.ask(pay, 100)

    def case(name: str, shows: str, body: Request, expected: str = "ok") -> None:
        file.entry("6.3", name, shows, s, s.draft(a, body), expected)

    case("request", "all of it as it should be", body)
    case("one number of peers", "peers min = peers max", body._replace(peers_min=8))
    case("peers the wrong way round", "peers min > peers max", body._replace(peers_min=9), "request")
    case("a deadline now", "slice = deadline", body._replace(deadline=12))
    case("a deadline before", "slice > deadline", body._replace(deadline=11), "request")
    case("expiry at the deadline", "deadline = expiry", body._replace(deadline=14))
    case("expiry before the deadline", "deadline > expiry", body._replace(deadline=15), "request")
    case("the longest request", "expiry = slice + allowance periods", body._replace(expiry=32))
    case("a request too long", "a slice more", body._replace(expiry=33), "request")
    case("an unknown purpose", "the charter has education and research", body._replace(purpose="sport"), "request")
    case("a paymaster that nobody knows", "it may open its chain later", body._replace(paymaster=bytes([7]) * 32))
    stranger = s.account("stranger", enrol=False)
    file.entry("8.3", "never enrolled", "", s, s.draft(stranger, body), "not-enrolled")
    late = s.account("late", enrol=False)
    s.write(late, Enrol(False, "lab", 3, 5, bytes([1]) * 32), s.stewards[:2])
    for slice_, expected in ((29, "not-enrolled"), (30, "ok"), (49, "ok"), (50, "not-enrolled")):
        s.now = slice_
        file.entry("8.3", f"slice {slice_} of an enrolment from period 3 to 5", "first ≤ period < until", s,
                   s.draft(late, s.ask(pay, 100)), expected)  # fmt: skip


def _cover(file: Vectors) -> None:
    s = Scene(15, exposure_cap=RICH)
    a, b, p = s.account("a"), s.account("b", newcomer=True), s.account("p")
    pay = s.node(p, "pay")

    def case(name: str, shows: str, author: Author, credits_: int, expected: str = "ok") -> None:
        file.entry("8.4", name, shows, s, s.draft(author, s.ask(pay, credits_)), expected)

    case("all of the allowance", "1000 in the first period", a, 1000)
    case("one more than the allowance", "", a, 1001, "overdraft")
    case("all of a newcomer's allowance", "400 in the first period", b, 400)
    case("one more than a newcomer's allowance", "", b, 401, "overdraft")
    s.now = 10
    case("two allowances", "that of period 0 and that of period 1", a, 2000)
    case("one more than two allowances", "", a, 2001, "overdraft")
    s.now = 20
    case("two allowances in period 2", "that of period 0 has expired", a, 2000)
    case("one that has expired", "three allowances would cover it", a, 2001, "expired")
    case("all that has expired", "three allowances would just cover it", a, 3000, "expired")
    case("one more than with what has expired", "", a, 3001, "overdraft")
    s.request(a, pay, 1500)
    case("what a REQUEST has left", "1500 of 2000 are reserved", a, 500)
    case("one more than a REQUEST has left", "", a, 501, "overdraft")
    s.now = 30
    case("the oldest vintage is spent first", "500 of period 2 are left, and 1000 of period 3", a, 1500)
    case("one more than the newer vintages", "", a, 1501, "overdraft")


def _exposure(file: Vectors) -> None:
    s = Scene(16)
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    s.now = 10

    def case(name: str, shows: str, credits_: int, expected: str = "ok") -> None:
        file.entry("8.4", name, shows, s, s.draft(a, s.ask(pay, credits_)), expected)

    case("up to the exposure cap", "1500 in one period", 1500)
    case("above the exposure cap", "", 1501, "exposure")
    s.request(a, pay, 1000)
    s.now = 19
    case("up to the cap together", "two REQUESTs in one period", 500)
    case("above the cap together", "", 501, "exposure")
    s.request(a, pay, 500)
    s.now = 20
    case("a new period", "the cap counts from the start", 1500)


def _versions(file: Vectors) -> None:
    """From period 1 on: another cap, allowance, purpose, and allowances that are good for longer."""
    s = Scene(17)
    s.amend(1, exposure_cap=1900, purposes=("sport",), allowance=Allowance(2000, 400), allowance_periods=3)
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    for slice_, credits_, purpose, expected in (
        (9, 1000, "education", "ok"), (9, 1000, "sport", "request"), (10, 1900, "sport", "ok"),
        (10, 1901, "sport", "exposure"), (10, 1900, "education", "request"),
    ):  # fmt: skip
        s.now = slice_
        file.entry("4.2", f"{credits_} for {purpose} in slice {slice_}", "the charter in force in the period", s,
                   s.draft(a, s.ask(pay, credits_, purpose=purpose)), expected)  # fmt: skip
    for expiry, expected in ((40, "ok"), (41, "request")):
        file.entry("4.2", f"an expiry of {expiry} in slice 10", "from period 1 on at most 3 periods", s,
                   s.draft(a, s.ask(pay, 100, purpose="sport", expiry=expiry)), expected)  # fmt: skip


def _paid(s: Scene, *credits_: int) -> tuple[Author, Author, Author, Signed]:
    """`b` earns with its node: cumulative credits, one RECEIPT a slice from slice 1 on, for a REQUEST of `a`."""
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    allot = s.allot(pay, s.request(a, pay, 1000, slices=20), node, 1000)
    for total in credits_:
        s.now += 1
        s.write(node, s.pay(node, pay, allot, total))
    return b, pay, node, allot


def _income(file: Vectors) -> None:
    s = Scene(18, exposure_cap=RICH)
    b, pay, node, allot = _paid(s, 100, 250)
    places = [signed.entry.position for signed in s.history(node.public)]

    def case(name: str, shows: str, credits_: int, *income: Position, expected: str = "ok", author: Author = b) -> None:
        file.entry("8.3", name, shows, s, s.draft(author, s.ask(pay, credits_, income=income)), expected)

    case("all income", "allowance 1000, income 250", 1250, places[2])
    case("one more than all income", "", 1251, places[2], expected="overdraft")
    case("income up to the first RECEIPT", "the voucher's credits are in all", 1100, places[1])
    case("one more than up to the first RECEIPT", "", 1101, places[1], expected="overdraft")
    case("no income yet", "claimed up to the OPEN", 1000, places[0])
    case("an unknown place", "pending", 1000, places[2]._replace(id=bytes([9]) * 32), expected="pending")
    case("a place with another number", "an id stands at one place only", 1000, places[2]._replace(seq=1),
         expected="pending")  # fmt: skip
    case("income of another's node", "", 500, places[2], expected="claim", author=s.names["p"])
    case("income of an account", "a place on the own chain", 500, Position(b.public, 0, s.id_at(b, 0)),
         expected="claim")  # fmt: skip
    second = s.node(b, "second")
    two = sorted((places[2], second.head or places[0]))
    case("income of two nodes", "one of them has none", 1250, *two)
    s.request(b, pay, 100, income=[places[1]])
    case("income after what was claimed", "1000 − 100 + 250 of which 100 were claimed", 1150, places[2])
    case("one more than after what was claimed", "", 1151, places[2], expected="overdraft")
    case("income claimed twice", "the same place", 100, places[1], expected="claim")
    case("income claimed backwards", "an earlier place", 100, places[0], expected="claim")
    s.now = 29
    case("income in its last period", "of period 0, good for 3 periods; allowances of periods 1 and 2", 2150, places[2])
    s.now = 30
    case("income that has expired", "of period 0, in period 3", 2150, places[2], expected="expired")

    s = Scene(19)
    b, pay, node, allot = _paid(s)
    s.now = 8
    s.write(node, s.pay(node, pay, allot, 50))
    for slice_, expected in ((6, "slice-reference"), (7, "ok")):
        file.entry("5.4", f"income of slice 8 claimed in slice {slice_}", "a slice at most 1 below", s,
                   s.draft(b, s.ask(pay, 10, income=(s.history(node.public)[-1].entry.position,)), slice_=slice_),
                   expected)  # fmt: skip

    s = Scene(20)
    b, pay, node, allot = _paid(s, 100)
    first = s.history(node.public)[1].entry.position
    fork = s.back(node, 0)
    s.now = 3
    other = [s.write(fork, s.pay(fork, pay, allot, total)) for total in (120,)]
    s.now = 4
    longer = s.write(fork, s.pay(fork, pay, allot, 150))
    s.request(b, pay, 10, income=[first])
    for name, place, expected in (
        ("the other branch further on", longer.entry.position, "two-branches"),
        ("the other branch at the same number", other[0].entry.position, "claim"),
    ):
        file.entry("7.3", f"income of {name}", "the node has forked after the income claimed began", s,
                   s.draft(b, s.ask(pay, 10, income=(place,))), expected)  # fmt: skip
    s.now = 5
    on = s.write(node, s.pay(node, pay, allot, 160))
    file.entry("7.3", "income of the branch claimed before", "the other branch is there too, and changes nothing", s,
               s.draft(b, s.ask(pay, 10, income=(on.entry.position,))), also=[longer])  # fmt: skip


def _two_owners(file: Vectors) -> None:
    """A node's key opens a second chain for another owner: each is paid for its own ALLOTs."""
    s = Scene(21, exposure_cap=RICH)
    _, pay, node, allot = _paid(s, 100)
    c = s.account("c")
    twin = Author(s.charters.network, node.key)
    assert c.head is not None
    s.write(twin, OpenNode(c.head), [c.key])
    assert twin.head is not None
    s.now = 4
    file.entry("6.6", "a voucher for the other OPEN of a node", "the ALLOT names the OPEN of a chain", s,
               s.draft(twin, s.pay(twin, pay, allot, 100)), "receipt-allot")  # fmt: skip
    file.entry("8.3", "income of the other OPEN of a node", "each owner has its own branch", s,
               s.draft(c, s.ask(pay, 10, income=(s.history(node.public)[1].entry.position,))), "claim")  # fmt: skip
    file.entry("8.3", "income of one's own OPEN of a node", "", s,
               s.draft(c, s.ask(pay, 10, income=(twin.head,))))  # fmt: skip


def _closes_claimed(file: Vectors) -> None:
    s = Scene(22, exposure_cap=RICH)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay = s.node(p, "pay")
    requests = [s.request(a, pay, 300, slices=2), s.request(a, pay, 200, slices=2), s.request(b, pay, 100, slices=2)]
    s.now = 7
    fork = s.back(pay, 0)
    closes = [s.write(pay, Close(r.entry.id, (), r.entry.body.credits)) for r in requests]  # type: ignore[union-attr]
    twin = s.take(fork.write(8, Close(requests[0].entry.id, (), 300)))

    def case(name: str, shows: str, credits_: int, *ids: bytes, expected: str = "ok") -> None:
        body = s.ask(pay, credits_, closes=tuple(sorted(ids)))
        file.entry("8.5", name, shows, s, s.draft(a, body), expected)

    ids = [signed.entry.id for signed in closes]
    case("a close claimed", "500 are left, 300 come back", 800, ids[0])
    case("one more than a close gives back", "", 801, ids[0], expected="overdraft")
    case("two closes claimed", "500 are left, 500 come back", 1000, ids[0], ids[1])
    case("an unknown close", "pending", 100, bytes([9]) * 32, expected="pending")
    case("a REQUEST as a close", "another kind of entry", 100, requests[0].entry.id, expected="reference")
    case("the close of another's REQUEST", "", 100, ids[2], expected="reference")
    case("two closes of one REQUEST", "by a paymaster that has forked", 100, ids[0], twin.entry.id,
         expected="close-again")  # fmt: skip
    for slice_, expected in ((5, "slice-reference"), (6, "ok")):
        file.entry("5.4", f"a close of slice 7 claimed in slice {slice_}", "a slice at most 1 below", s,
                   s.draft(a, s.ask(pay, 10, closes=(ids[0],)), slice_=slice_), expected)  # fmt: skip
    s.request(a, pay, 100, closes=[ids[0]])
    case("a close claimed twice", "", 100, ids[0], expected="close-again")
    case("another close of a REQUEST that is closed", "", 100, twin.entry.id, expected="close-again")
    case("what a close gave back", "500 + 300 − 100", 700)
    case("one more than a close gave back", "", 701, expected="overdraft")
    own = s.write(a, Close(requests[1].entry.id, (), 200))
    case("the close by the account itself", "only a paymaster's is claimed", 100, own.entry.id, expected="reference")
    case("a paymaster's close after the own", "", 100, ids[1], expected="close-again")
    fork = s.back(a, 1)
    file.entry("8.5", "the close of a REQUEST on another branch", "its reserve is not open on this one", s,
               s.draft(fork, s.ask(pay, 10, closes=(ids[1],))), "close-again")  # fmt: skip
    s.now = 20
    case("what came back of an expired vintage", "all of it was of period 0: 1000 + 1000 are left", 2000)
    case("one more than what is not expired", "", 2001, expected="expired")


def _closes_by_account(file: Vectors) -> None:
    s = Scene(23, exposure_cap=RICH)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    request = s.request(a, pay, 300, slices=2)
    id_ = request.entry.id
    s.write(pay, Allot(id_, s.opening(node), 300))

    def case(
        name: str, shows: str, body: Close, expected: str = "ok", author: Author = a, section: str = "6.7"
    ) -> None:
        file.entry(section, name, shows, s, s.draft(author, body), expected)

    s.now = 6
    case("an account's CLOSE within the grace", "slice = expiry + grace", Close(id_, (), 300), "close")
    s.now = 7
    case("an account's CLOSE after the grace", "", Close(id_, (), 300))
    final = ((s.opening(node), 100),)
    case("an account's CLOSE with a final amount", "100 + 200", Close(id_, final, 200))
    case("an account's CLOSE that returns too much", "100 + 201", Close(id_, final, 201), "zero-sum", section="8.1")
    case("an account's CLOSE that returns too little", "100 + 199", Close(id_, final, 199), "zero-sum", section="8.1")
    case("an account's CLOSE of another's REQUEST", "", Close(id_, (), 300), "close", b)
    case("an account's CLOSE of an OPEN", "another kind of entry", Close(s.id_at(a, 0), (), 300), "reference",
         section="7.1")  # fmt: skip
    case("an account's CLOSE of what nobody knows", "", Close(bytes([9]) * 32, (), 300), "pending", section="7.1")
    s.write(a, Close(id_, final, 200))
    case("a second CLOSE by the account", "", Close(id_, final, 200), "close-again", section="8.5")
    file.entry("8.5", "what the account's CLOSE gave back", "1000 − 300 + 200", s, s.draft(a, s.ask(pay, 900)))
    file.entry("8.5", "one more than the account's CLOSE gave back", "", s, s.draft(a, s.ask(pay, 901)), "overdraft")
