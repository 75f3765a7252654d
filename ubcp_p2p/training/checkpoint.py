"""Checkpoints on disk: atomic safetensors files, the last K of a run. Imports no torch.

A file is complete or absent: it is written under a temporary name, synced, renamed, and the folder synced. Its state
and its optimizer vectors carry a hash each, so that a damaged file is known, set aside, and the next older one used.

Format: safetensors 0.x (8 bytes header length, JSON header, data), written here from views so that no tensor is copied;
read by the library. Tensors: `state` (float32, P or 2P), `inner.<name>` (float32, P each).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.files import sync_dir
from ubcp_p2p.training.limits import EXTRA_CHARS_MAX, EXTRA_KEYS_MAX
from ubcp_p2p.training.state import FLOAT32_LE, ITEM_BYTES, Vector, is_finite, state_hash, vectors_hash

FORMAT = "ubcp/checkpoint/1"
_FORMATS = re.compile(r"ubcp/checkpoint/[0-9]{1,9}")  # of all versions of ubcp
_NAME = re.compile(r"round-([0-9]{8,16})\.safetensors")
HEADER_BYTES_MAX = 1 << 20  # ours have a few KiB, extra strings included
_OWN_KEYS = frozenset({"format", "run_id", "round", "state_hash", "recipe_hash", "inner_steps", "inner_hash"})


@dataclass(frozen=True)
class Checkpoint:
    """A training position. state: P or 2P values; inner_vectors: P values each; extra: the caller's own strings."""

    run_id: bytes
    recipe_hash: bytes
    round: int
    state: Vector
    state_hash: bytes
    inner_steps: int
    inner_vectors: Mapping[str, Vector]
    extra: Mapping[str, str]


class _Damaged(Exception):
    """The file is not what was written."""


def check_extra(extra: Mapping[str, str]) -> None:
    """Raise ConfigError for extra strings that a checkpoint cannot hold."""
    taken = sorted(_OWN_KEYS & extra.keys())
    if taken:
        raise ConfigError(f"a checkpoint's extra strings may not be called {', '.join(taken)}")
    size = len(json.dumps(dict(extra)))  # as they travel back in the ready message
    if len(extra) > EXTRA_KEYS_MAX or size > EXTRA_CHARS_MAX:
        raise ConfigError(
            f"{len(extra)} extra strings of {size} characters; a checkpoint holds {EXTRA_KEYS_MAX} of {EXTRA_CHARS_MAX}"
        )


def write(folder: Path, kept: int, checkpoint: Checkpoint) -> Path:
    """Write round-<round>.safetensors into `folder` (made if missing) and keep the newest `kept`; returns its path.

    Raises LocalIOError when the disk refuses; what was there before is then untouched. Files of later rounds, which a
    run leaves behind when it goes back to an older state, are set aside as *.abandoned.
    """
    check_extra(checkpoint.extra)
    path = folder / f"round-{checkpoint.round:08d}.safetensors"
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    tensors = {"state": checkpoint.state} | {f"inner.{k}": v for k, v in checkpoint.inner_vectors.items()}
    metadata = {
        **checkpoint.extra,
        "format": FORMAT,
        "run_id": checkpoint.run_id.hex(),
        "recipe_hash": checkpoint.recipe_hash.hex(),
        "round": str(checkpoint.round),
        "state_hash": checkpoint.state_hash.hex(),
        "inner_steps": str(checkpoint.inner_steps),
        "inner_hash": _inner_hash(checkpoint.inner_steps, checkpoint.inner_vectors),
    }
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _write_tensors(temporary, tensors, metadata)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_dir(folder)
    except OSError as error:
        megabytes = math.ceil(sum(v.nbytes for v in tensors.values()) / 1e5) / 10
        raise LocalIOError(
            f"cannot write the checkpoint {path}: {error.strerror or error}",
            hint=f"free {megabytes} MB there or make the folder writable; the checkpoints written before are intact",
        ) from None
    _tidy(folder, checkpoint.round, kept)
    return path


def newest(
    folder: Path, run_id: bytes, recipe_hash: bytes, state_values: int, inner_lengths: Mapping[str, int]
) -> tuple[Path | None, Checkpoint | None, tuple[str, ...]]:
    """The newest sound checkpoint of the run, and facts that a person should know; (None, None, facts) without one.

    state_values, inner_lengths: the lengths that a checkpoint of this run must have. Damaged files are renamed to
    *.corrupt. Raises ConfigError when the folder belongs to another run, recipe or version, LocalIOError when it cannot
    be read.
    """
    facts: list[str] = []
    try:
        for stale in folder.glob(".round-*.tmp") if folder.is_dir() else ():
            stale.unlink()  # of a trainer that was killed while it wrote
        for path in reversed(_files(folder)):
            try:
                found = _read(path, run_id, recipe_hash, state_values, inner_lengths)
            except (_Damaged, SafetensorError, ValueError, OverflowError) as error:
                path.replace(_aside(path, "corrupt"))
                facts.append(f"checkpoint {path.name} is damaged ({error}); it is kept as {path.name}.corrupt")
                continue
            return path, found, tuple(facts)
    except OSError as error:
        raise LocalIOError(
            f"cannot read the checkpoints in {folder}: {error.strerror or error}",
            hint="make the folder readable and writable, or name another",
        ) from None
    return None, None, tuple(facts)


def _files(folder: Path) -> list[Path]:
    """Checkpoints by rising round."""
    if not folder.is_dir():
        return []
    rounds = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(rounds)]


def _read(
    path: Path, run_id: bytes, recipe_hash: bytes, state_values: int, inner_lengths: Mapping[str, int]
) -> Checkpoint:
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > HEADER_BYTES_MAX:
        raise _Damaged(f"its header claims {header_bytes} bytes")
    with safe_open(path, framework="numpy") as file:
        metadata: dict[str, str] = file.metadata() or {}
        format = metadata.get("format", "")
        if format != FORMAT and _FORMATS.fullmatch(format):
            raise ConfigError(
                f"{path} was written by another version of ubcp (format {format}, not {FORMAT})",
                hint="use that version, give this run another name, or move that folder away",
            )
        if format != FORMAT or not metadata.keys() >= _OWN_KEYS:
            raise _Damaged(f"it is not of format {FORMAT}")
        if metadata["run_id"] != run_id.hex() or metadata["recipe_hash"] != recipe_hash.hex():
            raise ConfigError(
                f"{path} is a checkpoint of another run or another version of the recipe",
                hint="give this run another name, or move that folder away",
            )
        expected = {"state": state_values} | {f"inner.{name}": length for name, length in inner_lengths.items()}
        if set(file.keys()) != expected.keys():
            raise _Damaged("it holds other tensors than it should")
        tensors: dict[str, Vector] = {}
        for name, length in expected.items():
            part = file.get_slice(name)
            if part.get_dtype() != "F32" or part.get_shape() != [length]:
                raise _Damaged(f"its tensor {name} has another type or shape than it should")
            tensors[name] = np.asarray(file.get_tensor(name), dtype=FLOAT32_LE)
    round, steps = int(metadata["round"]), int(metadata["inner_steps"])
    state = tensors.pop("state")
    vectors = {name.removeprefix("inner."): values for name, values in tensors.items()}
    digest = state_hash(run_id, round, state.data)
    if metadata["state_hash"] != digest.hex() or not is_finite(state):
        raise _Damaged("its state does not have the hash that it should")
    if metadata["inner_hash"] != _inner_hash(steps, vectors):
        raise _Damaged("its optimizer state does not have the hash that it should")
    extra = {key: value for key, value in metadata.items() if key not in _OWN_KEYS}
    return Checkpoint(run_id, recipe_hash, round, state, digest, steps, vectors, extra)


def _inner_hash(steps: int, vectors: Mapping[str, Vector]) -> str:
    return vectors_hash(b"ubcp/inner/1\0", steps, vectors).hex()


def head(lengths: Mapping[str, int], metadata: Mapping[str, str]) -> bytes:
    """How a safetensors file begins that holds float32 vectors of these lengths; they follow in this order."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, length in lengths.items():
        end = offset + length * ITEM_BYTES
        header[name] = {"dtype": "F32", "shape": [length], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format's alignment
    return len(text).to_bytes(8, "little") + text


def _write_tensors(path: Path, tensors: Mapping[str, Vector], metadata: Mapping[str, str]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(head({name: len(values) for name, values in tensors.items()}, metadata))
        for values in tensors.values():
            file.write(values.data)
        file.flush()
        os.fsync(file.fileno())


def _tidy(folder: Path, round: int, kept: int) -> None:
    """Keep the newest `kept` up to `round`, set later ones aside. What cannot go stays: the new one is written."""
    files = _files(folder)
    mine = [path for path in files if _round(path) <= round]
    with contextlib.suppress(OSError):
        for path in mine[: max(0, len(mine) - kept)]:
            path.unlink()
        for path in files[len(mine) :]:
            path.replace(_aside(path, "abandoned"))
        for suffix in ("abandoned", "corrupt"):
            for path in _oldest(sorted(folder.glob(f"round-*.safetensors.{suffix}")), kept):
                path.unlink()


def _round(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _aside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _oldest(paths: Sequence[Path], kept: int) -> Sequence[Path]:
    return paths[: max(0, len(paths) - kept)]
