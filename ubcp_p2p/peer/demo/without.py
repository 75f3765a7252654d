"""The same run without the villain: what the honest peers would have made of it, computed without a network.

The same peers (by key, so with the same data and draws) take part in the same rounds; the villain's offers are not
there. What differs from the run with it is the villain's doing, and which items fell to whom.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.peer.demo.board import HeldOut
from ubcp_p2p.training.process import Progress, TrainerProcess, TrainerSpec


async def train_without(
    recipe: Recipe, run: str, members: Sequence[tuple[bytes, ...]], directory: Path, device: str,
    on_round: Callable[[int], None],
) -> HeldOut:  # fmt: skip
    """Train `recipe`; members: the public keys of those who make each round. on_round(rounds done).

    Raises what TrainerProcess raises. The processes are gone at the end, also after a cancel.
    """
    peers = sorted({peer for group in members for peer in group})
    async with AsyncExitStack() as stack:
        started = await asyncio.gather(
            *(TrainerProcess.start(_spec(recipe, run, peer, directory, device), resume=False) for peer in peers),
            return_exceptions=True,
        )
        trainers: dict[bytes, TrainerProcess] = {}
        for peer, trainer in zip(peers, started, strict=True):
            if isinstance(trainer, TrainerProcess):
                trainers[peer] = await stack.enter_async_context(trainer)
        for found in started:
            if isinstance(found, BaseException):
                raise found
        for round_, group in enumerate(members):
            await _round(trainers, round_, members[round_ - 1] if round_ else group, group)
            on_round(round_ + 1)
        first = trainers[peers[0]]
        result = await first.evaluate()
        return HeldOut(first.round, result.loss, result.stderr)


async def _round(
    trainers: Mapping[bytes, TrainerProcess], round_: int, before: tuple[bytes, ...], group: tuple[bytes, ...]
) -> None:
    """One round of `group`; the data is cut among who made the round before, as in a run."""

    def quiet(progress: Progress) -> None:
        pass

    offers = await asyncio.gather(*(trainers[peer].train(round_, sorted(before), quiet) for peer in sorted(group)))
    try:
        given = [(offer.buffer, offer.weight) for offer in offers]
        await asyncio.gather(*(trainer.apply(given) for trainer in trainers.values()))
        await asyncio.gather(*(trainer.commit() for trainer in trainers.values()))
    finally:
        for offer in offers:
            offer.buffer.close()


def _spec(recipe: Recipe, run: str, peer: bytes, directory: Path, device: str) -> TrainerSpec:
    return TrainerSpec(
        recipe_toml=recipe.to_toml(),
        run_id=run_id(run, recipe.hash()),
        peer=peer,
        device=device,
        threads=1,
        checkpoint_dir=directory / f"without-{peer.hex()[:8]}",
        checkpoints_kept=1,
    )


def groups_of(members: Mapping[int, tuple[str, ...]], keys: Mapping[str, bytes]) -> list[tuple[bytes, ...]]:
    """Who made each round, by key; names that have none (the villain's) are left out.

    A round that only the villain made, as a late commit of its own may seem, is made by those of the round before.
    """
    found: list[tuple[bytes, ...]] = []
    for round_ in sorted(members):
        group = tuple(sorted(keys[name] for name in members[round_] if name in keys))
        found.append(group or found[-1])
    return found
