"""The instance directory is gone however its process ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import until
from ubcp_p2p.peer.sweeper import instance_dir

HOLDER = """
import sys
from pathlib import Path
from ubcp_p2p.peer.sweeper import instance_dir
with instance_dir(Path(sys.argv[1])) as directory:
    (directory / "a.sock").touch()
    (directory / "deep").mkdir()
    (directory / "deep" / "b").touch()
    print(directory, flush=True)
    sys.stdin.read()
"""


def test_it_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with instance_dir(tmp_path) as directory:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (directory / "a.sock").touch()
    assert not directory.exists()


def test_two_have_two_and_one_that_ends_leaves_the_others(tmp_path: Path) -> None:
    with instance_dir(tmp_path) as first:
        with instance_dir(tmp_path) as second:
            assert first != second
        assert first.exists()


def test_it_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), instance_dir(tmp_path) as directory:
        raise RuntimeError
    assert not directory.exists()


def test_a_parent_that_cannot_be_made_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), instance_dir(tmp_path / "missing" / "deeper"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_is_gone_when_the_process_is_killed(tmp_path: Path, ending: signal.Signals) -> None:
    parent = tmp_path / "it's $(odd) name; -rf"
    parent.mkdir()
    beside = tmp_path / "beside"
    beside.touch()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    directory = Path(process.stdout.readline().decode().strip())
    assert (directory / "deep" / "b").exists()
    os.kill(process.pid, ending)
    process.wait()
    until(lambda: not parent.exists(), 10.0, "directory and empty parent are gone")
    assert beside.exists()
    process.stdin.close()
    process.stdout.close()
