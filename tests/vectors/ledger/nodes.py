"""The nodes' part of rules.json: decisions, ALLOTs, RECEIPTs, closes, checkpoints (SPEC §6.4 to §6.8, §7.3)."""

from __future__ import annotations

from typing import Any

from tests.vectors.ledger.files import Vectors
from tests.vectors.ledger.scene import Scene
from ubcp_p2p.charter.values import DeviceClass
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, Allot, Checkpoint, Close, Decision, Receipt
from ubcp_p2p.ledger.wire import Signed

UNKNOWN = bytes([9]) * 32


def add_to(file: Vectors) -> None:
    _decisions(file)
    _allots(file)
    _receipts(file)
    _later_receipts(file)
    _receipts_by_version(file)
    _branches(file)
    _closes(file)
    _checkpoints(file)


def _decisions(file: Vectors) -> None:
    s = Scene(31)
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    s.now = 3
    request = s.request(a, pay, 100, slices=5)  # expires in slice 8
    body = Decision(3, 1000, 10, (request.entry.id,), (("busy", 2), ("late", 1)), ZERO)

    def case(name: str, shows: str, section: str = "6.4", expected: str = "ok", **changes: Any) -> None:
        file.entry(section, name, shows, s, s.draft(pay, body._replace(**changes)), expected)

    case("decide", "about the slice that it is written in")
    case("decide about the slice before", "", expected="decision", slice=2)
    case("decide until the REQUEST's expiry", "", slice=8)
    case("decide after the REQUEST's expiry", "", expected="decision", slice=9)
    case("decide about a period later", "slice + period", slice=13, accepted=())
    case("decide about more than a period later", "", expected="decision", slice=14, accepted=())
    case("decide on an OPEN", "another kind of entry", "7.1", "reference", accepted=(s.id_at(a, 0),))
    case("decide on what nobody knows", "", "7.1", "pending", accepted=(UNKNOWN,))


def _allots(file: Vectors) -> None:
    s = Scene(32)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, other, node, second = s.node(p, "pay"), s.node(p, "other"), s.node(b, "node"), s.node(b, "second")
    request = s.request(a, pay, 300, slices=5)
    id_ = request.entry.id

    def case(
        name: str, shows: str, body: Allot, expected: str = "ok", author: Author = pay, section: str = "6.5"
    ) -> None:
        file.entry(section, name, shows, s, s.draft(author, body), expected)

    mine, twin = s.opening(node), s.opening(second)
    case("allot", "all of the REQUEST to one contributor", Allot(id_, mine, 300))
    case("allot too much", "more than the REQUEST's credits", Allot(id_, mine, 301), "allot-sum")
    case("allot by another node", "not the paymaster, though its owner's", Allot(id_, mine, 100), "allot", other)
    case("allot for an OPEN", "another kind of entry", Allot(s.id_at(a, 0), mine, 100), "reference", section="7.1")
    case("allot for what nobody knows", "", Allot(UNKNOWN, mine, 100), "pending", section="7.1")
    case("allot to an account", "its OPEN is not that of a node", Allot(id_, s.opening(b), 100), "reference")
    case("allot to what nobody knows", "", Allot(id_, UNKNOWN, 100), "pending", section="7.1")
    case("allot to the paymaster", "no RECEIPT can follow", Allot(id_, s.opening(pay), 100))
    s.now = 5
    case("allot at the expiry", "slice = expiry", Allot(id_, mine, 300))
    s.now = 6
    case("allot after the expiry", "", Allot(id_, mine, 300), "allot")
    s.now = 1
    s.allot(pay, request, node, 100)
    case("allot more", "101 after 100", Allot(id_, mine, 101))
    case("allot the same again", "", Allot(id_, mine, 100), "allot")
    case("allot less", "", Allot(id_, mine, 99), "allot")
    case("raise an ALLOT to all", "the one before does not count beside it", Allot(id_, mine, 300))
    case("raise an ALLOT too high", "", Allot(id_, mine, 301), "allot-sum")
    case("allot the rest to a second", "100 + 200", Allot(id_, twin, 200))
    case("allot more than the rest to a second", "100 + 201", Allot(id_, twin, 201), "allot-sum")


def _receipts(file: Vectors) -> None:
    s = Scene(33)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node, second = s.node(p, "pay"), s.node(b, "node"), s.node(b, "second")
    cousin, own = s.node(p, "cousin"), s.node(a, "own")
    request = s.request(a, pay, 1000, slices=5)
    allot = s.allot(pay, request, node, 600)
    to_cousin, to_own = s.allot(pay, request, cousin, 100), s.allot(pay, request, own, 100)
    s.now = 1

    def case(
        name: str, shows: str, body: Receipt, expected: str = "ok", author: Author = node, section: str = "6.6"
    ) -> None:
        file.entry(section, name, shows, s, s.draft(author, body), expected)

    case("earn", "a first RECEIPT", s.pay(node, pay, allot, 50))
    case("earn by another node of the owner", "the ALLOT is for another chain", s.pay(second, pay, allot, 50),
         "receipt-allot", second)  # fmt: skip
    case("a voucher to another", "its contributor is not the author", s.pay(second, pay, allot, 50), "receipt-allot")
    case("a voucher for another REQUEST", "not that of the ALLOT", s.pay(node, pay, allot, 50, request=UNKNOWN),
         "receipt-allot")  # fmt: skip
    case("a voucher for another network", "", s.pay(node, pay, allot, 50, network=UNKNOWN), "receipt-allot")
    case("a voucher of another paymaster", "signed by it, and not by the ALLOT's", s.pay(node, cousin, allot, 50),
         "receipt-allot")  # fmt: skip
    case("a voucher for a REQUEST as its ALLOT", "another kind of entry",
         s.pay(node, pay, allot, 50, allot=request.entry.id), "reference", section="7.1")  # fmt: skip
    case("a voucher for what nobody knows", "", s.pay(node, pay, allot, 50, allot=UNKNOWN), "pending", section="7.1")
    good = s.pay(node, pay, allot, 50)
    flipped = good.signature[:40] + bytes([good.signature[40] ^ 4]) + good.signature[41:]
    case("a voucher's signature with a flipped bit", "", good._replace(signature=flipped), "signature", section="3.2")
    case("a voucher signed by another", "it names the paymaster", s.pay(node, cousin, allot, 50, paymaster=pay.public),
         "signature")  # fmt: skip
    case("paid by a node of one's own owner", "", s.pay(cousin, pay, to_cousin, 50), "receipt-self", cousin)
    case("paid for the REQUEST of one's owner", "", s.pay(own, pay, to_own, 50), "receipt-self", own)
    for slice_, expected in ((9, "ok"), (10, "receipt-late")):
        file.entry(
            "6.6", f"earn in slice {slice_}", "expiry 5, grace 4", s, s.draft(node, good, slice_=slice_), expected
        )
    for units in (49, 51):
        case(f"{units} units for 50 credits", "the price is 1", s.pay(node, pay, allot, 50, units=units), "price")
    case("an unknown device", "", s.pay(node, pay, allot, 50, device="abacus"), "device")
    case("all that a device can do", "500 units a second", s.pay(node, pay, allot, 500, seconds=1))
    case("more than a device can do", "501 units in a second", s.pay(node, pay, allot, 501, seconds=1), "device")
    case("no seconds", "50 units in no time", s.pay(node, pay, allot, 50, seconds=0), "device")
    case("all of an ALLOT", "", s.pay(node, pay, allot, 600))
    case("more than an ALLOT", "", s.pay(node, pay, allot, 601), "receipt-limit")
    case("earn nothing", "a first RECEIPT over 0", s.pay(node, pay, allot, 0), "receipt-grows")
    case("no rounds", "they need not be counted", s.pay(node, pay, allot, 50, rounds=0))


def _later_receipts(file: Vectors) -> None:
    s = Scene(34)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    request, another = s.request(a, pay, 600), s.request(a, pay, 300)
    allot, to_another = s.allot(pay, request, node, 300), s.allot(pay, another, node, 300)
    s.now = 1
    s.write(node, s.pay(node, pay, allot, 100, rounds=5, seconds=1000))
    later = {"rounds": 5, "seconds": 1000}

    def case(name: str, shows: str, body: Receipt, expected: str = "ok", slice_: int = 2) -> None:
        file.entry("6.6", name, shows, s, s.draft(node, body, slice_=slice_), expected)

    case("earn more", "101 after 100", s.pay(node, pay, allot, 101, **later))
    case("earn more in the same slice", "", s.pay(node, pay, allot, 101, **later), "receipt-slice", 1)
    case("earn the same", "", s.pay(node, pay, allot, 100, **later), "receipt-grows")
    case("earn less", "", s.pay(node, pay, allot, 99, **later), "receipt-grows")
    case("fewer rounds", "4 after 5", s.pay(node, pay, allot, 101, rounds=4, seconds=1000), "receipt-grows")
    case("fewer seconds", "999 after 1000", s.pay(node, pay, allot, 101, rounds=5, seconds=999), "receipt-grows")
    case("earn for another REQUEST in the same slice", "the limit is per REQUEST",
         s.pay(node, pay, to_another, 1), slice_=1)  # fmt: skip
    raised = s.allot(pay, request, node, 400)
    case("earn from a raised ALLOT", "up to what it says", s.pay(node, pay, raised, 400, **later))
    case("more than the raised ALLOT", "", s.pay(node, pay, raised, 401, **later), "receipt-limit")
    case(
        "earn from the ALLOT before", "the voucher names it, so its limit holds", s.pay(node, pay, allot, 300, **later)
    )
    case("more than the ALLOT before", "", s.pay(node, pay, allot, 301, **later), "receipt-limit")


def _receipts_by_version(file: Vectors) -> None:
    """From period 1 on: another device list and a shorter grace; what counts is the REQUEST's period."""
    s = Scene(35)
    s.amend(1, devices=(DeviceClass("cpu-8", 400), DeviceClass("gpu-48g", 100)), grace_slices=1)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    s.now = 9
    old = s.request(a, pay, 600, slices=3)  # expires in slice 12, with the grace of version 1 in slice 16
    s.now = 10
    new = s.request(a, pay, 600, slices=2)  # expires in slice 12, with the grace of version 2 in slice 13
    allots = {"old": s.allot(pay, old, node, 600), "new": s.allot(pay, new, node, 600)}
    for which, slice_, device, expected in (
        ("old", 12, "gpu-24g", "ok"), ("old", 12, "gpu-48g", "device"), ("old", 16, "gpu-24g", "ok"),
        ("old", 17, "gpu-24g", "receipt-late"), ("new", 12, "gpu-48g", "ok"), ("new", 12, "gpu-24g", "device"),
        ("new", 13, "gpu-48g", "ok"), ("new", 14, "gpu-48g", "receipt-late"),
    ):  # fmt: skip
        file.entry("6.6", f"{device} in slice {slice_} for a REQUEST under the {which} charter",
                   "the charter in force in the REQUEST's period", s,
                   s.draft(node, s.pay(node, pay, allots[which], 100, device=device), slice_=slice_),
                   expected)  # fmt: skip
    for which, request, slice_, expected in (
        ("old", old, 16, "close"), ("old", old, 17, "ok"), ("new", new, 13, "close"), ("new", new, 14, "ok"),
    ):  # fmt: skip
        body = Close(request.entry.id, ((s.opening(node), 0),), 600)
        file.entry("6.7", f"CLOSE in slice {slice_} of a REQUEST under the {which} charter",
                   "the grace of the charter in force in the REQUEST's period", s, s.draft(pay, body, slice_=slice_),
                   expected)  # fmt: skip


def _branches(file: Vectors) -> None:
    s = Scene(36)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    request = s.request(a, pay, 1000)
    fork = s.back(pay, 0)
    allot = s.allot(pay, request, node, 500)
    s.now = 1
    twin = s.allot(fork, request, node, 900)
    s.write(node, s.pay(node, pay, allot, 100))
    s.now = 2
    raised = s.allot(pay, request, node, 600)
    for name, chosen, expected in (
        ("the other branch of the paymaster", twin, "two-branches"),
        ("the same branch of the paymaster", raised, "ok"),
        ("the same ALLOT of a paymaster that has forked", allot, "ok"),
    ):
        file.entry("7.3", name, "RECEIPTs for one REQUEST take ALLOTs of one branch", s,
                   s.draft(node, s.pay(node, pay, chosen, 200)), expected, also=[twin])  # fmt: skip


def _closes(file: Vectors) -> None:
    s = Scene(37)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, other = s.node(p, "pay"), s.node(p, "other")
    node, second, third = s.node(b, "node"), s.node(b, "second"), s.node(b, "third")
    request: Signed = s.request(a, pay, 600, slices=2)
    node, second = sorted((node, second), key=s.opening, reverse=True)  # the CLOSE has them in the other order
    s.allot(pay, request, node, 100)
    s.allot(pay, request, node, 200)
    s.allot(pay, request, second, 100)
    id_ = request.entry.id

    def case(
        name: str, shows: str, final: dict[Author, int], returned: int, expected: str = "ok", author: Author = pay,
        section: str = "6.7", of: bytes = id_,
    ) -> None:  # fmt: skip
        rows = tuple(sorted((s.opening(who), amount) for who, amount in final.items()))
        file.entry(section, name, shows, s, s.draft(author, Close(of, rows, returned)), expected)

    s.now = 6
    case("CLOSE within the grace", "slice = expiry + grace", {node: 200, second: 100}, 300, "close")
    s.now = 7
    case("CLOSE after the grace", "all that was allotted", {node: 200, second: 100}, 300)
    case("CLOSE of nothing earned", "all comes back", {node: 0, second: 0}, 600)
    case("CLOSE that returns too much", "", {node: 200, second: 100}, 301, "zero-sum", section="8.1")
    case("CLOSE that returns too little", "", {node: 200, second: 100}, 299, "zero-sum", section="8.1")
    case("CLOSE by another node", "of the same owner", {}, 600, "close", other)
    case("CLOSE without a contributor", "second is not there", {node: 200}, 400, "close")
    case("CLOSE with one contributor too many", "third had no ALLOT", {node: 0, second: 0, third: 0}, 600, "close")
    case("CLOSE with another contributor", "third for second", {node: 0, third: 0}, 600, "close")
    case("CLOSE above an ALLOT", "201 of 200", {node: 201, second: 0}, 399, "close")
    case("CLOSE above the second ALLOT", "101 of 100", {node: 0, second: 101}, 499, "close")
    case("CLOSE of an OPEN", "another kind of entry", {}, 600, "reference", section="7.1", of=s.id_at(a, 0))
    case("CLOSE of what nobody knows", "", {}, 600, "pending", section="7.1", of=UNKNOWN)
    s.write(pay, Close(id_, tuple(sorted(((s.opening(node), 50), (s.opening(second), 50)))), 500))
    case("a second CLOSE by the paymaster", "", {node: 50, second: 50}, 500, "close-again")


def _checkpoints(file: Vectors) -> None:
    s = Scene(38)
    node = s.node(s.account("a"), "node")

    def case(size: int, expected: str) -> None:
        seq = node.head.seq if node.head else 0
        file.entry("9.3", f"a CHECKPOINT of {size} entries as number {seq + 1}", "sizes rise", s,
                   s.draft(node, Checkpoint(size, ZERO, ZERO)), expected)  # fmt: skip

    case(0, "checkpoint-falls")
    case(1, "ok")
    s.write(node, Checkpoint(3, ZERO, ZERO))
    case(2, "checkpoint-falls")
    case(3, "checkpoint-falls")
    case(4, "ok")
