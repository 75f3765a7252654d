"""`ubcp submit` on real nodes with a real ledger: what is impossible is refused, the rest is told and served."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.live import charter_file, hand_in, ledger_of, open_chains, short_slices, ubcp
from tests.support.processes import until
from tests.support.swarm import STEP_S, Swarm
from ubcp_p2p.api.problems import NodeRefused
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.units import MICROCREDITS

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(240)]
SLICE_S = 5
SERVING = '[serving]\ndevice_class = "cpu-8"\n'
RECIPE = load_recipe("digits-tiny")


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm(bootstrap=False, faulty=False) as made:
        yield made


def test_a_request_is_quoted_refused_or_told(swarm: Swarm, tmp_path: Path) -> None:
    world = short_slices(47, SLICE_S, grace_slices=1)
    more = charter_file(swarm.home, world)
    a = swarm.add("a", more=more).start()
    alone = ubcp(a, "submit", "digits-tiny", "--run", "plays", "--purpose", "research", "--yes")
    assert (alone.code, "no peer could say" in alone.err) == (3, True)  # signed now, it may be a fork
    b = swarm.add("b", more=more + SERVING).start(a.own())
    open_chains(a, world)
    open_chains(b, world)
    stranger = swarm.add("c", more=more).start(a.own())
    open_chains(stranger, world, enrol=False)
    hand_in(a, world.entries)
    entries = len(world.entries)
    until(lambda: all(ledger_of(peer)["entries"] == entries for peer in (a, b, stranger)), STEP_S, "all have all")
    until(lambda: ledger_of(b)["writing"]["standing"] == "confirmed", STEP_S, "b may decide")

    quote = ubcp(a, "submit", "digits-tiny", "--run", "plays", "--purpose", "research", "--json")
    assert quote.code == 0, quote.err
    assert quote.document["request"] is None and quote.document["feasibility"] is None  # nobody has asked yet
    assert quote.document["price"] == {"min": 50, "max": 400}
    assert quote.document["available"] == 10_000 * MICROCREDITS
    for options, code, words in (
        (("--run", "plays", "--purpose", "mining"), 1, "does not allow the purpose 'mining'"),
        (("--run", "plays", "--purpose", "research", "--budget", "10001"), 1, "10,000 available"),
        (("--run", "plays", "--purpose", "research", "--budget", "0.00004"), 1, "the smallest useful run"),
        (("--run", "plays", "--purpose", "research", "--deadline", "2026-01-02"), 1, "deadline has passed"),
        (("--run", "plays", "--purpose", "research", "--peers-max", "9"), 2, "peers_max"),
        (("--run", "plays"), 1, "several purposes"),
    ):
        refused = ubcp(a, "submit", "digits-tiny", *options, "--yes")
        assert (refused.code, words in refused.err, "hint: " in refused.err) == (code, True, True), refused.err
    assert "not enrolled" in ubcp(stranger, "submit", "digits-tiny", "--run", "x", "--purpose", "research", "--yes").err
    shown = ubcp(a, "submit", "digits-tiny", "--run", "x", "--purpose", "research")
    assert (shown.code, "no terminal" in shown.err) == (2, True)
    assert "0.00005 to 0.0004 credits for the whole run" in shown.out and "nobody knows" in shown.out
    assert ledger_of(a)["entries"] == entries  # nothing was told, and so nothing is reserved

    done = ubcp(a, "submit", "digits-tiny", "--run", "plays", "--purpose", "research", "--yes", "--json")
    assert (done.code, done.document["outcome"]) == (0, "added"), done.err
    request = done.document["request"]
    twice = ubcp(a, "submit", "digits-tiny", "--run", "plays", "--purpose", "research", "--yes")
    assert (twice.code, "has an open request for this very run" in twice.err) == (1, True)
    changed = tmp_path / "other.toml"
    changed.write_text(RECIPE.to_toml().replace("seed = ", "seed = 1"))
    taken = ubcp(a, "submit", str(changed), "--run", "plays", "--purpose", "research", "--yes")
    assert (taken.code, "with another recipe" in taken.err) == (1, True)

    def accepted() -> bool:
        leases = b.status()["serving"]["leases"]
        return any(row["request"] == request for row in leases)

    until(accepted, STEP_S, "b serves it")
    quote = ubcp(a, "submit", "digits-tiny", "--run", "more", "--purpose", "research", "--json")
    assert quote.document["feasibility"] == {"peers": 1, "slices": 1, "per_slice": 50, "recent": True}
    assert (quote.document["expected_wait_s"], quote.document["queue"]) == (0, None)
    assert quote.document["words"].startswith("accepted: 50 GFLOP")
    many = ubcp(a, "submit", "digits-tiny", "--run", "more", "--purpose", "research", "--peers-min", "2", "--yes")
    assert (many.code, "it needs 2 peers at least, and 1 could serve it" in many.err) == (1, True)
    listed = ubcp(a, "runs", "--json").document["requests"]
    assert [(row["run"], row["mine"], row["paid"]) for row in listed] == [("plays", True, 0)]
    assert listed[0]["state"] in ("waiting", "served") and listed[0]["leases"]["nodes"] == [b.public.hex()]
    assert listed[0]["words"].startswith("accepted: 50 GFLOP")
    shown = ubcp(b, "runs", "show", "plays")
    assert (shown.code, request in shown.out) == (0, True), shown.err
    assert "recipe digits-tiny (" in shown.out  # b has it from a, by the hash in the ledger alone
    assert ubcp(b, "runs", "show", "nothing").code == 1
    early = ubcp(a, "runs", "stop", "plays", "--yes")
    assert (early.code, "are bound until" in early.err) == (1, True)
    none = ubcp(a, "runs", "stop", "nothing", "--yes")
    assert (none.code, "its runs: plays" in none.err) == (1, True)
    moment = datetime.fromtimestamp(time.time() + 3 * SLICE_S, UTC).isoformat()
    short = ("submit", "digits-tiny", "--run", "short", "--purpose", "research", "--deadline", moment, "--yes")
    assert ubcp(a, *short).code == 0
    before = ubcp(a, "credits", "--json").document
    assert len(before["reserves"]) == 2

    def closable() -> bool:
        try:
            return bool(a.call("close-draft", run="short")["draft"])
        except NodeRefused:
            return False

    until(closable, STEP_S, "the request for it can be closed")
    assert ubcp(a, "runs", "stop", "short", "--yes").code == 0
    after = ubcp(a, "credits", "--json").document
    assert [row["run"] for row in after["reserves"]] == ["plays"]
    assert after["available"] == before["available"] + 400
    assert a.stop() == 0
    with Store.open(a.profile.ledger_store, read_only=True) as store:
        blob = store.blob(RECIPE.hash())
    assert blob is not None
    assert Recipe.from_bytes(blob, "the blob") == RECIPE
    export = tmp_path / "a.ledger"
    assert ubcp(a, "ledger", "export", "--out", str(export)).code == 0
    audit = subprocess.run(
        [sys.executable, "-m", "ubcp_p2p", "audit", str(export), "--json"], capture_output=True, text=True, timeout=60
    )
    assert (audit.returncode, json.loads(audit.stdout)["faults"]) == (0, [])
