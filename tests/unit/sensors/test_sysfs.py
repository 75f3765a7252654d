"""Battery, heat and power from files as Linux lays them out, and from this very machine."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from ubcp_p2p.owner.values import Unreadable
from ubcp_p2p.sensors.sysfs import ProcessorPower, on_battery, processor_celsius


def lay(root: Path, **files: str) -> Path:
    """Files under `root`; "__" in a name stands for "/", and "_dot_" for ":"."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ":")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def supply(root: Path, name: str, **facts: str) -> None:
    lay(root / "sys/class/power_supply" / name, **facts)


def test_a_machine_without_a_battery_is_on_mains(tmp_path: Path) -> None:
    assert on_battery(tmp_path) is False
    supply(tmp_path, "mouse", type="Battery", scope="Device", status="Discharging")
    assert on_battery(tmp_path) is False


@pytest.mark.parametrize(
    ("status", "online", "expected"),
    [
        ("Discharging", "0", True),
        ("Discharging", "1", False),  # a weak charger: still fed from the wall
        ("Discharging", None, True),
        ("Charging", "1", False),
        ("Full", None, False),
        ("Not charging", None, False),
        ("Unknown", "0", True),
        ("Unknown", "1", False),
    ],
)
def test_a_laptop(tmp_path: Path, status: str, online: str | None, expected: bool) -> None:
    supply(tmp_path, "BAT0", type="Battery", status=status)
    if online is not None:
        supply(tmp_path, "AC", type="Mains", online=online)
    assert on_battery(tmp_path) is expected


def test_a_battery_that_says_nothing(tmp_path: Path) -> None:
    supply(tmp_path, "BAT0", type="Battery", status="Unknown")
    found = on_battery(tmp_path)
    assert isinstance(found, Unreadable)
    assert "'Unknown'" in found.why
    (tmp_path / "sys/class/power_supply/BAT0/status").unlink()
    assert isinstance(on_battery(tmp_path), Unreadable)


def test_one_of_two_batteries_is_enough(tmp_path: Path) -> None:
    supply(tmp_path, "BAT0", type="Battery", status="Full")
    supply(tmp_path, "BAT1", type="Battery", status="Discharging")
    assert on_battery(tmp_path) is True


def test_the_hottest_sensor_of_the_processors(tmp_path: Path) -> None:
    found = processor_celsius(tmp_path)
    assert isinstance(found, Unreadable)
    assert "/sys/class/hwmon" in found.why
    lay(
        tmp_path,
        sys__class__thermal__thermal_zone0__type="x86_pkg_temp",
        sys__class__thermal__thermal_zone0__temp="61001",
    )
    assert processor_celsius(tmp_path) == 62  # rounded up
    lay(
        tmp_path,
        sys__class__hwmon__hwmon0__name="coretemp",
        sys__class__hwmon__hwmon0__temp1_input="70000",
        sys__class__hwmon__hwmon0__temp2_input="71000",
        sys__class__hwmon__hwmon0__temp2_max="100000",
        sys__class__hwmon__hwmon1__name="nvme",
        sys__class__hwmon__hwmon1__temp1_input="90000",
    )
    assert processor_celsius(tmp_path) == 71


@pytest.mark.parametrize("text", ["65261850", "-273150", "hot", "", "7" * 100, "1e3", "٣"])
def test_a_broken_sensor_is_none(tmp_path: Path, text: str) -> None:
    lay(tmp_path, sys__class__hwmon__hwmon0__name="k10temp", sys__class__hwmon__hwmon0__temp1_input=text)
    assert isinstance(processor_celsius(tmp_path), Unreadable)


class Meter:
    """Two packages with energy counters, and the clock beside them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_s = 0.0
        self.power = ProcessorPower(root, monotonic=lambda: self.now_s)
        self.count(0, 0)
        lay(root, **{f"sys__class__powercap__intel-rapl_dot_{n}__max_energy_range_uj": "1000000000" for n in (0, 1)})
        lay(root, **{"sys__class__powercap__intel-rapl_dot_0_dot_0__name": "core"})

    def count(self, first_uj: int, second_uj: int) -> None:
        for number, energy in ((0, first_uj), (1, second_uj)):
            zone = f"sys__class__powercap__intel-rapl_dot_{number}__"
            lay(self.root, **{f"{zone}name": f"package-{number}", f"{zone}energy_uj": str(energy)})


def test_power_is_energy_by_time(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    first = meter.power.watts()
    assert isinstance(first, Unreadable)
    assert "second reading" in first.why
    meter.now_s = 5.0
    meter.count(500_000_000, 125_000_001)
    assert meter.power.watts() == 126  # rounded up
    meter.now_s = 10.0
    meter.count(0, 125_000_001)  # the first has begun anew, after 10^9
    assert meter.power.watts() == 100


def test_power_that_cannot_be(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    meter.power.watts()
    assert isinstance(meter.power.watts(), Unreadable)  # no time has passed
    meter.now_s = 0.001
    meter.count(999_000_000, 999_000_000)
    found = meter.power.watts()
    assert isinstance(found, Unreadable)
    assert "make no sense" in found.why


def test_power_that_only_root_may_read(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.unlink()
    counter.mkdir()  # unreadable also for root, as whom tests may run
    found = meter.power.watts()
    assert isinstance(found, Unreadable)
    assert "only root may" in found.why
    assert isinstance(ProcessorPower(tmp_path / "nothing").watts(), Unreadable)


def test_this_machine_says_what_psutil_says() -> None:
    battery = psutil.sensors_battery()
    if battery is None or battery.power_plugged is not None:
        assert on_battery(Path("/")) is (battery is not None and not battery.power_plugged)
    chips = {name: rows for name, rows in psutil.sensors_temperatures().items() if name in ("coretemp", "k10temp")}
    found = processor_celsius(Path("/"))
    assert isinstance(found, int) or not chips
