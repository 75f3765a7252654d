"""Slices are decided as they were: the same bytes and words for the same file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.vectors.allocator import generate
from ubcp_p2p.allocator.blob import decode_problem
from ubcp_p2p.allocator.decide import decide
from ubcp_p2p.allocator.document import parse
from ubcp_p2p.allocator.problem import Reason


@pytest.mark.parametrize("file", generate.SLICES, ids=lambda path: path.stem)
def test_the_code_decides_exactly_as_the_vectors_say(file: Path) -> None:
    """`python -m tests.vectors.allocator.generate` rewrites them, after a deliberate change of the rules."""
    assert generate.decision_file(file).read_text() == generate.text(file)


@pytest.mark.parametrize("file", generate.SLICES, ids=lambda path: path.stem)
def test_the_inputs_are_read_back(file: Path) -> None:
    vector = json.loads(generate.decision_file(file).read_text())
    problem = decode_problem(bytes.fromhex(vector["inputs"]))
    assert problem == parse(file.read_bytes(), where=file.name)
    assert decide(problem) == decide(parse(file.read_bytes(), where=file.name))


def test_the_vectors_have_every_reason() -> None:
    found = {
        row["reason"]
        for file in generate.SLICES
        for row in json.loads(generate.decision_file(file).read_text())["output"]["decisions"]
    }
    assert found == {str(reason) for reason in Reason}
