"""The shipped table: its rows, how a place is named, and that it is what the script makes."""

from __future__ import annotations

import csv

import pytest

from tests.vectors.generate_carbon import FIELDS, TABLE
from ubcp_p2p.carbon.table import Table, find, places
from ubcp_p2p.errors import ConfigError


def test_the_rows() -> None:
    table = places()
    whole = [place for place in table.values() if not place.zone]
    assert len(whole) == 212
    assert len({place.alpha3 for place in whole}) == len(whole)
    assert all(len(p.alpha2) == 2 and len(p.alpha3) == 3 and p.alpha2.isupper() for p in table.values())
    countries = {place.alpha2: place.alpha3 for place in whole}
    assert all(countries[place.alpha2] == place.alpha3 for place in table.values())
    assert all(2000 < place.year < 2030 for place in table.values())
    assert {code for code, zone in table if zone} == {"CA", "CN", "NO", "SE", "US"}
    with TABLE.open() as file:
        assert tuple(next(csv.reader(file))) == FIELDS


@pytest.mark.parametrize(
    ("country", "zone", "grams"),
    [("FR", "", 56), ("fra", "", 56), (" se ", "", 41), ("SE", "se3", 27), ("US", "US-CA", 179), ("GB", "", 238)],
)
def test_a_place_is_found(country: str, zone: str, grams: int) -> None:
    assert find(country, zone).g_per_kwh == grams


@pytest.mark.parametrize(
    ("country", "zone", "message", "hint"),
    [
        ("XX", "", "no country 'XX'", "ISO code"),
        ("France", "", "no country 'France'", "did you mean 'FR'"),
        ("CAF", "", "no country", "schedule of its own"),  # its source has an impossible number
        ("", "", "no country ''", "ISO code"),
        ("SE", "SE9", "no zone 'SE9' of Sweden", "did you mean 'SE"),
        ("US", "SE3", "no zone 'SE3' of United States", "US-CA"),
        ("FR", "FR-75", "no zone 'FR-75' of France", "leave it empty"),
    ],
)
def test_a_place_that_is_not_there(country: str, zone: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        find(country, zone)
    assert hint in str(caught.value.hint)


def test_one_number_for_all_times() -> None:
    found = Table(find("SE", "SE3")).intensity(1000, 1900)
    assert (found.g_per_kwh, found.kind, found.note) == (27, "table", "")
    assert "yearly average of Sweden Bidding Zone 3" in found.source
    assert {slot.g_per_kwh for slot in found.forecast} == {27}
    assert found.forecast[0].start == 1000
