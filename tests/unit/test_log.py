"""Logs: JSON lines that always parse, nothing that moves a terminal's cursor, sizes capped, failures survived."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ubcp_p2p import log as ubcp_log
from ubcp_p2p.errors import LocalIOError
from ubcp_p2p.log import MESSAGE_CHARS_MAX, fields, printable, setup_logging

HOSTILE = "ok\r\n\x1b[2Jubcp: error: forged\u202e\x00"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    for handler in handlers:
        if handler not in root.handlers:
            root.addHandler(handler)
    root.setLevel(level)


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_in_both_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "log" / "ubcp.log"
    setup_logging("info", file=file)
    logging.getLogger("ubcp.round").info("round %d committed", 3, extra=fields(peers=4, run=b"\x01\xff", loss=2.5))
    (line,) = _lines(file)
    assert line.pop("time", "")
    assert line == {
        "level": "info",
        "logger": "ubcp.round",
        "message": "round 3 committed",
        "peers": 4,
        "run": "01ff",
        "loss": 2.5,
    }
    assert "info round 3 committed peers=4" in capsys.readouterr().err
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ubcp.log"
    setup_logging("debug", file=file, stderr_level="warning")
    logger = logging.getLogger("ubcp")
    logger.debug("quiet")
    logger.warning("loud")
    assert [line["message"] for line in _lines(file)] == ["quiet", "loud"]
    assert "quiet" not in capsys.readouterr().err
    setup_logging("error")
    logger.warning("unheard")
    assert len(_lines(file)) == 2
    assert capsys.readouterr().err == ""


def test_what_a_peer_sent_stays_on_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ubcp.log"
    setup_logging("info", file=file)
    logging.getLogger("ubcp").warning("peer says %s", HOSTILE, extra=fields(name=HOSTILE, message="not replaced"))
    (line,) = _lines(file)
    assert line["message"] == f"peer says {HOSTILE}"
    assert line["name"] == HOSTILE
    assert file.read_text().isascii()
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.isprintable()


def test_values_that_json_lacks(tmp_path: Path) -> None:
    file = tmp_path / "ubcp.log"
    setup_logging("info", file=file)
    logging.getLogger("ubcp").info("x", extra=fields(nan=float("nan"), path=Path("/a"), none=None, yes=True))
    (line,) = _lines(file)
    assert (line["nan"], line["path"], line["none"], line["yes"]) == ("nan", "/a", None, True)


def test_exceptions_are_one_line_for_people_and_whole_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ubcp.log"
    setup_logging("info", file=file)
    try:
        raise ValueError("a\nb")
    except ValueError:
        logging.getLogger("ubcp").exception("failed")
    (line,) = _lines(file)
    assert "Traceback" in str(line["error"])
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.endswith(r"error failed (ValueError: a\nb)")


def test_long_messages_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ubcp.log"
    setup_logging("info", file=file)
    logging.getLogger("ubcp").info("x" * 100_000)
    assert file.stat().st_size < MESSAGE_CHARS_MAX + 500
    assert len(capsys.readouterr().err) < MESSAGE_CHARS_MAX + 500


def test_the_files_are_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ubcp_log, "FILE_BYTES_MAX", 2000)
    file = tmp_path / "ubcp.log"
    setup_logging("info", file=file, stderr_level="error")
    for number in range(200):
        logging.getLogger("ubcp").info("line %d", number)
    kept = sorted(os.listdir(tmp_path))
    assert kept == ["ubcp.log", "ubcp.log.1", "ubcp.log.2", "ubcp.log.3"]
    assert all((tmp_path / name).stat().st_size <= 2000 for name in kept)
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o600 for name in kept)
    assert _lines(file)[-1]["message"] == "line 199"


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalIOError, match="cannot open the log"):
        setup_logging("info", file=tmp_path / "file" / "ubcp.log")


def test_a_full_disk_is_said_once_and_nothing_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "import logging, pathlib, sys\n"
        "from ubcp_p2p.log import setup_logging\n"
        "setup_logging('info', file=pathlib.Path(sys.argv[1]), stderr_level='critical')\n"
        "for n in range(100): logging.getLogger('ubcp').info('line %d', n)\n"
        "print('alive')\n"
    )

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    command = [sys.executable, "-c", program, str(tmp_path / "ubcp.log")]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=30,
        preexec_fn=small_files,
        check=False,
    )
    assert result.stdout == "alive\n"
    assert result.stderr.count("cannot write the log") == 1
    assert "Traceback" not in result.stderr


def test_levels_keep_their_names_although_hivemind_renames_one(tmp_path: Path) -> None:
    file = tmp_path / "ubcp.log"
    before = logging.getLevelName(logging.WARNING)
    logging.addLevelName(logging.WARNING, "WARN")  # as importing hivemind does
    try:
        setup_logging("warning", file=file)
        logging.getLogger("ubcp").warning("x")
    finally:
        logging.addLevelName(logging.WARNING, before)
    assert _lines(file)[0]["level"] == "warning"


def test_printable() -> None:
    assert printable("é ok 漢") == "é ok 漢"
    assert printable("a\tb\x1b\u202e") == r"a\tb\x1b\u202e"
    assert len(printable("\n" * 100_000)) < 3 * MESSAGE_CHARS_MAX
