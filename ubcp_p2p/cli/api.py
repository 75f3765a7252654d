"""`ubcp api`: where the running node's HTTP API is."""

from __future__ import annotations

import shlex

from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at
from ubcp_p2p.errors import LocalIOError


def api(profile: ProfileOption = None, json: JsonOption = False) -> None:
    """Print two lines for a shell: its address, and the file with the header that a request needs.

    \b
      eval "$(ubcp api)"
      curl -H @"$UBCP_HEADER" "$UBCP_URL/v1/status"

    The file is for this user alone, and is another one after each start of the node. GET /v1/openapi.json describes
    what there is.
    """
    from ubcp_p2p.peer.control import address_of

    address = address_of(profile_at(profile))
    if json:
        emit_json({"url": address.url, "header_file": str(address.header_file), "socket": str(address.socket)})
        return
    if address.url is None:
        raise LocalIOError(
            "the node found no loopback interface to listen on",
            hint=f"use its socket: curl --unix-socket {address.socket}",
        )
    print(f"UBCP_URL={shlex.quote(address.url)}")
    print(f"UBCP_HEADER={shlex.quote(str(address.header_file))}")
