"""The border of the program: every error becomes words and an exit code; stdout has one JSON document or nothing."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ubcp_p2p.cli import main as cli
from ubcp_p2p.cli.output import JsonOption, emit_json, require_extra
from ubcp_p2p.errors import ConfigError, LocalIOError, NetworkError, TrainingError

TO_RAISE: dict[str, BaseException] = {
    "config": ConfigError("the file is wrong", hint="mend it"),
    "io": LocalIOError("no"),
    "network": NetworkError("no"),
    "training": TrainingError("no"),
    "hostile": NetworkError("peer said \x1b[2J\nubcp: error: forged", hint="a\nb"),
    "disk": OSError(errno.ENOSPC, "No space left on device", "/x/y"),
    "permission": PermissionError(errno.EACCES, "Permission denied", "/x/y"),
    "bug": KeyError("oops"),
    "interrupt": KeyboardInterrupt(),
}


def fails(what: str) -> None:
    """A command that raises."""
    raise TO_RAISE[what]


def prints(json: JsonOption = False) -> None:
    """A command that prints.

    And has more to say about itself.
    """
    assert json
    emit_json({"a": 1, "é": [1.5, None, True]})


def needs(extra: str) -> None:
    """A command that needs an extra."""
    require_extra(extra)


@pytest.fixture(autouse=True)
def _commands(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (fails, prints, needs):
        name = function.__name__
        monkeypatch.setitem(cli.COMMANDS, name, cli._Command(__name__, name, f"Help of {name}."))
    for name in ("HIVEMIND_LOGLEVEL", "GOLOG_LOG_LEVEL"):
        monkeypatch.setenv(name, "ERROR")  # so that what main sets is undone


@pytest.mark.parametrize(
    ("what", "code", "error", "hint"),
    [
        ("config", 2, "the file is wrong", "mend it"),
        ("io", 3, "no", None),
        ("network", 3, "no", None),
        ("training", 1, "no", None),
        ("hostile", 3, r"peer said \x1b[2J\nubcp: error: forged", r"a\nb"),
        ("disk", 3, "/x/y: No space left on device", "run `ubcp --debug …` to see where it happened"),
        ("permission", 3, "/x/y: Permission denied", "run `ubcp --debug …` to see where it happened"),
        ("bug", 70, "a bug in ubcp: KeyError: 'oops'", "report it with the output of `ubcp --debug …`"),
    ],
)
def test_errors_in_words(
    capsys: pytest.CaptureFixture[str], what: str, code: int, error: str, hint: str | None
) -> None:
    assert cli.main(["fails", what]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    expected = [f"ubcp: error: {error}"] + ([f"ubcp: hint: {hint}"] if hint else [])
    assert captured.err.splitlines() == expected


def test_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fails", "interrupt"]) == 130
    assert capsys.readouterr() == ("", "ubcp: stopped\n")


def test_interrupted_while_it_is_loaded(tmp_path: Path) -> None:
    """A module of that name stands where the first library is imported, and interrupts."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n")
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "ubcp_p2p", "--version"], env=os.environ | {"PYTHONPATH": paths}, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--debug", "fails", "bug"]) == 70
    assert "Traceback" in capsys.readouterr().err
    assert cli.main(["--debug", "fails", "config"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prints", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": 1, "é": [1.5, None, True]}
    assert captured.err == ""


def test_a_missing_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ubcp_p2p.cli.output._EXTRAS", {"peer": ("json", "no_such_module")})
    assert cli.main(["needs", "peer"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "ubcp: error: this command needs the extra 'peer' (no_such_module not installed)"
    assert hint == "ubcp: hint: in the folder of ubcp's source: pip install -c constraints.txt '.[peer]'"


def test_help_of_a_command_is_its_line_and_the_rest_of_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prints", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Help of prints." in shown
    assert "And has more to say about itself." in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    if importlib.util.find_spec(cli.COMMANDS[name].module) is None:
        pytest.skip(f"{cli.COMMANDS[name].module} is not written yet")
    assert cli.main([name, "--help"]) == 0
    assert cli.COMMANDS[name].help.split(":")[0] in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_says_what_to_write_and_not_its_type(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """ "--purpose PURPOSE", not "--purpose <list[str]>", in every command of every command; and no brackets twice."""
    command = cli.COMMANDS[name]
    found = cli._load(command)
    below = found.registered_commands if isinstance(found, typer.Typer) else []
    names = [[str(each.name or getattr(each.callback, "__name__", ""))] for each in below]
    for words in ([], *names):
        assert cli.main([name, *words, "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"Usage: ubcp {' '.join([name, *words])} " in shown
        assert re.findall(r"<[a-z]+[ \[>].*|\[\[.*", shown) == []


def test_the_libraries_are_quiet_unless_the_user_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOLOG_LOG_LEVEL")
    monkeypatch.setenv("HIVEMIND_LOGLEVEL", "DEBUG")
    assert cli.main(["--version"]) == 0
    assert os.environ["GOLOG_LOG_LEVEL"] == "ERROR"
    assert os.environ["HIVEMIND_LOGLEVEL"] == "DEBUG"
