"""A profile: the directory of one node (keys, config, runs, logs), its lock, and its private directory for sockets."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.files import read_limited
from ubcp_p2p.peer.config import PeerConfig, runtime_base

RUNTIME_DIR_BYTES_MAX: Final = (
    60  # a unix socket's path has at most 108 (macOS 104) bytes; the rest is for socket names
)
_HOLDER_BYTES_MAX: Final = 4096
_LOCK_TRIES: Final = 10  # `read_holder` of another process takes the lock for some microseconds; wait those out
_LOCK_PAUSE_S: Final = 0.02


@dataclass(frozen=True)
class Profile:
    """Paths of one node; nothing is read or made by constructing it."""

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "config.toml"

    @property
    def account_key(self) -> Path:
        return self.root / "account.key"

    @property
    def node_key(self) -> Path:
        return self.root / "node.key"

    @property
    def owner_file(self) -> Path:
        return self.root / "owner.json"

    @property
    def peers_file(self) -> Path:
        return self.root / "peers.json"

    @property
    def ports_file(self) -> Path:
        return self.root / "ports.json"

    @property
    def pause_file(self) -> Path:
        return self.root / "pause.json"

    @property
    def seen_file(self) -> Path:
        """When requests came here, as far as that is later than they say."""
        return self.root / "seen.json"

    @property
    def lock_file(self) -> Path:
        return self.root / "lock"

    @property
    def ledger_store(self) -> Path:
        return self.root / "ledger.sqlite3"

    @property
    def new_file(self) -> Path:
        """There from the making of the node key until the node first opens a ledger."""
        return self.root / "new"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def paying(self) -> Path:
        """What this node owes as a paymaster, and the vouchers that it has been given."""
        return self.root / "paying"

    @property
    def log(self) -> Path:
        return self.root / "log"

    def make(self) -> None:
        """Make the directory (mode 0700) and runs/ and log/ in it, where missing. Raises LocalIOError."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.runs.mkdir(mode=0o700, exist_ok=True)
            self.log.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise LocalIOError(
                f"cannot make the profile {self.root}: {error.strerror}", hint="choose another place with --profile DIR"
            ) from None

    def require(self) -> None:
        """Raise ConfigError unless `ubcp init` has made this profile."""
        for path in (self.node_key, self.owner_file):
            if not path.exists():
                raise ConfigError(
                    f"no profile in {self.root}: {path.name} is missing", hint=f"ubcp init --profile {self.root}"
                )

    def config(self) -> PeerConfig:
        """The checked configuration; raises as `PeerConfig.load`."""
        return PeerConfig.load(self.config_file)


def runtime_dir(profile: Profile) -> Path:
    """The private directory for this profile's sockets, made with mode 0700 when missing.

    $XDG_RUNTIME_DIR/ubcp-<8 hex of the profile's real path>, or /tmp/ubcp-<uid>-<8 hex> where there is none or its path
    is too long. Raises LocalIOError when what lies there is not ours alone.
    """
    digest = hashlib.sha256(os.fsencode(os.path.realpath(profile.root))).hexdigest()[:8]
    base = runtime_base()
    path = base / f"ubcp-{digest}" if base else None
    if path is None or len(os.fsencode(path)) > RUNTIME_DIR_BYTES_MAX:
        # A foreseeable name in a shared directory: what is found there is checked below.
        path = Path(f"/tmp/ubcp-{os.geteuid()}-{digest}")  # noqa: S108
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise LocalIOError(
            f"cannot make {path}: {error.strerror}", hint="set XDG_RUNTIME_DIR to a directory of yours"
        ) from None
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise LocalIOError(
            f"{path} is not a directory that only this user may enter: somebody else may have made it",
            hint="remove it, or set XDG_RUNTIME_DIR to a directory of yours",
        )
    return path


@dataclass(frozen=True)
class Holder:
    """The process that holds a profile."""

    pid: int
    runtime_dir: Path | None  # where its sockets are: it may have another environment than the one who asks


class ProfileLock:
    """`with ProfileLock(profile, runtime_dir(profile)):` keeps a second process off the profile.

    The kernel frees the lock when the process ends, however it ends. `sockets` is for those who ask (`read_holder`).
    """

    def __init__(self, profile: Profile, sockets: Path | None = None) -> None:
        self._profile = profile
        self._sockets = sockets
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock and write who holds it. Raises LocalIOError with the holder's pid when it is taken."""
        fd = _open_lock(self._profile, os.O_RDWR | os.O_CREAT)
        try:
            if not _try_lock(fd, fcntl.LOCK_EX):
                holder = read_holder(self._profile)
                who = f"process {holder.pid}" if holder else "another process"
                raise LocalIOError(
                    f"the profile {self._profile.root} is in use by {who}",
                    hint=f"ubcp stop --profile {self._profile.root}, or use another --profile",
                )
            record = {"pid": os.getpid(), "runtime_dir": str(self._sockets) if self._sockets else None}
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(record).encode(), 0)
        except OSError as error:
            os.close(fd)
            raise LocalIOError(
                f"cannot lock {self._profile.lock_file}: {error.strerror}", hint="check free space and permissions"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Free the profile; safe to call twice. The file stays: removing it would race with the next holder."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.ftruncate(fd, 0)
            finally:
                os.close(fd)

    def __enter__(self) -> ProfileLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def read_holder(profile: Profile) -> Holder | None:
    """Who holds the profile now, or None when nobody does (or the holder is just starting or ending)."""
    try:
        fd = _open_lock(profile, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # nobody held it; closing frees it again
    except BlockingIOError:
        pass
    finally:
        os.close(fd)
    try:
        record = json.loads(read_limited(profile.lock_file, bytes_max=_HOLDER_BYTES_MAX))
        sockets = record["runtime_dir"]
        return Holder(int(record["pid"]), None if sockets is None else Path(sockets))
    except (ValueError, KeyError, TypeError):
        return None


def _open_lock(profile: Profile, flags: int) -> int:
    path = profile.lock_file
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
        raise ConfigError(
            f"there is no profile in {profile.root}", hint=f"ubcp init --profile {profile.root}"
        ) from None
    except OSError as error:
        raise LocalIOError(f"cannot open {path}: {error.strerror}", hint="check its owner and mode") from None


def _try_lock(fd: int, kind: int) -> bool:
    for attempt in range(_LOCK_TRIES):
        if attempt:
            time.sleep(_LOCK_PAUSE_S)
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            continue
    return False
