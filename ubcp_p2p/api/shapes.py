"""Schemas in few words: what the tables of the API's schemas are written with."""

from __future__ import annotations

from typing import Any, Final

from ubcp_p2p.api.checking import Schema

ANY: Final[Schema] = {}
BOOL: Final[Schema] = {"type": "boolean"}
INT: Final[Schema] = {"type": "integer"}
NUMBER: Final[Schema] = {"type": "number"}
TEXT: Final[Schema] = {"type": "string"}
HEX: Final[Schema] = {"type": "string", "description": "hexadecimal"}
AMOUNT: Final[Schema] = {"type": "integer", "description": "µcredits: millionths of a credit"}


def obj(about: str = "", /, **fields: Schema) -> Schema:
    """An object that has all of these fields; it may have others, which a later version adds."""
    schema: dict[str, Any] = {"type": "object", "properties": fields, "required": list(fields)}
    return {**schema, "description": about} if about else schema


def takes(*required: str, **fields: Schema) -> Schema:
    """The fields of a request: these and no others; `required` names those that must be there."""
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def many(of: Schema, items_max: int | None = None) -> Schema:
    """A list."""
    return {"type": "array", "items": of} | ({} if items_max is None else {"maxItems": items_max})


def maybe(schema: Schema) -> Schema:
    """This, or null."""
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def table(of: Schema) -> Schema:
    """An object whose names are data."""
    return {"type": "object", "additionalProperties": of}


def named(name: str) -> Schema:
    """One of the shared schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(characters_max: int, about: str = "") -> Schema:
    """A string of limited length."""
    return {"type": "string", "maxLength": characters_max} | ({"description": about} if about else {})


def whole(low: int, high: int, about: str = "") -> Schema:
    """An integer within bounds."""
    return {"type": "integer", "minimum": low, "maximum": high} | ({"description": about} if about else {})
