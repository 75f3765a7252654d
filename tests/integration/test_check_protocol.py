"""A check between two real nodes with real trainers: asked for over the network, opened, walked again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_dht_records import running
from tests.support.trainer import ignore, recipe, spec_of
from tests.unit.swarm.made import key
from ubcp_p2p.swarm.frames import Unreachable
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.openings import Openings
from ubcp_p2p.training.ends import LEAN, WHOLE, drawn_by
from ubcp_p2p.training.opening import Opening
from ubcp_p2p.training.process import TrainerProcess
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.verdict import Claim, Finding

pytestmark = pytest.mark.slow

RECIPE = recipe()
RUN = spec_of(RECIPE, Path()).run_id
SEED = b"seed" * 8
MEMBERS = tuple(sorted(key(number).public for number in (1, 2)))


def openings(network: Network, trainer: TrainerProcess, validator: bytes) -> Openings:
    async def opened(trail: bytes, stretch: int, end: bytes) -> bytes:
        whole = Opening.from_bytes(await trainer.open(trail, stretch), shape_of(RECIPE))
        return whole.as_asked(end).to_bytes()

    return Openings(network, RUN, shape_of(RECIPE).bytes_max(), opened, lambda asks, trail, stretch: asks == validator)


@pytest.mark.asyncio
async def test_a_check_between_two_nodes(tmp_path: Path) -> None:
    checked, validator = key(1), key(2)
    specs = [spec_of(RECIPE, tmp_path / name, peer=who.public) for name, who in (("a", checked), ("b", validator))]
    async with (
        running(checked) as first,
        running(validator, tuple(first.multiaddrs())) as second,
        await TrainerProcess.start(specs[0], resume=False) as mine,
        await TrainerProcess.start(specs[1], resume=False) as other,
    ):
        await second.neighbours.connect(first.multiaddrs()[0])
        serving, asking = openings(first, mine, validator.public), openings(second, other, checked.public)
        await serving.open()
        await asking.open()
        offer = await mine.train(0, MEMBERS, ignore)
        with offer.buffer:
            steps = offer.weight // RECIPE.inner.batch
            claim = Claim(RUN, 0, checked.public, mine.state_hash, steps, offer.digest, offer.trail)
            for end in (LEAN, drawn_by(SEED), WHOLE):
                opening = await asking.ask(checked.public, offer.trail, 2, end=end, total_s=20.0)
                assert (await other.check(claim, None, opening, SEED)).finding == Finding.HONEST
                asked = Finding.UNOPENED if end == drawn_by(SEED) else Finding.HONEST
                for seed in (None, bytes(32)):  # whose pieces nobody has asked for
                    assert (await other.check(claim, None, opening, seed)).finding == asked
            stolen = claim._replace(peer=validator.public)  # another's work under one's own name
            assert (await other.check(stolen, MEMBERS, opening)).finding == Finding.STEPS
            with pytest.raises(Unreachable, match="does not open"):
                await asking.ask(checked.public, bytes(32), 2, end=WHOLE, total_s=20.0)
        await serving.close()
        await asking.close()
