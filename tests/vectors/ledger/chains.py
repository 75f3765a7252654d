"""chains.json: how chains begin and go on, who signs, time, and new keys (SPEC §5, §6.1, §6.9)."""

from __future__ import annotations

from tests.vectors.ledger.files import Vectors
from tests.vectors.ledger.scene import Key, Scene
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import (
    ZERO,
    Allot,
    Body,
    Checkpoint,
    Decision,
    Enrol,
    Heal,
    OpenAccount,
    OpenNode,
    Position,
    Rotate,
    recovery_hash,
)
from ubcp_p2p.ledger.wire import Signed


def vectors() -> Vectors:
    file = Vectors("chains")
    _openings(file)
    _sequence(file)
    _author_kinds(file)
    _signers(file)
    _nodes(file)
    _time(file)
    _rotations(file)
    return file


def _openings(file: Vectors) -> None:
    s = Scene(1)
    a = s.account("a", enrol=False)
    head = s.id_at(a, 0)
    new = Author(s.charters.network, s.key("new"))
    file.entry("5.2", "open an account", "OPEN, number 0, after nothing", s, s.draft(new, OpenAccount(ZERO)))
    for name, shows, signed in (
        ("begin with ENROL", "number 0 that is no OPEN",
         s.draft(new, Enrol(False, "lab", 0, 1, ZERO), s.stewards[:2])),
        ("OPEN in the middle", "a second OPEN after the first",
         s.raw(a.public, 1, head, OpenAccount(ZERO), [a.key])),
        ("OPEN of a node in the middle", "a second OPEN of another form",
         s.raw(a.public, 1, head, OpenNode(Position(a.public, 0, head)), [a.key])),
        ("OPEN after something", "number 0 with a prev",
         s.raw(new.public, 0, head, OpenAccount(ZERO), [new.key])),
        ("OPEN with number 1", "prev zeros and number 1", s.raw(new.public, 1, ZERO, OpenAccount(ZERO), [new.key])),
        ("number 0 after OPEN", "an ENROL that repeats number 0",
         s.raw(a.public, 0, head, Enrol(False, "lab", 0, 1, ZERO), [a.key, *s.stewards[:2]])),
    ):  # fmt: skip
        file.entry("5.2", name, shows, s, signed, "opening")
    other = Scene(2)
    file.entry("5.1", "another network", "an OPEN for another network id", s,
               s.raw(new.public, 0, ZERO, OpenAccount(ZERO), [new.key], network=other.charters.network),
               "network")  # fmt: skip


def _sequence(file: Vectors) -> None:
    s = Scene(3)
    a = s.account("a")
    b = s.account("b", enrol=False)
    heads = [s.id_at(a, seq) for seq in range(2)]
    body = Rotate(s.key("next").public, ZERO)
    signers = [a.key, s.key("next")]
    for seq, prev, expected in ((2, 1, "ok"), (3, 1, "sequence"), (1, 1, "sequence"), (2, 0, "sequence")):
        file.entry("5.2", f"number {seq} after number {prev}", "prev must be the entry with the number before", s,
                   s.raw(a.public, seq, heads[prev], body, signers), expected)  # fmt: skip
    file.entry("5.2", "after an unknown entry", "pending, whatever its number", s,
               s.raw(a.public, 2, bytes([9]) * 32, body, signers), "pending")  # fmt: skip
    file.entry("5.2", "after another author's entry", "an id that is on no chain of this author is not known there", s,
               s.raw(a.public, 1, s.id_at(b, 0), body, signers), "pending")  # fmt: skip
    file.entry("7.2", "a fork of a valid entry", "another entry after the same prev: valid by its own past", s,
               s.raw(a.public, 1, heads[0], body, signers))  # fmt: skip


def _author_kinds(file: Vectors) -> None:
    """Every kind by the kind of author that cannot write it; all that it refers to is there."""
    s = Scene(4)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    node, pay = s.node(b, "node"), s.node(p, "pay")
    request = s.request(a, pay, 100, slices=2)
    allot = s.allot(pay, request, node, 100)
    id_ = request.entry.id
    by_account: list[tuple[str, Body]] = [
        ("DECISION", Decision(0, 0, 1, (), (), ZERO)), ("ALLOT", Allot(id_, s.opening(node), 100)),
        ("RECEIPT", s.pay(node, pay, allot, 50)), ("CHECKPOINT", Checkpoint(1, ZERO, ZERO)),
    ]  # fmt: skip
    for kind, body in by_account:
        file.entry("5.2", f"{kind} by an account", "only nodes write it", s, s.draft(a, body), "author-kind")
    by_node: list[tuple[str, Body]] = [
        ("ENROL", Enrol(False, "lab", 0, 1, ZERO)), ("REQUEST", s.ask(pay, 100)),
        ("ROTATE", Rotate(s.key("next").public, ZERO)), ("HEAL", Heal((), (bytes([1]) * 32,))),
    ]  # fmt: skip
    cosigners = {"ENROL": s.stewards, "HEAL": s.stewards, "ROTATE": [s.key("next")]}
    for kind, body in by_node:
        signed = s.draft(node, body, cosigners.get(kind, []))
        file.entry("5.2", f"{kind} by a node", "only accounts write it", s, signed, "author-kind")


def _signers(file: Vectors) -> None:
    s = Scene(5)
    a, b = s.account("a"), s.account("b")
    pay = s.node(b, "pay")
    steward = s.stewards[0]
    ask = s.ask(pay, 100)
    new = Author(s.charters.network, s.key("new"))

    def case(name: str, shows: str, signed: Signed, expected: str = "signer") -> None:
        file.entry("5.3", name, shows, s, signed, expected)

    case("REQUEST by its author", "one signature", s.draft(a, ask), "ok")
    case("REQUEST signed by one more", "by a steward as well", s.draft(a, ask, [steward]))
    case("REQUEST signed by another", "not by its author", s.raw(a.public, 2, s.id_at(a, 1), ask, [b.key]))
    case("OPEN signed by one more", "by a steward as well", s.draft(new, OpenAccount(ZERO), [steward]))
    case("OPEN signed by another", "not by its author", s.raw(new.public, 0, ZERO, OpenAccount(ZERO), [a.key]))
    case("DECISION signed by the owner", "a node signs for itself",
         s.raw(pay.public, 1, s.id_at(pay, 0), Decision(0, 0, 1, (), (), ZERO), [b.key]))  # fmt: skip
    enrol = Enrol(False, "lab", 6, 7, bytes([1]) * 32)
    case("ENROL signed by three stewards", "as many stewards as like", s.draft(a, enrol, s.stewards), "ok")
    case("ENROL signed by a stranger", "two stewards, and one who is none",
         s.draft(a, enrol, [*s.stewards[:2], s.key("stranger")]))  # fmt: skip
    case("ENROL not signed by its author", "two stewards alone",
         s.raw(a.public, 2, s.id_at(a, 1), enrol, s.stewards[:2]))  # fmt: skip
    heal = Heal((), (bytes([1]) * 32,))
    case("HEAL signed by a stranger", "two stewards, and one who is none",
         s.draft(a, heal, [*s.stewards[:2], s.key("stranger")]))  # fmt: skip
    case("HEAL not signed by its author", "two stewards alone", s.raw(a.public, 2, s.id_at(a, 1), heal, s.stewards[:2]))
    s2 = Scene(6)
    elder = s2.account("elder", enrol=False)
    own = Author(s2.charters.network, s2.stewards[0])
    s2.write(own, OpenAccount(ZERO))
    file.entry("5.3", "a steward enrols itself", "its signature counts as the author's and as a steward's", s2,
               s2.draft(own, enrol._replace(first=0, until=1), [s2.stewards[1]]))  # fmt: skip
    bad = s2.draft(elder, enrol._replace(first=0, until=1), s2.stewards[:2])
    key, signature = bad.signatures[0]
    bad = bad._replace(signatures=((key, signature[:63] + bytes([signature[63] ^ 1])), *bad.signatures[1:]))
    file.entry("3.2", "a signature of an entry with a flipped bit", "", s2, bad, "signature")


def _nodes(file: Vectors) -> None:
    s = Scene(7)
    a = s.account("a", enrol=False)
    b = s.account("b", enrol=False)
    node = s.node(a, "node")
    machine = NodeKey(s.key("machine").seed)
    new = Author(s.charters.network, machine)
    at = Position(a.public, 0, s.id_at(a, 0))

    def case(name: str, shows: str, body: OpenNode, signers: list[Key], expected: str = "ok") -> None:
        signed = s.raw(machine.public, 0, ZERO, body, signers)
        file.entry("6.1", name, shows, s, signed, expected)

    case("OPEN of a node", "signed by the node and its owner", OpenNode(at), [machine, a.key])
    case("OPEN of a node without its owner", "signed by the node alone", OpenNode(at), [machine], "signer")
    case("OPEN of a node by another owner", "signed by somebody else's account", OpenNode(at), [machine, b.key],
         "signer")  # fmt: skip
    case("OPEN of a node without the node", "signed by the owner alone", OpenNode(at), [a.key], "signer")
    case("OPEN of a node signed by one more", "node, owner, and a steward", OpenNode(at),
         [machine, a.key, s.stewards[0]], "signer")  # fmt: skip
    case("a node owned by a node", "the owner position is on a node's chain",
         OpenNode(Position(node.public, 0, s.id_at(node, 0))), [machine, node.key], "reference")  # fmt: skip
    case("a node of an unknown account", "pending", OpenNode(at._replace(id=bytes([9]) * 32)), [machine, a.key],
         "pending")  # fmt: skip
    case("an owner position with another number", "an id stands at one place only", OpenNode(at._replace(seq=1)),
         [machine, a.key], "pending")  # fmt: skip

    second = s.key("second key of a")
    old = a.key
    s.write(a, Rotate(second.public, ZERO), [second])
    after = Position(a.public, 1, s.id_at(a, 1))
    case("OPEN after the owner's ROTATE", "the key in force just after the position named", OpenNode(after),
         [machine, second])  # fmt: skip
    case("OPEN after the owner's ROTATE by the old key", "", OpenNode(after), [machine, old], "signer")
    case("OPEN before the owner's ROTATE", "a position before it: the old key was in force", OpenNode(at),
         [machine, old])  # fmt: skip
    case("OPEN before the owner's ROTATE by the new key", "", OpenNode(at), [machine, second], "signer")
    s.now = 2
    late = s.write(a, Rotate(s.key("third").public, ZERO), [s.key("third")])
    for slice_, expected in ((0, "slice-reference"), (1, "ok")):
        body = OpenNode(late.entry.position)
        file.entry("5.4", f"OPEN in slice {slice_} of a node whose owner was in slice 2",
                   "a slice at most 1 below that of what it refers to", s,
                   s.draft(new, body, [s.key("third")], slice_=slice_), expected)  # fmt: skip


def _time(file: Vectors) -> None:
    s = Scene(8)
    s.now = 5
    a = s.account("a")
    b = s.account("b")
    pay = s.node(b, "pay")
    for slice_, expected in ((4, "slice-falls"), (5, "ok"), (6, "ok")):
        file.entry("5.4", f"slice {slice_} after slice 5", "slices never fall along a chain", s,
                   s.draft(a, s.ask(pay, 100), slice_=slice_), expected)  # fmt: skip
    early, worker, other = s.node(b, "early"), s.node(a, "worker"), s.account("other")
    older = s.request(other, pay, 100, slices=20)
    s.now = 15
    request = s.request(a, pay, 100)
    for slice_, expected in ((13, "slice-reference"), (14, "ok")):
        file.entry("5.4", f"ALLOT in slice {slice_} for a REQUEST of slice 15", "at most 1 below", s,
                   s.draft(pay, Allot(request.entry.id, s.opening(early), 100), slice_=slice_), expected)  # fmt: skip
        file.entry("5.4", f"DECISION in slice {slice_} on a REQUEST of slice 15", "at most 1 below", s,
                   s.draft(early, Decision(15, 0, 1, (request.entry.id,), (), ZERO), slice_=slice_),
                   expected)  # fmt: skip
    s.now = 18
    late = s.node(b, "late")
    for slice_, expected in ((16, "slice-reference"), (17, "ok")):
        file.entry("5.4", f"ALLOT in slice {slice_} to a node of slice 18", "at most 1 below that of its OPEN", s,
                   s.draft(pay, Allot(older.entry.id, s.opening(late), 100), slice_=slice_), expected)  # fmt: skip
    s.now = 17
    allot = s.allot(pay, older, worker, 100)
    for slice_, expected in ((15, "slice-reference"), (16, "ok")):
        file.entry("5.4", f"RECEIPT in slice {slice_} of an ALLOT of slice 17", "at most 1 below", s,
                   s.draft(worker, s.pay(worker, pay, allot, 50), slice_=slice_), expected)  # fmt: skip


def _rotations(file: Vectors) -> None:
    s = Scene(9)
    recovery, other = s.key("recovery"), s.key("other recovery")
    new, newer = s.key("new"), s.key("newer")
    a = s.account("a", recovery=recovery_hash(recovery.public))
    same, changed = recovery_hash(recovery.public), recovery_hash(other.public)
    heads = [s.id_at(a, seq) for seq in range(2)]

    def case(name: str, shows: str, body: Rotate, signers: list[Key], expected: str = "ok") -> None:
        signed = s.raw(a.public, 2, heads[1], body, signers)
        file.entry("6.9", name, shows, s, signed, expected)

    case("by the key in force", "old and new key", Rotate(new.public, same), [a.key, new])
    case("by the recovery key", "recovery and new key", Rotate(new.public, same), [recovery, new])
    case("the recovery key sets another", "only it may", Rotate(new.public, changed), [recovery, new])
    case("the recovery key sets none", "zeros: no recovery any more", Rotate(new.public, ZERO), [recovery, new])
    case("the key in force sets another recovery key", "", Rotate(new.public, changed), [a.key, new], "rotation")
    case("the key in force removes the recovery key", "", Rotate(new.public, ZERO), [a.key, new], "rotation")
    case("without the new key", "signed by the old key alone", Rotate(new.public, same), [a.key], "rotation")
    case("without the old key", "signed by the new key alone", Rotate(new.public, same), [new], "signer")
    case("to the recovery key by it and a stranger", "the recovery key stands for the new one only",
         Rotate(recovery.public, same), [recovery, newer], "signer")  # fmt: skip
    case("signed by three", "old, new and recovery key", Rotate(new.public, same), [a.key, new, recovery], "rotation")
    case("by a stranger", "new key, and one that is neither the key in force nor the recovery key",
         Rotate(new.public, same), [newer, new], "signer")  # fmt: skip
    case("to the key in force", "the new key differs from it", Rotate(a.public, same), [a.key, recovery], "rotation")
    case("to the recovery key", "the key in force may make it the key", Rotate(recovery.public, same),
         [a.key, recovery])  # fmt: skip
    case("the new key is another than signed", "two signatures, none by the new key", Rotate(new.public, same),
         [a.key, recovery], "rotation")  # fmt: skip

    old = a.key
    s.take(s.raw(a.public, 2, heads[1], Rotate(new.public, changed), [recovery, new]))
    b = s.account("b")
    ask = s.ask(s.node(b, "pay"), 100)
    id_ = s.id_at(a, 2)
    for name, key, expected in (("new", new, "ok"), ("old", old, "signer"), ("recovery", recovery, "signer")):
        file.entry("5.3", f"after a ROTATE by the {name} key", "the key in force is the one that ROTATE set", s,
                   s.raw(a.public, 3, id_, ask, [key]), expected)  # fmt: skip
    for name, key, expected in (("first", recovery, "signer"), ("second", other, "ok")):
        file.entry("6.9", f"ROTATE by the {name} recovery key", "a ROTATE also sets the recovery key that follows", s,
                   s.raw(a.public, 3, id_, Rotate(newer.public, changed), [key, newer]), expected)  # fmt: skip
    c = s.account("c")
    file.entry("6.9", "no recovery key", "an account that named none", s,
               s.raw(c.public, 2, s.id_at(c, 1), Rotate(new.public, ZERO), [recovery, new]), "signer")  # fmt: skip
    s.take(s.raw(a.public, 3, id_, Rotate(newer.public, changed), [new, newer]))
    s.take(s.raw(a.public, 4, s.id_at(a, 3), Rotate(old.public, changed), [newer, old]))
    file.entry("6.9", "back to a key used before", "allowed: it is in force again", s,
               s.raw(a.public, 5, s.id_at(a, 4), ask, [old]))  # fmt: skip
