"""The sandbox's settings and what became of them, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Mode: TypeAlias = Literal["auto", "required", "off"]


@dataclass(frozen=True)
class SandboxSpec:
    """mode: "auto" takes each layer that this kernel has, "required" refuses to train without all, "off" takes none.

    memory_mb: MiB that the trainer may allocate; 0 = most of this machine's. read_dirs: what it may read beside the
    program, the system's libraries and its run's folder.
    """

    mode: Mode = "auto"
    memory_mb: int = 0
    read_dirs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Layer:
    """One layer of a trainer's sandbox. words: what it keeps from the trainer, or why it is not there."""

    name: str
    active: bool
    words: str
    remedy: str = ""  # of a layer that is missing
