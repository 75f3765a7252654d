"""Initial parameters that are equal to the bit on every machine, so that peers agree on round 0 without a download.

torch's own normal_() goes through vectorised log and cos, whose last bit depends on the processor. Here each value is
an integer from a counter-based generator, scaled by float32 operations, which IEEE 754 rounds the same everywhere.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import nn

_BLOCK = 1 << 20  # values drawn at a time: temporaries stay at 8 MiB for any model


def initialise(network: nn.Module, seed: int, std: dict[str, float]) -> None:
    """Give `network`, built on the meta device, its parameters on the CPU, float32.

    `std` maps names of parameters to the standard deviation of a uniform distribution around 0. Of the others, norm
    weights (one dimension, named "…weight") become 1 and biases 0. Each has its own stream, keyed by seed and name.
    """
    for name, shape in [(name, parameter.shape) for name, parameter in network.named_parameters()]:
        values = torch.empty(shape)
        if name in std:
            flat, stream = values.view(-1), _stream(seed, name)
            for begin in range(0, flat.numel(), _BLOCK):
                part = flat[begin : begin + _BLOCK]
                part.copy_(torch.from_numpy(_uniform(stream, part.numel(), std[name])))
        else:
            assert values.ndim == 1, f"{name} has no standard deviation given"
            values.fill_(1.0 if name.endswith("weight") else 0.0)
        # Module.to_empty would do for the allocation, but its first call takes 0.4 s (imports).
        module, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(module), leaf, nn.Parameter(values))


def _stream(seed: int, name: str) -> np.random.Philox:
    key = hashlib.sha256(b"ubcp/init/1\0" + seed.to_bytes(8, "big") + name.encode()).digest()
    return np.random.Philox(key=np.frombuffer(key[:16], dtype="<u8").astype(np.uint64))


def _uniform(stream: np.random.Philox, count: int, std: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    # The top 24 bits are exact in float32; U(−a, a) has the standard deviation a/√3.
    bits = (stream.random_raw(count) >> np.uint64(40)).astype(np.float32)
    unit = (bits + np.float32(0.5)) * np.float32(2.0**-23) - np.float32(1.0)
    return np.asarray(unit * np.float32(std * 3.0**0.5), dtype=np.float32)
