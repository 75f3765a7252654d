"""A node's life through the real `ubcp` program: start, status, refusals, clean stops, kill -9, joining by memory."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import family, until
from tests.support.swarm import ROOT, STEP_S, Peer, Swarm, tiny, together
from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.peer.profile import read_holder

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(120)]


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    """A bootstrap node; tests add what they need. At the end nothing may be left."""
    with Swarm(faulty=False) as made:
        yield made


@pytest.fixture
def alone() -> Iterator[Swarm]:
    """As `swarm`, without the bootstrap node: for what a node does by itself."""
    with Swarm(bootstrap=False, faulty=False) as made:
        yield made


def ubcp(peer: Peer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One `ubcp` command on the peer's profile."""
    command = [sys.executable, "-m", "ubcp_p2p", *arguments, "--profile", str(peer.profile.root)]
    return subprocess.run(
        command, cwd=ROOT, env=peer.environment(), capture_output=True, text=True, timeout=STEP_S, check=False
    )


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One error line and one hint, no traceback, nothing on stdout."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("ubcp: error: ")]
    assert len(errors) == 1, done.stderr
    assert any(line.startswith("ubcp: hint: ") for line in lines), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_status_answers_while_the_node_is_loading(swarm: Swarm, figure: Callable[[str], None]) -> None:
    peer = swarm.add("a")
    started_s = time.monotonic()
    peer.spawn(*swarm.join())
    until(lambda: read_holder(peer.profile) is not None, STEP_S, "the node holds its profile")
    done = ubcp(peer, "status", "--json")
    figure(f"ubcp status answered {time.monotonic() - started_s:.2f} s after ubcp up was started")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["pid"] == peer.pid
    assert document["loading"] == ([] if document["stage"] == "up" else [document["stage"]])
    peer.wait_up()
    until(lambda: peer.status()["connected"] >= 1, STEP_S, "it has joined")
    assert peer.status()["reachability"]["kind"] == "loopback"
    assert "reachable" in ubcp(peer, "status").stdout


def test_a_second_node_on_one_profile_is_refused(alone: Swarm) -> None:
    peer = alone.add("a").start()
    refused(ubcp(peer, "up"), 3, f"process {peer.pid}", "ubcp stop")
    assert peer.status()["stage"] == "up"


def test_a_port_in_use_is_one_clear_error(alone: Swarm) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        peer = Peer(alone.home, "a", faulty=False).init(port=taken.getsockname()[1])
        refused(ubcp(peer, "up"), 3, "the port is in use", "network.listen")
        refused(ubcp(peer, "up", "--detach"), 3, "the port is in use", "network.listen")
        refused(ubcp(peer, "status"), 2, "no node is running", "ubcp up")


def test_an_address_of_another_machine_is_told_from_a_taken_port(alone: Swarm) -> None:
    peer = Peer(alone.home, "a", faulty=False).init()
    text = peer.profile.config_file.read_text()
    peer.profile.config_file.write_text(text.replace("/ip4/127.0.0.1/tcp/", "/ip4/192.0.2.1/tcp/"))
    refused(ubcp(peer, "up"), 3, "does not have the address", "network.listen")


def test_what_is_wrong_is_said_and_loses_nothing(swarm: Swarm, tmp_path: Path) -> None:
    peer = swarm.add("a")
    refused(ubcp(peer, "status"), 2, "no node is running", "ubcp up")
    peer.start(swarm.seeds)
    broken = tmp_path / "broken.toml"
    broken.write_text("name = 'broken\n")
    refused(ubcp(peer, "train", str(broken), "--run", "r"), 2, "broken.toml")
    refused(ubcp(peer, "train", "no-such-recipe", "--run", "r"), 2, "digits-tiny")
    refused(ubcp(peer, "leave", "nowhere"), 2, "no run called 'nowhere'")
    refused(ubcp(peer, "up", "--peer", "nonsense"), 2, "not a peer's address")
    refused(ubcp(swarm["seed"], "train", "digits-tiny", "--run", "r"), 2, "seed node")
    assert peer.status()["runs"] == []


def test_status_says_what_keeps_the_trainer_in(alone: Swarm, tmp_path: Path) -> None:
    peer = alone.add("a").start()
    stray = tmp_path / "stray.toml"
    base = load_recipe("fashion-cnn")
    stray.write_text(base.model_copy(update={"data": base.data.model_copy(update={"path": "/root"})}).to_toml())
    refused(ubcp(peer, "train", str(stray), "--run", "s"), 2, "takes its data from /root", "read_dirs")
    peer.train(tiny(100_000)).wait("committed")
    layers = peer.run()["sandbox"]
    assert [layer["name"] for layer in layers] == ["limits", "privileges", "files", "calls"]
    assert all(layer["words"] for layer in layers)
    told = ubcp(peer, "status").stdout
    assert "\nsandbox    run: " in told
    assert all(layer["name"] in told for layer in layers)


def test_peers_with_another_recipe_are_named(alone: Swarm) -> None:
    a = alone.add("a").start()
    b = alone.add("b").start(a.own())
    a.train(tiny(100_000)).wait("committed")
    recipe = alone.home / "other.toml"
    recipe.write_text(tiny(7).to_toml())
    until(lambda: bool(b.call("runs")["claimed"]), STEP_S, "b has heard of the run")
    refused(ubcp(b, "train", str(recipe), "--run", "run"), 2, "another recipe", "--new")
    listed = ubcp(b, "runs")
    assert listed.returncode == 0
    assert "claimed  run (digits-tiny)" in listed.stdout


def images(folder: Path, count: int = 200) -> Path:
    """A set of noise in Fashion-MNIST's shape."""
    folder.mkdir()
    pixels = random.Random(1).randbytes(count * 28 * 28)
    files = {
        "images-idx3": struct.pack(">4I", 0x0803, count, 28, 28) + pixels,
        "labels-idx1": struct.pack(">2I", 0x0801, count) + bytes(count),
    }
    for part in ("train", "t10k"):
        for kind, data in files.items():
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(data))
    return folder


@pytest.mark.full
def test_peers_with_other_data_are_named(swarm: Swarm, tmp_path: Path) -> None:
    """One recipe, of which one node has the data and the other the fallback."""

    def recipe(path: Path) -> Recipe:
        base = load_recipe("fashion-cnn")
        data = base.data.model_copy(update={"path": str(path), "fallback": "digits"})
        return base.model_copy(update={"data": data, "rounds": tiny(10_000).rounds})

    peers = [swarm.add(name) for name in "abc"]
    for peer in peers:
        text = peer.profile.config_file.read_text()
        peer.profile.config_file.write_text(text.replace("[training]\n", f'[training]\nread_dirs = ["{tmp_path}"]\n'))
    a, b, c = (peer.start(swarm.seeds) for peer in peers)
    theirs, ours = recipe(images(tmp_path / "images")), recipe(tmp_path / "nowhere")
    assert theirs.hash() == ours.hash()
    a.train(theirs).wait("committed")
    until(lambda: bool(b.call("runs")["claimed"]), STEP_S, "b has heard of the run")
    failed = b.train(ours).wait("failed")
    assert "peers in this run train on other data than this node has" in failed["message"]
    assert b.run()["trainer_pid"] not in family(b.mark)
    together([a, c.train(theirs)])  # the same data are let in
    before = b.mark_now()
    b.train(ours, new=True).wait("joined", after=before)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)])
def test_a_signal_ends_it_in_order(swarm: Swarm, number: signal.Signals) -> None:
    peer = swarm.add("a").start(swarm.seeds)
    peer.train(tiny(100_000)).wait("committed")
    assert peer.process is not None
    peer.process.send_signal(number)
    assert peer.process.wait(STEP_S) == 0
    assert peer.left_behind() == []
    assert list(peer.profile.runs.rglob("*.safetensors")), "no checkpoint was kept"


def test_stop_returns_when_the_node_has_ended(alone: Swarm) -> None:
    peer = alone.add("a").start()
    done = ubcp(peer, "stop", "--json")
    assert json.loads(done.stdout) == {"stopped": True, "pid": peer.pid}
    assert peer.process is not None
    assert peer.process.wait(STEP_S) == 0
    assert peer.left_behind() == []


def test_kill_9_leaves_nothing_and_the_run_goes_on_where_it_was(alone: Swarm) -> None:
    peer = alone.add("a").start()
    peer.train(tiny(100_000), checkpoint_every_s=0.0)
    saved = peer.wait("checkpointed", where=lambda e: e["round"] >= 3)
    assert len(family(peer.mark)) == 4, "node, p2pd, trainer, sweeper"
    peer.kill()
    assert peer.left_behind() == []
    before = peer.mark_now()
    peer.start().train(tiny(100_000))
    first = peer.wait("committed", after=before)
    assert first["round"] > saved["round"]


@pytest.mark.full
def test_after_kill_9_up_alone_goes_on_with_the_run_to_its_end(swarm: Swarm) -> None:
    recipe = tiny(30, local_steps=200)
    peer = swarm.add("a").start(swarm.seeds)
    peer.train(recipe, checkpoint_every_s=0.0)
    saved = peer.wait("checkpointed", where=lambda e: 3 <= e["round"] < 20)
    peer.kill()
    assert peer.left_behind() == []
    before = peer.mark_now()

    peer.start(swarm.seeds)
    until(lambda: bool(peer.status()["runs"]), STEP_S, "the run is back")
    peer.listen()
    assert peer.run()["resumed"]
    assert ", to go on where it was" in ubcp(peer, "status").stdout or ", resumed" in ubcp(peer, "status").stdout
    assert peer.wait("joining", after=before)["round"] >= saved["round"]
    assert peer.wait("done", after=before)["round"] == 30
    assert "going on with the run run" in (peer.profile.log / "ubcp.log").read_text()

    peer.stop()
    peer.start(swarm.seeds)
    assert ubcp(peer, "runs").returncode == 0  # answered when the network is up: what is resumed is there by then
    assert peer.status()["runs"] == []  # it is done


def test_no_resume_and_leave(alone: Swarm) -> None:
    peer = alone.add("a").start()
    peer.train(tiny(100_000))
    peer.stop()
    peer.start((), "--no-resume")
    peer.call("runs")
    assert peer.status()["runs"] == []
    peer.stop()
    peer.start()
    until(lambda: bool(peer.status()["runs"]), STEP_S, "the run is back")
    assert ubcp(peer, "leave", "run").returncode == 0
    peer.stop()
    peer.start()
    peer.call("runs")
    assert peer.status()["runs"] == []


def test_detach_and_stop(swarm: Swarm) -> None:
    peer = swarm.add("a")
    peer.mark = "detached"
    done = ubcp(peer, "up", "--detach", *swarm.join())
    assert done.returncode == 0, done.stderr
    pid = peer.status()["pid"]
    assert f"pid {pid}" in done.stderr
    assert os.getpgid(pid) == pid
    assert ubcp(peer, "stop").returncode == 0
    assert peer.left_behind() == []


def test_without_bootstrap_nodes_through_a_friend_and_by_memory(swarm: Swarm) -> None:
    a, b = swarm.add("a").start(swarm.seeds), swarm.add("b").start(swarm.seeds)
    until(lambda: a.public in _connected(b) and b.public in _connected(a), STEP_S, "a and b have met")
    assert ubcp(b, "peers").returncode == 0  # remembers whom it has met
    swarm["seed"].stop()
    # a friend's list of peers is enough for a newcomer
    listing = swarm.home / "friends.txt"
    listing.write_text(ubcp(a, "peers").stdout)
    newcomer = swarm.add("c")
    newcomer.spawn("--peers", str(listing))
    newcomer.wait_up()
    until(lambda: a.public in _connected(newcomer), STEP_S, "the newcomer has joined through a")
    # and a node that was here before needs no list at all
    b.stop()
    b.start()
    until(lambda: bool({a.public, newcomer.public} & _connected(b)), STEP_S, "b has joined by memory")


def _connected(peer: Peer) -> set[bytes]:
    from ubcp_p2p.keys import from_base58, public_of

    return {public_of(from_base58(text)) for text in peer.call("peers")["connected"]}
