"""The layers hold, and each contract is seen to fail when somebody breaks it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

# contract, file, what is planted there
VIOLATIONS = [
    ("layers", "files.py", "import ubcp_p2p.codec"),  # up one layer
    ("layers", "keys.py", "from ubcp_p2p.cli import main"),  # up to the top
    ("layers", "errors.py", "def late():\n    import ubcp_p2p.files"),  # inside a function
    ("layers", "keys.py", "import ubcp_p2p.codec"),  # between siblings
    ("layers", "swarm/frames.py", "import ubcp_p2p.training"),
    ("layers", "training/state.py", "import ubcp_p2p.peer.config"),
    ("layers", "simulation/engine.py", "import ubcp_p2p.light"),
    ("layers", "swarm/quorum.py", "import ubcp_p2p.verification.draw"),  # up one layer
    ("torch-free", "verification/evidence.py", "import ubcp_p2p.training.redo"),
    ("layers", "allocator/shares.py", "import ubcp_p2p.simulation"),
    ("layers", "stray.py", ""),  # a module that is in no layer
    ("verifiable-without-network", "keys.py", "import asyncio"),
    ("verifiable-without-network", "codec.py", "import numpy"),
    ("verifiable-without-network", "errors.py", "import socket"),  # by a chain: keys → errors → socket
    ("verifiable-without-network", "ledger/rules.py", "import socket"),
    ("layers", "ledger/rules.py", "import ubcp_p2p.models"),  # between siblings
    ("layers", "charter/values.py", "import ubcp_p2p.ledger"),  # up one layer
    ("decisions-are-pure", "ledger/rules.py", "import time"),
    ("decisions-are-pure", "ledger/sync.py", "def late():\n    import sqlite3"),
    ("layers", "allocator/replay.py", "import ubcp_p2p.ledger.entry"),  # between siblings
    ("allocator-is-pure", "allocator/decide.py", "import time"),
    ("allocator-is-pure", "allocator/solver.py", "def late():\n    from random import choice"),
    ("base-install", "cli/decisions.py", "import ubcp_p2p.swarm.frames"),
    ("base-install", "peer/serving/problem.py", "def late():\n    import ubcp_p2p.swarm.network"),  # by a chain
    ("torch-free", "peer/config.py", "from torch import nn"),
    ("torch-free", "cli/init.py", "def late():\n    import ubcp_p2p.models.task"),  # by a chain
    ("torch-free", "models/recipe.py", "import torch"),
    ("torch-free", "models/cost.py", "import ubcp_p2p.models.gpt"),
    ("decisions-are-pure", "charter/dangers.py", "import time"),
    ("torch-places", "training/process.py", "import torch"),
    ("torch-places", "codec.py", "import torch.nn"),
    ("data-is-no-code", "training/checkpoint.py", "import pickle"),
    ("data-is-no-code", "models/recipe.py", "def late():\n    import yaml"),
    ("hivemind-place", "peer/config.py", "import hivemind"),
    ("hivemind-place", "training/process.py", "from hivemind.p2p import P2P"),
    ("layers", "light/replica.py", "import ubcp_p2p.swarm"),  # between siblings: hivemind and libp2p exclude each other
    ("light-place", "light/replica.py", "import trio"),
    ("light-place", "cli/follow.py", "def late():\n    from libp2p import new_host"),
    ("light-alone", "light/dialing.py", "import hivemind"),
    ("light-alone", "cli/follow.py", "def late():\n    import ubcp_p2p.models.task"),  # torch, by a chain
    ("layers", "carbon/choose.py", "import ubcp_p2p.owner"),  # up one layer
    ("layers", "owner/verdict.py", "import ubcp_p2p.sensors"),
    ("decisions-are-pure", "owner/verdict.py", "import time"),
    ("decisions-are-pure", "carbon/choose.py", "def late():\n    import random"),
    ("web-place", "api/client.py", "import starlette"),
    ("web-place", "peer/control.py", "def late():\n    from uvicorn import Server"),
    ("layers", "api/routes.py", "import ubcp_p2p.peer.config"),  # up one layer
    ("asking-place", "carbon/table.py", "import socket"),
    ("asking-place", "sensors/gpu.py", "import http.client"),
    ("sqlite-place", "ledger/store.py", "import sqlite3"),
    ("villains-apart", "peer/node.py", "def late():\n    import ubcp_p2p.peer.demo.villains.members"),
    ("villains-apart", "peer/demo/villain.py", "from ubcp_p2p.peer.demo import villains"),
]


def _lint(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache", *arguments],
        cwd=root,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its contracts, in a place of their own. Whoever changes a file there puts it back."""
    place = tmp_path_factory.mktemp("copy")
    shutil.copy(REPOSITORY / "pyproject.toml", place)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "ubcp_p2p", place / "ubcp_p2p", ignore=ignored)
    return place


@contextmanager
def planted(path: Path, code: str) -> Iterator[None]:
    """The file with `code` at its end, or a new file with it."""
    before = path.read_bytes() if path.exists() else None
    with path.open("a") as module:
        module.write(f"\n{code}\n")
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


@pytest.mark.slow
def test_the_tree_keeps_all_contracts() -> None:
    result = _lint(REPOSITORY)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("contract", "file", "code"), VIOLATIONS)
def test_a_planted_violation_is_seen(copy: Path, contract: str, file: str, code: str) -> None:
    path = copy / "ubcp_p2p" / file
    with planted(path, code):
        result = _lint(copy, "--contract", contract)
    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout
    assert path.stem in result.stdout


@pytest.mark.slow
def test_every_contract_has_a_planted_violation() -> None:
    declared = {
        line.split('"')[1]
        for line in (REPOSITORY / "pyproject.toml").read_text().splitlines()
        if line.startswith("id = ")
    }
    assert declared == {contract for contract, _, _ in VIOLATIONS}


@pytest.mark.slow
def test_the_daemon_really_runs_without_torch() -> None:
    """The contracts see import statements only; this sees what is loaded, also by the libraries."""
    program = (
        "import pkgutil, importlib, sys\n"
        "import ubcp_p2p.cli, ubcp_p2p.peer, ubcp_p2p.swarm\n"
        "for package in (ubcp_p2p.cli, ubcp_p2p.peer, ubcp_p2p.swarm):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if '.villains.trainer' not in module.name:\n"  # trainers' programs, which no daemon imports
        "            importlib.import_module(module.name)\n"
        "import ubcp_p2p.models.recipe, ubcp_p2p.models.shards, ubcp_p2p.training.process\n"
        "print(*sorted(name for name in sys.modules if name == 'torch' or name.startswith('torch.')))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


@pytest.mark.slow
def test_the_base_commands_load_no_heavy_module() -> None:
    program = (
        "import sys\n"
        "from ubcp_p2p.cli.main import main\n"
        "main(['--help'])\n"
        "heavy = {'torch', 'hivemind', 'numpy', 'pydantic', 'nacl', 'rich', 'asyncio'} & set(sys.modules)\n"
        "print(*sorted(heavy), file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stderr.strip() == ""


# What makes code of data: of Python, and of torch and numpy, whose `load` takes pickles.
_MAKES_CODE = re.compile(r"(.*\.)?(eval|exec|compile|__import__|import_module|run_path|(torch|np|numpy|jit)\.load)")
_MAKES_NONE = re.compile(r".*\.eval|re\.compile")  # a network's mode; a pattern


def _code_makers(source: str) -> list[str]:
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call for call in calls if _MAKES_CODE.fullmatch(call) and not _MAKES_NONE.fullmatch(call)]


def test_no_call_in_models_or_training_makes_code_of_data() -> None:
    planted = (
        "eval(x); exec(x); compile(x, '', 'exec'); __import__(x); importlib.import_module(x); torch.load(f); np.load(f)"
    )
    assert len(_code_makers(planted)) == 7
    assert _code_makers("model.eval(); re.compile('x'); load_recipe(x)") == []
    files = [path for name in ("models", "training") for path in (REPOSITORY / "ubcp_p2p" / name).rglob("*.py")]
    assert len(files) > 20
    assert {path.name: found for path in files if (found := _code_makers(path.read_text()))} == {}


def _private_names(path: Path) -> tuple[set[str], set[str]]:
    """(those of a module's own, those that it uses of others)."""
    tree = list(ast.walk(ast.parse(path.read_text())))
    attributes = [(ast.unparse(node.value), node.attr) for node in tree if isinstance(node, ast.Attribute)]
    own = {name for owner, name in attributes if owner == "self"}
    own |= {node.name for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    used = {name for owner, name in attributes if owner not in ("self", "cls")}
    used |= {name.name for node in tree if isinstance(node, ast.ImportFrom) for name in node.names}
    private = {name for name in own | used if re.match("_[^_]", name)}
    return own & private, (used - own) & private


def test_no_module_reaches_into_another() -> None:
    """A name with an underscore is used in its own module alone. Those that none of ours has are a library's."""
    packages = ("allocator", "cli", "light", "models", "peer", "simulation", "swarm", "training")
    files = [path for name in packages for path in (REPOSITORY / "ubcp_p2p" / name).rglob("*.py")]
    modules = {path: _private_names(path) for path in files}
    ours = {name for own, _ in modules.values() for name in own}
    reached = {str(path): sorted(used & ours) for path, (_, used) in modules.items() if used & ours}
    assert not reached
