"""The keeper: what it reads, tells and survives, on a machine of files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.unit.carbon.test_api import Server, body_of
from tests.unit.sensors.test_sysfs import lay, supply
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.owner.values import Manner, Rules, Verdict
from ubcp_p2p.peer.config import PeerConfig
from ubcp_p2p.peer.owner import Keeper
from ubcp_p2p.peer.profile import Profile
from ubcp_p2p.sensors.machine import Machine


def keeper_of(tmp_path: Path, text: str = "") -> Keeper:
    profile = Profile(tmp_path / "profile")
    profile.make()
    (tmp_path / "root").mkdir(exist_ok=True)
    return Keeper(profile, PeerConfig.from_toml(text, where="test.toml"), Machine("cpu", root=tmp_path / "root"))


@pytest.mark.asyncio
async def test_it_says_nothing_before_it_has_looked(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path)
    assert not keeper.status()["works"]
    assert "not been looked at yet" in keeper.status()["words"]
    assert (await keeper.look()).works
    assert keeper.status() == {
        "works": True, "share_permille": 1000, "words": "working", "until": None, "causes": [], "pause": None,
        "readings": {"on_battery": False}, "trouble": None,
    }  # fmt: skip


@pytest.mark.asyncio
async def test_a_pause_holds_for_the_next_keeper(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path)
    assert not (await keeper.pause(2.0, True)).works
    told = keeper_of(tmp_path).status()["pause"]
    assert told["after_round"] is True
    assert told["since"] < told["until"]
    assert told["until"].endswith("Z")
    assert not (await keeper_of(tmp_path).look()).works
    assert (await keeper.resume()).works
    assert (await keeper_of(tmp_path).look()).works


@pytest.mark.asyncio
async def test_a_damaged_pause_is_a_pause(tmp_path: Path) -> None:
    keeper_of(tmp_path)
    (tmp_path / "profile/pause.json").write_text("{")
    keeper = keeper_of(tmp_path)
    assert not (await keeper.look()).works
    assert "is damaged" in keeper.status()["trouble"]
    assert (await keeper.resume()).works
    assert keeper.status()["trouble"] is None


@pytest.mark.asyncio
async def test_what_fails_stops_the_work_in_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keeper = keeper_of(tmp_path)

    class Broken(Machine):
        def read(self, rules: Rules) -> Any:
            raise ZeroDivisionError("a bug")

    keeper.machine = Broken("cpu")
    found = await keeper.look()
    assert (found.works, found.manner) == (False, Manner.EARLY)
    assert "a bug" in found.words
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.asyncio
async def test_the_runs_are_told_again_and_again_though_they_fail(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path)
    heard: asyncio.Queue[Verdict] = asyncio.Queue()

    def obey(found: Verdict) -> None:
        heard.put_nowait(found)
        if heard.qsize() == 1:
            raise RuntimeError("a bug")

    serving = asyncio.create_task(keeper.serve(obey))
    assert (await heard.get()).works
    supply(tmp_path / "root", "BAT0", type="Battery", status="Discharging")
    keeper.poke()
    found = await heard.get()
    assert found.words == "on battery"
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest.mark.asyncio
async def test_a_temperature_is_remembered_from_look_to_look(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path, "[owner]\ntemperature_c_max = 80\n")
    works = []
    for milli in (79_000, 81_000, 78_000, 75_000):
        lay(tmp_path / "root/sys/class/hwmon/hwmon0", name="coretemp", temp1_input=str(milli))
        works.append((await keeper.look()).works)
    assert works == [True, False, False, True]
    assert keeper.status()["readings"]["temperature_c"] == 75


@pytest.mark.asyncio
async def test_the_carbon_ceiling_waits_for_the_api_or_takes_the_table(tmp_path: Path) -> None:
    server = Server()
    try:
        row = {"start": "2020-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z", "g_per_kwh": 10}
        server.body = body_of(row)
        text = f'[owner]\ncarbon_g_max = 30\n[carbon]\napi = "{server.url}"\n'
        keeper = keeper_of(tmp_path, text)
        heard: asyncio.Queue[Verdict] = asyncio.Queue()
        assert "it has not answered yet" in (await keeper.look()).words
        serving = asyncio.create_task(keeper.serve(heard.put_nowait))
        while not (await heard.get()).works:
            pass
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert len(server.asked) == 1
        assert "secret" not in str(keeper.status())
        fallback = keeper_of(tmp_path, text + 'country = "SE"\nzone = "SE3"\n')
        assert (await fallback.look()).works
        told = fallback.status()["readings"]["carbon"]
        assert told["g_per_kwh"] == 27
        assert told["note"] == "the carbon API at 127.0.0.1: it has not answered yet"
    finally:
        server.close()


def test_a_schedule_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    keeper_of(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no carbon schedule .*profile/mine\.csv"):
        keeper_of(tmp_path, '[carbon]\nschedule = "mine.csv"\n')
    (tmp_path / "profile/mine.csv").write_text("start,g_per_kwh\nnow,5\n")
    with pytest.raises(ConfigError, match=r"mine\.csv, line 2: 'now' is no moment"):
        keeper_of(tmp_path, '[carbon]\nschedule = "mine.csv"\n')
