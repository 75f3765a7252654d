"""The store after kill -9 at every statement, and after a power cut in the middle of a commit: the same rules hold.

What was acknowledged is there; what was under way is there whole or not at all; going on from there ends in the same
state.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.community import Known, known, new_store
from tests.support.store_life import FILE, Life
from ubcp_p2p.ledger.database import is_there
from ubcp_p2p.ledger.store import Store

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def life() -> Life:
    return Life()


def _states(life: Life, path: Path) -> list[Known]:
    """After each step of a life without accidents."""
    states: list[Known] = []
    life.play(path, lambda store: states.append(known(store, life.own.entry.author)))
    assert len(set(states)) == len(life.steps) + 1  # each step changes something
    return states


def _open(life: Life, path: Path) -> Store:
    return Store.open(path, check_signatures=True) if is_there(path) else new_store(path, life.world)


@pytest.mark.slow
def test_killed_at_every_statement(tmp_path: Path, life: Life, figure: Callable[[str], None]) -> None:
    states = _states(life, tmp_path / FILE)
    program = [sys.executable, "-m", "tests.support.store_life", str(tmp_path)]
    done = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    points = int(done.stdout)
    assert points > 150
    lost = kept = 0
    before = (-1, -1)
    for at in range(points):
        folder = tmp_path / str(at)
        acknowledged = len((folder / "acknowledged").read_bytes())
        seen: Known | None = None
        if is_there(folder / FILE):
            with Store.open(folder / FILE, read_only=True) as reader:  # also before a writer has recovered it
                seen = known(reader, life.own.entry.author)
        with _open(life, folder / FILE) as store:
            found = known(store, life.own.entry.author)
            assert seen in (found, None), at
            if acknowledged == 0:
                assert found == states[0], at
            elif found == states[acknowledged - 1]:
                lost += 1
            else:
                assert found == states[acknowledged], at
                kept += 1
            first = states.index(found)
            if (acknowledged, first) == before and at % 8:
                continue  # from the same place the same way: some of these are enough
            before = (acknowledged, first)
            for step, expected in zip(life.steps[first:], states[first + 1 :], strict=True):
                step(store)
                assert known(store, life.own.entry.author) == expected, at
    assert lost and kept  # failed and not persisted; failed but persisted
    figure(f"{points} kills: what was under way was not there {lost} times, and was there {kept} times")


@pytest.mark.slow
def test_a_power_cut_anywhere_in_the_log(tmp_path: Path, life: Life) -> None:
    """A WAL that ends anywhere, or in rubbish: each commit is there whole or not at all, and in order."""
    states: list[Known] = []
    cuts = tmp_path / "cut"
    cuts.mkdir()
    logs: list[int] = []

    def after(store: Store) -> None:
        states.append(known(store, life.own.entry.author))
        log = store.path.with_name(FILE + "-wal")
        logs.append(log.stat().st_size)
        shutil.copy(store.path, cuts / "db")
        shutil.copy(log, cuts / "log")

    life.play(tmp_path / FILE, after)
    log = (cuts / "log").read_bytes()
    assert logs == sorted(set(logs)), "a checkpoint came in between: the lengths say nothing then"
    seen = set()
    for size in sorted({*range(logs[0], len(log), 1031), *logs}):  # a prime: in headers of frames and in pages
        for number, tail in enumerate((b"", b"\xff" * 700)):
            path = cuts / f"{size}-{number}"
            shutil.copy(cuts / "db", path)
            path.with_name(path.name + "-wal").write_bytes(log[:size] + tail)
            whole = max(step for step, length in enumerate(logs) if length <= size)
            with Store.open(path) as store:
                assert known(store, life.own.entry.author) == states[whole], size
            seen.add(whole)
    assert seen == set(range(len(states)))
