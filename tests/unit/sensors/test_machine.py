"""Which sensors are asked for which rules, and what speaks for a machine with a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.sensors.test_gpu import program
from tests.unit.sensors.test_sysfs import lay
from ubcp_p2p.owner.values import NOT_ASKED, Readings, Rules, Unreadable
from ubcp_p2p.sensors.machine import Machine

CAPS = Rules(power_w_max=1, temperature_c_max=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return lay(
        tmp_path / "root", sys__class__hwmon__hwmon0__name="coretemp", sys__class__hwmon__hwmon0__temp1_input="50000"
    )


def test_what_no_rule_asks_for_is_not_read(root: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    smi = program(tmp_path, f"touch {asked}")
    assert Machine("auto", root=root, nvidia_smi=smi).read(Rules(on_battery=True)) == Readings()
    assert not asked.exists()
    assert Machine("auto", root=root, nvidia_smi=smi).read(Rules()) == Readings(on_battery=False)


def test_a_gpu_that_trains_speaks_for_power_and_the_hottest_for_heat(root: Path, tmp_path: Path) -> None:
    smi = program(tmp_path, 'echo "0, 61.32, 45"; echo "1, 300.00, 71"')
    both = Machine("auto", root=root, nvidia_smi=smi).read(CAPS)
    assert (both.power_w, both.temperature_c) == (362, 71)
    one = Machine("cuda:0", root=root, nvidia_smi=smi).read(CAPS)
    assert (one.power_w, one.temperature_c) == (62, 50)
    none = Machine("cpu", root=root, nvidia_smi=smi).read(CAPS)
    assert none.temperature_c == 50
    assert isinstance(none.power_w, Unreadable)
    assert "powercap" in none.power_w.why


def test_a_gpu_that_cannot_be_read_is_said(root: Path, tmp_path: Path) -> None:
    for device, smi, why in (
        ("cuda:7", program(tmp_path, 'echo "0, 61.32, 45"'), "shows no GPU 7"),
        ("cuda", "/nowhere/nvidia-smi", "is not installed"),
    ):
        found = Machine(device, root=root, nvidia_smi=smi).read(CAPS)
        for reading in (found.power_w, found.temperature_c):
            assert isinstance(reading, Unreadable)
            assert why in reading.why
    broken = Machine("auto", root=root, nvidia_smi=program(tmp_path, "exit 3")).read(CAPS)
    assert isinstance(broken.power_w, Unreadable)
    assert isinstance(broken.temperature_c, Unreadable)
    blind = Machine("auto", root=root, nvidia_smi=program(tmp_path, 'echo "0, [N/A], [N/A]"')).read(CAPS)
    assert isinstance(blind.power_w, Unreadable)
    assert isinstance(blind.temperature_c, Unreadable)


def test_this_machine() -> None:
    machine = Machine("cpu")
    rules = Rules(idle_s=60, power_w_max=100, temperature_c_max=80)
    machine.read(rules)
    found = machine.read(rules)
    for reading in (found.on_battery, found.idle_s, found.others_permille, found.power_w, found.temperature_c):
        assert reading != NOT_ASKED
        assert not isinstance(reading, Unreadable) or reading.why
