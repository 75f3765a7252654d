"""The checker of schemas: what it lets through and what it says; that it never raises; and the fields of requests."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.api.checking import fault
from ubcp_p2p.api.fields import fields_of_body, fields_of_query
from ubcp_p2p.api.problems import HttpRefusal
from ubcp_p2p.api.routes import ROUTES
from ubcp_p2p.api.schemas import SCHEMAS
from ubcp_p2p.api.shapes import BOOL, INT, NUMBER, TEXT, many, maybe, named, obj, table, takes, text, whole

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
NAMED = {"Pair": obj(a=INT, b=maybe(TEXT))}


@pytest.mark.parametrize(
    ("value", "schema", "words"),
    [
        (1, INT, None), (True, INT, "should be an integer, not True"), (1.5, INT, "should be an integer"),
        (1, NUMBER, None), (1.5, NUMBER, None), (None, NUMBER, "should be a number"), (0, BOOL, "should be a boolean"),
        (None, maybe(TEXT), None), (1, maybe(TEXT), "should be a string or null"),
        (None, maybe(named("Pair")), None), ({"a": 1, "b": None}, maybe(named("Pair")), None),
        ({"a": "x", "b": None}, maybe(named("Pair")), "a should be an integer"),
        ({"a": 1}, named("Pair"), "b is missing"),
        ([{"a": 1, "b": 2}], many(named("Pair")), "[0].b should be a string or null"),
        ([1, 2], many(INT, 1), "more than 1"),
        ({"x": 1}, table(INT), None), ({"x": "1"}, table(INT), "x should be an integer"),
        ("ab", text(2), None), ("abc", text(2), "more than 2 characters"), (0, whole(1, 2), "from 1 to 2"),
        (3, whole(1, 2), "from 1 to 2"), ("a", {"type": "string", "enum": ["b"]}, "one of b"),
        ({"q": 1}, takes(), "there is no field 'q'; known here: none"), ({"later": 1}, obj(), None),
    ],
)  # fmt: skip
def test_what_is_said_of_a_value(value: Any, schema: Any, words: str | None) -> None:
    found = fault(value, schema, NAMED)
    assert (found is None) if words is None else (found is not None and words in found)


@given(JSON, st.sampled_from([*SCHEMAS.values(), *(route.takes for route in ROUTES)]))
def test_no_value_makes_it_raise(value: Any, schema: Any) -> None:
    assert isinstance(fault(value, schema, SCHEMAS), str | None)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=8))
def test_a_body_is_what_it_was(fields: dict[str, Any]) -> None:
    assert fields_of_body(json.dumps(fields).encode()) == fields


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8) | st.integers(0, 10**19), max_size=8))
def test_a_query_is_what_it_was(fields: dict[str, Any]) -> None:
    schemas = {name: INT if isinstance(value, int) else TEXT for name, value in fields.items()}
    assert fields_of_query(urlencode(fields), schemas) == fields


@given(st.text(alphabet=st.characters(max_codepoint=126, min_codepoint=33), max_size=40))
def test_no_query_makes_it_raise_anything_else(query: str) -> None:
    with suppress(HttpRefusal):
        assert isinstance(fields_of_query(query, {"a": INT, "b": BOOL}), dict)


def test_words_of_truth() -> None:
    assert fields_of_query("a=true&b=false&c=yes", {"a": BOOL, "b": BOOL, "c": BOOL}) == {
        "a": True, "b": False, "c": "yes",
    }  # fmt: skip
