"""`ubcp` as a process of its own: init, errors in words, exit codes, and the time of `--help`."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.terminal import on_a_terminal
from ubcp_p2p.keys import AccountKey, NodeKey, Ownership, PassphraseNeeded, to_base58
from ubcp_p2p.peer.config import PeerConfig
from ubcp_p2p.peer.create import create_profile
from ubcp_p2p.peer.profile import Profile

REPOSITORY = Path(__file__).parents[2]


def _environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"} | more


def _ubcp(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ubcp_p2p", *map(str, arguments)],
        env=env or _environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir() if path.is_file() and path.name != "lock"}


@pytest.mark.slow
def test_init_makes_everything_and_overwrites_nothing(tmp_path: Path) -> None:
    root = tmp_path / "p"
    result = _ubcp("init", "--profile", root, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    place = Profile(root)
    account, node = AccountKey.load(place.account_key), NodeKey.load(place.node_key)
    assert document == {
        "profile": str(root),
        "account": account.public.hex(),
        "node": node.public.hex(),
        "peer_id": to_base58(node.peer_id),
        "encrypted": False,
        "created": ["account.key", "node.key", "owner.json", "config.toml"],
        "country": None,
    }
    statement = Ownership.load(place.owner_file)
    assert (statement.account, statement.node) == (account.public, node.public)
    assert PeerConfig.load(place.config_file) == PeerConfig()
    modes = {path.name: path.stat().st_mode & 0o777 for path in root.iterdir()}
    assert modes == {
        "account.key": 0o600,
        "node.key": 0o400,
        "owner.json": 0o600,
        "config.toml": 0o600,
        "new": 0o600,
        "lock": 0o600,
        "runs": 0o700,
        "log": 0o700,
    }
    assert root.stat().st_mode & 0o777 == 0o700
    place.require()

    before = _contents(root)
    again = _ubcp("init", "--profile", root)
    assert again.returncode == 2
    assert again.stdout == ""
    error, hint = again.stderr.splitlines()
    assert error.startswith("ubcp: error: ")
    assert str(place.account_key) in error
    assert hint.startswith("ubcp: hint: use another --profile")
    assert _contents(root) == before


@pytest.mark.slow
def test_init_finds_its_place_from_the_environment(tmp_path: Path) -> None:
    result = _ubcp("init", env=_environment(UBCP_HOME=str(tmp_path / "home")))
    assert result.returncode == 0
    assert str(tmp_path / "home") in result.stdout
    assert "12D3KooW" in result.stdout
    assert Profile(tmp_path / "home").node_key.exists()


@pytest.mark.slow
def test_the_country_is_told_or_unknown(tmp_path: Path) -> None:
    untold = _ubcp("init", "--profile", tmp_path / "p")
    assert "carbon   unknown until you say where this machine is: country under [carbon]" in untold.stdout
    told = _ubcp("init", "--profile", tmp_path / "q", "--country", "swe", "--zone", "se3")
    assert "carbon   27 g a kWh, the yearly average of Sweden Bidding Zone 3" in told.stdout
    carbon = PeerConfig.load(Profile(tmp_path / "q").config_file).carbon
    assert (carbon.country, carbon.zone) == ("SE", "SE3")
    (tmp_path / "q/owner.json").unlink()
    again = _ubcp("init", "--profile", tmp_path / "q", "--country", "FR", "--json")
    assert json.loads(again.stdout)["country"] == "SE"
    assert "config.toml was there already and is unchanged" in again.stderr
    for words in (["--country", "XX"], ["--zone", "SE3"], ["--country", "FR", "--zone", "SE3"]):
        wrong = _ubcp("init", "--profile", tmp_path / "r", *words)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert "ubcp: hint: " in wrong.stderr
    assert not (tmp_path / "r").exists()


def test_a_cut_off_init_is_completed_with_the_keys_that_are_there(tmp_path: Path) -> None:
    names = ["account.key", "node.key", "owner.json", "config.toml"]
    for there in range(1, 4):  # the files are made in this order, so these are all the states a kill can leave
        place = Profile(tmp_path / str(there))
        create_profile(place)
        for name in names[there:]:
            (place.root / name).unlink()
        before = _contents(place.root)
        created = create_profile(place)
        assert list(created.files) == names[there:]
        assert _contents(place.root).items() >= before.items()
        assert Ownership.load(place.owner_file).account == created.account


@pytest.mark.parametrize("missing", ["account.key", "node.key"])
def test_a_lost_key_is_not_silently_replaced(tmp_path: Path, missing: str) -> None:
    place = Profile(tmp_path / "p")
    create_profile(place)
    (place.root / missing).unlink()
    before = _contents(place.root)
    result = _ubcp("init", "--profile", place.root)
    assert result.returncode == 2
    assert f"{missing} is missing" in result.stderr
    assert "backup" in result.stderr
    assert _contents(place.root) == before


def test_keys_that_do_not_belong_together(tmp_path: Path) -> None:
    place, other = Profile(tmp_path / "p"), Profile(tmp_path / "q")
    create_profile(place)
    create_profile(other)
    other.node_key.replace(place.node_key)
    place.config_file.unlink()
    result = _ubcp("init", "--profile", place.root)
    assert result.returncode == 2
    assert "other keys" in result.stderr
    assert not place.config_file.exists()


@pytest.mark.slow
def test_a_passphrase_from_the_environment(tmp_path: Path) -> None:
    place = Profile(tmp_path / "p")
    secret = _environment(UBCP_PASSPHRASE="open sesame")
    assert json.loads(_ubcp("init", "--profile", place.root, "--json", env=secret).stdout)["encrypted"] is True
    with pytest.raises(PassphraseNeeded):
        AccountKey.load(place.account_key)
    AccountKey.load(place.account_key, "open sesame")
    place.owner_file.unlink()
    wrong = _ubcp("init", "--profile", place.root, env=_environment(UBCP_PASSPHRASE="open barley"))
    assert wrong.returncode == 2
    assert "the passphrase does not open" in wrong.stderr
    none = _ubcp("init", "--profile", place.root)
    assert none.returncode == 2
    assert "UBCP_PASSPHRASE" in none.stderr
    assert not place.owner_file.exists()
    assert _ubcp("init", "--profile", place.root, env=secret).returncode == 0
    assert Ownership.load(place.owner_file).is_valid()


@pytest.mark.slow
def test_a_passphrase_typed_twice(tmp_path: Path) -> None:
    root = tmp_path / "p"
    code, shown = on_a_terminal(["one", "two"], ["init", "--passphrase", "--profile", str(root)], _environment())
    assert code == 2
    assert "the two passphrases differ" in shown
    assert _contents(root) == {}
    code, shown = on_a_terminal(["secret", "secret"], ["init", "--passphrase", "--profile", str(root)], _environment())
    assert code == 0
    assert "secret" not in shown, "what is typed is not shown"
    assert AccountKey.load(root / "account.key", "secret")


def test_a_passphrase_without_a_terminal(tmp_path: Path) -> None:
    result = _ubcp("init", "--passphrase", "--profile", tmp_path / "p")
    assert result.returncode == 2
    assert "no terminal" in result.stderr
    assert _contents(tmp_path / "p") == {}


def test_a_profile_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = _ubcp("init", "--profile", tmp_path / "file" / "p")
    assert result.returncode == 3
    assert "cannot make the profile" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_kill_at_any_moment_leaves_nothing_that_init_cannot_complete(tmp_path: Path) -> None:
    for step in range(12):
        root = tmp_path / str(step)
        command = [sys.executable, "-m", "ubcp_p2p", "init", "--profile", str(root)]
        with subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL) as process:
            # A few milliseconds more each time, from before the first file until after the last.
            deadline = time.monotonic() + 0.1 + 0.02 * step
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        before = {n: d for n, d in _contents(root).items() if n[0] != "."} if root.exists() else {}
        _ubcp("init", "--profile", root)
        after = _contents(root)
        assert after.items() >= before.items()
        assert not any(name.startswith(".") for name in after), "no temporary file with a secret in it stays"
        assert Ownership.load(Profile(root).owner_file).account == AccountKey.load(Profile(root).account_key).public


def test_version_and_usage() -> None:
    assert _ubcp("--version").stdout.startswith("ubcp ")
    assert _ubcp("--help").returncode == 0
    nothing = _ubcp()
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "Commands:" in nothing.stderr
    unknown = _ubcp("inti")
    assert unknown.returncode == 2
    assert unknown.stderr.splitlines()[0].startswith("ubcp: error: No such command 'inti'")
    assert unknown.stderr.splitlines()[1] == "ubcp: hint: see `ubcp --help`"
    option = _ubcp("init", "--colour")
    assert option.returncode == 2
    assert "ubcp: hint: see `ubcp init --help`" in option.stderr


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        result = subprocess.run(
            [sys.executable, "-m", "ubcp_p2p", "init", "--json", "--profile", str(tmp_path / "p")],
            env=_environment(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.slow
def test_ctrl_c_is_130_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ubcp_p2p", "init", "--passphrase", "--profile", str(tmp_path / "p")]
    primary, secondary = pty.openpty()
    with subprocess.Popen(
        command, env=_environment(), stdin=secondary, stdout=secondary, stderr=secondary, start_new_session=True
    ) as process:
        os.close(secondary)
        shown = b""
        while b": " not in shown:  # the prompt: it is waiting for input now
            shown += os.read(primary, 1000)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    os.close(primary)
    assert b"Traceback" not in shown
    assert _contents(tmp_path / "p") == {}


@pytest.mark.slow
def test_help_is_quick() -> None:
    def cpu_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    took = []
    for _ in range(3):
        before = cpu_s()
        assert _ubcp("--help").returncode == 0
        took.append(cpu_s() - before)
    assert min(took) < 0.3, "seconds of CPU: what other work on the machine does not change"
