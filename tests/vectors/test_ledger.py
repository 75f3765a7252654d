"""The ledger's vectors are what the code makes of them, cover every class of fault, and are those of the SPEC."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import pytest

from tests.vectors.ledger import generate, run
from ubcp_p2p.ledger.faults import FAULTS

# A fault of a whole file or of a reader's clock, not of one entry after its past: the audit's tests have these.
# Inputs of decisions are for whoever knows the allocator's rules.
BEYOND_VECTORS = {
    "unknown-reference", "slice-ahead", "checkpoint-root", "checkpoint-state", "decision-inputs", "decision-claims",
}  # fmt: skip


@functools.cache
def _document(subject: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(generate.path(subject).read_text())
    return document


ALL = [
    pytest.param(subject, number, id=f"{subject}: {vector['name']}")
    for subject in generate.FILES
    for number, vector in enumerate(_document(subject)["vectors"])
]


@pytest.mark.parametrize(("subject", "number"), ALL)
def test_vector(subject: str, number: int) -> None:
    document = _document(subject)
    run.check(document, document["vectors"][number])


@pytest.mark.parametrize("subject", generate.FILES)
def test_the_code_makes_exactly_the_file(subject: str) -> None:
    """`python -m tests.vectors.ledger.generate` rewrites them, after a deliberate change of format or rules."""
    assert generate.text(subject) == generate.path(subject).read_text()


@pytest.mark.parametrize("subject", generate.FILES)
def test_nothing_in_a_file_is_skipped(subject: str) -> None:
    run.check_file(_document(subject), subject)


def test_an_unknown_key_is_refused() -> None:
    document = json.loads(generate.path("merkle").read_text())
    document["vectors"][3]["note"] = ""
    with pytest.raises(AssertionError):
        run.check_file(document, "merkle")


def test_every_file_is_known() -> None:
    assert {path.stem for path in generate.FOLDER.glob("*.json")} == set(generate.FILES)


def test_every_class_of_fault_has_a_vector() -> None:
    codes: set[str] = set()
    for subject in generate.FILES:
        for vector in _document(subject)["vectors"]:
            codes.add(vector.get("expected", "ok"))
            codes |= {proof["expected"] for proof in vector.get("proofs", [])}
            codes |= {code for code, _, _ in vector.get("findings", [])}
    assert FAULTS.keys() - codes == BEYOND_VECTORS
    assert {code for code in codes - FAULTS.keys() if not code.startswith("charter-")} == {"ok", "pending", "malformed"}


def test_the_worked_bytes_are_those_of_the_specification() -> None:
    """§0 prints them with blanks and ellipses: what it prints of each comes in its vector, in this order."""
    section = (generate.FOLDER.parent / "SPEC.md").read_text().split("## 1. ")[0]
    worked = {vector["name"]: vector["bytes"] for vector in _document("worked")["vectors"]}
    for name in ("charter", "network", "author", "recovery", "entry", "id", "signature", "voucher", "digest"):
        lines = re.search(rf"^{name} +(.*(?:\n +[0-9a-f]{{2}}.*)*)", section, re.MULTILINE)
        assert lines, name
        printed = re.findall(r"\b(?:[0-9a-f]{2})+\b", " ".join(re.split(" {3,}", line)[0] for line in _lines(lines[1])))
        assert printed, name
        rest = worked[name]
        for digits in printed:
            assert digits in rest, (name, digits)
            rest = rest.split(digits, 1)[1]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]
