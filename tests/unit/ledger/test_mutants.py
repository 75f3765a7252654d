"""What `make mutants` changes, and that its table of survivors is about changes that there are (docs/mutation.md)."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from tests.mutation.__main__ import EXPLAINED, ROOT, TARGETS, explanations
from tests.mutation.operators import mutants

SOURCE = '''
def f(a: int, b):
    """Says 3."""
    if a < b and not a == 1:
        raise RuleViolation("claim", f"{a + 1} of {b}")
    b.total += min(a, 2)
    b.note(a)
    return [x for x in b if x in a]
'''


def test_the_changes_of_a_function() -> None:
    found = list(mutants(SOURCE))
    texts = Counter(mutant.text for mutant in found)
    assert texts.keys() == {
        "if a < b and (not a == 1) → if True", "if a < b and (not a == 1) → if False",
        "a < b and (not a == 1) → a < b or not a == 1", "a < b and (not a == 1) → … without a < b",
        "a < b and (not a == 1) → … without not a == 1", "a < b → a <= b", "a < b → a >= b", "not a == 1 → a == 1",
        "a == 1 → a != 1", "1 → 2", "1 → 0", "claim → another code", "b.total += min(a, 2) → b.total -= min(a, 2)",
        "min(a, 2) → max", "2 → 3", "2 → 1", "b.note(a) → nothing", "x in a → x not in a",
    }  # fmt: skip
    assert set(texts.values()) == {1}
    assert {mutant.place for mutant in found} == {"f"}
    for mutant in found:
        assert ast.dump(ast.parse(mutant.source())) != ast.dump(ast.parse(SOURCE))


def test_messages_and_annotations_are_left_alone() -> None:
    assert not any("+" in mutant.text.split("→")[0].replace("+=", "") for mutant in mutants(SOURCE))


@pytest.mark.parametrize("module", TARGETS)
def test_each_explanation_is_about_a_mutant(module: str) -> None:
    """A row whose code has changed since is to be thought about again."""
    source = (ROOT / "ubcp_p2p" / "ledger" / f"{module}.py").read_text()
    there = Counter((module, mutant.place, mutant.text) for mutant in mutants(source))
    rows = Counter({key: count for key, count in explanations(EXPLAINED.read_text()).items() if key[0] == module})
    assert there
    assert rows <= there, rows - there


def test_every_explanation_is_of_a_target() -> None:
    rows = explanations(EXPLAINED.read_text())
    assert rows
    assert {module for module, _, _ in rows} <= set(TARGETS)
