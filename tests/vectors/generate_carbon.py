"""Rewrites peer/carbon/intensity.csv: `python -m tests.vectors.generate_carbon WHEEL`, one of codecarbon.

Only data files of the wheel are read; nothing of it is run, and nothing is asked of any network. What the rows mean is
told in peer/carbon/README.md.
"""

from __future__ import annotations

import csv
import json
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

TABLE: Final = Path(__file__).parents[2] / "peer" / "carbon" / "intensity.csv"
FIELDS: Final = ("alpha2", "alpha3", "zone", "g_per_kwh", "year", "name")
_DATA: Final = "codecarbon/data/private_infra/"
_GRAMS_OF_POUND: Final = 453.59237
_NAMES: Final = Path("/usr/share/zoneinfo/iso3166.tab")  # of the tz database, in the public domain
_OTHER_NAMES: Final = {  # where the two write a country differently
    "ASM": "AS", "ATG": "AG", "BIH": "BA", "CIV": "CI", "COD": "CD", "COG": "CG", "CZE": "CZ", "GBR": "GB", "KNA": "KN",
    "KOR": "KR", "LCA": "LC", "MAC": "MO", "MMR": "MM", "PRK": "KP", "REU": "RE", "SHN": "SH", "SPM": "PM", "STP": "ST",
    "SWZ": "SZ", "TCA": "TC", "TTO": "TT", "VCT": "VC", "VGB": "VG", "VIR": "VI", "WSM": "WS",
}  # fmt: skip
_LEFT_OUT: Final = {"CAF"}  # the source has 0 g/kWh for it, which no grid has
_PROVINCES: Final = {
    "alberta": "AB", "british columbia": "BC", "manitoba": "MB", "new brunswick": "NB",
    "newfoundland and labrador": "NL", "northwest territories": "NT", "nova scotia": "NS", "nunavut": "NU",
    "ontario": "ON", "prince edward island": "PE", "quebec": "QC", "saskatchewan": "SK", "yukon": "YT",
}  # fmt: skip
_SOURCES: Final = {  # of a province's energy -> the key of its intensity
    "naturalGas": "natural_gas", "nuclear": "nuclear", "petroleum": "petroleum", "biomass": "biomass", "coal": "coal",
    "solar": "solar", "wind": "wind", "hydro": "hydroelectricity", "tidal": None, "other": None, "total": None,
}  # fmt: skip

Row = tuple[str, str, str, int, int, str]


def rows(wheel: Path) -> list[Row]:
    """All rows of the table, sorted."""
    with zipfile.ZipFile(wheel) as archive:

        def read(name: str) -> Any:
            return json.loads(archive.read(_DATA + name))

        made = [
            *_countries(read("global_energy_mix.json")),
            *_nordic(read("nordic_emissions.json")["data"]),
            *_states(read("2023/usa_emissions.json")),
            *_chinese(read("2023/china_provincial_emissions.json")["data"]),
            *_canadian(read("2023/canada_energy_mix.json"), read("carbon_intensity_per_source.json")),
        ]
    return sorted(made)


def _countries(mix: Mapping[str, Any]) -> Iterator[Row]:
    lines = [line.split("\t") for line in _NAMES.read_text().splitlines() if line and not line.startswith("#")]
    by_name = {name.lower(): code for code, name in lines}
    for alpha3, country in mix.items():
        if alpha3 not in _LEFT_OUT:
            name = str(country["country_name"])
            alpha2 = _OTHER_NAMES.get(alpha3) or by_name[name.lower()]
            yield alpha2, alpha3, "", round(country["carbon_intensity"]), int(country["year"]), name


def _nordic(zones: Mapping[str, Any]) -> Iterator[Row]:
    countries = {"SE": "SWE", "NO": "NOR", "FI": "FIN", "DK": "DNK"}
    for zone, found in zones.items():
        alpha2 = zone[:2]
        if zone != alpha2:  # a country that is one zone has its row already
            yield (
                alpha2,
                countries[alpha2],
                zone,
                round(found["emission_factor"]),
                int(found["year"]),
                found["description"],
            )


def _states(states: Mapping[str, Any]) -> Iterator[Row]:
    year = int(states["_source"]["year"])
    for name, found in states.items():
        if not name.startswith("_"):
            grams = round(found["emissions"] * _GRAMS_OF_POUND / 1000)  # from pounds a megawatt-hour
            yield "US", "USA", f"US-{found['regionCode']}", grams, year, name.title()


def _chinese(provinces: Mapping[str, Any]) -> Iterator[Row]:
    for zone, found in provinces.items():
        yield "CN", "CHN", zone, round(found["emission_factor"]), int(found["year"]), found["description"]


def _canadian(provinces: Mapping[str, Any], per_source: Mapping[str, Any]) -> Iterator[Row]:
    """From each province's mix and one intensity for each source of energy, as codecarbon reckons it."""
    for name, mix in provinces.items():
        grams = (
            sum(share * per_source[key] for source, share in mix.items() if (key := _SOURCES[source])) / mix["total"]
        )
        yield "CA", "CAN", f"CA-{_PROVINCES[name]}", round(grams), 2023, name.title()


def main(wheel: Path) -> None:
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(rows(wheel))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
