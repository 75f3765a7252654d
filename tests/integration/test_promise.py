"""The whole promise: a member without a GPU asks, peers take it up, train and are paid by round; an auditor agrees.

Four real daemons with a real ledger; one contributor is killed in mid-run and comes back, one comes late.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import all_know, charter_file, ledger_of, open_chains, short_slices, submission, ubcp
from tests.support.models import evaluate
from tests.support.processes import until
from tests.support.swarm import STEP_S, Peer, Swarm, tiny
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.units import MICROCREDITS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SLICE_S = 8
SERVING = '[serving]\ndevice_class = "cpu-8"\n'
_BASE = tiny(2000, local_steps=50)
RECIPE = _BASE.model_copy(update={"model": _BASE.model.model_copy(update={"channels": (64, 128)})})  # 1.5 GFLOP a round
SLICES = 7  # from the request to its deadline
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from ubcp_p2p.cli.main import main; main()"


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm(bootstrap=False, faulty=False) as made:
        yield made


def earned(peer: Peer) -> int:
    return sum(row["earned"] for row in peer.status()["earning"])


def asked(peer: Peer, run: str) -> dict[str, Any]:
    rows = ubcp(peer, "runs", "--json").document["requests"]
    found: dict[str, Any] = next(row for row in rows if row["run"] == run)
    return found


@pytest.mark.full
def test_the_life_of_a_run(swarm: Swarm, tmp_path: Path) -> None:
    world = short_slices(53, SLICE_S, grace_slices=1)
    more = charter_file(swarm.home, world)
    payer = swarm.add("payer", more=more).start()
    b, c, late = (swarm.add(name, more=more + SERVING) for name in ("b", "c", "late"))
    for peer in (b, c):
        peer.start(payer.own())
    for peer in (payer, b, c, late):
        open_chains(peer, world)
    all_know((payer, b, c), world)

    ask = submission(RECIPE, tmp_path, "plays", SLICES * SLICE_S)
    done = ubcp(payer, *ask, "--peers-max", "3")
    assert done.code == 0, done.err
    budget = done.document["budget"]

    until(lambda: earned(b) > 0 and earned(c) > 0, STEP_S, "both are paid for rounds")
    c.kill()
    before = earned(b)
    late.start(payer.own())
    until(lambda: earned(b) > before, STEP_S, "b is paid on")
    kept = {path.name: path.read_bytes() for path in c.profile.paying.iterdir()}
    assert kept, "the killed one has its voucher on its disk"
    c.start(payer.own())
    until(lambda: earned(late) > 0, STEP_S, "who came late is paid")
    until(lambda: asked(payer, "plays")["paid"] > 0, STEP_S, "receipts are in the ledger")

    until(lambda: all(row["run"] != "plays" or row["state"] == "closed"
                      for row in ubcp(payer, "runs", "--json").document["requests"]),
          STEP_S + SLICES * SLICE_S, "the paymaster has closed it")  # fmt: skip
    contributors = (b, c, late)
    promised = {peer.public: earned(peer) for peer in contributors}
    copies = ubcp(payer, "runs", "--json").document["fetched"]  # by itself, before they left
    copy = max(copies, key=lambda row: int(row["round"]))
    certificate, _ = evaluate(Path(copy["path"]))
    assert 2 * certificate.round >= max(peer.run("plays")["round"] for peer in contributors if peer is not c)
    assert set(certificate.group.peers) <= {peer.public for peer in contributors}
    until(lambda: len({ledger_of(p)["balances_root"] for p in (payer, b, c, late)}) == 1, STEP_S, "all agree")
    quote = ubcp(payer, "submit", str(tmp_path / "recipe.toml"), "--run", "more", "--purpose", "research", "--json")
    for peer in (payer, b, c, late):
        assert peer.stop() == 0
    export = tmp_path / "payer.ledger"
    assert ubcp(payer, "ledger", "export", "--out", str(export)).code == 0
    audit = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "audit", str(export), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    report = json.loads(audit.stdout)
    assert (audit.returncode, report["faults"]) == (0, [])
    assert report["valid"] == report["entries"]
    with Store.open(payer.profile.ledger_store, read_only=True) as store:
        (request,) = store.ledger.requests
        (close,) = store.ledger.closes.values()
        nodes = {opening: fact.author for opening, fact in store.ledger.openings.items()}
        paid = {nodes[opening]: credits_ for opening, credits_ in store.ledger.paid[request].items()}
        closed = {nodes[opening]: credits_ for opening, credits_ in close.final}
    assert paid == promised == closed  # who was killed lost nothing, and what each was promised is in the ledger
    assert all(paid[peer.public] > 0 for peer in contributors)
    assert close.returned == budget - sum(paid.values()) > 0
    assert quote.document["closes_claimed"] == 1
    assert quote.document["available"] == 10_000 * MICROCREDITS - sum(paid.values())
