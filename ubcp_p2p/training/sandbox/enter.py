"""Entering the sandbox: every layer that this kernel has, one after the other, and what became of each in words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.training.sandbox import landlock, privileges, reach, rlimits, seccomp
from ubcp_p2p.training.sandbox.values import Layer, SandboxSpec

_TCP_SINCE: Final = 4  # of Landlock's versions
_SWITCHED_OFF: Final = 'switched off by this machine\'s owner: training.sandbox = "off"'
_OTHER_SYSTEM: Final = "this is not Linux, which alone has it"


class _Missing(Exception):
    """A layer is not to be had here: why, and what would help."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


def enter(spec: SandboxSpec, run_folder: Path, device: str) -> tuple[Layer, ...]:
    """Give up, for good, what this process does not need for training on `device` with checkpoints in `run_folder`.

    To be called before the recipe and any data is read, and before torch is imported: a thread that runs already would
    stay outside. Makes the run's folder. Raises ConfigError when spec.mode is "required" and a layer is missing.
    """
    cuda = reach.may_use_cuda(device)
    attempts: tuple[tuple[str, Callable[[], str]], ...] = (
        ("limits", lambda: _limits(spec)),
        ("privileges", _privileges),
        ("files", lambda: _files(spec, run_folder, device, cuda=cuda)),
        ("calls", lambda: _calls(cuda=cuda)),
    )
    if spec.mode == "off":
        return tuple(Layer(name, False, _SWITCHED_OFF) for name, _ in attempts)
    layers = tuple(_attempt(name, attempt) for name, attempt in attempts)
    missing = [layer for layer in layers if not layer.active]
    if missing and spec.mode == "required":
        raise ConfigError(
            "the trainer's sandbox is required (training.sandbox) and lacks "
            + "; ".join(f"{layer.name}: {layer.words}" for layer in missing),
            hint="; ".join(layer.remedy for layer in missing) + '; or set training.sandbox = "auto"',
        )
    return layers


def _attempt(name: str, attempt: Callable[[], str]) -> Layer:
    try:
        if sys.platform != "linux":
            raise _Missing(_OTHER_SYSTEM, "train on Linux")
        return Layer(name, True, attempt())
    except _Missing as missing:
        return Layer(name, False, str(missing), missing.remedy)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Layer(name, False, f"the system refused it: {reason}", "see whether a container forbids it")


def _limits(spec: SandboxSpec) -> str:
    memory = rlimits.memory_bytes(spec.memory_mb)
    rlimits.restrict(memory)
    whose = "training.memory_mb" if spec.memory_mb else f"{rlimits.SHARE_PERMILLE // 10} % of this machine's"
    return f"at most {memory // rlimits.MIB} MiB of memory ({whose}), no core dumps"


def _privileges() -> str:
    privileges.give_up()
    return "no rights of root's, and none by starting a program"


def _files(spec: SandboxSpec, run_folder: Path, device: str, *, cuda: bool) -> str:
    abi = landlock.version()
    if not abi:
        raise _Missing("this kernel has no Landlock", "use Linux 5.13 or newer with landlock among its `lsm=`")
    try:
        run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        pass  # a checkpoint will fail, and say so
    grants = reach.grants(run_folder, spec.read_dirs, device, cuda=cuda)
    landlock.restrict(grants)
    if (folder := reach.exposing(run_folder, grants)) is not None:
        raise _Missing(
            f"holds in part: it may read {folder}, where the node's own files lie too",
            "move the profile elsewhere, or take that folder out of read_dirs",
        )
    tcp = ", no TCP" if abi >= _TCP_SINCE else ""
    threads = " and, for CUDA, its threads' names" if cuda else ""
    return f"writes its run's folder{threads} alone, reads that, the program and the system's libraries{tcp}"


def _calls(*, cuda: bool) -> str:
    library = seccomp.load()
    if library is None:
        raise _Missing(f"{seccomp.LIBRARY} is not installed", "install libseccomp (Debian: apt install libseccomp2)")
    seccomp.restrict(library, cuda=cuda)
    network = "no network but a socket of this machine that CUDA listens on" if cuda else "no network"
    return f"{network}, no programs or processes of its own, no hand on other processes"
