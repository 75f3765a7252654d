"""The result of an evaluation on held-out data; torch-free, so that any process can hold one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluation:
    """A held-out loss and how sure of it we are.

    loss: mean over `n` held-out samples, in nats (a text's per byte). stderr: the standard error of that mean, from the
    spread between samples. accuracy: share of samples classified right, None where the task does not classify.
    """

    loss: float
    accuracy: float | None
    stderr: float
    n: int
