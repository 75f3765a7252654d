"""What the owner tunes, in real nodes: pauses, sensors, and that nothing committed is lost by them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_node_life import refused, ubcp
from tests.support.processes import family, until
from tests.support.swarm import STEP_S, Peer, Swarm, tiny, together

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    """A bootstrap node; tests add what they need. At the end nothing may be left."""
    with Swarm(faulty=False) as made:
        yield made


@pytest.fixture
def alone() -> Iterator[Swarm]:
    """No bootstrap node: for what a node decides by itself."""
    with Swarm(bootstrap=False, faulty=False) as made:
        yield made


def pair(swarm: Swarm) -> tuple[Peer, Peer]:
    """Two peers that train together."""
    a, b = (swarm.add(name).start(swarm.seeds) for name in "ab")
    for peer in (a, b):
        peer.train(tiny(100_000))
    together([a, b])
    return a, b


def trainers(peer: Peer) -> list[str]:
    return [line for line in family(peer.mark).values() if "training.worker" in line]


@pytest.mark.full
def test_a_pause_leaves_at_once_and_what_was_committed_stays(swarm: Swarm) -> None:
    a, b = pair(swarm)
    marks = swarm.marks()
    done = ubcp(b, "pause")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "idle: paused by you until `ubcp resume`\n"
    paused = b.wait("paused", after=marks["b"])
    assert paused["reason"] == "paused by you until `ubcp resume`"
    last = max(event["round"] for event in b.committed())
    assert paused["round"] >= last
    until(lambda: not trainers(b), STEP_S, "the trainer of b is gone")
    assert b.run()["stage"] == "paused"
    alone = a.wait("committed", after=marks["a"], where=lambda e: e["members"] == [a.public.hex()])

    shown = ubcp(b, "status").stdout
    assert "owner      idle: paused by you until `ubcp resume`" in shown
    assert f"run        run (digits-tiny): paused after round {paused['round']}" in shown
    document = json.loads(ubcp(b, "status", "--json").stdout)["owner"]
    assert (document["works"], document["causes"], document["until"]) == (False, ["pause"], None)

    before = b.mark_now()
    assert ubcp(b, "resume").stdout == "working\n"
    assert b.wait("joining", after=before)["round"] >= last  # its own checkpoint has it
    together([a, b], after={"a": a.events.index(alone), "b": before})


@pytest.mark.full
def test_after_the_round_nobody_has_to_try_again(swarm: Swarm) -> None:
    a, b = pair(swarm)
    marks = swarm.marks()
    b.call("pause", after_round=True)
    paused = b.wait("paused", after=marks["b"])
    own = b.committed(marks["b"])
    assert own, "it left before its round was made"
    assert paused["round"] == own[-1]["round"]
    assert len(own[-1]["members"]) == 2
    a.wait("committed", after=marks["a"], where=lambda e: e["round"] > paused["round"] and len(e["members"]) == 1)
    assert a.count("retry", marks["a"]) == 0


@pytest.mark.full
def test_a_pause_holds_over_restarts_and_ends_by_itself(swarm: Swarm) -> None:
    peer = swarm.add("a")
    done = ubcp(peer, "pause")
    assert done.stdout == "no node is running; the next one begins paused\n"
    peer.start(swarm.seeds)
    peer.train(tiny(100_000)).wait("paused")
    assert trainers(peer) == []
    peer.stop()

    before = peer.mark_now()
    peer.start(swarm.seeds)
    until(lambda: bool(peer.status()["runs"]), STEP_S, "the run is back")
    assert peer.run()["stage"] == "paused"
    peer.listen().wait("paused", after=before)
    ubcp(peer, "pause", "--for", "0.0005")  # 2 s, in the place of the endless one
    peer.wait("goes on", after=before)
    peer.wait("committed", after=before)
    assert peer.status()["owner"]["works"]
    refused(ubcp(peer, "pause", "--for", "0"), 2, "a pause of 0.0 hours cannot be")
    refused(ubcp(swarm["seed"], "pause"), 2, "seed node")


def test_a_paused_run_can_be_left(alone: Swarm) -> None:
    peer = alone.add("a").start()
    peer.call("pause")
    peer.train(tiny(100_000)).wait("paused")
    assert ubcp(peer, "leave", "run").returncode == 0
    peer.wait("left")
    peer.call("resume")
    assert peer.run()["stage"] == "left"
    assert trainers(peer) == []


@pytest.mark.full
def test_a_laptop_that_is_unplugged_gives_what_it_has_and_comes_back(swarm: Swarm, tmp_path: Path) -> None:
    battery, mains = tmp_path / "sys/class/power_supply/BAT0", tmp_path / "sys/class/power_supply/AC"
    for folder, kind in ((battery, "Battery"), (mains, "Mains")):
        folder.mkdir(parents=True)
        (folder / "type").write_text(kind)
    (battery / "status").write_text("Full")
    (mains / "online").write_text("1")
    peer = swarm.add("a", faulty=True).start(swarm.seeds)
    peer.call("sense", root=str(tmp_path))
    peer.train(tiny(100, local_steps=100_000)).wait("progress")  # a round of minutes
    (mains / "online").write_text("0")
    (battery / "status").write_text("Discharging")
    committed = peer.wait("committed")
    assert peer.wait("paused") == peer.events[-1]
    assert peer.events[-1]["reason"] == "on battery"
    assert peer.events[-1]["round"] == committed["round"] == 1
    assert peer.status()["owner"]["readings"] == {"on_battery": True}
    before = peer.mark_now()
    (mains / "online").write_text("1")
    assert peer.wait("joining", after=before)["round"] == 1


def test_a_cap_that_cannot_be_kept_and_a_grid_that_is_too_dirty(alone: Swarm) -> None:
    config = '[owner]\npower_w_max = 100\ncarbon_g_max = 10\nrefuse_runs = ["ours"]\n[carbon]\ncountry = "SE"\n'
    peer = alone.add("a", more=config, faulty=True).start()
    empty = peer.home / "empty"
    empty.mkdir()
    peer.call("sense", root=str(empty))
    refused(ubcp(peer, "train", "digits-tiny", "--run", "ours"), 2, "refuses the run 'ours'", "refuse_runs")
    words = peer.train(tiny(100_000)).wait("paused")["reason"]
    assert "your power cap of 100 W cannot be kept: this machine shows no power of its processors" in words
    assert "the grid has 41 g/kWh, above your ceiling of 10; no cleaner hour is known" in words
    assert peer.status()["owner"]["causes"] == ["power", "carbon"]
    assert trainers(peer) == []


@pytest.mark.full
def test_a_peer_that_waits_for_others_need_not_finish_a_round(swarm: Swarm) -> None:
    a, b = (swarm.add(name).start(swarm.seeds) for name in "ab")
    for peer in (a, b):
        peer.train(tiny(100_000), peers_min=2)
    together([a, b])
    b.kill()
    a.wait("waiting", after=a.events.index(a.committed()[-1]))
    before = a.mark_now()
    a.call("pause", after_round=True)
    a.wait("paused", after=before)
    assert a.count("committed", before) == 0
