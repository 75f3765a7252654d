"""A trainer process on a GPU: rounds among members with and without one, resume, memory that runs out. Skipped without.

The GPU may be shared with a desktop: nothing here needs more than 2 GB, but for the case that asks for what no GPU has.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.trainer import ME, OTHER, ignore, one_round, spec_of
from ubcp_p2p.models.recipe import load_recipe
from ubcp_p2p.training.errors import OutOfMemory
from ubcp_p2p.training.process import TrainerProcess

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device for torch"),
]
NANO = load_recipe("shakespeare-nano")


@pytest.mark.asyncio
async def test_members_with_and_without_a_gpu_end_with_the_same_bits(tmp_path: Path) -> None:
    async with (
        await TrainerProcess.start(spec_of(NANO, tmp_path / "a", device="cuda"), resume=False) as fast,
        await TrainerProcess.start(spec_of(NANO, tmp_path / "b", peer=OTHER), resume=False) as slow,
    ):
        assert "cuda:0" in fast.ready.device
        assert fast.state_hash == slow.state_hash
        for round in range(3):
            offers = [await trainer.train(round, [ME, OTHER], ignore) for trainer in (fast, slow)]
            pairs = [(offer.buffer, offer.weight) for offer in offers]
            for trainer in (fast, slow):
                await trainer.apply(pairs)
                await trainer.commit()
            for offer in offers:
                offer.buffer.close()
            assert fast.state_hash == slow.state_hash
        measured, elsewhere = await fast.evaluate(), await slow.evaluate()
        assert measured.n == elsewhere.n
        assert abs(measured.loss - elsewhere.loss) < 0.01  # one model; float32 in another order
        assert await fast.sample("ROMEO", 20, 1)


@pytest.mark.asyncio
async def test_resume_on_a_gpu_gives_the_same_bits(tmp_path: Path) -> None:
    spec = spec_of(NANO, tmp_path, device="cuda")
    async with await TrainerProcess.start(spec, resume=False) as trainer:
        await one_round(trainer)
        await trainer.checkpoint({})
        offer = await one_round(trainer)
        expected = trainer.state_hash
    async with await TrainerProcess.start(spec, resume=True) as again:
        assert again.round == 1
        assert (await one_round(again)).digest == offer.digest
        assert again.state_hash == expected


@pytest.mark.asyncio
async def test_a_gpu_without_enough_memory_is_told_and_survived(tmp_path: Path) -> None:
    model = NANO.model.model_copy(update={"width": 1024, "layers": 8, "heads": 16, "context": 1024})
    huge = NANO.model_copy(update={"model": model, "inner": NANO.inner.model_copy(update={"batch": 4096})})
    async with await TrainerProcess.start(spec_of(huge, tmp_path, device="cuda"), resume=False) as trainer:
        before = trainer.state_hash
        with pytest.raises(OutOfMemory, match="memory ran out") as caught:
            await trainer.train(0, [ME], ignore)
        assert caught.value.hint
        assert trainer.state_hash == before
        assert (await trainer.checkpoint({})).exists()
