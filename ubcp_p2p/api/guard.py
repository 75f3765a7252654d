"""Who may ask: programs of this machine that can read the token's file. Web pages may not, whatever they send."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from ubcp_p2p.api.problems import HttpRefusal

METHODS: Final = ("GET", "POST", "DELETE")
_LOOPBACK: Final = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")
_REMEDY: Final = "send the line of the file that `ubcp api` names: curl -H @FILE"


def refusal(method: str, headers: Iterable[tuple[bytes, bytes]], token: str, bytes_max: int) -> HttpRefusal | None:
    """Why a request is not listened to. headers: names in lower case; at most `bytes_max` of them all.

    A page that has its own name lead to 127.0.0.1 (DNS rebinding) sends that name as Host; a page of any site that may
    send a request sends its Origin. Neither has the token; both are told nothing about it.
    """
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(value)
    if sum(len(name) + sum(map(len, values)) for name, values in found.items()) > bytes_max:
        return HttpRefusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers have more than {bytes_max} bytes")
    hosts = found.get(b"host", [])
    if len(hosts) != 1 or not _LOOPBACK.fullmatch(hosts[0].lower()):
        return HttpRefusal(HTTPStatus.FORBIDDEN, "this is for callers of 127.0.0.1 or localhost alone")
    if b"origin" in found or found.get(b"sec-fetch-site", [b"none"]) != [b"none"]:
        return HttpRefusal(HTTPStatus.FORBIDDEN, "this is not for web pages")
    given = found.get(b"authorization", [])
    if len(given) != 1 or not hmac.compare_digest(given[0], b"Bearer " + token.encode()):
        what = "the token is wrong" if given else "there is no token"
        headers_ = {"WWW-Authenticate": "Bearer"}
        return HttpRefusal(HTTPStatus.UNAUTHORIZED, what, hint=_REMEDY, headers=headers_)
    if method not in METHODS:
        allow = ", ".join(METHODS)
        return HttpRefusal(HTTPStatus.METHOD_NOT_ALLOWED, f"no {method:.20} here", headers={"Allow": allow})
    return None
