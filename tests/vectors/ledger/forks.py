"""forks.json: forks, proofs, HEAL, and what accounts have after them (SPEC §7, §8.6); HEAL's part of rules.json."""

from __future__ import annotations

from tests.vectors.ledger import heals, proofs
from tests.vectors.ledger.files import Vectors, forked
from tests.vectors.ledger.scene import Scene
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import Allot, Close, Enrol, Heal, OpenNode
from ubcp_p2p.ledger.wire import ForkProof, Signed

RICH = 10**9
P = (1000, 0, 0, 0)  # the paymaster's owner, who does nothing


def vectors() -> Vectors:
    file = Vectors("forks")
    _spent_twice(file)
    _refused(file)
    _nodes(file)
    _debt_of_a_forked_paymaster(file)
    _branches_together(file)
    _earner_forks(file)
    _several(file)
    _claimed_twice(file)
    _closed_after(file)
    heals.add_to(file)
    proofs.add_to(file)
    return file


def add_rules(file: Vectors) -> None:
    """HEAL, and what is covered after it."""
    s, _first, second = _twice(41)
    a = s.names["a"]
    other = s.id_at(s.names["p"], 1)

    def case(name: str, shows: str, body: Heal, expected: str = "ok", stewards: int = 2) -> None:
        file.entry("6.10", name, shows, s, s.draft(a, body, s.stewards[:stewards]), expected)

    s.now = 2
    abandoned = (second.entry.seq, second.entry.id)
    body = Heal((abandoned,), ())
    case("heal", "by two stewards: the other branch is abandoned", body)
    case("heal by one steward", "the charter asks for two", body, "stewards", 1)
    case("heal nothing", "neither an abandoned entry nor a refused one", Heal((), ()), "heal")
    case("heal what is refused", "an id that is in no ledger", Heal((), (bytes([7]) * 32,)))
    case("abandon the own branch", "the entry that the HEAL follows", Heal(((2, s.id_at(a, 2)),), ()), "heal")
    case("abandon an earlier entry of the own branch", "", Heal(((1, s.id_at(a, 1)),), ()), "heal")
    case("abandon both branches", "", Heal(tuple(sorted((abandoned, (1, s.id_at(a, 1))))), ()), "heal")
    case("abandon what nobody knows", "", Heal(((2, bytes([9]) * 32),), ()), "pending")
    case("abandon an entry under another number", "an id stands at one place only",
         Heal(((3, second.entry.id),), ()), "pending")  # fmt: skip
    case("abandon an entry of another author", "", Heal(((1, other),), ()), "pending")
    late = s.back(a, 1)
    s.now = 8
    third = s.request(late, s.names["pay"], 10)
    for slice_, expected in ((6, "slice-reference"), (7, "ok")):
        file.entry("5.4", f"HEAL in slice {slice_} of a branch in slice 8", "a slice at most 1 below", s,
                   s.draft(a, Heal(((2, third.entry.id),), ()), s.stewards[:2], slice_=slice_), expected)  # fmt: skip
    thief = s.key("thief")
    for branch, after in (("first", s.id_at(a, 2)), ("second", second.entry.id)):
        for who, key, expected in (("its author", a.key, "ok"), ("a stranger", thief, "signer")):
            file.entry("5.3", f"the {branch} branch goes on, by {who}", "a fork changes nothing about who signs", s,
                       s.raw(a.public, 3, after, s.ask(s.names["pay"], 100), [key]), expected,
                       also=[s.history(a.public)[2], second])  # fmt: skip
    s, first, second = _twice(42, RICH)
    a, pay = s.names["a"], s.names["pay"]
    s.now = 2
    s.write(a, Heal(((2, second.entry.id),), ()), s.stewards[:2])
    for slice_, credits_, expected in ((2, 1, "overdraft"), (10, 500, "ok"), (10, 501, "overdraft")):
        s.now = slice_
        file.entry("7.4", f"a REQUEST over {credits_} in slice {slice_} after a HEAL", "a debt of 500 is repaid first",
                   s, s.draft(a, s.ask(pay, credits_)), expected)  # fmt: skip
    s.now = 7
    for what, request, expected in (("own", first, "ok"), ("abandoned", second, "ok")):
        amount = request.entry.body.credits  # type: ignore[union-attr]
        file.entry("7.4", f"CLOSE of a REQUEST on the {what} branch after a HEAL", "the HEAL took its reserve over", s,
                   s.draft(a, Close(request.entry.id, (), amount)), expected)  # fmt: skip
    s, _, second = _twice(45, RICH)
    a, pay = s.names["a"], s.names["pay"]
    s.now = 2
    s.write(a, Heal(((2, second.entry.id),), ()), s.stewards[:2])
    s.write(a, Heal((), (bytes([7]) * 32,)), s.stewards[:2])
    for slice_, credits_, expected in ((2, 1, "overdraft"), (10, 500, "ok"), (10, 501, "overdraft")):
        s.now = slice_
        file.entry("7.4", f"a REQUEST over {credits_} in slice {slice_} after a second HEAL",
                   "what the first has abandoned counts on", s, s.draft(a, s.ask(pay, credits_)), expected)  # fmt: skip
    s = Scene(43)
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    fork = s.back(a, 1)
    s.now = 10
    s.request(a, pay, 700)
    s.now = 11
    second = s.request(fork, pay, 600)
    s.write(a, Heal(((2, second.entry.id),), ()), s.stewards[:2])
    for credits_, expected in ((200, "ok"), (201, "exposure")):
        file.entry("7.4", f"{credits_} more in the period of a HEAL", "700 and 600 were reserved on the two branches",
                   s, s.draft(a, s.ask(pay, credits_)), expected)  # fmt: skip

    s = Scene(44, exposure_cap=800)
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    fork = s.back(a, 1)
    s.request(a, pay, 700)
    s.now = 11
    second = s.request(fork, pay, 600)
    s.write(a, Heal(((2, second.entry.id),), ()), s.stewards[:2])
    for credits_, expected in ((200, "ok"), (201, "exposure")):
        file.entry("7.4", f"{credits_} more after a HEAL in the next period", "600 were reserved in it, and 700 before",
                   s, s.draft(a, s.ask(pay, credits_)), expected)  # fmt: skip


def _twice(seed: int, cap: int = 1500) -> tuple[Scene, Signed, Signed]:
    """`a` has 1000, and reserves 800 in slice 0 and 700 in slice 1, on two branches."""
    s = Scene(seed, exposure_cap=cap)
    a, p = s.account("a"), s.account("p")
    s.names["pay"] = pay = s.node(p, "pay")
    fork = s.back(a, 1)
    first = s.request(a, pay, 800, slices=1)
    s.now = 1
    return s, first, s.request(fork, pay, 700, slices=1)


def _spent_twice(file: Vectors) -> None:
    s, first, second = _twice(51)
    a, pay = s.names["a"], s.names["pay"]
    found = [forked(first, second)]
    file.state("8.6", "reserved twice", "800 and 700 of 1000: both count, 500 are debt; the author is frozen", s,
               {"a": (0, 1500, 0, 500), "p": P}, frozen=[a.public], findings=found)  # fmt: skip
    file.state("8.6", "debt is repaid", "by the next allowance, before anything new", s,
               {"a": (500, 1500, 0, 0), "p": (2000, 0, 0, 0)}, frozen=[a.public], findings=found, as_of=10)  # fmt: skip
    file.state("7.2", "a proof of a fork that is there", "nothing more comes of it", s,
               {"a": (0, 1500, 0, 500), "p": P}, frozen=[a.public], findings=found,
               proofs=[(ForkProof.of(first, second), "ok")])  # fmt: skip
    s.now = 2
    s.write(a, Heal(((2, second.entry.id),), ()), s.stewards[:2])
    file.state("7.4", "healed", "the debt stays, the author is not frozen", s, {"a": (0, 1500, 0, 500), "p": P})
    s.now = 10
    s.request(a, pay, 100)
    file.state("7.4", "a REQUEST after the HEAL", "1000 − 500 − 100", s,
               {"a": (400, 1600, 0, 0), "p": (2000, 0, 0, 0)})  # fmt: skip


def _refused(file: Vectors) -> None:
    s = Scene(52)
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    fork = s.back(a, 1)
    first = s.request(a, pay, 800, slices=1)
    s.now = 1
    over = s.draft(fork, s.ask(pay, 5000))
    proof = ForkProof.of(first, over)
    rows = {"a": (200, 800, 0, 0), "p": P}
    file.state("7.2", "one entry of the fork keeps no rule", "the proof holds, and freezes", s, rows,
               proofs=[(proof, "ok")], frozen=[a.public], findings=[forked(first, over)])  # fmt: skip
    s.write(a, Heal((), (over.entry.id,)), s.stewards[:2])
    file.state("7.4", "healed by refusing", "an entry that is in no ledger is settled by naming it", s, rows,
               proofs=[(proof, "ok")])  # fmt: skip

    s, first, second = _twice(53)
    a = s.names["a"]
    s.now = 2
    s.write(a, Heal((), (second.entry.id,)), s.stewards[:2])
    file.state("7.4", "refused, and yet there", "a refused entry that is valid and known is not settled", s,
               {"a": (0, 1500, 0, 500), "p": P}, frozen=[a.public], findings=[forked(first, second)])  # fmt: skip
    s, first, second = _twice(54)
    a = s.names["a"]
    s.now = 2
    third = s.request(s.back(a, 1), s.names["pay"], 10)
    s.write(a, Heal(((2, second.entry.id),), ()), s.stewards[:2])
    file.state("7.4", "one of three branches not healed", "the HEAL covers two of the three: none is settled", s,
               {"a": (0, 1510, 0, 510), "p": P}, frozen=[a.public],
               findings=heals.forked_at(first, second, third))  # fmt: skip


def _paid(seed: int) -> tuple[Scene, Signed]:
    """`a` reserves 400 of 1000 and names `pay` of `p`; `node` and `second` are of `b`."""
    s = Scene(seed, exposure_cap=RICH)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    s.names |= {"pay": s.node(p, "pay"), "node": s.node(b, "node"), "second": s.node(b, "second")}
    return s, s.request(a, s.names["pay"], 400, slices=1)


def _nodes(file: Vectors) -> None:
    s, request = _paid(55)
    pay, node = s.names["pay"], s.names["node"]
    allot = s.allot(pay, request, node, 400)
    fork = s.back(node, 0)
    s.now = 1
    first, second = s.write(node, s.pay(node, pay, allot, 100)), s.write(fork, s.pay(node, pay, allot, 150))
    file.state("8.6", "an earner that has forked", "the greatest RECEIPT for a REQUEST counts, once", s,
               {"a": (600, 250, 0, 0), "b": (1000, 0, 150, 0), "p": P}, frozen=[node.public],
               findings=[forked(first, second)])  # fmt: skip

    s, request = _paid(70)
    pay, node = s.names["pay"], s.names["node"]
    allot = s.allot(pay, request, node, 400)
    fork = s.back(node, 0)
    s.now = 1
    first, second = s.write(node, s.pay(node, pay, allot, 150)), s.write(fork, s.pay(node, pay, allot, 1))
    file.state("8.6", "an earner that has forked and earned less on the second branch", "", s,
               {"a": (600, 250, 0, 0), "b": (1000, 0, 150, 0), "p": P}, frozen=[node.public],
               findings=[forked(first, second)])  # fmt: skip

    s, request = _paid(56)
    pay, node, second_node = s.names["pay"], s.names["node"], s.names["second"]
    other = s.back(pay, 0)
    one, two = s.allot(pay, request, node, 400), s.allot(other, request, second_node, 400)
    s.now = 1
    s.write(node, s.pay(node, pay, one, 400))
    s.write(second_node, s.pay(second_node, pay, two, 300))
    file.state("8.6", "a paymaster that has forked", "400 and 300 of 400: who asked owes what is too much", s,
               {"a": (300, 0, 0, 0), "b": (1000, 0, 700, 0), "p": P}, frozen=[pay.public],
               findings=[forked(one, two)])  # fmt: skip

    s, request = _paid(57)
    pay, node = s.names["pay"], s.names["node"]
    c = s.account("c")
    twin = Author(s.charters.network, node.key)
    assert c.head is not None
    opened = s.write(twin, OpenNode(c.head), [c.key])
    ours = s.allot(pay, request, node, 200)
    theirs = s.write(pay, Allot(request.entry.id, opened.entry.id, 200))
    s.now = 1
    s.write(node, s.pay(node, pay, ours, 150))
    s.write(twin, s.pay(twin, pay, theirs, 100))
    file.state("6.6", "a node with two owners", "each is paid by ALLOTs to its own OPEN", s,
               {"a": (600, 150, 0, 0), "b": (1000, 0, 150, 0), "c": (1000, 0, 100, 0), "p": P}, frozen=[node.public],
               findings=[forked(s.history(node.public)[0], opened)])  # fmt: skip


def _debt_of_a_forked_paymaster(file: Vectors) -> None:
    s = Scene(100)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, nodes = s.node(a, "pay"), [s.node(b, name) for name in ("one", "two", "three")]
    request = s.request(a, pay, 1000)
    allots = [s.allot(s.back(pay, 0), request, node, 1000) for node in nodes]
    for node, allot in zip(nodes, allots, strict=True):
        s.write(node, s.pay(node, pay, allot, 1000))
    rows = {"a": (0, 0, 0, 2000), "b": (1000, 0, 3000, 0), "p": P}
    file.state("8.7", "paid three times by a paymaster of three branches", "who asked owes 2000 of 3000", s, rows,
               frozen=[pay.public], findings=heals.forked_at(*allots))  # fmt: skip
    s.now = 10
    s.request(a, s.node(p, "other"), 1000)
    file.state("8.7", "a REQUEST in debt", "it is valid: its own chain covers it; the debt is as great as before", s,
               {"a": (0, 1000, 0, 2000), "b": (2000, 0, 3000, 0), "p": (2000, 0, 0, 0)},
               frozen=[pay.public], findings=heals.forked_at(*allots))  # fmt: skip


def _branches_together(file: Vectors) -> None:
    s = Scene(68)
    a = s.account("a")
    fork = s.back(a, 0)
    s.now = 1
    once = s.write(fork, Enrol(True, "lab", 1, 2, bytes([1]) * 32), s.stewards[:2])
    s.now = 2
    s.write(fork, Enrol(True, "lab", 2, 6, bytes([1]) * 32), s.stewards[:2])
    file.state("8.6", "enrolments that were all counted before", "they change nothing, not even for what follows them",
               s, {"a": (2000, 0, 0, 0)}, frozen=[a.public], findings=[forked(s.history(a.public)[1], once)],
               as_of=25)  # fmt: skip
    s = Scene(69)
    a = s.account("a", enrol=False)
    fork = s.back(a, 0)
    one = s.write(a, Enrol(False, "lab", 0, 2, bytes([1]) * 32), s.stewards[:2])
    s.write(a, Enrol(False, "lab", 2, 4, bytes([1]) * 32), s.stewards[:2])
    s.now = 1
    two = s.write(fork, Enrol(True, "lab", 1, 6, bytes([1]) * 32), s.stewards[:2])
    for as_of, available in ((35, 2000), (45, 1400), (55, 800)):
        file.state("8.6", f"enrolled after two enrolments, as of slice {as_of}",
                   "the other branch's ENROL counts for periods 4 and 5 alone", s,
                   {"a": (available, 0, 0, 0)}, frozen=[a.public], findings=[forked(one, two)],
                   as_of=as_of)  # fmt: skip

    s, request = _paid(58)
    pay, node, b = s.names["pay"], s.names["node"], s.names["b"]
    allot = s.allot(pay, request, node, 400)
    fork = s.back(b, 1)
    s.now = 1
    earned = s.write(node, s.pay(node, pay, allot, 100)).entry.position
    first = s.request(b, pay, 1100, income=[earned])
    s.now = 2
    second = s.request(fork, pay, 1100, income=[earned])
    file.state("8.6", "income claimed on two branches", "it counts once", s,
               {"a": (600, 300, 0, 0), "b": (0, 2200, 0, 1100), "p": P}, frozen=[b.public],
               findings=[forked(first, second)])  # fmt: skip

    s = Scene(59)
    a = s.account("a")
    fork = s.back(a, 0)
    s.now = 1
    again = s.write(fork, Enrol(True, "lab", 1, 7, bytes([1]) * 32), s.stewards[:2])
    found = [forked(s.history(a.public)[1], again)]
    for as_of, available in ((10, 2000), (60, 1400), (70, 400)):
        file.state("8.6", f"enrolled on two branches, as of slice {as_of}",
                   "periods 0 to 5 as a member; the other ENROL counts for period 6 alone", s,
                   {"a": (available, 0, 0, 0)}, frozen=[a.public], findings=found, as_of=as_of)  # fmt: skip

    s, request = _paid(60)
    a, pay, node = s.names["a"], s.names["pay"], s.names["node"]
    allot = s.allot(pay, request, node, 400)
    s.now = 1
    s.write(node, s.pay(node, pay, allot, 100))
    fork = s.back(a, 2)
    s.now = 7
    low = s.write(a, Close(request.entry.id, (), 400))
    s.now = 8
    high = s.write(fork, Close(request.entry.id, ((s.opening(node), 100),), 300))
    file.state("8.6", "closed on two branches", "the first counts; a RECEIPT above it is owed", s,
               {"a": (900, 0, 0, 0), "b": (1000, 0, 100, 0), "p": P}, frozen=[a.public],
               findings=[forked(low, high), ("close-voucher", low, a.public.hex())])  # fmt: skip


def _earner_forks(file: Vectors) -> None:
    """The branches of a node have receipts of two periods."""
    for seed, name, first, second, as_of, income in (
        (85, "the earlier period is the other branch's", (11, 150), (1, 100), 30, 50),
        (86, "the earlier period has the greater RECEIPT", (1, 150), (11, 100), 29, 150),
        (87, "the greater RECEIPT has lapsed", (1, 150), (11, 100), 30, 0),
    ):
        s = Scene(seed, exposure_cap=RICH)
        a, b, p = s.account("a"), s.account("b"), s.account("p")
        pay, node = s.node(p, "pay"), s.node(b, "node")
        allot = s.allot(pay, s.request(a, pay, 400, slices=20), node, 400)
        fork = s.back(node, 0)
        pair = []
        for writer, (slice_, total) in ((node, first), (fork, second)):
            s.now = slice_
            pair.append(s.write(writer, s.pay(node, pay, allot, total)))
        file.state("8.6", f"an earner that has forked: {name}", "RECEIPTs of all branches count by period", s,
                   {"a": (2000, 250, 0, 0), "b": (2000, 0, income, 0), "p": (2000, 0, 0, 0)},
                   frozen=[node.public], findings=[forked(*pair)], as_of=as_of)  # fmt: skip

    s = Scene(88, exposure_cap=RICH)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    one, two = s.request(a, pay, 400), s.request(a, pay, 300)
    allots = [s.allot(pay, one, node, 400), s.allot(pay, two, node, 300)]
    fork = s.back(node, 0)
    s.now = 1
    first_receipt = s.write(node, s.pay(node, pay, allots[0], 100))
    s.request(b, pay, 10, income=[first_receipt.entry.position])
    other = s.write(fork, s.pay(node, pay, allots[1], 70))
    file.state("8.6", "income of one branch claimed, and not of the other", "what the other earned is uncollected", s,
               {"a": (300, 530, 0, 0), "b": (1090, 10, 70, 0), "p": P}, frozen=[node.public],
               findings=[forked(first_receipt, other)])  # fmt: skip


def _several(file: Vectors) -> None:
    s = Scene(89)
    a, b, c, p = (s.account(name) for name in ("a", "b", "c", "p"))
    pay = s.node(p, "pay")
    pairs = []
    for author in sorted((a, b, c), key=lambda author: author.public, reverse=True):
        fork = s.back(author, 1)
        pairs.append((s.request(author, pay, 100, slices=1), s.request(fork, pay, 100, slices=2)))
    rows = dict.fromkeys("abc", (800, 200, 0, 0))
    file.state("7.2", "three that have forked", "", s, {**rows, "p": P},
               frozen=[a.public, b.public, c.public], findings=[forked(*pair) for pair in pairs])  # fmt: skip

    s = Scene(92)
    a, p = s.account("a"), s.account("p")
    assert p.head is not None
    both = Author(s.charters.network, NodeKey(a.key.seed))
    opened = s.write(both, OpenNode(p.head), [p.key])
    file.state("7.2", "one key as an account and as a node", "its chains are a fork; it has a row as an account", s,
               {"a": P, "p": P}, frozen=[a.public], findings=[forked(s.history(a.public)[0], opened)])  # fmt: skip
    s.write(a, Heal(((0, opened.entry.id),), ()), s.stewards[:2])
    file.state("7.4", "one key as an account and as a node, healed", "the node's branch is abandoned like any other", s,
               {"a": P, "p": P})  # fmt: skip

    s, _, second = _twice(93)
    a, pay = s.names["a"], s.names["pay"]
    on, other = s.back(a, 1), s.back(a, 1)
    on.head, other.head = second.entry.position, second.entry.position
    s.now = 2
    pair = s.write(on, s.ask(pay, 1)), s.write(other, s.ask(pay, 2))
    s.write(a, Heal(((2, second.entry.id),), ()), s.stewards[:2])
    file.state("7.4", "a branch that forks after the entry abandoned", "HEAL settles what is up to that entry", s,
               {"a": (0, 1503, 0, 503), "p": P}, frozen=[a.public], findings=[forked(*pair)])  # fmt: skip


def _claimed_twice(file: Vectors) -> None:
    s, request = _paid(66)
    a, pay = s.names["a"], s.names["pay"]
    fork = s.back(a, 2)
    s.now = 7
    close = s.write(pay, Close(request.entry.id, (), 400)).entry.id
    first = s.request(a, pay, 10, closes=[close])
    s.now = 8
    second = s.request(fork, pay, 20, closes=[close])
    file.state("8.6", "a close claimed on two branches", "it counts once", s,
               {"a": (970, 30, 0, 0), "b": P, "p": P}, frozen=[a.public], findings=[forked(first, second)])  # fmt: skip

    s = Scene(67, exposure_cap=RICH)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    allot = s.allot(pay, s.request(a, pay, 400, slices=20), node, 400)
    s.now = 1
    s.write(node, s.pay(node, pay, allot, 100))
    fork = s.back(b, 1)
    s.now = 11
    earned = s.write(node, s.pay(node, pay, allot, 250)).entry.position
    first = s.request(b, pay, 1, income=[earned])
    s.now = 12
    second = s.request(fork, pay, 1, income=[earned])
    found = [forked(first, second)]
    for as_of, a_has, b_has in ((12, 1600, 2248), (30, 2000, 2150)):
        file.state("8.6", f"income of two periods claimed on two branches, as of slice {as_of}",
                   "100 of period 0 and 150 of period 1: each once, and each expires by itself", s,
                   {"a": (a_has, 150, 0, 0), "b": (b_has, 2, 0, 0), "p": (2000, 0, 0, 0)}, frozen=[b.public],
                   findings=found, as_of=as_of)  # fmt: skip


def _closed_after(file: Vectors) -> None:
    """The REQUEST over 700, of which 200 were covered, is closed after the HEAL."""
    for name, shows, slice_, final, row in (
        ("closed while in debt", "500 of debt are forgiven, 200 come back", 7, 0, (200, 800, 0, 0)),
        ("closed in part while in debt", "300 come back: all of it was debt", 7, 400, (0, 800, 0, 200)),
        ("closed after the debt was repaid", "500 were repaid since and burn; 400 of period 1, 200 of period 0",
         12, 0, (600, 900, 0, 0)),
    ):  # fmt: skip
        s, _, second = _twice(61)
        a, pay = s.names["a"], s.names["pay"]
        node = s.node(s.names["p"], "node")
        s.now = 2
        s.write(a, Heal(((2, second.entry.id),), ()), s.stewards[:2])
        if slice_ > 10:
            s.now = 11
            s.request(a, pay, 100)
        s.now = slice_
        s.write(a, Close(second.entry.id, ((s.opening(node), final),) if final else (), 700 - final))
        p = (2000, 0, 0, 0) if slice_ > 10 else P
        file.state("8.5", name, shows, s, {"a": row, "p": p})
