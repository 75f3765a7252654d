"""Frauds against the form of a ledger: bytes, signatures, chains, forks, references (invariants 1 to 5)."""

from __future__ import annotations

import hashlib
from typing import Final

from ubcp_p2p.keys import AccountKey
from ubcp_p2p.ledger import entry as form
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ENTRY_BYTES_MAX, ZERO, Allot, Heal, Kind, OpenAccount, Receipt, Rotate
from ubcp_p2p.ledger.frauds.scene import CREDITS, Head, Job, Planted, Scene, fraud
from ubcp_p2p.ledger.synth import Community
from ubcp_p2p.ledger.wire import ForkProof, Signed
from ubcp_p2p.ledger.world import secret

_AHEAD: Final = 2**31  # slices: some 60,000 years

# -- 1: bytes ---------------------------------------------------------------------------------------------------------


@fraud("encoding", "an entry whose array header is longer than it need be")
def _encoding(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    return scene.raw(payer, Kind.REQUEST, form.body_row(scene.request_body(till)), header=b"\xdc\x00\x08")


@fraud("version", "an entry of version 2")
def _version(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    return scene.raw(payer, Kind.REQUEST, form.body_row(scene.request_body(till)), version=2)


@fraud("length", "an entry longer than 16 KiB")
def _length(scene: Scene) -> Planted:
    _, till = scene.person("payer")
    ids = [hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(ENTRY_BYTES_MAX // 34 + 1)]
    return scene.raw(till, Kind.DECISION, [scene.world.now, 1, 1, sorted(ids), [], ZERO])


@fraud("field", "a REQUEST of an urgency above the greatest")
def _field(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    body = scene.request_body(till, urgency=form.URGENCY_MAX + 1)
    return scene.raw(payer, Kind.REQUEST, form.body_row(body))


@fraud("network", "an entry of another community's ledger")
def _network(scene: Scene) -> Planted:
    stranger = Author(hashlib.sha256(b"elsewhere").digest(), AccountKey(secret(scene.world.seed, "stranger")))
    return scene.by_export(scene.bad(stranger, OpenAccount(ZERO)))


# -- 2: signatures ----------------------------------------------------------------------------------------------------


def _flipped(signature: bytes) -> bytes:
    return signature[:8] + bytes([signature[8] ^ 1]) + signature[9:]


@fraud("signature", "an entry with one bit of its signature changed")
def _signature(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    signed = payer.draft(scene.world.now, scene.request_body(till))
    flipped = tuple((key, _flipped(value)) for key, value in signed.signatures)
    return scene.by_export(scene.put(signed._replace(signatures=flipped)))


@fraud("signature", "a RECEIPT whose voucher the paymaster did not sign", name="signature-voucher")
def _signature_voucher(scene: Scene) -> Planted:
    job = scene.job()
    voucher = scene.next_voucher(job)
    return scene.bad(job.rig, Receipt(voucher, job.rig.voucher(voucher).signature))


@fraud("signer", "a REQUEST signed with a key that a ROTATE has replaced")
def _signer(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    old, new = payer.key, AccountKey(secret(scene.world.seed, "new key"))
    scene.world.write(payer, Rotate(new.public, ZERO), [new])
    payer.key = old
    return scene.by_export(scene.bad(payer, scene.request_body(till)))


@fraud("rotation", "a ROTATE by the key in force that sets another recovery key")
def _rotation(scene: Scene) -> Planted:
    payer, _ = scene.person("payer")
    new = AccountKey(secret(scene.world.seed, "new key"))
    return scene.bad(payer, Rotate(new.public, form.recovery_hash(new.public)), new)


# -- 3: the chain -----------------------------------------------------------------------------------------------------


@fraud("opening", "a second OPEN on one chain")
def _opening(scene: Scene) -> Planted:
    payer, _ = scene.person("payer")
    return scene.bad(payer, OpenAccount(ZERO))


@fraud("sequence", "a number left out, and three entries that hang on it", dependent=3)
def _sequence(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    assert payer.head is not None
    payer.head = payer.head._replace(seq=payer.head.seq + 1)
    signed = payer.write(scene.world.now, scene.request_body(till))
    planted = scene.put(signed)
    for _ in range(2):
        scene.put(payer.write(scene.world.now, scene.request_body(till)))
    scene.bad(till, Allot(signed.entry.id, scene.world.opening(till), 1))
    return planted


@fraud("slice-falls", "an entry of an earlier slice than the one before it")
def _slice_falls(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    scene.world.now += 1
    scene.world.request(payer, till, CREDITS)
    scene.world.now -= 1
    return scene.bad(payer, scene.request_body(till))


@fraud("slice-reference", "a RECEIPT from before its ALLOT")
def _slice_reference(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    _, rig = scene.person("worker")
    scene.world.now += 2
    request = scene.world.request(payer, till, CREDITS)
    allot = scene.world.allot(till, request, rig, CREDITS // 2)
    scene.world.now -= 2
    return scene.first_receipt(till, rig, allot)


@fraud("slice-ahead", "an entry from a clock in the far future")
def _slice_ahead(scene: Scene) -> Planted:
    author = Author(scene.world.charters.network, AccountKey(secret(scene.world.seed, "time traveller")))
    scene.world.now += _AHEAD
    return scene.bad(author, OpenAccount(ZERO))


@fraud("author-kind", "a REQUEST by a node")
def _author_kind(scene: Scene) -> Planted:
    _, till = scene.person("payer")
    return scene.bad(till, scene.request_body(till))


# -- 4: forks ---------------------------------------------------------------------------------------------------------


@fraud("fork", "two REQUESTs of one account with one number")
def _fork(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    pair = [payer.draft(scene.world.now, scene.request_body(till, amount)) for amount in (CREDITS, CREDITS // 2)]
    for signed in pair:
        scene.world.take(signed)
    return Planted(max(signed.entry.id for signed in pair), payer.public)


def _forker(world: Community) -> tuple[Signed, Signed]:
    """The two first entries of one account."""
    author = Author(world.charters.network, AccountKey(secret(world.seed, "account fraud forker")))
    return author.draft(0, OpenAccount(ZERO)), author.draft(0, OpenAccount(hashlib.sha256(b"other").digest()))


def _forker_head(world: Community) -> Head:
    proof = ForkProof.of(*_forker(world))
    return Head((proof.to_bytes(),), (proof.author,))


@fraud("fork", "a fork of which the export has one branch and a proof", name="fork-proved", head=_forker_head)
def _fork_proved(scene: Scene) -> Planted:
    one, other = _forker(scene.world)
    scene.world.take(one)
    return Planted(max(one.entry.id, other.entry.id), one.entry.author)


@fraud("heal", "a HEAL that abandons the branch which it continues")
def _heal(scene: Scene) -> Planted:
    payer, _ = scene.person("payer")
    assert payer.head is not None
    body = Heal(((payer.head.seq, payer.head.id),), ())
    return scene.bad(payer, body, *scene.world.stewards[: scene.world.charter.threshold])


# -- 5: references ----------------------------------------------------------------------------------------------------


@fraud("unknown-reference", "a RECEIPT for an ALLOT that is not there, and one entry after it", dependent=1)
def _unknown_reference(scene: Scene) -> Planted:
    job = scene.job()
    voucher = scene.next_voucher(job, allot=hashlib.sha256(b"nothing").digest())
    planted = scene.put(job.rig.write(scene.world.now, Receipt(voucher, job.till.voucher(voucher).signature)))
    scene.world.now += 1
    scene.receipt(job)
    return scene.by_export(planted)


@fraud("reference", "an ALLOT for an entry that is no REQUEST")
def _reference(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    assert payer.head is not None
    return scene.bad(till, Allot(payer.head.id, scene.world.opening(till), 1))


@fraud("two-branches", "RECEIPTs for ALLOTs on two branches of a paymaster that has forked", also=("fork",))
def _two_branches(scene: Scene) -> Planted:
    world = scene.world
    payer, till = scene.person("payer")
    worker, rig = scene.person("worker")
    request = world.request(payer, till, CREDITS)
    pair = [till.draft(world.now, Allot(request.entry.id, world.opening(rig), CREDITS // n)) for n in (2, 3)]
    for signed in pair:
        world.take(signed)
    world.now += 1
    world.receipt(rig, till, pair[0], CREDITS // 10)
    world.now += 1
    return scene.receipt(Job(payer, till, worker, rig, request, pair[1]))
