"""Checkpoints: whole or absent, the last K, the next older one when the newest is damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.training.checkpoint import Checkpoint, newest, write
from ubcp_p2p.training.state import state_hash

RUN, RECIPE = bytes(range(32)), bytes(32)
LENGTHS = {"exp_avg": 3, "exp_avg_sq": 3}


def made(round: int, fill: float = 1.0) -> Checkpoint:
    state = np.full(6, fill, dtype="<f4")
    vectors = {name: np.arange(length, dtype="<f4") + round for name, length in LENGTHS.items()}
    digest = state_hash(RUN, round, state.data)
    return Checkpoint(RUN, RECIPE, round, state, digest, 10 * round, vectors, {"certificate": "ab" * 100})


def read(folder: Path) -> tuple[Path | None, Checkpoint | None, tuple[str, ...]]:
    return newest(folder, RUN, RECIPE, 6, LENGTHS)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_reads_back_to_the_bit_and_is_safetensors(tmp_path: Path) -> None:
    written = made(7)
    path = write(tmp_path / "new" / "folder", 3, written)
    assert path.name == "round-00000007.safetensors"
    assert path.stat().st_mode & 0o777 == 0o600
    tensors = load_file(path)
    assert tensors["state"].tobytes() == written.state.tobytes()
    found_path, found, facts = read(path.parent)
    assert (found_path, facts) == (path, ())
    assert found is not None
    assert (found.round, found.inner_steps, found.state_hash) == (7, 70, written.state_hash)
    assert found.extra == written.extra
    assert found.state.tobytes() == written.state.tobytes()
    assert {k: v.tobytes() for k, v in found.inner_vectors.items()} == {
        k: v.tobytes() for k, v in written.inner_vectors.items()
    }


def test_none_is_none(tmp_path: Path) -> None:
    assert read(tmp_path) == (None, None, ())
    assert read(tmp_path / "missing") == (None, None, ())


def test_keeps_the_last_k_and_sets_an_abandoned_future_aside(tmp_path: Path) -> None:
    for round in range(1, 6):
        write(tmp_path, 3, made(round))
    assert names(tmp_path) == [f"round-0000000{i}.safetensors" for i in (3, 4, 5)]
    write(tmp_path, 3, made(4, fill=2.0))  # the run went back
    assert names(tmp_path) == [
        "round-00000003.safetensors",
        "round-00000004.safetensors",
        "round-00000005.safetensors.abandoned",
    ]
    _, found, _ = read(tmp_path)
    assert found is not None
    assert found.state[0] == 2.0


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_falls_back_to_the_older_one(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    write(folder, 3, made(1))
    path = write(folder, 3, made(2))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found_path, found, facts = read(folder)
    except ConfigError:  # the damage hit the run's name: refused, and nothing is lost
        assert names(folder) == ["round-00000001.safetensors", "round-00000002.safetensors"]
        return
    assert found is not None
    if found.round == 2:  # it hit a space, or an extra string, which is the caller's to check
        assert found.state.tobytes() == made(2).state.tobytes()
        assert {k: v.tobytes() for k, v in found.inner_vectors.items()} == {
            k: v.tobytes() for k, v in made(2).inner_vectors.items()
        }
    else:
        assert found_path == folder / "round-00000001.safetensors"
        assert len(facts) == 1
        assert "round-00000002.safetensors is damaged" in facts[0]
        assert "round-00000002.safetensors.corrupt" in names(folder)


def test_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    write(tmp_path, 3, made(1))
    before = names(tmp_path)
    with pytest.raises(ConfigError, match="another run") as caught:
        newest(tmp_path, bytes(32), RECIPE, 6, LENGTHS)
    assert caught.value.hint
    with pytest.raises(ConfigError):
        newest(tmp_path, RUN, RUN, 6, LENGTHS)
    assert names(tmp_path) == before


def rewritten(path: Path, old: bytes, new: bytes) -> None:
    """Change as many bytes of the header's JSON, as another version or a broken disk would have them."""
    assert len(old) == len(new)
    path.write_bytes(path.read_bytes().replace(old, new))


def test_one_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    write(tmp_path, 3, made(1))
    rewritten(write(tmp_path, 3, made(2)), b"ubcp/checkpoint/1", b"ubcp/checkpoint/2")
    before = names(tmp_path)
    with pytest.raises(ConfigError, match=r"another version of ubcp \(format ubcp/checkpoint/2") as caught:
        read(tmp_path)
    assert caught.value.hint
    assert names(tmp_path) == before


@pytest.mark.parametrize("format", [b"ubcp/checkpoint/x", b"ubcq/checkpoint/1"])
def test_a_garbled_format_is_damage(tmp_path: Path, format: bytes) -> None:
    rewritten(write(tmp_path, 3, made(1)), b"ubcp/checkpoint/1", format)
    _, found, facts = read(tmp_path)
    assert found is None
    assert "it is not of format" in facts[0]


def test_other_shapes_are_damage(tmp_path: Path) -> None:
    write(tmp_path, 3, made(1))
    path, found, facts = newest(tmp_path, RUN, RECIPE, 7, LENGTHS)
    assert (path, found) == (None, None)
    assert "another type or shape" in facts[0]


def test_extra_has_limits(tmp_path: Path) -> None:
    for extra in ({"round": "1"}, {"a": "x" * 40_000}, {str(i): "" for i in range(17)}):
        spoilt = made(1)
        with pytest.raises(ConfigError):
            write(tmp_path, 3, Checkpoint(**{**vars(spoilt), "extra": extra}))
    assert names(tmp_path) == []


def test_a_trainer_killed_while_it_wrote_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path, 3, made(1))
    (tmp_path / ".round-00000002.safetensors.99.tmp").write_bytes(b"half")
    read(tmp_path)
    assert names(tmp_path) == ["round-00000001.safetensors"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalIOError) as caught:
        write(tmp_path / "file" / "checkpoints", 3, made(1))
    assert caught.value.hint


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from ubcp_p2p.errors import LocalIOError
from ubcp_p2p.training.checkpoint import Checkpoint, write
folder = Path(sys.argv[1])
def made(round, values):
    return Checkpoint(bytes(32), bytes(32), round, np.ones(values, dtype="<f4"), bytes(32), 0, {}, {})
write(folder, 3, made(1, 100))
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    write(folder, 3, made(2, 100_000))
except LocalIOError as error:
    print(error.message, "|", error.hint)
"""


WRITER = """
import sys
from pathlib import Path
import numpy as np
from ubcp_p2p.training.checkpoint import Checkpoint, write
from ubcp_p2p.training.state import state_hash
run, state = bytes(range(32)), np.ones(500_000, dtype="<f4")
for round in range(1, 10_000):
    write(Path(sys.argv[1]), 2, Checkpoint(run, bytes(32), round, state, state_hash(run, round, state.data), 0, {}, {}))
    print(round, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 3, 8])
def test_a_kill_at_any_moment_leaves_a_sound_checkpoint(tmp_path: Path, lines: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(lines)]
    writer.kill()  # it is writing the next one
    rest, _ = writer.communicate()
    last = int((said + rest.split())[-1])
    path, found, facts = newest(tmp_path, RUN, RECIPE, 500_000, {})
    assert found is not None
    assert found.round in (last, last + 1)
    assert facts == ()
    assert path is not None
    assert set(names(tmp_path)) <= {f"round-{found.round - i:08d}.safetensors" for i in range(3)}


def fill(folder: Path, how: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder), how], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@pytest.mark.slow
def test_a_file_size_limit_leaves_the_old_one_intact(tmp_path: Path) -> None:
    said = fill(tmp_path, "limit")
    assert "cannot write the checkpoint" in said
    assert "File too large" in said
    assert names(tmp_path) == ["round-00000001.safetensors"]


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_one_intact(tmp_path: Path) -> None:
    mount = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"mounting a small file system needs root: {mount.stderr.strip()}")
    try:
        said = fill(tmp_path, "full")
        assert "No space left on device" in said
        assert "0.4 MB" in said
        assert names(tmp_path) == ["round-00000001.safetensors"]
    finally:
        subprocess.run(["/bin/umount", str(tmp_path)], check=True)


def test_a_folder_in_the_place_of_a_checkpoint_is_said(tmp_path: Path) -> None:
    (tmp_path / "round-00000009.safetensors").mkdir()
    with pytest.raises(LocalIOError):
        read(tmp_path)
