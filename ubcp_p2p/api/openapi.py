"""The OpenAPI 3.1 document of the API, from the table of routes. `python -m ubcp_p2p.api.openapi` prints it."""

from __future__ import annotations

import json
from typing import Any, Final

from ubcp_p2p import __version__
from ubcp_p2p.api.problems import MEDIA_TYPE
from ubcp_p2p.api.routes import PREFIX, ROUTES, Route
from ubcp_p2p.api.schemas import SCHEMAS
from ubcp_p2p.api.shapes import named

PATH: Final = f"{PREFIX}/openapi.json"
_REFUSALS: Final = (
    "400 not understood; 401 no token, or a wrong one; 403 another host's name, or a web page; 404 nothing has that "
    "name; 405 another method; 408 too slow; 409 impossible as things are; 413, 431 too large; 429 too many followers; "
    "500 a mistake in ubcp; 503 not now: the network, a disk, or a node that starts"
)
_REFUSED: Final = {"$ref": "#/components/responses/Refused"}


def document() -> dict[str, Any]:
    """JSON types only."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    itself = {"description": "OpenAPI 3.1", "content": {"application/json": {"schema": {"type": "object"}}}}
    paths[PATH] = {"get": {"operationId": "openapi", "summary": "This document", "responses": _responses(itself)}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ubcp-p2p node", "version": __version__,
            "description": "A node of the training network, for programs on the same machine: docs/api.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:{port}", "variables": {"port": {"default": "0"}}}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Refused": {"description": _REFUSALS, "content": {MEDIA_TYPE: {"schema": named("Problem")}}}
            },
            "schemas": SCHEMAS,
        },
    }  # fmt: skip


def _operation(route: Route) -> dict[str, Any]:
    fields, required = route.takes["properties"], route.takes["required"]
    found: dict[str, Any] = {"operationId": route.verb, "summary": route.summary}
    beside = [name for name in fields if name not in route.in_path]
    parameters = [_parameter(name, "path", fields[name], True) for name in route.in_path]
    if route.method != "POST":
        parameters += [_parameter(name, "query", fields[name], name in required) for name in beside]
    if parameters:
        found["parameters"] = parameters
    if route.method == "POST" and beside:
        body = {**route.takes, "properties": {name: fields[name] for name in beside}}
        body["required"] = [name for name in required if name in beside]
        found["requestBody"] = {
            "required": bool(body["required"]), "content": {"application/json": {"schema": body}},
        }  # fmt: skip
    found["responses"] = _responses(_answer(route))
    return found


def _parameter(name: str, place: str, schema: Any, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _answer(route: Route) -> dict[str, Any]:
    match route.kind:
        case "document":
            return {"description": "OK", "content": {"application/json": {"schema": route.gives}}}
        case "file":
            return {"description": "OK", "content": {"application/octet-stream": {}}}
        case "events":
            words = (
                "Server-sent events: `data` is one document of x-event; then, where it ends, an event `end` whose "
                "`data` is x-end, or an event `error` with a Problem. Comments keep the connection alive."
            )
            return {
                "description": words, "content": {"text/event-stream": {"schema": {"type": "string"}}},
                "x-event": route.gives, "x-end": route.ends,
            }  # fmt: skip


def _responses(answer: dict[str, Any]) -> dict[str, Any]:
    return {"200": answer, "4XX": _REFUSED, "5XX": _REFUSED}


def text() -> str:
    """As it stands in docs/openapi.json."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
