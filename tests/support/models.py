"""A fetched model's file, checked and used as whoever got it would: with nothing but the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from ubcp_p2p.models.evaluation import Evaluation
from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.models.task import build_task
from ubcp_p2p.swarm.quorum import Certificate
from ubcp_p2p.training.state import state_hash


def evaluate(path: Path) -> tuple[Certificate, Evaluation]:
    """The certificate, after a check of all that the file claims, and the model's held-out loss."""
    with safe_open(path, framework="numpy") as file:
        facts: dict[str, str] = file.metadata()
        (name,) = file.keys()
        state = file.get_tensor(name)
    recipe = Recipe.from_toml(facts["recipe_toml"], "the file")
    assert (recipe.hash().hex(), recipe.name) == (facts["recipe_hash"], facts["recipe"])
    run = run_id(facts["run"], recipe.hash())
    assert run.hex() == facts["run_id"]
    certificate = Certificate.from_bytes(bytes.fromhex(facts["certificate"]), run)
    assert certificate.round == int(facts["round"])
    digest = state_hash(run, certificate.round, np.ascontiguousarray(state, dtype="<f4").data)
    assert certificate.state_hash == digest == bytes.fromhex(facts["state_hash"])
    task = build_task(recipe)
    model = task.model()
    parameters = torch.from_numpy(state[: recipe.parameters()].copy())
    torch.nn.utils.vector_to_parameters(parameters, model.parameters())
    return certificate, task.evaluate(model, "cpu")
