"""The messages between the daemon and its trainer, with a limit on every field. Imports no torch.

A message is one JSON object of at most 64 KiB, tagged by `type`; tensors travel beside it as descriptors (channel.py).
Requests carry a number `seq` that their replies repeat, so that the reply to an abandoned request is known as such.
Byte strings are hex. Both sides check all that they read: the other may be of another version, or out of its mind.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from ubcp_p2p.training.errors import MalformedTrainerMessage
from ubcp_p2p.training.limits import (
    EXTRA_CHARS_MAX,
    EXTRA_KEYS_MAX,
    LAYERS_MAX,
    LEAVES_MAX,
    MEMBERS_MAX,
    MEMORY_MB_MAX,
    MESSAGE_BYTES_MAX,
    NOTES_MAX,
    OFFERS_MAX,
    PERMILLE,
    PROMPT_CHARS_MAX,
    READ_DIRS_MAX,
    SAMPLE_BYTES_MAX,
    STEPS_MAX,
    WEIGHT_MAX,
    WORDS_CHARS_MAX,
)
from ubcp_p2p.training.sandbox.values import Mode

U53_MAX = 2**53 - 1  # JSON numbers up to here survive every parser

Seq: TypeAlias = Annotated[int, Field(ge=1, le=U53_MAX)]
Round: TypeAlias = Annotated[int, Field(ge=0, le=U53_MAX)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=U53_MAX)]
Weight: TypeAlias = Annotated[int, Field(ge=1, le=WEIGHT_MAX)]
Digest: TypeAlias = Annotated[bytes, Field(min_length=32, max_length=32)]
Peer: TypeAlias = Annotated[bytes, Field(max_length=64)]  # a libp2p peer id of an Ed25519 key has 38 bytes
PathBytes: TypeAlias = Annotated[bytes, Field(min_length=1, max_length=4096)]  # os.fsencode; PATH_MAX of Linux
Words: TypeAlias = Annotated[str, Field(max_length=WORDS_CHARS_MAX)]
Extra: TypeAlias = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=EXTRA_CHARS_MAX)]],
    Field(max_length=EXTRA_KEYS_MAX),
]


class _Message(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, ser_json_bytes="hex", val_json_bytes="hex"
    )


# --- from the daemon


class Start(_Message):
    """The first message: what to train, and where. → ReadyMade."""

    type: Literal["start"] = "start"
    seq: Seq
    recipe_toml: str = Field(max_length=MESSAGE_BYTES_MAX)
    run_id: Digest
    peer: Peer
    device: str = Field(min_length=1, max_length=32)
    threads: int = Field(ge=0, le=4096)
    checkpoint_dir: PathBytes
    checkpoints_kept: int = Field(ge=1, le=1000)
    resume: bool
    sandbox: Mode
    memory_mb: int = Field(ge=0, le=MEMORY_MB_MAX)
    read_dirs: tuple[PathBytes, ...] = Field(max_length=READ_DIRS_MAX)


class Train(_Message):
    """Take the round's local steps. → Progress…, then Offered with one descriptor."""

    type: Literal["train"] = "train"
    seq: Seq
    round: Round
    members: tuple[Peer, ...] = Field(max_length=MEMBERS_MAX)


class Finish(_Message):
    """End the running Train after its current step, with what is done. No reply of its own."""

    type: Literal["finish"] = "finish"
    seq: Seq


class Pace(_Message):
    """From now on use this share of the device's sustained speed, also within a running Train. No reply."""

    type: Literal["pace"] = "pace"
    permille: int = Field(ge=1, le=PERMILLE)


class Cancel(_Message):
    """Nobody waits for `seq` any more: stop it if that is possible. No reply of its own; `seq` is still answered."""

    type: Literal["cancel"] = "cancel"
    seq: Seq


class Apply(_Message):
    """Make the next state out of the offers that come as descriptors, in this order. → CandidateMade."""

    type: Literal["apply"] = "apply"
    seq: Seq
    weights: tuple[Weight, ...] = Field(min_length=1, max_length=OFFERS_MAX)


class Commit(_Message):
    """The candidate becomes the state. → Done."""

    type: Literal["commit"] = "commit"
    seq: Seq


class Discard(_Message):
    """Forget the candidate. → Done."""

    type: Literal["discard"] = "discard"
    seq: Seq


class Load(_Message):
    """Adopt the state that comes as a descriptor. → Loaded with the trainer's own copy."""

    type: Literal["load"] = "load"
    seq: Seq
    round: Round
    expected_hash: Digest


class Open(_Message):
    """Show one stretch of a trail that was committed to. → Opened with one descriptor."""

    type: Literal["open"] = "open"
    seq: Seq
    trail: Digest
    stretch: int = Field(ge=0, lt=LEAVES_MAX)


class Check(_Message):
    """Walk a stretch of another's trail again, by the opening that comes as a descriptor. → Checked.

    See opening.Claim for the fields. members: whom the data is cut among, by the base's certificate, if it has one.
    seed: what pieces of the end may be drawn by, if any.
    """

    type: Literal["check"] = "check"
    seq: Seq
    round: Round
    peer: Peer
    base_hash: Digest
    steps: int = Field(ge=1, le=STEPS_MAX)
    offer_hash: Digest
    trail: Digest
    members: tuple[Peer, ...] | None = Field(max_length=MEMBERS_MAX)
    seed: Digest | None


class Evaluate(_Message):
    """Measure the state on held-out data. → Evaluated."""

    type: Literal["evaluate"] = "evaluate"
    seq: Seq


class Sample(_Message):
    """Generate text from the state. → Sampled."""

    type: Literal["sample"] = "sample"
    seq: Seq
    prompt: str = Field(max_length=PROMPT_CHARS_MAX)
    length: int = Field(ge=0, le=SAMPLE_BYTES_MAX)
    seed: int = Field(ge=0, le=U53_MAX)
    temperature: float = Field(ge=0, le=100)


class Checkpoint(_Message):
    """Write the state and the inner optimizer to disk. → Saved."""

    type: Literal["checkpoint"] = "checkpoint"
    seq: Seq
    extra: Extra


# --- from the trainer


class LayerMade(_Message):
    """A layer of the sandbox, within ReadyMade. See sandbox.values.Layer."""

    name: str = Field(max_length=32)
    active: bool
    words: Words
    remedy: Words


class ReadyMade(_Message):
    """The trainer is ready; the state is the descriptor. See values.Ready for the fields."""

    type: Literal["ready"] = "ready"
    seq: Seq
    round: Round
    state_hash: Digest
    parameters: Count
    state_bytes: Count
    offer_bytes: Count
    device: str = Field(max_length=200)
    resumed_from: PathBytes | None
    extra: Extra
    notes: tuple[Words, ...] = Field(max_length=NOTES_MAX)
    data_name: str = Field(max_length=400)
    data_sha256: str = Field(max_length=64)
    sandbox: tuple[LayerMade, ...] = Field(default=(), max_length=LAYERS_MAX)


class Progressed(_Message):
    """A step of a Train is done. Sent a few times a second at most."""

    type: Literal["progress"] = "progress"
    seq: Seq
    round: Round
    step: Count
    steps: Count
    loss: float


class Offered(_Message):
    """The offer of a Train is the descriptor."""

    type: Literal["offer"] = "offer"
    seq: Seq
    round: Round
    weight: Weight
    loss: float
    seconds: float = Field(ge=0)
    digest: Digest
    trail: Digest


class CandidateMade(_Message):
    """The state that an outer step would lead to is the descriptor."""

    type: Literal["candidate"] = "candidate"
    seq: Seq
    round: Round
    state_hash: Digest
    rejected: tuple[Annotated[int, Field(ge=0, lt=OFFERS_MAX)], ...] = Field(max_length=OFFERS_MAX)


class Loaded(_Message):
    """The trainer's own copy of the adopted state is the descriptor."""

    type: Literal["loaded"] = "loaded"
    seq: Seq
    state_hash: Digest


class Done(_Message):
    """A request without a result is done."""

    type: Literal["done"] = "done"
    seq: Seq


class Opened(_Message):
    """The opening's bytes are the descriptor."""

    type: Literal["opened"] = "opened"
    seq: Seq


class Checked(_Message):
    """See verdict.Verdict."""

    type: Literal["checked"] = "checked"
    seq: Seq
    finding: Literal["honest", "count", "base", "offer", "data", "memory", "drowned", "steps", "unopened"]
    distance_ppm: Count
    words: Words
    allowed_ppm: Count


class Evaluated(_Message):
    """See models.evaluation.Evaluation."""

    type: Literal["evaluated"] = "evaluated"
    seq: Seq
    loss: float
    accuracy: float | None
    stderr: float
    n: Count


class Sampled(_Message):
    """Generated text."""

    type: Literal["sampled"] = "sampled"
    seq: Seq
    text: str | None = Field(max_length=SAMPLE_BYTES_MAX)


class Saved(_Message):
    """Where the checkpoint is."""

    type: Literal["saved"] = "saved"
    seq: Seq
    path: PathBytes


FailureKind: TypeAlias = Literal[
    "training", "diverged", "mismatch", "round", "memory", "local-io", "config", "cancelled", "internal"
]


class Failed(_Message):
    """A request failed, in words. `seq` 0: the trainer itself cannot go on, and ends."""

    type: Literal["failed"] = "failed"
    seq: int = Field(ge=0, le=U53_MAX)
    kind: FailureKind
    message: Words
    hint: Words | None


Task: TypeAlias = Train | Apply | Commit | Discard | Load | Open | Check | Evaluate | Sample | Checkpoint
Request: TypeAlias = Start | Task  # has a reply
Command: TypeAlias = Task | Finish | Pace | Cancel
WithBuffer: TypeAlias = ReadyMade | Offered | CandidateMade | Loaded | Opened  # replies that come with one descriptor
Reply: TypeAlias = WithBuffer | Progressed | Done | Checked | Evaluated | Sampled | Saved | Failed

_T = TypeVar("_T")

_START: TypeAdapter[Start] = TypeAdapter(Start)
_COMMAND: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="type")])
_REPLY: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="type")])


def encode(message: Start | Command | Reply) -> bytes:
    """The message's bytes. Raises MalformedTrainerMessage when it is too long or holds text that is not Unicode."""
    try:
        data = message.model_dump_json().encode()
    except (PydanticSerializationError, UnicodeError) as error:
        raise MalformedTrainerMessage(f"the {message.type} message holds text that is not Unicode: {error}") from None
    if len(data) > MESSAGE_BYTES_MAX:
        raise MalformedTrainerMessage(f"a {message.type} message of {len(data)} bytes; at most {MESSAGE_BYTES_MAX} fit")
    return data


def decode_start(data: bytes) -> Start:
    """Parse and check the first message. Raises MalformedTrainerMessage."""
    return _decode(_START, data)


def decode_command(data: bytes) -> Command:
    """Parse and check a message from the daemon. Raises MalformedTrainerMessage."""
    return _decode(_COMMAND, data)


def decode_reply(data: bytes) -> Reply:
    """Parse and check a message from the trainer. Raises MalformedTrainerMessage."""
    return _decode(_REPLY, data)


def _decode(adapter: TypeAdapter[_T], data: bytes) -> _T:
    if len(data) > MESSAGE_BYTES_MAX:
        raise MalformedTrainerMessage(f"a message of {len(data)} bytes; at most {MESSAGE_BYTES_MAX} fit")
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise MalformedTrainerMessage(f"not a message of ours: {where or 'all of it'}: {fault['msg']}") from None
