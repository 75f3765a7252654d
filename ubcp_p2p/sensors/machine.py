"""All sensors of one machine, asked for what the owner's rules need and nothing else."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Final

from ubcp_p2p.owner.values import NOT_ASKED, Number, Readings, Rules, Unreadable
from ubcp_p2p.sensors import gpu
from ubcp_p2p.sensors.activity import OthersLoad, ProcessorTimes, idle_seconds
from ubcp_p2p.sensors.sysfs import ProcessorPower, on_battery, processor_celsius

_CUDA: Final = re.compile(r"cuda(?::([0-9]{1,2}))?")


class Machine:
    """The sensors of the machine at `root`; `device` is what trains ("auto", "cpu", "cuda", "cuda:N")."""

    def __init__(self, device: str, *, root: Path = Path("/"), nvidia_smi: str = gpu.PROGRAM) -> None:
        self._device = device
        self._root = root
        self._nvidia_smi = nvidia_smi
        self._power = ProcessorPower(root)
        self._others: OthersLoad | None = None

    def read(self, rules: Rules) -> Readings:
        """What `rules` ask for, but for carbon. Blocks, for seconds where nvidia-smi is slow."""
        found: tuple[gpu.Gpu, ...] | Unreadable = ()
        if self._device != "cpu" and (rules.power_w_max or rules.temperature_c_max):
            found = gpu.gpus(self._nvidia_smi)
        return Readings(
            on_battery=NOT_ASKED if rules.on_battery else on_battery(self._root),
            idle_s=idle_seconds(self._root, time.time()) if rules.idle_s else NOT_ASKED,
            others_permille=self._others_permille() if rules.idle_s else NOT_ASKED,
            power_w=self._power_w(found) if rules.power_w_max else NOT_ASKED,
            temperature_c=self._celsius(found) if rules.temperature_c_max else NOT_ASKED,
        )

    def _others_permille(self) -> Number:
        if self._others is None:
            self._others = OthersLoad(os.cpu_count() or 1, ProcessorTimes())
        return self._others.permille()

    def _power_w(self, found: tuple[gpu.Gpu, ...] | Unreadable) -> Number:
        """Of what trains: the GPU, or else the processors."""
        if isinstance(found, Unreadable):
            return found
        chosen = self._chosen(found)
        if isinstance(chosen, Unreadable):
            return chosen
        if not chosen:
            return self._power.watts()
        watts = 0
        for card in chosen:
            if isinstance(card.power_w, Unreadable):
                return card.power_w
            watts += card.power_w
        return watts

    def _celsius(self, found: tuple[gpu.Gpu, ...] | Unreadable) -> Number:
        """The hottest of the GPU that trains and the processors; where it trains, it has to be readable."""
        if isinstance(found, Unreadable):
            return found
        chosen = self._chosen(found)
        if isinstance(chosen, Unreadable):
            return chosen
        processors = processor_celsius(self._root)
        if not chosen:
            return processors
        hottest = processors if isinstance(processors, int) else None
        for card in chosen:
            if isinstance(card.celsius, Unreadable):
                return card.celsius
            hottest = card.celsius if hottest is None else max(hottest, card.celsius)
        assert hottest is not None
        return hottest

    def _chosen(self, found: tuple[gpu.Gpu, ...]) -> tuple[gpu.Gpu, ...] | Unreadable:
        """The GPU that is configured; "auto" and "cuda" take the first that torch sees, which may be any of them."""
        number = match.group(1) if (match := _CUDA.fullmatch(self._device)) else None
        if number is None:
            if self._device == "cuda" and not found:
                return Unreadable("nvidia-smi, which knows the GPU's state, is not installed")
            return found
        chosen = tuple(card for card in found if card.index == int(number))
        return chosen or Unreadable(f"nvidia-smi shows no GPU {number}")
