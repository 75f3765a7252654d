"""What can go wrong between the daemon, the trainer and a run, as leaf error classes."""

from __future__ import annotations

from ubcp_p2p.errors import RoundFailed as RoundFailed  # both siblings raise these two
from ubcp_p2p.errors import StateMismatch as StateMismatch
from ubcp_p2p.errors import TrainingError


class TrainerCrashed(TrainingError):
    """The trainer process ended unasked, or broke the protocol and was ended; start a new one."""


class TrainerStopped(TrainingError):
    """The trainer was stopped by its owner while this call waited, or before it was made."""


class OutOfMemory(TrainingError):
    """The machine or the accelerator has too little memory for this step; the trainer lives on with its last state."""


class Diverged(TrainingError):
    """The loss or the local parameters became non-finite; the trainer lives on with its last state."""


class MalformedTrainerMessage(TrainingError):
    """Bytes on the trainer's channel that are no message of ours, or that break a stated limit."""
