"""Image files: hostile ones are refused in words; the digits come without scikit-learn being imported."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models import images

FASHION = Path("/usr/share/datasets/fashion-mnist")


def idx(count: int, *dimensions: int, data: bytes | None = None, magic: int = 0x0800) -> bytes:
    size = count * int(np.prod(dimensions, dtype=int))
    header = struct.pack(f">{2 + len(dimensions)}I", magic + 1 + len(dimensions), count, *dimensions)
    return header + (bytes(i % 10 for i in range(size)) if data is None else data)


def write_set(folder: Path, count: int = 3) -> None:
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(count, 28, 28)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(count)))


def test_a_well_formed_set_is_read(tmp_path: Path) -> None:
    write_set(tmp_path)
    data = images.load_fashion_mnist(tmp_path)
    assert data.train.shape == data.held_out.shape == (3, 28, 28)
    assert data.train_labels.tolist() == [0, 1, 2]
    assert images.fashion_mnist_present(tmp_path)
    assert not images.fashion_mnist_present(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08\x03",
        idx(3, 28, 28, magic=0x0900),
        idx(3, 28),
        idx(3, 28, 27),
        idx(0, 28, 28),
        idx(2**31, 28, 28, data=b""),
        idx(3, 28, 28)[:-1],
        idx(3, 28, 28) + b"\0",
    ],
)
def test_a_malformed_idx_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    write_set(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ConfigError, match="t10k-images-idx3") as caught:
        images.load_fashion_mnist(tmp_path)
    assert "data.path" in (caught.value.hint or "")


def test_broken_archives_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    file = tmp_path / "train-labels-idx1-ubyte.gz"
    whole = file.read_bytes()
    for broken in (b"", b"not gzip", whole[:-5], whole[:20] + b"\xff\xff\xff\xff" + whole[24:]):
        file.write_bytes(broken)
        with pytest.raises(ConfigError, match="train-labels"):
            images.load_fashion_mnist(tmp_path)
    file.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        images.load_fashion_mnist(tmp_path)


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for labels in (idx(4), idx(3, data=bytes((0, 1, 10)))):
        write_set(tmp_path)
        (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
        with pytest.raises(ConfigError, match="labels"):
            images.load_fashion_mnist(tmp_path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(images.IMAGES_MAX * 4)))
    with pytest.raises(ConfigError, match="more than"):
        images.load_fashion_mnist(tmp_path)


@given(st.binary(max_size=64))
def test_no_bytes_raise_anything_but_a_config_error(data: bytes) -> None:
    try:
        images.parse_idx(data, (2, 2), "x")
    except ConfigError:
        pass


@pytest.mark.slow
def test_digits_are_read_without_importing_scikit_learn() -> None:
    code = (
        "import sys; from ubcp_p2p.models import images; d = images.load_digits();"
        "assert d.train.shape == (1437, 8, 8) and d.held_out.shape == (360, 8, 8);"
        "assert not {'torch', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_digits_are_whole_and_can_be_enlarged() -> None:
    small, large = images.load_digits(), images.load_digits(28)
    assert sorted(np.unique(small.train_labels).tolist()) == list(range(10))
    assert small.train.max() == 255
    assert large.train.shape == (1437, 28, 28)
    assert np.array_equal(large.train[:, 2:26:3, 2:26:3], small.train)
    assert not large.train[:, :2].any()


@pytest.mark.skipif(not FASHION.exists(), reason="Fashion-MNIST is not installed (Debian: dataset-fashion-mnist)")
@pytest.mark.slow
def test_the_real_fashion_mnist() -> None:
    data = images.load_fashion_mnist(FASHION)
    assert data.train.shape == (60_000, 28, 28)
    assert data.held_out.shape == (10_000, 28, 28)
    assert np.bincount(data.train_labels).tolist() == [6000] * 10
