"""The charter as TOML: what is read is what was written, and every mistake names its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ubcp_p2p.charter.document import load, load_community, parse, to_toml
from ubcp_p2p.charter.values import Charter, SignedCharter, Unit
from ubcp_p2p.content import content_dir
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger.world import World

SIGNED = World(0).charters.versions[0]
TEXT = to_toml(SIGNED)


def test_a_signed_charter_survives_its_document() -> None:
    assert parse(TEXT) == SIGNED


def test_a_later_version_survives_too() -> None:
    later = replace(SIGNED.charter, number=2, previous=SIGNED.charter.id, effective=9)
    assert parse(to_toml(SignedCharter(later))).charter == later


def test_names_with_quotes_and_backslashes_survive() -> None:
    odd = replace(SIGNED.charter, name='the "free\\open" Ωne', units=(Unit('a"\\', 1),))
    assert parse(to_toml(SignedCharter(odd))).charter == odd


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
        ("slice_seconds = 900", "slice_second = 900", "slice_seconds: Field required"),
        ('member = "10000"', 'member = "much"', "allowance.member"),
        ('member = "10000"', 'member = "0.0000001"', "allowance.member"),
        ('steward = "', 'steward = "zz', "64 hex digits"),
        ("threshold = 2", "threshold = 4", "stewards must be k to"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "timezone"),
        ('format = "ubcp-charter/1"', 'format = "ubcp-charter/2"', "format"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=words):
        parse(TEXT.replace(old, new))


def test_nested_brackets_are_no_charter() -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        parse("x = " + "[" * 100_000)


def test_too_few_signatures_are_told(tmp_path: Path) -> None:
    path = tmp_path / "charter.toml"
    path.write_text(to_toml(SignedCharter(SIGNED.charter, SIGNED.signatures[:1])))
    with pytest.raises(ConfigError, match="1 stewards signed the charter; 2 must"):
        load_community(path)


def test_a_changed_charter_is_not_the_signed_one(tmp_path: Path) -> None:
    path = tmp_path / "charter.toml"
    path.write_text(TEXT.replace('member = "10000"', 'member = "99999"'))
    with pytest.raises(ConfigError, match="signature under the charter does not hold"):
        load_community(path)


def test_a_missing_charter_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no charter at"):
        load(tmp_path / "none.toml")
