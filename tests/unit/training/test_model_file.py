"""The file of a fetched model: the safetensors library reads it, it is whole or not there, nothing else is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.training.checkpoint import head
from ubcp_p2p.training.model_file import Facts, read_facts, write

FACTS = Facts(
    run='plays "é"', run_id="12" * 32, recipe="tiny", recipe_hash="34" * 32, recipe_toml="name = 1\n", round=7,
    rounds=9, state_hash="56" * 32, certificate="78" * 900,
)  # fmt: skip
STATE = np.arange(700_000, dtype="<f4")  # more than one block


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, FACTS, STATE.data.cast("B"))
    with safe_open(path, framework="numpy") as file:
        assert (list(file.keys()), file.metadata()["round"]) == (["state"], "7")
        np.testing.assert_array_equal(file.get_tensor("state"), STATE)
    assert read_facts(path) == FACTS
    assert path.stat().st_mode & 0o777 == 0o600
    write(path, replace(FACTS, round=8), STATE[:4].data.cast("B"))
    assert read_facts(path).round == 8
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(LocalIOError):
        write(tmp_path / "none" / "a", FACTS, memoryview(b""))


def _head(**changes: str) -> bytes:
    known = {"format": "ubcp/model/1", **{name: str(value) for name, value in vars(FACTS).items()}}
    return head({"state": 0}, known | changes)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 8, b"\xff" * 8, (3).to_bytes(8, "little") + b"[1]", (2).to_bytes(8, "little") + b"{}",
        (1 << 20).to_bytes(8, "little") + b"[" * 100_000, (2 << 20).to_bytes(8, "little") + b" " * (2 << 20),
        head({"state": 1}, {"format": "ubcp/model/1"}), _head(round="x"), _head(format="ubcp/checkpoint/1"),
        _head()[:-40],
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(_head())
    assert read_facts(path) == FACTS
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="is no model"):
        read_facts(path)
