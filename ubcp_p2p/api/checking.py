"""Does a JSON value keep a schema? The part of JSON Schema that the API's own schemas use, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
_SAID_MAX: Final = 80  # characters of a wrong value that are repeated


def fault(value: Any, schema: Schema, named: Mapping[str, Schema], where: str = "") -> str | None:
    """What is wrong, in words, with the place; None when nothing is. named: the schemas that `$ref` can name."""
    if "$ref" in schema:
        return fault(value, named[schema["$ref"].rpartition("/")[2]], named, where)
    if "anyOf" in schema:
        faults = [fault(value, one, named, where) for one in schema["anyOf"]]
        return None if None in faults else faults[0]
    wanted = schema.get("type")
    if wanted is not None and not _is(value, wanted):
        return f"{where or 'it'} should be {_article(wanted)}, not {_short(value)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where or 'it'} should be one of {', '.join(map(str, schema['enum']))}, not {_short(value)}"
    if isinstance(value, str):
        return _text_fault(value, schema, where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number_fault(value, schema, where)
    if isinstance(value, dict):
        return _object_fault(value, schema, named, where)
    if isinstance(value, list):
        return _array_fault(value, schema, named, where)
    return None


def _text_fault(value: str, schema: Schema, where: str) -> str | None:
    if len(value) > schema.get("maxLength", len(value)):
        return f"{where or 'it'} has more than {schema['maxLength']} characters"
    return None


def _number_fault(value: float, schema: Schema, where: str) -> str | None:
    if value < schema.get("minimum", value) or value > schema.get("maximum", value):
        low, high = schema.get("minimum", "…"), schema.get("maximum", "…")
        return f"{where or 'it'} should be from {low} to {high}, not {_short(value)}"
    return None


def _object_fault(value: dict[str, Any], schema: Schema, named: Mapping[str, Schema], where: str) -> str | None:
    fields = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return f"{_place(where, name)} is missing"
    for name, item in value.items():
        if name in fields:
            found = fault(item, fields[name], named, _place(where, name))
        elif schema.get("additionalProperties", True) is False:
            known = ", ".join(fields) or "none"
            return f"there is no field {_short(_place(where, name))}; known here: {known}"
        elif isinstance(schema.get("additionalProperties"), Mapping):
            found = fault(item, schema["additionalProperties"], named, _place(where, name))
        else:
            continue
        if found is not None:
            return found
    return None


def _array_fault(value: list[Any], schema: Schema, named: Mapping[str, Schema], where: str) -> str | None:
    if len(value) > schema.get("maxItems", len(value)):
        return f"{where or 'it'} has more than {schema['maxItems']} items"
    found = (fault(item, schema.get("items", {}), named, f"{where}[{number}]") for number, item in enumerate(value))
    return next((one for one in found if one is not None), None)


def _is(value: Any, wanted: str | list[str]) -> bool:
    kinds = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(value, bool):  # an int to Python, and to nobody else
        return "boolean" in kinds
    return any(isinstance(value, _TYPES[kind]) for kind in kinds)


def _article(wanted: str | list[str]) -> str:
    kinds = [wanted] if isinstance(wanted, str) else wanted
    return " or ".join(kind if kind == "null" else f"{'an' if kind[0] in 'aio' else 'a'} {kind}" for kind in kinds)


def _place(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _short(value: Any) -> str:
    return f"{value!r:.{_SAID_MAX}}"
