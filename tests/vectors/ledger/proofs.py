"""forks.json, proofs: which pairs of entries freeze their author, and which keys answer for them (SPEC §7.2)."""

from __future__ import annotations

from tests.vectors.ledger.files import Finding, Vectors, forked
from tests.vectors.ledger.scene import Key, Scene
from ubcp_p2p.ledger.entry import ZERO, Body, Checkpoint, OpenAccount, Rotate, recovery_hash
from ubcp_p2p.ledger.wire import ForkProof, Signed

P = (1000, 0, 0, 0)


def add_to(file: Vectors) -> None:
    _no_place(file)
    _proofs(file)
    _rotations(file)


def _proofs(file: Vectors) -> None:
    """One proof each, in a ledger where nothing else is wrong."""
    s = Scene(62)
    a, b = s.account("a"), s.account("b")
    pay = s.node(b, "pay")
    head, thief = s.id_at(a, 1), s.key("thief")
    rows = {"a": P, "b": P}
    asks = [s.ask(pay, credits_) for credits_ in (100, 200)]

    def pair(*, keys: tuple[Key, Key] = (a.key, a.key), prev: bytes = head) -> tuple[Signed, Signed]:
        one, two = (s.raw(a.public, 2, prev, ask, [key]) for ask, key in zip(asks, keys, strict=True))
        first, second = sorted((one, two), key=lambda signed: signed.entry.id)
        return first, second

    def case(name: str, shows: str, proof: ForkProof | bytes, expected: str, found: Finding | None = None) -> None:
        file.state("7.2", name, shows, s, rows, proofs=[(proof, expected)],
                   frozen=[bytes.fromhex(found[2])] if found else [], findings=[found] if found else [])  # fmt: skip

    first, second = pair()
    case("a proof", "two REQUESTs after one ENROL, neither in the ledger", ForkProof(first, second), "ok",
         forked(first, second))  # fmt: skip
    case("a proof the wrong way round", "ids rise", ForkProof(second, first), "freeze")
    case("a proof of one entry", "the same entry twice", ForkProof(first, first), "freeze")
    case("a proof by a stranger", "both signed, by a key of nobody", ForkProof(*pair(keys=(thief, thief))), "freeze")
    case("a proof half by a stranger", "", ForkProof(*pair(keys=(a.key, thief))), "freeze")
    case("a proof after what nobody knows", "", ForkProof(*pair(prev=bytes([9]) * 32)), "pending")
    then = s.raw(a.public, 3, first.entry.id, asks[0], [a.key])
    case("a proof of two numbers", "one follows the other", ForkProof.of(first, then), "freeze")
    theirs = s.raw(b.public, 2, s.id_at(b, 1), asks[0], [b.key])
    case("a proof of two authors", "", ForkProof.of(first, theirs), "freeze")
    elsewhere = s.raw(a.public, 2, s.id_at(a, 0), asks[1], [a.key])
    case("a proof of two predecessors", "", ForkProof.of(first, elsewhere), "freeze")
    foreign = [s.raw(a.public, 2, head, ask, [a.key], network=bytes([8]) * 32) for ask in asks]
    case("a proof of another network", "", ForkProof.of(*foreign), "network")
    case("a proof of two networks", "", ForkProof.of(first, foreign[1]), "freeze")
    key, signature = second.signatures[0]
    flipped = signature[:50] + bytes([signature[50] ^ 8]) + signature[51:]
    altered = second._replace(signatures=((key, flipped),))
    case("a proof with a flipped bit in a signature", "", ForkProof(first, altered), "signature")
    case("a proof that ends early", "", ForkProof(first, second).to_bytes()[:-1], "encoding")
    case("an entry as a proof", "", first.to_bytes(), "field")
    new = [s.raw(thief.public, 0, ZERO, OpenAccount(recovery), [thief]) for recovery in (ZERO, head)]
    case("a proof of two OPENs", "of an author that is not known yet", ForkProof.of(*new), "ok", forked(*new))
    node = [s.raw(pay.public, 1, s.id_at(pay, 0), ask, [pay.key]) for ask in asks]
    case("a proof of a node's fork", "neither entry may a node write", ForkProof.of(*node), "ok", forked(*node))


def _no_place(file: Vectors) -> None:
    """What only looks like a fork: entries that could stand on no chain."""
    s = Scene(109)
    a = s.account("a")
    key, head = s.key("x"), a.head
    assert head is not None
    bodies: dict[str, list[Body]] = {
        "CHECKPOINT": [Checkpoint(n, ZERO, ZERO) for n in (1, 2)],
        "OPEN": [OpenAccount(bytes([n]) * 32) for n in (1, 2)],
    }
    for name, author, signer, seq, prev in (
        ("CHECKPOINT", key.public, key, 0, bytes([5]) * 32),
        ("CHECKPOINT", key.public, key, 0, ZERO),
        ("OPEN", key.public, key, 0, bytes([5]) * 32),
        ("OPEN", a.public, a.key, 2, head.id),
    ):
        pair = [s.raw(author, seq, prev, body, [signer]) for body in bodies[name]]
        after = "nothing" if prev == ZERO else "an entry"
        file.state("7.2", f"a proof of two {name}s with number {seq} after {after}", "OPEN alone is number 0", s,
                   {"a": P}, proofs=[(ForkProof.of(*pair), "freeze")])  # fmt: skip
    pair = [s.raw(key.public, 0, ZERO, body, [key]) for body in (bodies["OPEN"][0], bodies["CHECKPOINT"][0])]
    file.state("7.2", "a proof of an OPEN and a CHECKPOINT with number 0", "", s, {"a": P},
               proofs=[(ForkProof.of(*pair), "freeze")])  # fmt: skip


def _rotations(file: Vectors) -> None:
    """Which keys answer for a fork: that in force, and for a ROTATE the recovery key."""
    s = Scene(63)
    recovery, new, thief = s.key("recovery"), s.key("new"), s.key("thief")
    a, b = s.account("a", recovery=recovery_hash(recovery.public)), s.account("b")
    pay = s.node(b, "pay")
    old = a.key
    head = s.id_at(a, 1)
    hash_ = recovery_hash(recovery.public)
    stolen = s.raw(a.public, 2, head, Rotate(thief.public, hash_), [thief, s.key("another")])
    ask = s.raw(a.public, 2, head, s.ask(pay, 100), [old])
    rows = {"a": P, "b": P}
    file.state("7.2", "a proof with a stranger's ROTATE", "nobody but the author can make a fork of it", s, rows,
               proofs=[(ForkProof.of(ask, stolen), "freeze")])  # fmt: skip
    saving = s.raw(a.public, 2, head, s.ask(pay, 200), [recovery])
    file.state("7.2", "a proof with a REQUEST by the recovery key", "which signs nothing but a ROTATE", s, rows,
               proofs=[(ForkProof.of(ask, saving), "freeze")])  # fmt: skip
    saved = s.raw(a.public, 2, head, Rotate(new.public, hash_), [recovery, new])
    file.state("7.2", "a proof with a ROTATE by the recovery key", "it is the author's too", s, rows,
               proofs=[(ForkProof.of(ask, saved), "ok")], frozen=[a.public], findings=[forked(ask, saved)])  # fmt: skip
    s.take(ask)
    s.take(saved)
    file.state("7.2", "a fork by the recovery key", "both branches count", s, {"a": (900, 100, 0, 0), "b": P},
               frozen=[a.public], findings=[forked(ask, saved)])  # fmt: skip
    s = Scene(65)
    a, b = s.account("a"), s.account("b")
    pay, new = s.node(b, "pay"), s.key("new")
    old, head = a.key, s.id_at(a, 1)
    ask = s.raw(a.public, 2, head, s.ask(pay, 100), [old])
    turned = s.write(a, Rotate(new.public, ZERO), [new])
    file.state("7.2", "a proof of a ROTATE and a REQUEST beside it", "the key in force after prev", s,
               {"a": P, "b": P}, proofs=[(ForkProof.of(ask, turned), "ok")], frozen=[a.public],
               findings=[forked(ask, turned)])  # fmt: skip
    s = Scene(64)
    a, b = s.account("a"), s.account("b")
    pay, new = s.node(b, "pay"), s.key("new")
    old = a.key
    s.write(a, Rotate(new.public, ZERO), [new])
    pair = [s.raw(a.public, 3, s.id_at(a, 2), s.ask(pay, credits_), [old]) for credits_ in (1, 2)]
    file.state("7.2", "a proof by an old key", "after the ROTATE it says nothing", s, {"a": P, "b": P},
               proofs=[(ForkProof.of(*pair), "freeze")])  # fmt: skip
    pair = [s.raw(a.public, 3, s.id_at(a, 2), s.ask(pay, credits_), [new]) for credits_ in (1, 2)]
    file.state("7.2", "a proof by the new key", "", s, {"a": P, "b": P}, proofs=[(ForkProof.of(*pair), "ok")],
               frozen=[a.public], findings=[forked(*pair)])  # fmt: skip
