"""Profiles: the lock between real processes, the private directory for sockets, files whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.files import atomic_write, create_new, read_limited
from ubcp_p2p.peer.profile import RUNTIME_DIR_BYTES_MAX, Profile, ProfileLock, read_holder, runtime_dir

HOLD = """
import sys
from pathlib import Path
from ubcp_p2p.peer.profile import Profile, ProfileLock
with ProfileLock(Profile(Path(sys.argv[1])), Path("/run/x")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    made = Profile(tmp_path / "profile")
    made.make()
    return made


def test_make_is_private_and_repeatable(profile: Profile) -> None:
    profile.make()
    for path in (profile.root, profile.runs, profile.log):
        assert path.stat().st_mode & 0o777 == 0o700


def test_a_profile_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalIOError, match="cannot make the profile") as caught:
        Profile(tmp_path / "file" / "profile").make()
    assert "--profile" in str(caught.value.hint)


def test_require_names_the_remedy(profile: Profile) -> None:
    with pytest.raises(ConfigError, match=r"node\.key is missing") as caught:
        profile.require()
    assert str(caught.value.hint) == f"ubcp init --profile {profile.root}"


def test_a_second_process_is_refused_and_a_killed_one_frees_the_profile(profile: Profile) -> None:
    command = [sys.executable, "-c", HOLD, str(profile.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LocalIOError, match=f"in use by process {holder.pid}") as caught:
            ProfileLock(profile).acquire()
        assert "ubcp stop" in str(caught.value.hint)
        found = read_holder(profile)
        assert found is not None
        assert (found.pid, found.runtime_dir) == (holder.pid, Path("/run/x"))
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert read_holder(profile) is None
    with ProfileLock(profile):
        found = read_holder(profile)
        assert found is not None
        assert found.pid == os.getpid()
    assert read_holder(profile) is None


def test_looking_never_makes_a_starting_daemon_fail(profile: Profile) -> None:
    loop = (
        "import sys\nfrom pathlib import Path\nfrom ubcp_p2p.peer.profile import Profile, read_holder\n"
        "profile = Profile(Path(sys.argv[1]))\nprint('on', flush=True)\nwhile True: read_holder(profile)\n"
    )
    command = [sys.executable, "-c", loop, str(profile.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as looker:
        try:
            assert looker.stdout is not None
            looker.stdout.readline()
            for _ in range(50):
                with ProfileLock(profile):
                    pass
        finally:
            looker.kill()


def test_the_lock_without_a_profile(tmp_path: Path) -> None:
    absent = Profile(tmp_path / "absent")
    assert read_holder(absent) is None
    with pytest.raises(ConfigError, match="no profile"):
        ProfileLock(absent).acquire()


def test_a_garbled_lock_file_is_no_holder(profile: Profile) -> None:
    with ProfileLock(profile):
        for garbage in (b"", b"x", b"[]", b'{"pid": "x", "runtime_dir": 5}', b'{"pid": 5}', b"\xff"):
            profile.lock_file.write_bytes(garbage)
            assert read_holder(profile) is None


def test_the_runtime_dir(profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "r"
    base.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    path = runtime_dir(profile)
    fits = len(os.fsencode(base / "ubcp-00000000")) <= RUNTIME_DIR_BYTES_MAX
    try:
        assert path.parent == (base if fits else Path("/tmp"))
        assert len(os.fsencode(path)) <= RUNTIME_DIR_BYTES_MAX
        assert path.stat().st_mode & 0o777 == 0o700
        assert runtime_dir(profile) == path
        link = tmp_path / "link"
        link.symlink_to(profile.root)
        assert runtime_dir(Profile(link)) == path, "one profile, whatever it is called"
    finally:
        path.rmdir()


def test_a_runtime_dir_of_somebody_else_is_refused(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    path = runtime_dir(profile)
    assert path.name.startswith(f"ubcp-{os.geteuid()}-")
    try:
        path.chmod(0o755)
        with pytest.raises(LocalIOError, match="only this user"):
            runtime_dir(profile)
        path.rmdir()
        path.symlink_to(profile.root)
        with pytest.raises(LocalIOError, match="only this user"):
            runtime_dir(profile)
        path.unlink()
        path.write_text("")
        with pytest.raises(LocalIOError, match="only this user"):
            runtime_dir(profile)
        path.unlink()
        if os.geteuid() == 0:
            path.mkdir(mode=0o700)
            os.chown(path, 12345, 12345)
            with pytest.raises(LocalIOError, match="only this user"):
                runtime_dir(profile)
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def test_atomic_write_and_create_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    old_umask = os.umask(0o777)
    try:
        atomic_write(path, b"one", mode=0o640)
    finally:
        os.umask(old_umask)
    assert path.stat().st_mode & 0o777 == 0o640
    atomic_write(path, b"two")
    with pytest.raises(FileExistsError):
        create_new(path, b"three", mode=0o600)
    assert read_limited(path, bytes_max=3) == b"two"
    with pytest.raises(LocalIOError, match="more than 2 bytes"):
        read_limited(path, bytes_max=2)
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(LocalIOError, match="no plain file"):
        read_limited(pipe, bytes_max=10)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    # The kernel's limit on file size stands for the full disk: the write fails half way.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(LocalIOError, match="cannot write"):
            atomic_write(path, bytes(5000))
        with pytest.raises(LocalIOError, match="cannot write"):
            create_new(tmp_path / "new", bytes(5000), mode=0o600)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
