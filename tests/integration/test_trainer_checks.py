"""Two real trainer processes: one opens what it committed to, the other walks it again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.trainer import ME, OTHER, ignore, one_round, recipe, spec_of
from ubcp_p2p.errors import TrainingError
from ubcp_p2p.training.compare import TOLERANCE_PPM
from ubcp_p2p.training.process import Offer, TrainerProcess
from ubcp_p2p.training.verdict import Claim, Finding
from ubcp_p2p.training.witness import TRAILS_KEPT

pytestmark = pytest.mark.slow

MODULE = pytest.mark.asyncio(loop_scope="module")
RECIPE = recipe()
MEMBERS = (ME, OTHER)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[TrainerProcess, TrainerProcess]]:
    """The trainers of ME and of OTHER in one run."""
    folders = [tmp_path_factory.mktemp(name) for name in ("me", "other")]
    mine, other = spec_of(RECIPE, folders[0]), spec_of(RECIPE, folders[1], peer=OTHER)
    async with (
        await TrainerProcess.start(mine, resume=False) as me,
        await TrainerProcess.start(other, resume=False) as validator,
    ):
        yield me, validator


def claim_of(trainer: TrainerProcess, offer: Offer) -> Claim:
    """What the card of ME says of an offer made from the trainer's present state."""
    steps = offer.weight // RECIPE.inner.batch
    run_id = spec_of(RECIPE, Path()).run_id
    return Claim(run_id, trainer.round, ME, trainer.state_hash, steps, offer.digest, offer.trail)


@MODULE
async def test_honest_steps_are_found_again_and_nothing_else_changes(
    pair: tuple[TrainerProcess, TrainerProcess],
) -> None:
    me, validator = pair
    before = await validator.train(0, MEMBERS, ignore)
    offer = await me.train(0, MEMBERS, ignore)
    with offer.buffer, before.buffer:
        claim = claim_of(me, offer)
        for stretch in range(4):
            opening = await me.open(offer.trail, stretch)
            verdict = await validator.check(claim, MEMBERS, opening)
            assert (verdict.finding, verdict.distance_ppm) == (Finding.HONEST, 0), verdict.words
        assert (await validator.check(claim, (ME,), opening)).finding == Finding.DATA
        lie = await validator.check(claim._replace(peer=OTHER), MEMBERS, opening)
        assert lie.finding == Finding.STEPS
        assert lie.distance_ppm > 2 * lie.allowed_ppm > 2 * TOLERANCE_PPM  # what rounding may explain crosses the pipe
        changed = bytearray(opening)
        changed[-1] ^= 1
        assert (await validator.check(claim, MEMBERS, bytes(changed))).finding == Finding.UNOPENED
        assert (await validator.check(claim, MEMBERS, b"")).finding == Finding.UNOPENED
    for trainer, made in ((me, offer), (validator, before)):  # opening and checking leave no trace in what is trained
        again = await trainer.train(0, MEMBERS, ignore)
        with again.buffer:
            assert (again.digest, again.trail) == (made.digest, made.trail)


@MODULE
async def test_the_last_rounds_can_be_opened_while_the_next_goes_on(
    pair: tuple[TrainerProcess, TrainerProcess],
) -> None:
    me, validator = pair
    claim, offers = None, []
    for _ in range(TRAILS_KEPT + 1):
        base = me.state_hash, me.round
        offer = await one_round(me)
        offers.append(offer)
        claim = Claim(spec_of(RECIPE, Path()).run_id, base[1], ME, base[0], 4, offer.digest, offer.trail)
    assert claim is not None
    evaluated = await me.evaluate()
    opening = await me.open(offers[-1].trail, 0)
    assert (await validator.check(claim, MEMBERS, opening)).finding == Finding.HONEST
    await me.open(offers[-TRAILS_KEPT].trail, 3)
    with pytest.raises(TrainingError, match="no longer"):
        await me.open(offers[0].trail, 0)
    with pytest.raises(TrainingError, match="stretch 4"):
        await me.open(offers[-1].trail, 4)
    assert await me.evaluate() == evaluated


@MODULE
async def test_an_opening_that_is_too_long_is_refused(pair: tuple[TrainerProcess, TrainerProcess]) -> None:
    _, validator = pair
    claim = Claim(spec_of(RECIPE, Path()).run_id, 0, ME, bytes(32), 4, bytes(32), bytes(32))
    with pytest.raises(TrainingError, match="an opening of"):
        await validator.check(claim, None, bytes(1 << 20))
    with pytest.raises(TrainingError, match="steps"):
        await validator.check(claim._replace(steps=10**6), None, b"x")
    assert (await validator.check(claim, None, b"x")).finding == Finding.UNOPENED
