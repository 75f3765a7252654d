"""A short run of every fuzz target, the same each time, and all that once crashed; `make fuzz` goes on longer."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.mutate import HEADS, mutated
from tests.fuzz.targets import TARGETS, story

INPUTS = 400
CRASHES = [
    ("entry", b"\x91" * 1000 + b"\0"),  # the message named a value that nests deeper than repr can follow
    ("entry", b"\x98\x01" + b"\xc4\x20" + bytes(32) + b"\xc4\x20" + bytes(32) + b"\0" + b"\xc4\x20" + bytes(32) + b"\0"
     + b"\x91" * 990 + b"\0" + b"\x90"),
]  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_changed_bytes(name: str) -> None:
    act, corpus_of = TARGETS[name]
    corpus, rng = corpus_of(), random.Random(f"{name} 1")
    for _ in range(INPUTS if name != "unverified" else INPUTS // 4):
        act(mutated(rng, corpus))


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_and_single_values(name: str) -> None:
    act, corpus_of = TARGETS[name]
    corpus = corpus_of()
    assert corpus
    for data in (b"", *HEADS, *corpus[:: max(1, len(corpus) // 50)]):
        act(data)


@pytest.mark.parametrize(("name", "data"), CRASHES)
def test_what_once_crashed(name: str, data: bytes) -> None:
    TARGETS[name][0](data)


def test_the_corpus_has_forks_and_refusals() -> None:
    assert story().proofs()
    assert story().refused
    assert story().scene.ledger.forks.healings
