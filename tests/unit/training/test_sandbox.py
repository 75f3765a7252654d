"""The layers of the sandbox, each alone in a process of its own: what it refuses, leaves, and what is told of it."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ubcp_p2p.training.sandbox import landlock, reach, rlimits, seccomp
from ubcp_p2p.training.sandbox.enter import enter
from ubcp_p2p.training.sandbox.landlock import DEVICE, KEEP, READ, WRITE, Grant
from ubcp_p2p.training.sandbox.values import SandboxSpec

needs_landlock = pytest.mark.skipif(landlock.version() < 4, reason="this kernel has no Landlock, or no TCP in it")
needs_seccomp = pytest.mark.skipif(seccomp.load() is None, reason=f"{seccomp.LIBRARY} is not installed here")

PRELUDE = """
import ctypes, errno, json, os, socket, subprocess, sys
from pathlib import Path
from ubcp_p2p.training.sandbox import landlock, reach, rlimits, seccomp
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)  # no_new_privs
def attempt(name, action):
    try:
        action()
        seen[name] = "done"
    except OSError as error:
        seen[name] = errno.errorcode[error.errno]
seen = {}
"""


def alone(code: str, *arguments: str) -> dict[str, str]:
    """What a fresh interpreter that runs `code` has put into `seen`."""
    command = [sys.executable, "-c", f"{PRELUDE}{code}\nprint(json.dumps(seen))", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, str] = json.loads(done.stdout)
    return seen


FILES = """
base, granted = Path(sys.argv[1]), sys.argv[2] == "granted"
server = socket.create_server(("127.0.0.1", 0))
if granted:
    landlock.restrict([landlock.Grant(base / "read", landlock.READ), landlock.Grant(base / "keep", landlock.KEEP),
                       landlock.Grant(base / "nowhere", landlock.READ), landlock.Grant(base / "one", landlock.READ)])
attempt("read", lambda: (base / "read" / "file").read_bytes())
attempt("one", lambda: (base / "one").read_bytes())
attempt("beside", lambda: (base / "two").read_bytes())
attempt("list", lambda: os.listdir(base))
attempt("write", lambda: (base / "read" / "file").write_bytes(b"x"))
attempt("make", lambda: (base / "read" / "new").write_bytes(b"x"))
attempt("keep", lambda: (base / "keep" / "new").write_bytes(b"x"))
attempt("replace", lambda: os.replace(base / "keep" / "new", base / "keep" / "newer"))
attempt("remove", lambda: os.unlink(base / "keep" / "newer"))
attempt("link out", lambda: (base / "keep" / "link").read_bytes())
attempt("symlink", lambda: os.symlink(base / "two", base / "keep" / "made"))
attempt("folder", lambda: os.mkdir(base / "keep" / "folder"))
attempt("run", lambda: subprocess.run(["/bin/true"], close_fds=False))
attempt("connect", lambda: socket.create_connection(server.getsockname()[:2]))
attempt("listen", lambda: socket.create_server(("127.0.0.1", 0)))
attempt("memory", lambda: os.ftruncate(os.memfd_create("x"), 8))
"""
REFUSED_FILES = {"beside", "list", "write", "make", "link out", "symlink", "folder", "run", "connect", "listen"}


@needs_landlock
def test_landlock_leaves_what_was_granted_and_nothing_else(tmp_path: Path) -> None:
    for name in ("ungranted", "granted"):
        base = tmp_path / name
        for folder in ("read", "keep"):
            (base / folder).mkdir(parents=True)
        for file in ("read/file", "one", "two"):
            (base / file).write_bytes(b"x")
        (base / "keep" / "link").symlink_to(base / "two")
        seen = alone(FILES, str(base), name)
        refused = REFUSED_FILES if name == "granted" else set()
        assert {what for what, outcome in seen.items() if outcome == "EACCES"} == refused
        assert {outcome for what, outcome in seen.items() if what not in refused} == {"done"}


CALLS = """
library = seccomp.load()
numbers = {name: library.seccomp_syscall_resolve_name(name.encode()) for name in seccomp.REFUSED}
numbers = {name: number for name, number in numbers.items() if number >= 0}
numbers |= {str(number): number for number in seccomp.REFUSED_NUMBERS} | {"clone3": 435}
seccomp.restrict(library, cuda=False)
for name, number in numbers.items():
    seen[name] = errno.errorcode[ctypes.get_errno()] if libc.syscall(number, -1, -1, -1, -1, -1, -1) == -1 else "done"
"""


@needs_seccomp
def test_seccomp_refuses_every_call_of_its_lists() -> None:
    seen = alone(CALLS)
    assert len(seen) > 80
    assert seen.pop("clone3") == "ENOSYS"  # the C library then asks for a thread in the older way
    assert set(seen.values()) == {"EPERM"}


SOCKETS = """
base = Path(sys.argv[1])
listening, talking = (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
server, dialling = socket.create_server(("127.0.0.1", 0)), socket.socket()
kinds = [(family, kind) for family in (1, 2, 10, 16) for kind in (1, 2, 3, 5)]
library = seccomp.load()
landlock.restrict([landlock.Grant(base, landlock.KEEP)])
seccomp.restrict(library, cuda=True)
for family, kind in kinds:
    for flags in (0, socket.SOCK_CLOEXEC):
        attempt(f"{family} {kind} {flags}", lambda: socket.socket(family, kind | flags))
attempt("pair", socket.socketpair)
attempt("bind a name", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind(f"\\0ubcp-test-{os.getpid()}"))
attempt("bind a file", lambda: listening.bind(str(base / "socket")))
attempt("listen", listening.listen)
attempt("accept", listening.accept)
attempt("connect", lambda: talking.connect(str(base / "daemon")))
attempt("connect by TCP", lambda: dialling.connect(server.getsockname()))
"""


@needs_seccomp
@needs_landlock
def test_with_a_gpu_a_process_may_listen_on_this_machine_and_speak_to_nobody(tmp_path: Path) -> None:
    """CUDA's driver does not begin without."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
        daemon.bind(str(tmp_path / "daemon"))
        daemon.listen()
        seen = alone(SOCKETS, str(tmp_path))
    done = {what for what, outcome in seen.items() if outcome == "done"}
    assert done == {"1 5 0", f"1 5 {socket.SOCK_CLOEXEC}", "bind a name"} | ({"listen"} & done)
    assert {outcome for what, outcome in seen.items() if what not in done} <= {"EPERM", "EACCES", "EINVAL"}
    assert {seen[what] for what in ("accept", "connect", "connect by TCP", "pair", "2 2 0")} == {"EPERM"}


@needs_seccomp
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 calls are those of an x86-64 kernel")
def test_a_call_by_another_architectures_number_ends_the_process() -> None:
    """x32's calls have numbers of their own, which the lists do not name."""
    code = f"{PRELUDE}seccomp.restrict(seccomp.load(), cuda=True)\nlibc.syscall(0x40000000 + 41, 1, 1, 0)"  # socket
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGSYS, done.stderr


@needs_seccomp
@pytest.mark.parametrize("token", [0xC000003E, 0xC00000B7], ids=["x86-64", "aarch64"])
def test_libseccomp_knows_every_name_on_both_architectures(token: int) -> None:
    """-1 is an unknown name; other negative numbers are names that an architecture does without (fork on aarch64)."""
    library = seccomp.load()
    assert library is not None
    resolve = library.seccomp_syscall_resolve_name_arch
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    names = {*seccomp.REFUSED, "clone3", *(condition.name for condition in seccomp.conditions(1, cuda=True))}
    numbers = {name: resolve(token, name.encode()) for name in names}
    assert [name for name, number in numbers.items() if number == -1] == []
    present = {name for name, number in numbers.items() if number >= 0}
    assert {"socket", "connect", "execve", "clone", "clone3", "kill", "ptrace", "io_uring_setup", "prctl"} <= present


SUPPOSED = """
seccomp.LIBRARY = "libseccomp.so.of-nobody"
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.training.sandbox.enter import enter
from ubcp_p2p.training.sandbox.values import SandboxSpec
layers = enter(SandboxSpec("auto"), Path(sys.argv[1]), "cpu")
seen = {layer.name: f"{layer.active} {layer.words} {layer.remedy}" for layer in layers}
try:
    enter(SandboxSpec("required"), Path(sys.argv[1]), "cpu")
except ConfigError as error:
    seen["required"] = f"{error.message} {error.hint}"
"""


def test_a_missing_library_is_told_with_its_remedy_and_refused_where_it_is_required(tmp_path: Path) -> None:
    seen = alone(SUPPOSED, str(tmp_path))
    assert seen["calls"].startswith("False libseccomp.so.of-nobody is not installed")
    assert "apt install libseccomp2" in seen["calls"]
    assert seen["limits"].startswith("True") and seen["privileges"].startswith("True")
    assert "calls: libseccomp.so.of-nobody is not installed" in seen["required"]
    assert 'training.sandbox = "auto"' in seen["required"]


@needs_landlock
def test_a_profile_among_what_a_trainer_has_to_read_is_told(tmp_path: Path) -> None:
    """Landlock takes nothing back beneath a folder that it has granted."""
    code = """
from ubcp_p2p.training.sandbox.enter import enter
from ubcp_p2p.training.sandbox.values import SandboxSpec
run = Path(sys.argv[1]) / "profile" / "runs" / "r"
layers = enter(SandboxSpec("auto", read_dirs=(Path(sys.argv[1]),)), run, "cpu")
seen = {layer.name: f"{layer.active} {layer.words}" for layer in layers}
"""
    assert alone(code, str(tmp_path))["files"].startswith(f"False holds in part: it may read {tmp_path}, where")


def test_off_changes_nothing_of_the_process(tmp_path: Path) -> None:
    before = Path("/proc/self/status").read_text().split("NoNewPrivs")[1].splitlines()[:2]
    layers = enter(SandboxSpec("off"), tmp_path / "run", "cpu")
    assert [layer.active for layer in layers] == [False] * 4
    assert {layer.words for layer in layers} == {'switched off by this machine\'s owner: training.sandbox = "off"'}
    assert Path("/proc/self/status").read_text().split("NoNewPrivs")[1].splitlines()[:2] == before
    assert not (tmp_path / "run").exists()


def granted(grants: Sequence[Grant], path: Path, rights: int) -> bool:
    return any(path.is_relative_to(grant.path) and grant.rights & rights == rights for grant in grants)


def test_the_trainer_reaches_its_program_and_run_but_no_home_and_no_source_tree(tmp_path: Path) -> None:
    source = Path(reach.__file__).resolve().parents[3]
    grants = reach.grants(tmp_path / "profile" / "runs" / "r", (tmp_path / "data",), "cpu", cuda=False)
    for path in (Path(json.__file__), Path(pytest.__file__), Path(reach.__file__), tmp_path / "data" / "x"):
        assert granted(grants, path, READ), path
    for path in (Path("/home"), Path.home() / ".ssh", Path("/etc/shadow"), Path("/tmp"), Path("/proc"), Path("/dev"),
                 Path("/dev/nvidia0"), Path("/dev/shm"), source / "x", tmp_path / "profile" / "node.key"):  # fmt: skip
        assert not granted(grants, path, READ), path
    assert [grant.path for grant in grants if grant.rights & KEEP == KEEP] == [tmp_path / "profile" / "runs" / "r"]


def test_a_gpu_that_is_not_used_is_told(tmp_path: Path) -> None:
    assert reach.unused_gpu("auto", "cpu (2 threads)", tmp_path) is None
    (tmp_path / "nvidiactl").touch()
    assert reach.unused_gpu("auto", "cpu (2 threads)", tmp_path) is None  # a driver without a GPU
    (tmp_path / "nvidia0").touch()
    assert f"{tmp_path}/nvidia0 is there" in str(reach.unused_gpu("auto", "cpu (2 threads)", tmp_path))
    assert reach.unused_gpu("cpu", "cpu (2 threads)", tmp_path) is None
    assert reach.unused_gpu("auto", "cuda:0 (some GPU)", tmp_path) is None


def test_a_gpu_that_is_not_used_is_seen_from_inside(tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "nvidia3").touch()  # as a container sees one of several
    code = """
from ubcp_p2p.training.sandbox.enter import enter
from ubcp_p2p.training.sandbox.values import SandboxSpec
enter(SandboxSpec("auto"), Path(sys.argv[1]) / "run", "auto")
seen = {"words": reach.unused_gpu("auto", "cpu (1 thread)", Path(sys.argv[1]) / "devices")}
"""
    assert f"{tmp_path}/devices/nvidia3 is there" in alone(code, str(tmp_path))["words"]


def test_who_may_use_a_gpu_is_who_asks_for_one_where_one_is(tmp_path: Path) -> None:
    assert not any(reach.may_use_cuda(device, tmp_path) for device in ("auto", "cuda:1", "cpu"))
    (tmp_path / "nvidia0").touch()
    (tmp_path / "dri").mkdir()
    assert [reach.may_use_cuda(device, tmp_path) for device in ("auto", "cuda:1", "cpu")] == [True, True, False]


def test_device_files_of_gpus_are_granted_to_those_who_may_use_one(tmp_path: Path) -> None:
    for device, rights in (("auto", DEVICE), ("cuda:1", DEVICE), ("cpu", 0)):
        grants = reach.grants(tmp_path, (), device, cuda=False)
        assert [grant.rights for grant in grants if grant.path == Path("/dev/dri")] == ([rights] if rights else [])


def test_a_gpus_driver_may_name_its_threads(tmp_path: Path) -> None:
    """Its files are granted by their names (what is not there, is not); /proc/…/comm it must be able to write."""
    names = Path(f"/proc/{os.getpid()}/task")
    for cuda in (True, False):
        grants = reach.grants(tmp_path, (), "cuda:0", cuda=cuda)
        assert granted(grants, names / "1" / "comm", WRITE) == cuda
        assert not granted(grants, Path("/proc/1/task"), READ)
    code = """
landlock.restrict(reach.grants(Path(sys.argv[1]), (), "cpu", cuda=True))
attempt("name", lambda: Path("/proc/self/comm").write_bytes(b"x"))
attempt("name of a thread", lambda: Path(f"/proc/self/task/{os.getpid()}/comm").write_bytes(b"x"))
attempt("another's", lambda: Path(f"/proc/{os.getppid()}/task/{os.getppid()}/comm").write_bytes(b"x"))
"""
    seen = alone(code, str(tmp_path))
    assert seen.pop("name of a thread") == "done"
    assert set(seen.values()) == {"EACCES"}


def test_memory_is_what_the_owner_says_or_most_of_the_machine() -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert rlimits.memory_bytes(1000) == 1000 * 2**20
    assert 0.79 * machine < rlimits.memory_bytes(0) <= 0.8 * machine


def test_of_roots_rights_one_is_left_and_no_program_brings_others() -> None:
    code = """
from ubcp_p2p.training.sandbox import privileges
privileges.give_up()
seen = dict(line.split(":\\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
"""
    own = int(Path("/proc/self/status").read_text().split("CapPrm:")[1].split()[0], 16)
    seen = alone(code)
    assert seen["NoNewPrivs"] == "1"
    assert int(seen["CapInh"], 16) == 0
    assert int(seen["CapEff"], 16) == int(seen["CapPrm"], 16) == own & 2  # CAP_DAC_OVERRIDE


def test_limits_are_not_raised_again_and_dumps_are_off() -> None:
    code = """
import resource
from ubcp_p2p.training.sandbox import privileges
privileges.give_up()  # root may raise limits
rlimits.restrict(512 * rlimits.MIB)
rlimits.restrict(256 * rlimits.MIB)
rlimits.restrict(1024 * rlimits.MIB)
try:
    resource.setrlimit(resource.RLIMIT_DATA, (512 * rlimits.MIB, 512 * rlimits.MIB))
except ValueError:
    pass
seen = {"data": str(resource.getrlimit(resource.RLIMIT_DATA)), "core": str(resource.getrlimit(resource.RLIMIT_CORE)),
        "first to go": Path("/proc/self/oom_score_adj").read_text().strip()}
"""
    assert alone(code) == {"data": str((256 * 2**20, 256 * 2**20)), "core": "(0, 0)", "first to go": "1000"}
