"""Writing a synthetic ledger, with or without a fraud, as an export file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ubcp_p2p.files import open_atomic
from ubcp_p2p.ledger.export import write_export
from ubcp_p2p.ledger.frauds import Fraud, Head, Planted, Scene
from ubcp_p2p.ledger.synth import Community, Deciding, simulate


@dataclass(frozen=True)
class Written:
    """entries: in the file, those of the fraud included."""

    network: bytes
    entries: int
    planted: Planted | None


def write_synthetic(
    path: Path,
    *,
    accounts: int,
    entries: int,
    seed: int,
    fraud: Fraud | None = None,
    deciding: Deciding | None = None,
) -> Written:
    """`entries` valid entries of `accounts` people, then the fraud. The same arguments give the same bytes.

    deciding: who makes its decisions; without, they name inputs that are no problem of a slice.

    Raises ConfigError for too few entries, LocalIOError.
    """
    world = Community(seed, deciding)
    planted: list[Planted] = []
    head = fraud.head(world) if fraud and fraud.head else Head()

    def course() -> Iterator[bytes]:
        yield from simulate(world, accounts, entries)
        if fraud is not None:
            planted.append(fraud.plant(Scene(world)))
            yield from world.taken()

    with open_atomic(path, mode=0o644) as file:
        count = write_export(
            file,
            [version.to_bytes() for version in world.charters.versions],
            head.proofs,
            head.frozen,
            course(),
            world.blobs,
            network=world.charters.network,
            roots=world.roots,
            log=world.log,
        )
    return Written(world.charters.network, count, planted[0] if planted else None)
