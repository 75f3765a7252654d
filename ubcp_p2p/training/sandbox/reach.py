"""Which paths the trainer needs: the program and what it is made of, devices, and its run's folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import ubcp_p2p
from ubcp_p2p.training.sandbox.landlock import DEVICE, KEEP, READ, WRITE, Grant

# Libraries, data sets and the interpreter, where the system keeps them; torch loads some of its own only when they are
# first used. None holds anything of a user.
_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache", "/etc/localtime")
# What torch, OpenMP and CUDA ask about the machine. Not all of /proc: others' environments are there.
_MACHINE: Final = (
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/devices", "/proc/modules",
    "/proc/driver/nvidia", "/proc/sys/vm", "/sys/devices", "/sys/bus", "/sys/module", "/dev/zero", "/dev/random",
    "/dev/urandom",
)  # fmt: skip
_NVIDIA: Final = "nvidia*"
_WSL: Final = "dxg"  # through which CUDA reaches its GPU there
_ACCELERATORS: Final = ("dri", "kfd", _WSL)  # AMD's and Intel's, the latter's compute node, and those of WSL
_GPUS_MAX: Final = 16  # of one machine


def may_use_cuda(device: str, devices: Path = Path("/dev")) -> bool:
    """Whether a trainer on `device` may look for a GPU, and this machine has files of one for CUDA."""
    return device != "cpu" and (any(devices.glob(_NVIDIA)) or (devices / _WSL).exists())


def grants(run_folder: Path, read_dirs: Sequence[Path], device: str, *, cuda: bool) -> list[Grant]:
    """What a trainer on `device` may open. Paths that are not there may be among them."""
    read = [*_program(), *map(Path, _SYSTEM), *map(Path, _MACHINE), Path(f"/proc/{os.getpid()}"), *read_dirs]
    return [
        *(Grant(path, READ) for path in read),
        Grant(Path("/dev/null"), DEVICE),
        *(Grant(path, DEVICE) for path in (_accelerators() if device != "cpu" else ())),
        # The names of this process's threads, and what else of them may be written: CUDA's driver begins by that.
        *([Grant(Path(f"/proc/{os.getpid()}/task"), WRITE)] if cuda else ()),
        Grant(run_folder, KEEP),
    ]


def unused_gpu(asked: str, got: str, devices: Path = Path("/dev")) -> str | None:
    """Words for a trainer that looked for a GPU in its sandbox and took the CPU, where the machine seems to have one.

    asked: the device of the configuration; got: the one in use. `devices` is where device files are: it may not be
    listed from inside, but whether a file is there may be asked.
    """
    files = (devices / f"nvidia{index}" for index in range(_GPUS_MAX))
    found = next((file for file in files if file.exists()), None)
    if asked != "auto" or not got.startswith("cpu") or found is None:
        return None
    return (
        f"{found} is there, but torch found no GPU that it can use, and trains on the CPU: its CUDA build may be "
        'missing, or the sandbox in the way (training.sandbox = "off" would show it)'
    )


def exposing(run_folder: Path, granted: Sequence[Grant]) -> Path | None:
    """The first of `granted` that a run's folder lies beneath: then the rest of the profile, and its keys, may too."""
    real = Path(os.path.realpath(run_folder))
    for grant in granted:
        folder = Path(os.path.realpath(grant.path))
        if folder != real and real.is_relative_to(folder):
            return grant.path
    return None


def within(path: Path, folders: Sequence[Path]) -> bool:
    """Whether `path`, its links followed, is one of `folders` or beneath one."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(folder)) for folder in folders)


def data_folders(read_dirs: Sequence[Path]) -> tuple[Path, ...]:
    """Where a recipe's data may lie: what the system shares, and what this machine's owner names."""
    return (Path("/usr/share"), Path("/usr/local/share"), *read_dirs)


def _program() -> Iterator[Path]:
    """The interpreter with its packages, and this package: of a source tree that alone, since more may lie there."""
    package = Path(ubcp_p2p.__file__).resolve().parent
    yield package
    yield from (Path(prefix) for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix})
    for entry in map(Path, sys.path):
        if entry.is_absolute() and entry.name in ("site-packages", "dist-packages"):
            yield entry


def _accelerators() -> Iterator[Path]:
    devices = Path("/dev")
    yield from devices.glob(_NVIDIA)
    yield from (devices / name for name in _ACCELERATORS)
