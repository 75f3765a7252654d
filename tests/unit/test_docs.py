"""The documents say what the code does: commands, exit codes, configuration keys, make targets, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ubcp_p2p.cli.main import COMMANDS, EXIT_BUG, EXIT_INTERRUPTED, EXIT_PIPE
from ubcp_p2p.errors import Exit
from ubcp_p2p.peer.config import PeerConfig
from ubcp_p2p.peer.profile import Profile

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for folder in (".", "docs", "docs/adr", "ledger", "models", "peer", "bootstrap", "tests", "bench", "simulation")
    for path in (REPOSITORY / folder).glob("*.md")
)


def _text(name: str) -> str:
    return (REPOSITORY / name).read_text()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", _text(name)):
        assert ((REPOSITORY / name).parent / target).exists(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_that_are_named_exist(name: str) -> None:
    for command in re.findall(r"(?:`|^)ubcp ([a-z]+)", _text(name), re.MULTILINE):
        assert command in COMMANDS, command


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "bench/README.md", "tests/README.md"])
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", _text("Makefile"), re.MULTILINE))
    for target in re.findall(r"(?:`|^|cpu )make ([a-z]+)", _text(name), re.MULTILINE):
        assert target in targets, target


def test_the_exit_codes() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", _text("docs/cli.md"), re.MULTILINE)}
    assert documented == {*map(int, Exit), EXIT_BUG, EXIT_INTERRUPTED, EXIT_PIPE}


def test_the_configuration_table() -> None:
    rows = re.findall(r"^\| `([a-z]+)\.([a-z_]+)` \| `([^`]+)` \|", _text("docs/cli.md"), re.MULTILINE)
    text = "".join(f"[{section}]\n" if key is None else f"{key} = {value}\n" for section, key, value in _sections(rows))
    assert PeerConfig.from_toml(text, where="docs/cli.md") == PeerConfig()
    documented = {(section, key) for section, key, _ in rows}
    assert documented == {(section, key) for section, values in PeerConfig().model_dump().items() for key in values}


def _sections(rows: list[tuple[str, str, str]]) -> list[tuple[str, str | None, str]]:
    lines: list[tuple[str, str | None, str]] = []
    for section, key, value in rows:
        if not lines or lines[-1][0] != section:
            lines.append((section, None, ""))
        lines.append((section, key, value))
    return lines


def test_the_files_of_a_profile() -> None:
    place = Profile(Path("x"))
    section = _text("docs/cli.md").partition("## The profile")[2].partition("\n## ")[0]
    first_cells = "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))
    documented = set(re.findall(r"`([a-z.]+)/?`", first_cells))
    files = {place.account_key, place.node_key, place.owner_file, place.config_file, place.peers_file}
    files |= {place.ports_file, place.lock_file, place.new_file, place.pause_file, place.seen_file}
    assert documented == {path.name for path in files | {place.runs, place.log}}


@pytest.mark.parametrize("folder", ["ledger", "models", "simulation", "peer", "bootstrap", "tests", "bench"])
def test_an_outer_folder_says_where_its_code_is(folder: str) -> None:
    first = _text(f"{folder}/README.md").splitlines()[0]
    assert "`ubcp_p2p/" in first
