"""The charter as TOML: what is read is what was written, and every mistake names its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ubcp_p2p.charter.document import load, load_community, parse, to_json, to_toml
from ubcp_p2p.charter.draft import Answers, first
from ubcp_p2p.charter.values import Charter, CostBasis, DeviceCost, SignedCharter, Unit
from ubcp_p2p.content import content_dir
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger.world import World

SIGNED = World(0).charters.versions[0]
TEXT = to_toml(SIGNED)
FULL = first(Answers(name="Lab", languages=("en", "pt-BR"), currency="EUR", tariff=312_345, carbon_g=240), epoch=0)
FULL_TEXT = to_toml(SignedCharter(FULL))


def test_a_signed_charter_survives_its_document() -> None:
    assert parse(TEXT) == SIGNED


def test_a_later_version_survives_too() -> None:
    later = replace(SIGNED.charter, number=2, previous=SIGNED.charter.id, effective=9)
    assert parse(to_toml(SignedCharter(later))).charter == later


def test_names_with_quotes_and_backslashes_survive() -> None:
    odd = replace(SIGNED.charter, name='the "free\\open" Ωne', units=(Unit('a"\\', 1),))
    assert parse(to_toml(SignedCharter(odd))).charter == odd


def test_all_that_may_be_left_out_survives() -> None:
    assert FULL.cost is not None and FULL.refused and FULL.languages
    assert parse(FULL_TEXT).charter == FULL
    assert Charter.from_bytes(FULL.to_bytes()) == FULL


def test_numbers_may_be_written_as_numbers_and_are_exact() -> None:
    cost = CostBasis("XXX", 1, 0, (DeviceCost("cpu-8", 1, 1, 10**15 + 1, 1),))
    text = to_toml(SignedCharter(replace(SIGNED.charter, cost=cost)))
    for written in ('tariff_per_kwh = "0.000001"', 'watts = "0.001"', 'price = "1000000000.000001"'):
        assert written in text
        text = text.replace(written, written.replace('"', ""))
    assert parse(text.replace('member = "10000"', "member = 10_000")).charter.cost == cost


def test_the_keys_are_explained() -> None:
    assert "slice_seconds = 900                 # one decision in each slice\n" in TEXT


def test_json_has_the_keys_of_the_file() -> None:
    document = to_json(SignedCharter(FULL))
    assert document["cost"]["tariff_per_kwh"] == "0.312345"
    assert (document["epoch"], document["newcomer_permille"]) == ("1970-01-01T00:00:00Z", 150)
    assert "signature" not in document


def test_signatures_are_sorted_in_whatever_order_they_come() -> None:
    first_, *others = SIGNED.signatures
    assert SignedCharter(SIGNED.charter).signed(others).signed([first_]) == SIGNED


def test_the_canonical_bytes_survive() -> None:
    assert Charter.from_bytes(SIGNED.charter.to_bytes()) == SIGNED.charter
    assert SignedCharter.from_bytes(SIGNED.to_bytes()) == SIGNED


def test_the_example_is_a_community() -> None:
    community = load_community(content_dir("ledger") / "charter.toml")
    assert community.first.name == "Example commons"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("slice_seconds = 900", "slice_seconds = x", "not TOML"),
        ("slice_seconds = 900", "slice_seconds = 0", "slice must last"),
        ("slice_seconds = 900", "slice_seconds = 86401", "charter: slice_seconds: the charter's slice must last 1 to"),
        ("slice_seconds = 900", "slice_second = 900", r"slice_second: unknown key \(and 1 more\)"),
        ("slice_seconds = 900 ", "# ", "slice_seconds: this key is required"),
        ("slice_seconds = 900", "slice_seconds = 9.5", "slice_seconds: it should be a valid integer"),
        ("slice_seconds = 900", f"slice_seconds = {'9' * 5000}", "not TOML"),
        ("weight = 2", "wight = 2", "unit.number 2.wight: unknown key"),
        ("weight = 2", "weight = 0", "unit.weight: the charter's weights must be"),
        ("newcomer_permille = 150", "newcomer_permille = 1001", "newcomer_permille: the charter's newcomer reserve"),
        ("purposes_refused = []", 'purposes_refused = ["research"]', "purposes_refused: .* 'research' both allowed"),
        ("languages = []", 'languages = ["_"]', "languages: the charter's languages must be tags"),
        ('member = "10000"', "member = 1e9", "allowance.member"),
        ('member = "10000"', "member = nan", "allowance.member"),
        ('member = "10000"', "member = true", "allowance.member"),
        ('member = "10000"', f"member = {'9' * 70}", "allowance.member: .* is not a number of credits"),
        ('member = "10000"', "member = 99999999999", "allowance.member: .* are more than a ledger field can hold"),
        ('member = "10000"', 'member = "much"', "allowance.member"),
        ('member = "10000"', 'member = "0.0000001"', "allowance.member"),
        ('steward = "', 'steward = "zz', "64 hex digits"),
        ("threshold = 2", "threshold = 4", "threshold: the charter's threshold is 4, but only "),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "timezone"),
        ('format = "ubcp-charter/1"', 'format = "ubcp-charter/2"', "format"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=words):
        parse(TEXT.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('currency = "EUR"', 'currency = "euro"', "cost.currency: the charter's currency must be three capital"),
        ("sustained_gflops = 300 ", "sustained_gflops = 5001 ", "cost.device.sustained_gflops: .*'cpu' must sustain 1"),
        ('watts = "100"', 'watts = "0.0001"', "cost.device.number 1.watts: .* at most three decimals"),
        ('watts = "100"', "watts = 0", "cost.device.watts"),
        ('price = "800"', 'price = "-1"', "cost.device.number 1.price: .* is not a number of money"),
        ("lifetime_hours = 43800", "lifetime_hours = 0", "cost.device.lifetime_hours: the charter's lifetimes"),
        ('[[cost.device]]\nname = "cpu"', '[[cost.device]]\nname = "tpu"', "cost.device.name: .* 'tpu', which is no"),
        ("gco2_per_kwh = 240", "gco2 = 240", "cost.gco2: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_costs_is_named(old: str, new: str, words: str) -> None:
    assert old in FULL_TEXT
    with pytest.raises(ConfigError, match=words):
        parse(FULL_TEXT.replace(old, new))


def test_a_misspelt_key_is_guessed() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(FULL_TEXT.replace("gco2_per_kwh", "co2_per_kwh"))
    assert "did you mean 'gco2_per_kwh'? known here: currency, tariff_per_kwh, " in str(caught.value.hint)


def test_nested_brackets_are_no_charter() -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        parse("x = " + "[" * 100_000)


def test_too_few_signatures_are_told(tmp_path: Path) -> None:
    path = tmp_path / "charter.toml"
    path.write_text(to_toml(SignedCharter(SIGNED.charter, SIGNED.signatures[:1])))
    with pytest.raises(ConfigError, match="1 steward signed the charter; 2 must"):
        load_community(path)


def test_a_changed_charter_is_not_the_signed_one(tmp_path: Path) -> None:
    path = tmp_path / "charter.toml"
    path.write_text(TEXT.replace('member = "10000"', 'member = "99999"'))
    with pytest.raises(ConfigError, match="signature under the charter does not hold"):
        load_community(path)


def test_a_missing_charter_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no charter at"):
        load(tmp_path / "none.toml")
