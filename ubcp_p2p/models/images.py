"""Image sets: Fashion-MNIST from its IDX files, or the digits that scikit-learn ships.

Imports neither torch nor scikit-learn: only the files are read.

Formats: IDX as on yann.lecun.com/exdb/mnist (magic, dimensions as big-endian u32, bytes); digits.csv.gz as 64 values of
0…16 and a label a line.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models.recipe import IMAGE_CLASSES, IMAGE_SIDE

IMAGES_MAX = 100_000  # of a file; Fashion-MNIST has 60,000 and 10,000
_CSV_BYTES_MAX = 1 << 20  # digits.csv has 0.5 MB
_HELD_OUT_EVERY = 5  # digits come unsplit: each fifth is held out
_INSTALL_FASHION = (
    'install it (Debian: apt install dataset-fashion-mnist), set data.path, or set data.fallback = "digits"'
)
_INSTALL_DIGITS = "install the package: pip install 'ubcp-p2p[peer]', or pip install scikit-learn"


@dataclass(frozen=True)
class Images:
    """Training and held-out images (n, side, side), uint8, with labels (n,), uint8 0…9; `sha256` names the data."""

    name: str
    train: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    held_out_labels: NDArray[np.uint8]
    sha256: str


def load_fashion_mnist(folder: Path) -> Images:
    """Read the four IDX files (47 MB unpacked). Raises ConfigError when one is missing or malformed."""
    train, train_labels = _read_pair(folder, "train")
    held_out, held_out_labels = _read_pair(folder, "t10k")
    return _images("fashion-mnist", train, train_labels, held_out, held_out_labels)


def load_digits(side: int = IMAGE_SIDE["digits"]) -> Images:
    """Read scikit-learn's digits, enlarged and centred on `side` pixels. Raises ConfigError when absent or broken."""
    spec = importlib.util.find_spec("sklearn")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    if not roots:
        raise ConfigError(
            "this recipe trains on the digits of scikit-learn, which is not installed", hint=_INSTALL_DIGITS
        )
    path = Path(roots[0]) / "datasets" / "data" / "digits.csv.gz"
    text = _gunzip(path, _CSV_BYTES_MAX, _INSTALL_DIGITS)
    try:
        rows = np.loadtxt(text.decode("ascii").splitlines(), delimiter=",", dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise ConfigError(f"{path}: not a table of numbers: {error}", hint=_INSTALL_DIGITS) from None
    if rows.shape[1:] != (65,) or rows.min() < 0 or rows[:, :64].max() > 16 or rows[:, 64].max() >= IMAGE_CLASSES:
        raise ConfigError(f"{path}: not the digits we know", hint=_INSTALL_DIGITS)
    images = (rows[:, :64].reshape(-1, 8, 8) * 255 // 16).astype(np.uint8)
    scale = side // 8
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    before = (side - 8 * scale) // 2
    after = side - 8 * scale - before
    images = np.pad(images, ((0, 0), (before, after), (before, after)))
    labels = rows[:, 64].astype(np.uint8)
    held = np.arange(len(rows)) % _HELD_OUT_EVERY == 0
    return _images("digits", images[~held], labels[~held], images[held], labels[held])


def fashion_mnist_present(folder: Path) -> bool:
    """Whether any of the files is there. A set that is there but broken is an error, not a reason for the fallback."""
    return any(
        _idx_path(folder, part, kind).exists() for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    )


def parse_idx(data: bytes, dimensions: tuple[int, ...], where: str) -> NDArray[np.uint8]:
    """The array (n, *dimensions) of an IDX file of unsigned bytes, a view on `data`; or raises ConfigError."""
    header = 4 + 4 * (1 + len(dimensions))
    if len(data) < header or data[:4] != bytes((0, 0, 8, 1 + len(dimensions))):
        raise ConfigError(
            f"{where}: not an IDX file of bytes in {1 + len(dimensions)} dimensions", hint=_INSTALL_FASHION
        )
    count, *rest = (int(size) for size in np.frombuffer(data, dtype=">u4", count=1 + len(dimensions), offset=4))
    if tuple(rest) != dimensions or not 1 <= count <= IMAGES_MAX:
        raise ConfigError(
            f"{where}: holds {count} items of {rest}; expected 1…{IMAGES_MAX} of {list(dimensions)}",
            hint=_INSTALL_FASHION,
        )
    if len(data) - header != count * math.prod(dimensions):
        raise ConfigError(
            f"{where}: {len(data) - header} bytes of data for {count} items; cut short or overlong",
            hint=_INSTALL_FASHION,
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(count, *dimensions)


def _read_pair(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    side = IMAGE_SIDE["fashion-mnist"]
    image_path, label_path = _idx_path(folder, part, "images-idx3"), _idx_path(folder, part, "labels-idx1")
    images = parse_idx(_gunzip(image_path, IMAGES_MAX * side**2 + 16, _INSTALL_FASHION), (side, side), str(image_path))
    labels = parse_idx(_gunzip(label_path, IMAGES_MAX + 8, _INSTALL_FASHION), (), str(label_path))
    if len(images) != len(labels) or labels.max() >= IMAGE_CLASSES:
        raise ConfigError(
            f"{label_path}: {len(labels)} labels up to {labels.max()} for {len(images)} images", hint=_INSTALL_FASHION
        )
    return images, labels


def _idx_path(folder: Path, part: str, kind: str) -> Path:
    return folder / f"{part}-{kind}-ubyte.gz"


def _gunzip(path: Path, bytes_max: int, hint: str) -> bytes:
    """Unpack at most `bytes_max` (a small file can unpack to terabytes)."""
    try:
        with gzip.open(path, "rb") as file:
            data = file.read(bytes_max + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint=hint) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot unpack: {error}", hint=hint) from None
    if len(data) > bytes_max:
        raise ConfigError(f"{path}: unpacks to more than {bytes_max} bytes", hint=hint)
    return data


def _images(name: str, *arrays: NDArray[np.uint8]) -> Images:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    train, train_labels, held_out, held_out_labels = arrays
    return Images(name, train, train_labels, held_out, held_out_labels, digest.hexdigest())
