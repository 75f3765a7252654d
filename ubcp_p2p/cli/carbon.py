"""`ubcp carbon`: what a kilowatt-hour costs here now and in the hours to come, and who says so."""

from __future__ import annotations

import time
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at, say

if TYPE_CHECKING:
    from ubcp_p2p.carbon.values import Intensity

SPAN_S: Final = 900
LINES_MAX: Final = 48  # of the forecast, for people


def carbon(profile: ProfileOption = None, json: JsonOption = False) -> None:
    """Show the grid's carbon now, where the number is from, and the forecast.

    The source is what [carbon] in config.toml says: the shipped table's average of your country, a schedule of your
    own, or an API that you have named, which is then asked once. Needs no running node.
    """
    from ubcp_p2p.carbon.values import CarbonUnknown
    from ubcp_p2p.errors import NetworkError
    from ubcp_p2p.log import printable
    from ubcp_p2p.peer.grid import grid_of

    place = profile_at(profile)
    config = place.config()
    source = grid_of(place, config.carbon)
    if source.api is not None:
        try:
            source.api.refresh()
        except NetworkError as error:
            say(f"the carbon API at {source.api.name}: {printable(error.message)}")
    now = int(time.time())
    try:
        found = source.intensity(now, now + SPAN_S)
    except CarbonUnknown as error:
        if json:
            emit_json({"known": False, "reason": error.message})
        else:
            print(f"unknown    {printable(error.message)}")
            if error.hint:
                say(error.hint)
        return
    if json:
        emit_json(_document(found))
        return
    rules = config.owner.rules()
    print(f"now        {found.g_per_kwh} g CO2 a kWh")
    print(f"source     {printable(found.source)}")
    if found.note:
        print(f"note       {printable(found.note)}")
    if rules.g_per_kwh_max:
        verdict = "at most" if found.g_per_kwh <= rules.g_per_kwh_max else "above"
        print(f"ceiling    {verdict} your {rules.g_per_kwh_max} g")
    if found.kind != "table":
        for line in _lines(found, now, rules.zone):
            print(f"forecast   {line}")


def _lines(found: Intensity, now: int, zone: tzinfo) -> list[str]:
    from ubcp_p2p.owner.hours import moment_text

    shown = [
        f"{moment_text(slot.start, now, zone)} until {moment_text(slot.end, now, zone)}: {slot.g_per_kwh} g"
        for slot in found.forecast[:LINES_MAX]
    ]
    more = len(found.forecast) - len(shown)
    return [*shown, *([f"and {more} more (--json has all)"] if more else [])]


def _document(found: Intensity) -> dict[str, Any]:
    return {
        "known": True,
        "g_per_kwh": found.g_per_kwh,
        "kind": found.kind,
        "source": found.source,
        "note": found.note,
        "forecast": [
            {"start": _moment(slot.start), "end": _moment(slot.end), "g_per_kwh": slot.g_per_kwh}
            for slot in found.forecast
        ],
    }


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
