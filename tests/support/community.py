"""A small community that has been through everything a store keeps, and what a store knows, for comparing."""

from __future__ import annotations

import copy
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ubcp_p2p.charter.values import Charters, SignedCharter
from ubcp_p2p.ledger.balances import balances, balances_root, entries_root
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import ForkProof, Signed
from ubcp_p2p.ledger.world import World
from ubcp_p2p.units import MICROCREDITS

CREDIT = MICROCREDITS


class Community(NamedTuple):
    """entries: causal order; the last is the second branch of `forker`, who is frozen by it."""

    world: World
    entries: list[Signed]
    forker: bytes
    proof: ForkProof


def community(seed: int = 1, receipts: int = 6) -> Community:
    """Three people, three machines, a paid request that is closed, claimed income, and a fork."""
    world = World(seed)
    ann, ben, eve = (world.account(name) for name in ("ann", "ben", "eve"))
    ann_pc, ben_pc, eve_pc = world.node(ann, "ann"), world.node(ben, "ben"), world.node(eve, "eve")
    request = world.request(ann, ann_pc, 5000 * CREDIT)
    first = world.allot(ann_pc, request, ben_pc, 3000 * CREDIT)
    second = world.allot(ann_pc, request, eve_pc, 2000 * CREDIT)
    for _ in range(receipts):
        world.now += 1
        world.receipt(ben_pc, ann_pc, first, 100 * CREDIT)
    world.receipt(eve_pc, ann_pc, second, 50 * CREDIT)
    before = copy.copy(eve)
    one = world.request(eve, eve_pc, 400 * CREDIT)
    other = world.request(before, eve_pc, 300 * CREDIT)
    return Community(world, world.entries, eve.public, ForkProof.of(one, other))


def second_charter(charters: Charters, world: World, *, effective: int, **changes: Any) -> SignedCharter:
    """A version 2, signed by all stewards."""
    first = charters.first
    charter = replace(first, number=2, previous=first.id, effective=effective, **changes)
    return SignedCharter(charter).signed((key.public, key.sign("charter", charter.id)) for key in world.stewards)


class Known(NamedTuple):
    """Everything that a store knows. order: entry ids in append order. drafts: of all authors."""

    order: tuple[bytes, ...]
    entries_root: bytes
    balances_root: bytes
    frozen: tuple[bytes, ...]
    missing: tuple[bytes, ...]
    proofs: tuple[bytes, ...]
    blobs: tuple[bytes, ...]
    drafts: tuple[bytes, ...]
    charters: int


def known(store: Store, *authors: bytes) -> Known:
    """What this store knows now; drafts of these authors."""
    ledger = store.ledger
    return Known(
        tuple(row.id for row in store.after(0, 10**6)),
        entries_root(ledger),
        balances_root(balances(ledger, store.history)),
        tuple(ledger.frozen()),
        tuple(store.pending_missing()),
        tuple(proof.id for proof in store.proofs()),
        tuple(store.blob_hashes()),
        tuple(data for author in authors for _, data in store.drafts(author)),
        len(ledger.charters),
    )


def same_after_reopening(store: Store, *authors: bytes) -> Store:
    """Close it, open it, and find what it knew."""
    before = known(store, *authors)
    store.close()
    again = Store.open(store.path, check_signatures=True)
    assert known(again, *authors) == before
    return again


def fresh_charters(world: World) -> Charters:
    """Charters of their own: a store adds versions to those that it was made with."""
    return Charters(world.charters.versions[0])


def new_store(path: Path, world: World) -> Store:
    """An empty one."""
    return Store.create(path, fresh_charters(world))


@contextmanager
def disk_that_ends_at(size: int) -> Iterator[None]:
    """Writes beyond this size of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
