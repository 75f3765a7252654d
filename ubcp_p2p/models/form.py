"""The forms of a recipe's values: the canonical one that its hash is of, and lines of TOML."""

from __future__ import annotations

import json
from typing import Any, Final

from ubcp_p2p import codec

_LOCAL_KEYS: Final = frozenset({"path"})  # where data lies on this machine: not part of what the peers share


def canonical(value: Any) -> codec.Value:
    """Values → the codec's model: tables as [key, value] pairs by key, floats by repr, absent values left out."""
    if isinstance(value, dict):
        shared = sorted((k, v) for k, v in value.items() if v is not None and k not in _LOCAL_KEYS)
        return [[k, canonical(v)] for k, v in shared]
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value + 0.0)  # −0.0 + 0.0 is 0.0: equal recipes have equal hashes
    assert isinstance(value, int | str), type(value)
    return value


def tables(value: codec.Value) -> Any:
    """The inverse of `canonical`, but for texts that stand for numbers. No list of a recipe has such pairs in it."""
    if not isinstance(value, list):
        return value
    pairs = [(row[0], row[1]) for row in value if isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)]
    if value and len(pairs) == len(value):
        return {key: tables(item) for key, item in pairs}
    return [tables(item) for item in value]


def toml_line(key: str, value: object) -> str:
    """`key = value` with a line break."""
    if isinstance(value, tuple):
        value = list(value)
    # JSON writes strings (printable ones, which is all that a recipe holds), numbers, booleans and lists as TOML does.
    return f"{key} = {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n"
