"""The shipped table of yearly averages by country and zone (peer/carbon): where the machine is, its owner says."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ubcp_p2p.carbon.values import G_PER_KWH_MAX, Intensity, Slot
from ubcp_p2p.content import content_dir
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.files import read_limited

_FOLDER: Final = "peer/carbon"
_BYTES_MAX: Final = 64 << 10
_HORIZON_S: Final = 86_400  # an average says as much of any hour; a day of it is enough to show


@dataclass(frozen=True)
class Place:
    """One row of the table. `zone` is empty for a whole country."""

    alpha2: str
    alpha3: str
    zone: str
    g_per_kwh: int
    year: int
    name: str

    def __post_init__(self) -> None:
        assert 0 < self.g_per_kwh <= G_PER_KWH_MAX, self


class Table:
    """A provider that says one number for all times."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def intensity(self, start: int, end: int) -> Intensity:
        place = self.place
        where = f"{place.name} ({place.zone or place.alpha2})"
        source = f"the yearly average of {where} in {place.year}, which knows no hours"
        slot = Slot(start, max(end, start + _HORIZON_S), place.g_per_kwh)
        return Intensity(place.g_per_kwh, "table", source, (slot,))


def places() -> Mapping[tuple[str, str], Place]:
    """All rows by (two-letter country, zone)."""
    text = read_limited(content_dir(_FOLDER) / "intensity.csv", bytes_max=_BYTES_MAX).decode()
    rows = csv.DictReader(text.splitlines())
    made = (Place(r["alpha2"], r["alpha3"], r["zone"], int(r["g_per_kwh"]), int(r["year"]), r["name"]) for r in rows)
    return {(place.alpha2, place.zone): place for place in made}


def find(country: str, zone: str = "") -> Place:
    """The row of a country (ISO 3166-1, two or three letters), or of a zone of it. Raises ConfigError."""
    table = places()
    wanted = country.strip().upper()
    whole = {code: row for row in table.values() if not row.zone for code in (row.alpha2, row.alpha3)}
    row = whole.get(wanted)
    if row is None:
        near = [found for found in whole.values() if found.name.lower() == country.strip().lower()]
        guess = f"did you mean {near[0].alpha2!r} ({near[0].name})? " if near else ""
        raise ConfigError(
            f"the carbon table has no country {country!r}",
            hint=f"{guess}give the ISO code of two or three letters, such as 'SE' or 'SWE'; a country that is missing "
            "needs a schedule of its own (docs/owner.md)",
        )
    if not zone.strip():
        return row
    found = table.get((row.alpha2, zone.strip().upper()))
    if found is None:
        zones = sorted(name for code, name in table if code == row.alpha2 and name)
        close = difflib.get_close_matches(zone.strip().upper(), zones, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        known = (
            f"zones of {row.name}: {', '.join(zones)}" if zones else f"{row.name} has no zones there: leave it empty"
        )
        raise ConfigError(f"the carbon table has no zone {zone!r} of {row.name}", hint=guess + known)
    return found
