"""The fields of a request, from the text of a query or the bytes of a body; both are hostile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

from ubcp_p2p.api.checking import Schema
from ubcp_p2p.api.problems import HttpRefusal

FIELDS_MAX: Final = 32
_DIGITS_MAX: Final = 20
_WORDS: Final = {"true": True, "false": False}


def fields_of_query(query: str, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """By name, as the types that the schemas have. Raises HttpRefusal."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=FIELDS_MAX)
    except ValueError:
        raise _not_understood("the query is not name=value&…, or has too many fields") from None
    fields: dict[str, Any] = {}
    for name, text in pairs:
        if name in fields:
            raise _not_understood(f"{name!r:.80} is there twice")
        fields[name] = _typed(text, schemas.get(name, {}))
    return fields


def fields_of_body(body: bytes) -> dict[str, Any]:
    """A JSON object; nothing at all is an empty one. Raises HttpRefusal."""
    if not body:
        return {}
    try:
        fields = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _not_understood("the body is not JSON") from None
    if not isinstance(fields, dict):
        raise _not_understood("the body is not a JSON object")
    return fields


def _typed(text: str, schema: Schema) -> Any:
    """What is no such thing stays text, and is refused as that."""
    wanted = schema.get("type")
    kinds = [wanted] if isinstance(wanted, str) else wanted or []
    if "integer" in kinds and text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX:
        return int(text)
    if "boolean" in kinds:
        return _WORDS.get(text, text)
    return text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _not_understood(what: str) -> HttpRefusal:
    return HttpRefusal(HTTPStatus.BAD_REQUEST, f"the request was not understood: {what}", hint="see docs/api.md")
