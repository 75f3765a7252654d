"""The wheel: all code, the content that is read at run time, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SHIPPED = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.mark.slow
def test_the_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in SHIPPED:
        shutil.copy(REPOSITORY / name, source)
    for name in ("ubcp_p2p", "models", "simulation", "tests", "ledger", "peer"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "_content"))
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        required = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist") or []
    modules = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "ubcp_p2p").rglob("*.py")}
    recipes = {path.name for path in (REPOSITORY / "models" / "recipes").glob("*.toml")}
    content = {f"ubcp_p2p/_content/models/recipes/{name}" for name in recipes}
    content |= {"ubcp_p2p/_content/peer/carbon/intensity.csv", "ubcp_p2p/_content/peer/carbon/README.md"}  # its licence
    content |= {f"ubcp_p2p/_content/simulation/{name}.toml" for name in ("community", "curve")}
    assert recipes
    assert modules | content | {"ubcp_p2p/py.typed"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"ubcp_p2p"}
    base = {name.split(";")[0].strip() for name in required if "extra ==" not in name}
    assert not [name for name in base if name.startswith(("torch", "hivemind", "libp2p", "uvloop"))]
