"""A node that trains nothing fetches a run's model from those who do, past peers that serve another one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live import ubcp
from tests.support.models import evaluate
from tests.support.processes import until
from tests.support.swarm import ROOT, STEP_S, Peer, Swarm, tiny

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(180)]

TRIES = 30  # two of three lie, and which is asked first is drawn: all draws honest once in 10^14


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm("abc") as made:
        yield made


def claimed(peer: Peer) -> int:
    rows = ubcp(peer, "runs", "--json").document["claimed"]
    return sum(row["peers"] for row in rows if row["name"] == "run")


def test_the_model_of_a_run_that_others_train(swarm: Swarm, tmp_path: Path) -> None:
    a, b, c = swarm.of("abc")
    asker = swarm.add("asker", faulty=False).start(swarm.seeds)
    unknown = ubcp(asker, "runs", "fetch", "run")
    assert (unknown.code, "nobody is in a run called 'run'" in unknown.err) == (1, True), unknown.err
    for peer in (a, b, c):
        peer.train(tiny(12), peers_min=3)
    for peer in (a, b, c):
        peer.wait("done")
    until(lambda: claimed(asker) == 3, STEP_S, "all are known to be in the run")

    liars = [peer.public.hex()[:16] for peer in (b, c)]
    for peer in (b, c):
        peer.call("behave", modes={"state": "poison"})

    recipe = tmp_path / "digits.toml"
    recipe.write_text(tiny(12).to_toml())
    out = tmp_path / "model.safetensors"
    passed_over = ""
    for number in range(TRIES):
        done = ubcp(asker, "runs", "fetch", "run", "--recipe", str(recipe), "--json")
        assert done.code == 0, done.err
        if "passed over" in done.err:
            passed_over = done.err
            break
        Path(done.document["path"]).unlink()  # as if it had never been fetched
        assert number < TRIES - 1
    assert any(f"passed over {liar}…: the downloaded state does not match" in passed_over for liar in liars)
    found = done.document
    assert (found["round"], found["rounds"], found["state_hash"]) == (12, 12, a.run()["state_hash"])
    assert Path(found["path"]).stat().st_mode & 0o777 == 0o600
    certificate, result = evaluate(Path(found["path"]))
    assert certificate.round == 12
    there = a.call("evaluate", run="run")
    assert result.loss == pytest.approx(there["loss"], rel=1e-5)
    assert result.n == there["n"]

    assert asker.status()["runs"] == []  # it has no trainer, and is in no run
    assert "torch" not in Path(f"/proc/{asker.pid}/maps").read_text()
    for peer in (a, b, c):
        assert peer.stop() == 0
    kept = ubcp(asker, "runs", "fetch", "run", "--recipe", str(recipe), "--out", str(out))
    assert (kept.code, "the copy that the node has kept" in kept.err) == (0, True), kept.err
    assert out.read_bytes() == Path(found["path"]).read_bytes() and out.stat().st_mode & 0o777 == 0o600
    (snippet,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/submitting.md").read_text(), re.MULTILINE | re.DOTALL
    )
    used = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    loss = re.search(r"loss=([0-9.]+)", used.stdout)
    assert loss is not None and float(loss[1]) == pytest.approx(result.loss, rel=1e-5), used.stderr
    again = ubcp(asker, "runs", "fetch", "run", "--out", str(out))
    assert (again.code, "is there already" in again.err) == (2, True)
    shown = ubcp(asker, "runs", "show", "run")
    assert f"fetched  run (digits-tiny): round 12 of 12, in {found['path']}" in shown.out
