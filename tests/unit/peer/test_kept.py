"""The files of the runs that a node is in: read back whole, or refused in words; never an exception of another kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ubcp_p2p.errors import LocalIOError
from ubcp_p2p.models.recipe import load_recipe
from ubcp_p2p.peer.kept import FILE_BYTES_MAX, KeptRun, RunOptions, forget, keep, kept_runs

RECIPE = load_recipe("digits-tiny")
RUN = KeptRun("plays – zwölf", RECIPE, RunOptions(peers_min=3, checkpoint_every_s=0.0, new=True))


def kept_file(folder: Path, run: KeptRun = RUN) -> Path:
    keep(folder, run)
    (path,) = folder.iterdir()
    return path


def test_a_run_is_kept_whole_and_forgotten(tmp_path: Path) -> None:
    path = kept_file(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept_runs(tmp_path, 16) == ([RUN], [])
    forget(tmp_path, RUN.name)
    forget(tmp_path, RUN.name)
    assert kept_runs(tmp_path, 16) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_a_name_has_one_run(tmp_path: Path) -> None:
    keep(tmp_path, RUN)
    other = KeptRun(RUN.name, load_recipe("shakespeare-nano"), RunOptions())
    keep(tmp_path, other)
    assert kept_runs(tmp_path, 16) == ([other], [])


def test_checkpoints_beside_them_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / ("ab" * 16)).mkdir()
    (tmp_path / ".half.json.1234.tmp").write_text("{")
    assert kept_runs(tmp_path, 16) == ([], [])
    assert kept_runs(tmp_path / "missing", 16) == ([], [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "ubcp/kept-run/2", "more": 1}, "another version of ubcp (format ubcp/kept-run/2, not"),
        ({"format": "nonsense"}, "damaged"),
        ({"format": 1}, "damaged"),
        ({"name": "another"}, "the file of another run"),
        ({"name": "a\nb"}, "another run"),
        ({"recipe": "name = 1"}, "its recipe: "),
        ({"recipe": "x" * 100_000}, "at most 65536 bytes"),
        ({"peers_min": 0}, "damaged"),
        ({"peers_min": True}, "damaged"),
        ({"checkpoint_every_s": -1.0}, "damaged"),
        ({"checkpoint_every_s": float("nan")}, "damaged"),
        ({"new": "yes"}, "damaged"),
        ({"unknown": 1}, "damaged"),
    ],
)  # fmt: skip
def test_what_is_not_sound_is_said_once(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = kept_file(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    runs, (fault,) = kept_runs(tmp_path, 16)
    assert runs == []
    assert fault.startswith(f"the run kept in {path} is not resumed: ")
    assert words in fault
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 100_000, b"\xff", b" " * (FILE_BYTES_MAX + 1)])
def test_garbage_is_said_once(tmp_path: Path, content: bytes) -> None:
    kept_file(tmp_path).write_bytes(content)
    runs, faults = kept_runs(tmp_path, 16)
    assert (runs, len(faults)) == ([], 1)


def test_a_folder_in_the_place_of_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    assert len(kept_runs(tmp_path, 16)[1]) == 1


@settings(max_examples=100)
@given(st.data())
def test_damage_anywhere_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = kept_file(tmp_path_factory.mktemp("kept"))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    runs, faults = kept_runs(path.parent, 16)
    assert len(runs) + len(faults) == 1


def test_so_many_and_no_more(tmp_path: Path) -> None:
    for number in range(5):
        keep(tmp_path, KeptRun(f"run {number}", RECIPE, RunOptions()))
    runs, faults = kept_runs(tmp_path, 3)
    assert len(runs) == 3
    assert len(faults) == 2
    assert all("a node resumes 3" in fault for fault in faults)


def test_a_profile_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(LocalIOError):
        keep(tmp_path / "missing", RUN)
    with pytest.raises(LocalIOError):
        forget(Path("/dev/null"), RUN.name)
