"""Says in words what is wrong with a recipe: the key as its author wrote it, why, and what to do."""

from __future__ import annotations

import difflib
import typing
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from ubcp_p2p.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_VALUE_CHARS_MAX = 60  # of a wrong value that is quoted back


def explain(error: ValidationError, where: str, root: type[BaseModel]) -> ConfigError:
    """The first fault of `error`, raised by validating against `root`, as a ConfigError; `where` names the text."""
    # An unknown key is often a misspelt one, and then the cause of a "missing" beside it: it comes first.
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    path = [str(part) for part in fault["loc"]]
    unions = _unions(root)
    if len(path) > 1 and path[0] in unions:
        del path[1]  # pydantic puts the union's tag after the table: model.gpt.width is `width` of [model]
    key = ".".join(path)
    reason, hint = _words(fault, root, where)
    if fault["type"].startswith("union_tag"):
        key = f"{key}.{unions[path[0]]}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return ConfigError(f"{where}: {key + ': ' if key else ''}{reason}{more}", hint=hint)


def _words(fault: ErrorDetails, root: type[BaseModel], where: str) -> tuple[str, str]:
    """Reason and hint."""
    kind = fault["type"]
    if kind == "extra_forbidden":
        known = list(_table(root, fault["loc"]).model_fields)
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        advice = f"did you mean {near[0]!r}? " if near else "remove it; "
        return "unknown key", f"{advice}known here: {', '.join(known)}"
    if kind in ("missing", "union_tag_not_found"):
        return "this key is required", f"add it to {where}; a shipped recipe shows how"
    if kind == "union_tag_invalid":
        context = fault["ctx"]
        return f"{context['tag']!r} is not known; choose one of {context['expected_tags']}", f"correct it in {where}"
    reason = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if not isinstance(fault["input"], dict):
        value = repr(fault["input"])
        cut = value if len(value) <= _VALUE_CHARS_MAX else value[: _VALUE_CHARS_MAX - 1] + "…"
        reason += f" (it is {cut})"
    return reason, f"correct it in {where}"


def _unions(root: type[BaseModel]) -> dict[str, str]:
    """Table → the key that chooses its kind, for each table that comes in several kinds."""
    return {name: str(field.discriminator) for name, field in root.model_fields.items() if field.discriminator}


def _table(root: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The section whose key the last part of `loc` is."""
    if len(loc) == 1:
        return root
    field = root.model_fields[str(loc[0])]
    kinds = typing.get_args(field.annotation) if field.discriminator else (field.annotation,)
    for kind in kinds:
        assert isinstance(kind, type) and issubclass(kind, BaseModel)
        tags = typing.get_args(kind.model_fields[str(field.discriminator)].annotation) if field.discriminator else ()
        if not tags or str(loc[1]) in tags:
            return kind
    raise AssertionError(f"{loc} is no key of {root.__name__}")
