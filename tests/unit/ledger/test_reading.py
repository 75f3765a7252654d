"""All valid entries of a file, by replay; the clock decides what is early."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.community import community
from ubcp_p2p.ledger.balances import entries_root
from ubcp_p2p.ledger.entry import ZERO, Entry
from ubcp_p2p.ledger.export import Roots, write_export
from ubcp_p2p.ledger.reading import read
from ubcp_p2p.ledger.sources import open_source
from ubcp_p2p.ledger.world import World


def _file(path: Path, world: World) -> Path:
    with path.open("wb") as file:
        versions = [version.to_bytes() for version in world.charters.versions]
        entries = [signed.to_bytes() for signed in world.entries]
        roots = Roots(ZERO, ZERO)
        write_export(file, versions, [], [], entries, [], network=world.charters.network, roots=lambda: roots)
    return path


def test_each_valid_entry_once_and_forks_too(tmp_path: Path) -> None:
    world = community().world
    world.entries.append(world.entries[3])
    taken: list[Entry] = []
    with open_source(_file(tmp_path / "x", world)) as source:
        found = read(source, world.now, taken.append)
    assert taken == [signed.entry for signed in world.entries[:-1]]
    assert entries_root(found.ledger) == entries_root(world.ledger)
    assert (found.refused, found.pending, found.early) == (0, 0, 0)
    assert found.ledger.frozen() == world.ledger.frozen() != []


@pytest.mark.parametrize(("clock", "early"), [(10, 0), (9, 0), (8, 1), (0, 1)])
def test_more_than_a_slice_ahead_is_early(tmp_path: Path, clock: int, early: int) -> None:
    world = World(1)
    world.account("now")
    world.now = 10
    world.account("later", enrol=False)
    with open_source(_file(tmp_path / "x", world)) as source:
        found = read(source, clock, lambda _: None)
    assert (found.early, found.ledger.entries, found.refused) == (early, 3 - early, 0)
