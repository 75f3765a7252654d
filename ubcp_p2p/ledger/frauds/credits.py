"""Frauds about credits, enrolments, work and pay, and what is claimed of others (invariants 6 to 15)."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from ubcp_p2p.codec import Value, encode
from ubcp_p2p.keys import AccountKey
from ubcp_p2p.ledger import entry as form
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.chain import AccountChain
from ubcp_p2p.ledger.entry import Allot, Checkpoint, Close, Decision, OpenAccount
from ubcp_p2p.ledger.frauds.scene import CREDITS, SLICES, Head, Planted, Scene, fraud
from ubcp_p2p.ledger.synth import Community
from ubcp_p2p.ledger.wire import ForkProof
from ubcp_p2p.ledger.world import PEAK, secret

_OWNER_REFUSED = 3  # of an ask in a decision's inputs

# -- 6: sums ----------------------------------------------------------------------------------------------------------


@fraud("zero-sum", "a CLOSE whose parts are more than was reserved")
def _zero_sum(scene: Scene) -> Planted:
    job = scene.job()
    scene.over()
    return scene.bad(job.till, scene.close_body(job, returned=CREDITS))


# -- 7, 8: allowances, enrolments -------------------------------------------------------------------------------------


@fraud("not-enrolled", "a REQUEST, covered by income, of an account that is not enrolled")
def _not_enrolled(scene: Scene) -> Planted:
    world = scene.world
    payer, till = scene.person("payer")
    worker, rig = scene.person("worker", enrol=False)
    allot = world.allot(till, world.request(payer, till, CREDITS), rig, CREDITS)
    world.now += 1
    income = world.receipt(rig, till, allot, CREDITS).entry.position
    return scene.bad(worker, scene.request_body(rig, income=(income,)))


@fraud("expired", "a REQUEST that only expired allowances would cover")
def _expired(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    charter = scene.world.charter
    scene.world.now += (charter.allowance_periods + 1) * charter.period_slices
    return scene.bad(payer, scene.request_body(till, (charter.allowance_periods + 1) * charter.allowance.member))


@fraud("stewards", "an ENROL that one steward too few has signed")
def _stewards(scene: Scene) -> Planted:
    author, _ = scene.person("newcomer", enrol=False)
    stewards = scene.world.stewards[: scene.world.charter.threshold - 1]
    return scene.by_export(scene.bad(author, scene.enrol_body(), *stewards))


@fraud("enrolment", "an ENROL for longer than the charter allows")
def _enrolment(scene: Scene) -> Planted:
    author, _ = scene.person("newcomer", enrol=False)
    body = scene.enrol_body()
    body = body._replace(until=body.first + scene.world.charter.enrolment_periods_max + 1)
    return scene.bad(author, body, *scene.world.stewards[: scene.world.charter.threshold])


@fraud("nullifier", "one person enrolled as two")
def _nullifier(scene: Scene) -> Planted:
    one = scene.world.account("fraud one", enrol=False)
    other = scene.world.account("fraud other", enrol=False)
    scene.world.enrol(one, "the same")
    scene.world.now += 1
    return Planted(scene.world.enrol(other, "the same").entry.id, other.public)


# -- 9: requests ------------------------------------------------------------------------------------------------------


@fraud("overdraft", "a REQUEST above the allowance")
def _overdraft(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    return scene.bad(payer, scene.request_body(till, scene.world.charter.allowance.member + 1))


@fraud("exposure", "REQUESTs above the exposure cap in one period, each of them covered")
def _exposure(scene: Scene) -> Planted:
    world = scene.world
    charter = world.charter
    payer, till = scene.person("payer")
    world.now += (charter.allowance_periods - 1) * charter.period_slices
    amount = charter.allowance_periods * charter.allowance.member
    for _ in range(charter.exposure_cap // amount):
        request = world.request(payer, till, amount, slices=1)
        world.now += charter.grace_slices + 2
        world.close(payer, request)
    return scene.bad(payer, scene.request_body(till, amount))


@fraud("request", "a REQUEST for a purpose that the charter does not have")
def _request(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    return scene.bad(payer, scene.request_body(till, purpose="speculation"))


@fraud("claim", "income claimed from somebody else's node")
def _claim(scene: Scene) -> Planted:
    job = scene.job()
    assert job.rig.head is not None
    return scene.bad(job.payer, scene.request_body(job.till, income=(job.rig.head,)))


@fraud("debt", "a paymaster that has forked pays a REQUEST out twice", also=("fork",))
def _debt(scene: Scene) -> Planted:
    world = scene.world
    payer, till = scene.person("payer")
    amount = world.charter.allowance.member
    request = world.request(payer, till, amount)
    for name in ("worker", "other"):
        _, rig = scene.person(name)
        twin = copy.copy(till)  # each knows nothing of what the other has allotted
        world.receipt(rig, twin, world.allot(twin, request, rig, amount), amount)
    return Planted(b"", payer.public)


@fraud("debt", "an account that takes back by CLOSE what was paid, and spends it", name="debt-closed",
       also=("close-voucher",))  # fmt: skip
def _debt_closed(scene: Scene) -> Planted:
    world = scene.world
    payer, till = scene.person("payer")
    _, rig = scene.person("worker")
    amount = world.charter.allowance.member
    request = world.request(payer, till, amount, slices=SLICES)
    world.receipt(rig, till, world.allot(till, request, rig, amount), amount)
    scene.over()
    world.write(payer, Close(request.entry.id, (), amount))
    world.request(payer, till, amount)
    return Planted(b"", payer.public)


# -- 10, 11: work and pay ---------------------------------------------------------------------------------------------


@fraud("allot", "an ALLOT by a node that is not the paymaster")
def _allot(scene: Scene) -> Planted:
    job = scene.job()
    return scene.bad(job.rig, Allot(job.request.entry.id, scene.world.opening(job.rig), 1))


@fraud("allot-sum", "an ALLOT above the rest of what its REQUEST reserved")
def _allot_sum(scene: Scene) -> Planted:
    job = scene.job()
    return scene.bad(job.till, Allot(job.request.entry.id, scene.world.opening(job.till), CREDITS // 2 + 1))


@fraud("receipt-allot", "a RECEIPT for another node's voucher")
def _receipt_allot(scene: Scene) -> Planted:
    job = scene.job()
    _, thief = scene.person("thief")
    return scene.receipt(job, thief)


@fraud("receipt-limit", "a RECEIPT above its ALLOT")
def _receipt_limit(scene: Scene) -> Planted:
    much = CREDITS // 2 + 1
    return scene.receipt(scene.job(), units=much, credits=much, seconds=much // PEAK + 1)


@fraud("receipt-late", "a RECEIPT after the grace")
def _receipt_late(scene: Scene) -> Planted:
    job = scene.job()
    scene.over()
    return scene.receipt(job)


@fraud("receipt-grows", "a RECEIPT for a voucher that is not above the one before")
def _receipt_grows(scene: Scene) -> Planted:
    return scene.receipt(scene.job(), units=CREDITS // 10, credits=CREDITS // 10)


@fraud("receipt-slice", "two RECEIPTs for one REQUEST in one slice")
def _receipt_slice(scene: Scene) -> Planted:
    job = scene.job()
    scene.world.now -= 1
    return scene.receipt(job)


@fraud("receipt-self", "a RECEIPT from a node of the payer")
def _receipt_self(scene: Scene) -> Planted:
    payer, till = scene.person("payer")
    rig = scene.world.node(payer, "fraud second")
    allot = scene.world.allot(till, scene.world.request(payer, till, CREDITS), rig, CREDITS // 2)
    return scene.first_receipt(till, rig, allot)


@fraud("price", "a RECEIPT at another price than 1")
def _price(scene: Scene) -> Planted:
    return scene.receipt(scene.job(), units=CREDITS // 5 - 1)


@fraud("device", "a RECEIPT for more than the device can do in the time")
def _device(scene: Scene) -> Planted:
    much = CREDITS // 2
    return scene.receipt(scene.job(), units=much, credits=much, seconds=much // PEAK - 1)


# -- 12: closes -------------------------------------------------------------------------------------------------------


@fraud("close", "a CLOSE before the grace is over")
def _close(scene: Scene) -> Planted:
    job = scene.job()
    return scene.bad(job.till, scene.close_body(job))


@fraud("close-again", "a second CLOSE of one REQUEST by its paymaster")
def _close_again(scene: Scene) -> Planted:
    job = scene.job()
    scene.over()
    scene.world.write(job.till, scene.close_body(job))
    return scene.bad(job.till, scene.close_body(job))


@fraud("close-voucher", "a CLOSE below what a voucher had promised")
def _close_voucher(scene: Scene) -> Planted:
    job = scene.job()
    scene.over()
    close = scene.world.write(job.till, scene.close_body(job, CREDITS // 20))
    return Planted(close.entry.id, job.till.public)


# -- 13, 14, 15 -------------------------------------------------------------------------------------------------------


def _checkpoint(scene: Scene, **changed: Any) -> Checkpoint:
    """The log's next, but for what is changed."""
    world = scene.world
    return Checkpoint(world.tree.size, world.tree.root(), world.roots().balances)._replace(**changed)


@fraud("checkpoint-falls", "a CHECKPOINT that is not larger than the one before")
def _checkpoint_falls(scene: Scene) -> Planted:
    size = scene.world.tree.size
    scene.world.checkpoint()
    return scene.bad(scene.world.log_author, _checkpoint(scene, size=size))


@fraud("checkpoint-root", "a CHECKPOINT over other entries than there are")
def _checkpoint_root(scene: Scene) -> Planted:
    body = _checkpoint(scene, root=hashlib.sha256(b"other entries").digest())
    entry = scene.world.write(scene.world.log_author, body).entry
    return Planted(entry.id, entry.author)


@fraud("checkpoint-state", "a CHECKPOINT that claims other balances")
def _checkpoint_state(scene: Scene) -> Planted:
    body = _checkpoint(scene, state=hashlib.sha256(b"other balances").digest())
    entry = scene.world.write(scene.world.log_author, body).entry
    return Planted(entry.id, entry.author)


@fraud("decision", "a DECISION about the past")
def _decision(scene: Scene) -> Planted:
    _, till = scene.person("payer")
    return scene.bad(till, Decision(scene.world.now - 1, 1, 1, (), (), hashlib.sha256(b"").digest()))


@fraud("decision-twice", "a second DECISION of one node on one slice")
def _decision_twice(scene: Scene) -> Planted:
    _, till = scene.person("payer")
    scene.world.decide(till, budget=1)
    entry = scene.world.decide(till, budget=2).entry
    return Planted(entry.id, entry.author)


@fraud("decision-inputs", "a DECISION whose inputs are nothing that anybody could decide on")
def _decision_inputs(scene: Scene) -> Planted:
    _, till = scene.person("payer")
    blob = b"as I please"
    scene.world.blobs.append(blob)
    entry = scene.world.write(till, Decision(scene.world.now, 1, 1, (), (), hashlib.sha256(blob).digest())).entry
    return Planted(entry.id, entry.author)


@fraud("decision-claims", "a DECISION whose inputs say another purpose than the REQUEST")
def _decision_claims(scene: Scene) -> Planted:
    """The inputs are encoded as the allocator has them (docs/allocator.md): one request, that the owner refuses."""
    world = scene.world
    payer, till = scene.person("payer")
    _, rig = scene.person("worker")
    request = world.request(payer, till, CREDITS)
    fact, chain = world.ledger.requests[request.entry.id], world.ledger.chains[payer.public][0]
    assert isinstance(chain, AccountChain)
    charter, (enrolment,) = world.charter, chain.enrolments
    purposes: list[Value] = list(charter.purposes)
    blob = encode(
        [
            1, world.now,
            [charter.newcomer_permille, charter.half_life_slices, charter.ageing_slices, charter.slice_s, purposes],
            1, 1, 1, 0, [], [[unit.name, unit.weight, 0, 0] for unit in charter.units],
            [[payer.public, enrolment.unit, int(enrolment.newcomer), 0, 0]],
            [[fact.id, payer.public, charter.purposes[1], 1, 1, 0, form.URGENCY_MIN, 1, [], _OWNER_REFUSED]],
        ]
    )  # fmt: skip
    world.blobs.append(blob)
    body = Decision(world.now, 1, 1, (), (("owner-refused", 1),), hashlib.sha256(blob).digest())
    return Planted(world.write(rig, body).entry.id, rig.public)


def _payer(world: Community) -> bytes:
    return AccountKey(secret(world.seed, "account fraud payer")).public


def _frozen_head(world: Community) -> Head:
    return Head(frozen=(_payer(world),))


@fraud("freeze", "an account named frozen without a proof", head=_frozen_head)
def _freeze(scene: Scene) -> Planted:
    scene.person("payer")
    return Planted(b"", scene.world.log)


def _forged(world: Community) -> ForkProof:
    """Two first entries of the payer, signed by somebody else."""
    forger = Author(world.charters.network, AccountKey(secret(world.seed, "forger")), public=_payer(world))
    one, other = (forger.draft(0, OpenAccount(hashlib.sha256(text).digest())) for text in (b"one", b"other"))
    return ForkProof.of(one, other)


def _forged_head(world: Community) -> Head:
    return Head(proofs=(_forged(world).to_bytes(),))


@fraud("freeze", "a fork proof that somebody else has signed", name="freeze-proof", head=_forged_head)
def _freeze_proof(scene: Scene) -> Planted:
    scene.person("payer")
    return Planted(_forged(scene.world).second.entry.id, scene.world.log)
