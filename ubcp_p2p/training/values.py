"""What a trainer is given and gives back, as values. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.training.sandbox.values import Layer, SandboxSpec


@dataclass(frozen=True)
class TrainerSpec:
    """What a trainer needs to know at its start.

    device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N". threads: of the CPU; 0 = as torch finds good.
    silent_s: it is ended when it is at work and says nothing for so long; 0 = never.
    """

    recipe_toml: str
    run_id: bytes
    peer: bytes
    device: str
    threads: int
    checkpoint_dir: Path
    checkpoints_kept: int
    sandbox: SandboxSpec = field(default_factory=SandboxSpec)
    silent_s: float = 1800.0


@dataclass(frozen=True)
class Ready:
    """A trainer that is ready. parameters: P. resumed_from: the checkpoint's path; extra: the strings saved in it.

    notes: facts that a person should be told (a damaged checkpoint, a fallback data set). data_sha256: names the data.
    sandbox: what became of each layer.
    """

    round: int
    state_hash: bytes
    parameters: int
    state_bytes: int
    offer_bytes: int
    device: str
    resumed_from: str | None
    extra: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    data_name: str = ""
    data_sha256: str = ""
    sandbox: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` local steps of a round are done; loss: running mean in nats."""

    round: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Offer:
    """A round's pseudo-gradient. weight: samples that it is made of; loss: their mean in nats; digest: the offer hash.

    trail: the hash of what the local steps led through, for the card (trail.py).
    buffer: P float32 values, the caller's to close.
    """

    round: int
    weight: int
    loss: float
    seconds: float
    digest: bytes
    trail: bytes
    buffer: SharedBuffer


@dataclass(frozen=True)
class Candidate:
    """The state that an outer step leads to: the start of `round`. rejected: indices of offers that were left out.

    buffer: the whole state; it belongs to the TrainerProcess, which closes it when another replaces it.
    """

    round: int
    state_hash: bytes
    rejected: tuple[int, ...]
    buffer: SharedBuffer
