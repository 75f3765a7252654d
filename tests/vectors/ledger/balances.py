"""balances.json: what accounts have after small histories (SPEC §8). The numbers are written here by hand."""

from __future__ import annotations

from tests.vectors.ledger.files import Vectors, forked
from tests.vectors.ledger.scene import Scene
from ubcp_p2p.charter.values import Allowance
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import Close, Enrol
from ubcp_p2p.ledger.wire import Signed

RICH = 10**9
P = (1000, 0, 0, 0)


def vectors() -> Vectors:
    file = Vectors("balances")
    _allowances(file)
    _spending(file)
    _earning(file)
    _closing(file)
    _nullifiers(file)
    _decisions(file)
    return file


def _allowances(file: Vectors) -> None:
    s = Scene(71)
    file.state("9.2", "nothing", "an empty ledger", s, {})
    s.account("stranger", enrol=False)
    file.state("8.6", "never enrolled", "an account without an allowance", s, {"stranger": (0, 0, 0, 0)})
    s.account("member")
    s.account("newcomer", newcomer=True)
    for as_of, member, newcomer in (
        (0, 1000, 400), (9, 1000, 400), (10, 2000, 800), (20, 2000, 800), (59, 2000, 800), (60, 1000, 400), (70, 0, 0),
    ):  # fmt: skip
        file.state("8.3", f"allowances as of slice {as_of}", "good for 2 periods; enrolled for 6", s,
                   {"stranger": (0, 0, 0, 0), "member": (member, 0, 0, 0), "newcomer": (newcomer, 0, 0, 0)},
                   as_of=as_of)  # fmt: skip
    s = Scene(72)
    s.amend(1, allowance=Allowance(3000, 600), allowance_periods=1)
    s.account("member")
    for as_of, member in ((0, 1000), (10, 4000), (20, 3000)):
        file.state("4.2", f"a new allowance as of slice {as_of}", "from period 1 on 3000, good for 1 period", s,
                   {"member": (member, 0, 0, 0)}, as_of=as_of)  # fmt: skip


def _spending(file: Vectors) -> None:
    s = Scene(73)
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    s.request(a, pay, 600)
    file.state("8.4", "reserved", "600 of 1000", s, {"a": (400, 600, 0, 0), "p": P})
    s.now = 10
    request = s.request(a, pay, 1200, slices=1)
    file.state("8.2", "the oldest first", "400 of period 0 and 800 of period 1", s,
               {"a": (200, 1800, 0, 0), "p": (2000, 0, 0, 0)})  # fmt: skip
    s.now = 16
    s.write(a, Close(request.entry.id, (), 1200))
    for as_of, available, other in ((16, 1400, 2000), (20, 2000, 2000)):
        file.state("8.5", f"given back, as of slice {as_of}",
                   "each part to its vintage: what was of period 0 is burned in period 2", s,
                   {"a": (available, 600, 0, 0), "p": (other, 0, 0, 0)}, as_of=as_of)  # fmt: skip

    s = Scene(74)
    a, p = s.account("a"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(a, "node")
    s.now = 10
    request = s.request(a, pay, 1500, slices=1)
    s.now = 16
    s.write(a, Close(request.entry.id, ((s.opening(node), 800),), 700))
    for as_of, available, other in ((16, 1200, 2000), (20, 2000, 2000)):
        file.state("8.5", f"given back in part, as of slice {as_of}", "the youngest first: 500 of period 1", s,
                   {"a": (available, 0, 0, 0), "p": (other, 0, 0, 0)}, as_of=as_of)  # fmt: skip


def _paid(seed: int, *credits_: int, amount: int = 600) -> tuple[Scene, Signed, Author, Author]:
    """`b` earns with `node`, for a REQUEST of `a` until slice 2 with the paymaster `pay` of `p`; from slice 1 on."""
    s = Scene(seed, exposure_cap=RICH)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    request = s.request(a, pay, amount, slices=2)
    allot = s.allot(pay, request, node, amount)
    for total in credits_:
        s.now += 1
        s.write(node, s.pay(node, pay, allot, total))
    return s, request, pay, node


def _earning(file: Vectors) -> None:
    s, _, pay, node = _paid(75, 100, 250)
    b = s.names["b"]
    for as_of, paid in ((2, 250), (29, 250), (30, 0)):
        allowance = 1000 if as_of < 10 else 2000
        file.state("8.6", f"earned, as of slice {as_of}", "income of period 0 is good for 3 periods", s,
                   {"a": (allowance - (600 if as_of < 20 else 0), 350, 0, 0), "b": (allowance, 0, paid, 0),
                    "p": (allowance, 0, 0, 0)}, as_of=as_of)  # fmt: skip
    places = [signed.entry.position for signed in s.history(node.public)]
    s.request(b, pay, 50, income=[places[1]])
    file.state("8.3", "claimed in part", "100 of 250, of which 50 are reserved", s,
               {"a": (400, 350, 0, 0), "b": (1050, 50, 150, 0), "p": P})  # fmt: skip
    s.request(b, pay, 50, income=[places[2]])
    file.state("8.3", "claimed", "all of it", s, {"a": (400, 350, 0, 0), "b": (1150, 100, 0, 0), "p": P})
    s.now = 30
    s.request(b, pay, 50)
    file.state("8.2", "income and allowances spent by age", "what is left of period 0 is burned", s,
               {"a": (2000, 350, 0, 0), "b": (1950, 150, 0, 0), "p": (2000, 0, 0, 0)})  # fmt: skip

    s = Scene(76)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, nodes = s.node(p, "pay"), [s.node(b, name) for name in ("one", "two")]
    request = s.request(a, pay, 600)
    allots = [s.allot(pay, request, node, 300) for node in nodes]
    s.now = 1
    for node, allot, amount in zip(nodes, allots, (100, 30), strict=True):
        s.write(node, s.pay(node, pay, allot, amount))
    file.state("8.6", "two nodes of one owner", "both are paid for one REQUEST", s,
               {"a": (400, 470, 0, 0), "b": (1000, 0, 130, 0), "p": P})  # fmt: skip

    s, _, pay, node = _paid(84, 1)
    file.state("8.6", "earned 1 µcredit", "the least that there is", s,
               {"a": (400, 599, 0, 0), "b": (1000, 0, 1, 0), "p": P})  # fmt: skip


def _closing(file: Vectors) -> None:
    for name, shows, final, row, found in (
        ("closed as paid", "250 are paid, 350 come back", 250, (750, 0, 0, 0), False),
        ("closed above what was paid", "300 are gone, though 250 were paid", 300, (700, 0, 0, 0), False),
        ("closed below what was paid", "600 come back, and 250 are owed", 0, (750, 0, 0, 0), True),
    ):  # fmt: skip
        s, request, pay, node = _paid(77, 100, 250)
        a = s.names["a"]
        s.now = 7
        body = Close(request.entry.id, ((s.opening(node), final),), 600 - final)
        others = {"b": (1000, 0, 250, 0), "p": P}
        close = s.write(pay, body)
        finding = [("close-voucher", close, pay.public.hex())] if found else []
        file.state("8.5", f"{name}, not claimed", "the reserve stays open", s, {"a": (400, 350, 0, 0), **others},
                   findings=finding)  # fmt: skip
        s.request(a, pay, 100, closes=[close.entry.id])
        file.state("8.5", name, shows, s, {"a": (row[0] - 100, 100, 0, 0), **others}, findings=finding)
    s, request, pay, node = _paid(78, 250)
    a = s.names["a"]
    s.now = 7
    close = s.write(a, Close(request.entry.id, (), 600))
    s.request(a, pay, 1000, slices=1)
    file.state("8.6", "owed and nothing left", "the account itself closed below a RECEIPT, and spent all", s,
               {"a": (0, 1000, 0, 250), "b": (1000, 0, 250, 0), "p": P},
               findings=[("close-voucher", close, a.public.hex())])  # fmt: skip
    s.now = 10
    file.state("8.6", "owed, as of the next period", "the next allowance pays it", s,
               {"a": (750, 1000, 0, 0), "b": (2000, 0, 250, 0), "p": (2000, 0, 0, 0)}, as_of=10,
               findings=[("close-voucher", close, a.public.hex())])  # fmt: skip


def _nullifiers(file: Vectors) -> None:
    s = Scene(79)
    s.account("a")
    twin = s.account("twin", enrol=False)
    s.now = 1
    second = s.enrol(twin, "a")
    file.state("6.2", "one person enrolled twice", "both are valid; the later account is at fault", s,
               {"a": P, "twin": P}, findings=[("nullifier", second, twin.public.hex())])  # fmt: skip
    third = s.account("triplet", enrol=False)
    more = s.take(third.write(1, second.entry.body, s.stewards[:2]))
    found = [("nullifier", signed, signed.entry.author.hex()) for signed in (second, more)]
    file.state("6.2", "one person enrolled three times", "the first is not at fault", s,
               {"a": P, "twin": P, "triplet": P}, findings=found)  # fmt: skip

    s = Scene(80)
    s.account("a")
    twin = s.account("twin", enrol=False)
    s.now = 1
    first = s.enrol(twin, "a", periods=1)
    number = s.draft(twin, first.entry.body).entry.body
    assert isinstance(number, Enrol)
    later = [number._replace(first=n, until=n + 1) for n in range(1, 6)]
    smaller = [body for body in later if s.draft(twin, body).entry.id < first.entry.id]
    rows = {"a": P, "twin": P}
    second = s.write(twin, smaller[0], s.stewards[:2])
    file.state("6.2", "a nullifier three times, twice by one account in one slice",
               "the finding names its use with the smaller id", s, rows,
               findings=[("nullifier", second, twin.public.hex())])  # fmt: skip
    s.now = 2
    s.write(twin, number._replace(first=6, until=7), s.stewards[:2])
    file.state("6.2", "a nullifier used again in a later slice", "the finding names the earliest use", s, rows,
               findings=[("nullifier", second, twin.public.hex())])  # fmt: skip
    for seed in (82, 83):  # the earlier account has the greater key, and then both are of one slice
        s = Scene(seed)
        accounts = [s.account(name, enrol=False) for name in ("one", "two")]
        low, high = sorted(accounts, key=lambda author: author.public)
        s.enrol(high, "a person", periods=1)
        s.now = 83 - seed
        second = s.enrol(low, "a person", periods=1)
        at_fault = second if seed == 82 else s.history(high.public)[1]
        file.state("6.2", f"one person enrolled twice, the second {83 - seed} slices later",
                   "the later by slice; in one slice, by author", s, {"one": P, "two": P},
                   findings=[("nullifier", at_fault, at_fault.entry.author.hex())])  # fmt: skip


def _decisions(file: Vectors) -> None:
    s = Scene(84)
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    requests = [s.request(a, pay, 100) for _ in range(3)]
    rows = {"a": (700, 300, 0, 0), "p": P}
    s.decide(pay, [requests[0]], budget=10, refused={"full": 1})
    s.decide(pay, [requests[1]], budget=10, refused={"full": 1})
    s.decide(pay, [requests[2]], slice_=1, budget=20)
    file.state("6.4", "one decision in two parts", "equal but for what is accepted; the third is on another slice", s,
               rows)  # fmt: skip
    found = []
    for shows, changes in (
        ("another budget", {"budget": 9, "refused": {"full": 1}}), ("other refusals", {"budget": 10}),
        ("told for a later slice before", {"slice_": 1, "budget": 10}),
    ):  # fmt: skip
        second = s.decide(pay, **changes)
        found.append(("decision-twice", second, pay.public.hex()))
        file.state("6.4", f"a second decision: {shows}", "valid, and a fault; what follows it is judged on its own", s,
                   rows, findings=found)  # fmt: skip
    s.decide(pay, [requests[2]], budget=10, refused={"full": 1})
    file.state("6.4", "a part of the first decision after the second", "no fault", s, rows, findings=found)

    s = Scene(85)
    pay = s.node(s.account("p"), "pay")
    twin = s.back(pay, 0)
    ids = [s.decide(author, budget=budget) for author, budget in ((pay, 1), (pay, 2), (twin, 3))]
    file.state("6.4", "two decisions of a node that has forked", "the fork alone is a fault", s, {"p": P},
               frozen=[pay.public], findings=[forked(ids[0], ids[2])])  # fmt: skip
