"""Power and temperature of NVIDIA GPUs, as nvidia-smi prints them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from ubcp_p2p.owner.values import Number, Unreadable
from ubcp_p2p.sensors.sysfs import CELSIUS_MAX, CELSIUS_MIN, WATTS_MAX

PROGRAM: Final = "nvidia-smi"
QUERY: Final = ("--query-gpu=index,power.draw,temperature.gpu", "--format=csv,noheader,nounits")
GPUS_MAX: Final = 64
ANSWER_S: Final = 10.0  # without the persistence daemon the driver is loaded first, which takes seconds
_CELL_CHARS_MAX: Final = 32


@dataclass(frozen=True)
class Gpu:
    """One GPU: whole watts and degrees, rounded up."""

    index: int
    power_w: Number
    celsius: Number


def gpus(program: str = PROGRAM, *, timeout_s: float = ANSWER_S) -> tuple[Gpu, ...] | Unreadable:
    """All NVIDIA GPUs of this machine; none where the program is missing."""
    try:
        done = subprocess.run(
            [program, *QUERY], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError:
        return ()
    except subprocess.TimeoutExpired:
        return Unreadable(f"{PROGRAM} did not answer within {timeout_s:g} s")
    except OSError as error:
        return Unreadable(f"{PROGRAM} cannot be started: {error.strerror}")
    if done.returncode != 0:
        said = (done.stdout or done.stderr).decode("ascii", "replace").strip().splitlines()
        return Unreadable(f"{PROGRAM} failed with code {done.returncode}: {(said or ['it said nothing'])[0][:200]}")
    return parse(done.stdout.decode("ascii", "replace"))


def parse(text: str) -> tuple[Gpu, ...] | Unreadable:
    """The lines that the program printed."""
    lines = text.strip().splitlines()
    if len(lines) > GPUS_MAX:
        return Unreadable(f"{PROGRAM} lists more than {GPUS_MAX} GPUs")
    found = []
    for line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        index = _number("index", cells[0], 0, GPUS_MAX - 1)
        if len(cells) != 3 or isinstance(index, Unreadable):
            return Unreadable(f"{PROGRAM} printed a line that is not understood: {line[:80]!r}")
        power = _number("power", cells[1], 0, WATTS_MAX)
        found.append(Gpu(index, power, _number("temperature", cells[2], CELSIUS_MIN, CELSIUS_MAX)))
    return tuple(found)


def _number(what: str, text: str, least: int, most: int) -> Number:
    """A whole number, rounded up: the program writes "61.32", or "[N/A]" for what a model does not have."""
    if len(text) <= _CELL_CHARS_MAX and text.isascii():
        try:
            value = Decimal(text)
        except InvalidOperation:
            return Unreadable(f"{PROGRAM} gives no {what}: {text!r}")
        if value.is_finite() and least <= value <= most:
            return int(value.to_integral_value("ROUND_CEILING"))
    return Unreadable(f"{PROGRAM} gives a {what} that cannot be: {text[:_CELL_CHARS_MAX]!r}")
