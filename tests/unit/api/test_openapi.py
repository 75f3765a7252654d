"""The document, the table and the node say the same; docs/openapi.json is the document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.profiles import owned_profile
from ubcp_p2p.api import openapi
from ubcp_p2p.api.routes import ROUTES
from ubcp_p2p.api.schemas import SCHEMAS
from ubcp_p2p.peer.config import PeerConfig
from ubcp_p2p.peer.node import Node

REPOSITORY = Path(__file__).parents[3]


def test_the_document_in_docs_is_this_one() -> None:
    """`python -m ubcp_p2p.api.openapi > docs/openapi.json` writes it."""
    assert (REPOSITORY / "docs" / "openapi.json").read_text() == openapi.text()


def test_the_node_serves_all_rows_of_the_table_and_nothing_else(tmp_path: Path) -> None:
    verbs = Node(owned_profile(tmp_path), PeerConfig())._verbs()
    assert set(verbs) == {route.verb for route in ROUTES}


def test_rows_are_different() -> None:
    assert len({route.verb for route in ROUTES}) == len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    for route in ROUTES:
        assert set(route.in_path) <= set(route.takes["required"]), route.verb
        assert (route.kind == "events") == (route.ends is not None), route.verb


def test_what_is_referred_to_is_there_and_used() -> None:
    referred = {ref.rpartition("/")[2] for ref in _refs(openapi.document())}
    assert referred == {*SCHEMAS, "Refused"}


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from _refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _refs(item)
