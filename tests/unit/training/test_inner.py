"""The inner loop on the real networks: the optimizers against torch's, determinism, devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ubcp_p2p.errors import ConfigError, TrainingError
from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.models.shards import shard, step_indices
from ubcp_p2p.models.task import build_task
from ubcp_p2p.training import inner
from ubcp_p2p.training.errors import Diverged
from ubcp_p2p.training.inner import InnerLoop, InnerResult

RUN, PEER = bytes(32), b"peer"
CPU = torch.device("cpu")


def recipe(**inner_changes: object) -> Recipe:
    base = load_recipe("digits-tiny")
    return base.model_copy(update={"inner": base.inner.model_copy(update=inner_changes)})


def loop(recipe: Recipe, device: torch.device = CPU) -> InnerLoop:
    return InnerLoop(recipe, build_task(recipe), device)


def run(loop: InnerLoop, round: int = 0, members: tuple[bytes, ...] = (), peer: bytes = PEER) -> InnerResult:
    return loop.run(RUN, round, peer, members, lambda step, steps, mean: True)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.5},
        {"optimizer": "adamw", "weight_decay": 0.0, "clip_norm": 0.0},
        {"optimizer": "sgd", "weight_decay": 0.1, "clip_norm": 0.5, "lr": 0.1},
    ],
)
@pytest.mark.slow
def test_steps_as_torch_does(changes: dict[str, object]) -> None:
    chosen = recipe(**changes)
    ours = loop(chosen)
    model = build_task(chosen).model()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": chosen.inner.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    task = build_task(chosen)
    adam = chosen.inner.optimizer == "adamw"
    theirs: torch.optim.Optimizer = (
        torch.optim.AdamW(groups, lr=1.0, betas=chosen.inner.betas)
        if adam
        else torch.optim.SGD([{**g, "weight_decay": 0.0} for g in groups], lr=1.0)
    )
    mine = shard(RUN, 0, PEER, [], task.n_train_items)
    rng = np.random.default_rng(0)
    for step in range(chosen.rounds.local_steps):
        x, y = task.batch(step_indices(mine, step, chosen.inner.batch), rng)
        theirs.zero_grad()
        task.loss(model, x, y).backward()  # type: ignore[no-untyped-call]
        if chosen.inner.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), chosen.inner.clip_norm)
        lr = chosen.learning_rate(step)
        for group, decay in zip(theirs.param_groups, (chosen.inner.weight_decay, 0.0), strict=True):
            group["lr"] = lr
            if not adam:  # decoupled, which torch's SGD has no word for
                for parameter in group["params"]:
                    parameter.data.mul_(1 - lr * decay)
        theirs.step()
    result = run(ours)
    assert (result.steps, result.samples) == (4, 64)
    expected = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    np.testing.assert_allclose(ours.read(), expected, rtol=2e-5, atol=2e-6)


def test_equal_runs_are_equal_to_the_bit_and_others_are_not() -> None:
    chosen = recipe()
    results = {}
    for name, peer, round in (("a", PEER, 0), ("b", PEER, 0), ("other peer", b"other", 0), ("other round", PEER, 1)):
        one = loop(chosen)
        torch.randn(3)  # what happened before does not matter
        loss = run(one, round, (b"other", PEER), peer).loss
        results[name] = (one.read().tobytes(), loss)
    assert results["a"] == results["b"]
    assert len(set(results.values())) == 3


def test_optimizer_memory_goes_and_comes_back() -> None:
    one = loop(recipe())
    run(one)
    theta, memory = one.read().copy(), one.save()
    first = run(one, 1)
    after = one.read().copy()
    one.write(theta)
    one.restore(memory)
    assert run(one, 1) == first
    assert one.read().tobytes() == after.tobytes()
    other = loop(recipe())
    other.write(theta)
    other.restore(memory)
    assert run(other, 1) == first


def test_training_lowers_the_loss_and_evaluates() -> None:
    one = loop(recipe())
    before = one.evaluate()
    for round in range(5):
        run(one, round)
    assert one.evaluate().loss < before.loss - 5 * before.stderr


def test_it_ends_early_after_a_step() -> None:
    one = loop(recipe())
    assert one.run(RUN, 0, PEER, (), lambda step, steps, mean: step < 2).samples == 32


def test_a_diverging_run_is_told_in_words() -> None:
    chosen = recipe(optimizer="sgd", lr=1e4, clip_norm=0.0)
    one = loop(chosen.model_copy(update={"rounds": chosen.rounds.model_copy(update={"local_steps": 100})}))
    with pytest.raises(Diverged, match=r"loss became|non-finite") as caught:
        run(one)
    assert caught.value.hint


def test_no_data_is_told_in_words() -> None:
    crowd = tuple(bytes([i // 256, i % 256]) for i in range(2000))
    with pytest.raises(TrainingError, match="no data is left"):
        run(loop(recipe()), members=crowd)


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cuda:-1", "cuda:9999", "cuda:99", ""])
def test_a_device_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        inner.choose_device(name)
    assert caught.value.hint


def test_memory_errors_are_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert inner.is_out_of_memory(caught.value)
    assert inner.is_out_of_memory(MemoryError())
    assert inner.is_out_of_memory(torch.OutOfMemoryError())
    assert not inner.is_out_of_memory(RuntimeError("shape mismatch"))


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device for torch")


def large_gpt() -> Recipe:
    """shakespeare-nano with a network of 7.3 million parameters: one that bf16 pays for."""
    base = load_recipe("shakespeare-nano")
    model = base.model.model_copy(update={"width": 384, "layers": 4, "heads": 6, "context": 128})
    return base.model_copy(
        update={"model": model, "rounds": base.rounds.model_copy(update={"local_steps": 8, "total": 2})}
    )


@pytest.mark.slow
@needs_cuda
@pytest.mark.parametrize("name", ["digits-tiny", "fashion-cnn", "shakespeare-nano", "large"])
def test_cuda_trains_the_same_run_deterministically(name: str) -> None:
    assert inner.choose_device("auto").type == "cuda"
    inner.set_up_torch(0)
    device = inner.choose_device("cuda:0")
    chosen = large_gpt() if name == "large" else load_recipe(name)
    assert inner.bf16_pays(device, chosen.parameters()) == (name == "large")
    results = []
    for _ in range(2):
        one = loop(chosen, device)
        result = run(one)
        results.append((one.read().tobytes(), result, one.evaluate()))
    assert results[0] == results[1]
    on_cpu = loop(chosen)
    assert abs(run(on_cpu).loss - results[0][1].loss) < (0.05 if name == "large" else 0.002)
    assert abs(on_cpu.evaluate().loss - results[0][2].loss) < (0.1 if name == "large" else 0.01)


def test_bf16_is_for_large_networks_on_a_gpu() -> None:
    assert not inner.bf16_pays(CPU, 10**9)
    assert not inner.bf16_pays(torch.device("cuda", 0), 100_000)
