"""Benchmarks that only a person starts would rot: each of the quick ones runs to its tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent.parent / "bench"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize(
    ("script", "table"),
    [("allocator.py", "Whole decisions"),
     ("overhead.py", "checks, the same bits"),
     ("verification.py", "false accusations"),
     pytest.param("audit.py", "Auditing again over a snapshot", marks=pytest.mark.full),
     pytest.param("startup.py", "stock hivemind.DHT", marks=pytest.mark.full)],
)  # fmt: skip
def test_a_benchmark_runs(script: str, table: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / script), "--quick"], capture_output=True, text=True, check=False, timeout=170
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert table in done.stdout


GPU_PART = """
import torch, verification, verification_gpu
if __name__ == "__main__":
    document = verification_gpu.measure(torch.device("cpu"), 2, quick=True)
    print(*(table.plain() for table in verification.tables_of(document)))
"""


def test_what_is_measured_on_a_gpu_with_a_cpu_in_its_place() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GPU_PART], cwd=BENCH, capture_output=True, text=True, check=False, timeout=170
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "48 checks, 0 false accusations" in done.stdout
    assert "checked on the GPU" in done.stdout
