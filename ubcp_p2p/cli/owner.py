"""`ubcp pause` and `ubcp resume`: the owner stops this machine's work, and lets it go on."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at
from ubcp_p2p.log import printable


def pause(
    profile: ProfileOption = None,
    hours: Annotated[
        float | None, typer.Option("--for", metavar="HOURS", help="End the pause by itself after so long: 2, or 0.5.")
    ] = None,
    after_round: Annotated[
        bool, typer.Option("--after-round", help="Make the present round first, then leave the group.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Stop working for others until `ubcp resume`, or for some hours.

    Without --after-round the node leaves its groups at once; nothing that was committed is lost, and a checkpoint is
    kept. The pause holds over restarts of the node. Without a running node it holds from the next `ubcp up` on.
    """
    from ubcp_p2p.peer.control import NotRunning, call
    from ubcp_p2p.peer.pause import begin_pause, keep_pause
    from ubcp_p2p.peer.profile import ProfileLock

    place = profile_at(profile)
    try:
        document = call(place, "pause", hours=hours, after_round=after_round)
    except NotRunning:
        place.require()
        with ProfileLock(place):
            keep_pause(place.pause_file, begin_pause(int(time.time()), hours, after_round))
        _say_without_node(json, "no node is running; the next one begins paused")
        return
    _print(document, json)


def resume(profile: ProfileOption = None, json: JsonOption = False) -> None:
    """End the pause. The other rules of config.toml still hold: `ubcp status` says what they say."""
    from ubcp_p2p.peer.control import NotRunning, call
    from ubcp_p2p.peer.pause import end_pause
    from ubcp_p2p.peer.profile import ProfileLock

    place = profile_at(profile)
    try:
        document = call(place, "resume")
    except NotRunning:
        place.require()
        with ProfileLock(place):
            end_pause(place.pause_file)
        _say_without_node(json, "no node is running; the next one is not paused")
        return
    _print(document, json)


def _print(document: dict[str, Any], json: bool) -> None:
    if json:
        emit_json(document)
        return
    for line in describe_owner(document):
        print(printable(line))


def _say_without_node(json: bool, words: str) -> None:
    if json:
        emit_json({"running": False, "words": words})
    else:
        print(words)


def describe_owner(owner: dict[str, Any]) -> list[str]:
    """Lines on what the owner's rules say now."""
    lines = [owner["words"] if owner["works"] else f"idle: {owner['words']}"]
    carbon = owner["readings"].get("carbon", {})
    if carbon.get("note"):
        lines.append(f"carbon by {carbon['source']}: {carbon['note']}")
    return [*lines, *([f"TROUBLE: {owner['trouble']}"] if owner["trouble"] else [])]
