"""What a reader can change, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.simulation import assumptions, scenario
from ubcp_p2p.simulation.assumptions import shipped_assumptions
from ubcp_p2p.simulation.scenario import pair_network, shipped_scenario, small


def test_the_shipped_files_are_what_the_issue_asks_for() -> None:
    community = scenario.load(shipped_scenario())
    assert (community.people.users, community.peers.count, community.days) == (5000, 100, 14)
    assert community.slices == 14 * 96
    assert community.rules.half_life_slices == 7 * 96
    assert community.rules.ageing_slices == 96
    assert pair_network(community).slices == 14 * 24
    assert small(community).people.users == 300
    assert assumptions.load(shipped_assumptions()).users == 100_000


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("days = 14", "days = 0", "days"),
        ("days = 14", "days = 14.5", "days"),
        ("days = 14", "days = 14\nweeks = 2", "weeks"),
        ("users = 5000", "users = 10001", "people.users"),
        ("budget_min = 720", "budget_min = 400", "must fit beside the reserve"),
        ("budget_max = 1280", "budget_max = 700", "budget_max is below"),
        ("budget_max = 1280", "budget_max = 10001", "peers.budget_max"),
        ("quantum_min = 160", "quantum_min = 161", "multiples of 8"),
        ("heavy = 80", "heavy = 1001", "people.heavy"),
        ("heavy = 80", "heavy = 80\nx = 1", "people.x"),
        ("cheaters = 4", "cheaters = 9", "in a unit of its own"),
        ("hours_away = 4.0", "hours_away = nan", "hours_away"),
        ('format = "ubcp-community/1"', 'format = "ubcp-community/2"', "format"),
        ("[peers]", "[peers", "is no TOML"),
    ],
)
def test_a_wrong_community_is_refused_with_the_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = shipped_scenario().read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=words) as caught:
        scenario.load(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("users = 100_000", "users = 0", "users"),
        ("to = 40_000.0", "to = 200.0", "budget.to must be above"),
        ("utilisation = 0.35", "utilisation = 1.2", "hardware.utilisation"),
        ("lost = 0.15", "lost = 1.0", "hardware.lost"),
        ("part = 0.35", "part = 0.0", "project.0.part"),
        ("part = 0.35", "part = inf", "project.0.part"),
        ("seeds = 20", "seeds = 1", "seeds"),
    ],
)
def test_wrong_assumptions_are_refused_with_the_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = shipped_assumptions().read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=words):
        assumptions.load(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        scenario.load(tmp_path / "none.toml")


def test_every_table_is_frozen() -> None:
    community = scenario.load(shipped_scenario())
    for table in (community, community.people, community.peers, community.pairs):
        assert isinstance(table, BaseModel)
        assert table.model_config.get("frozen")
