"""The live ledger of real daemons: whatever happens to them, honest peers end with the same balances."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.community import second_charter
from tests.support.hosts import Lan, NoNamespaces
from tests.support.ledgers import at, busy
from tests.support.live import agreed, charter_file, hand_in, ledger_of, roots_of
from tests.support.processes import until
from tests.support.swarm import ROOT, STEP_S, Peer, Swarm
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.ledger.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm(bootstrap=False) as made:
        yield made


@pytest.fixture
def lan() -> Iterator[Lan]:
    try:
        with Lan(4) as made:
            yield made
    except NoNamespaces as error:
        pytest.skip(str(error))


def start(swarm: Swarm, names: str, world: World, lan: Lan | None = None) -> list[Peer]:
    """Nodes of the World's community; all but the first join through it."""
    more = charter_file(swarm.home, world)
    peers = [swarm.add(n, more=more, host=lan.hosts[i] if lan else None) for i, n in enumerate(names)]
    first, *others = peers
    first.start()
    for peer in others:
        peer.spawn(*(word for address in first.own() for word in ("--peer", address)))
    for peer in others:
        peer.wait_up()
    for peer in others:
        until(lambda peer=peer: peer.status()["connected"] > 0, STEP_S, f"{peer.name} is connected")  # type: ignore[misc]
    return peers


def test_killed_partitioned_and_lied_to_they_end_the_same(lan: Lan, figure: Callable[[str], None]) -> None:
    """One is killed and started again, one is cut off for a while, and somebody tells two peers different things."""
    world = busy(11, people=4, receipts=4)
    with Swarm(bootstrap=False) as swarm:
        a, b, c, d = peers = start(swarm, "abcd", world, lan)
        hand_in(a, world.entries)
        agreed(peers, world)
        assert ledger_of(d)["accounts"] == 4

        c.kill()
        lan.cut(3)
        new = world.account("met at a")
        honest = world.entries[-2:]
        apart = world.account("met at d")
        far = world.entries[-2:]
        forker = world.node(apart, "forker")
        world.now += 1
        far.append(world.entries[-1])
        for _ in range(20):
            honest.append(world.request(new, forker, 1000))
        hand_in(a, honest)
        hand_in(d, far)

        forker_account = world.account("forker")
        opening = world.entries[-2:]
        twin = at(forker_account, forker_account.head)
        one = world.request(forker_account, forker, 5000)
        other = world.request(twin, forker, 7000)
        hand_in(a, opening)
        hand_in(b, opening)
        hand_in(a, [one])
        hand_in(b, [other])
        name = forker_account.public.hex()
        for peer in (a, b):
            until(lambda peer=peer: ledger_of(peer)["frozen"] == [name], STEP_S, f"{peer.name} froze")  # type: ignore[misc]
        assert roots_of(a) != roots_of(d)
        assert ledger_of(d)["frozen"] == []

        c.start(a.own())
        lan.heal(3)
        agreed(peers, world, timeout_s=90.0)
        assert {roots_of(peer) for peer in peers} == {roots_of(a)}
        assert [ledger_of(peer)["frozen"] for peer in peers] == [[name]] * 4
        assert not any(ledger_of(peer)["banned"] for peer in peers)
        for peer in peers:
            assert f"frozen: {name}" in (peer.profile.log / "ubcp.log").read_text()


@pytest.mark.full
def test_a_node_that_comes_late_takes_it_all(swarm: Swarm) -> None:
    world = busy(12, people=4, receipts=300)
    more = charter_file(swarm.home, world)
    a = swarm.add("a", more=more).start()
    assert all(result["outcome"] == "added" for result in hand_in(a, world.entries))
    b = swarm.add("b", more=more).start(a.own())
    agreed([a, b], world)
    last = ledger_of(b)["last_sync"]
    assert last["new"] == len(world.entries)


def test_an_entry_that_comes_before_what_it_refers_to(swarm: Swarm) -> None:
    """b gets the newest entry by gossip from a peer that has the rest: it asks for it at once."""
    world = busy(13, receipts=3)
    a, b = start(swarm, "ab", world)
    assert {result["outcome"] for result in hand_in(b, world.entries[-1:])} == {"pending"}
    assert ledger_of(b)["entries"] == 0
    assert ledger_of(b)["pending"] == 1
    hand_in(a, world.entries[:-1])
    agreed([a, b], world)
    assert ledger_of(b)["pending"] == 0


def test_another_community_is_told_and_not_blamed(swarm: Swarm) -> None:
    world, other = World(14), World(15)
    (a,) = start(swarm, "a", world)
    b = swarm.add("b", more=charter_file(swarm.home, other)).start(a.own())
    log = b.profile.log / "ubcp.log"
    until(lambda: "another community" in log.read_text(), STEP_S, "b says so")
    world.account("somebody")
    hand_in(a, world.entries)
    assert ledger_of(b)["entries"] == 0
    assert not ledger_of(a)["banned"]
    assert not ledger_of(b)["banned"]


def test_a_store_of_another_community_is_an_error(swarm: Swarm) -> None:
    a = swarm.add("a", more=charter_file(swarm.home, World(16))).start()
    assert a.stop() == 0
    config = a.profile.config_file
    config.write_text(config.read_text().replace("charter-16", "charter-17"))
    charter_file(swarm.home, World(17))
    process = a.spawn()
    assert process.wait(STEP_S) != 0
    assert "is of another community" in a.output()


def test_a_node_without_a_charter_says_how_to_join(swarm: Swarm) -> None:
    a = swarm.add("a").start()
    status = a.status()
    assert status["ledger"] is None
    assert "this node is in no community" in status["ledger_words"]
    assert not a.profile.ledger_store.exists()


def test_a_charter_that_is_not_there(swarm: Swarm, tmp_path: Path) -> None:
    a = swarm.add("a", more=f'[ledger]\ncharter = "{tmp_path}/none.toml"\n')
    assert a.spawn().wait(STEP_S) == 1  # the test's node prints a traceback; `ubcp up` its words, and exit code 2
    assert "there is no charter at" in a.output()


def ubcp(peer: Peer, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ubcp_p2p", *words],
        env={**peer.environment(), "UBCP_HOME": str(peer.profile.root)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=STEP_S,
    )


def test_the_commands_beside_a_running_node(swarm: Swarm, tmp_path: Path) -> None:
    """Entries that were signed elsewhere are handed in; the store is read while the node writes it."""
    world = busy(18, receipts=2)
    (a,) = start(swarm, "a", world)
    file = tmp_path / "entries"
    file.write_text("# made elsewhere\n\n" + "\n".join(signed.to_bytes().hex() for signed in world.entries) + "\n")
    first = ubcp(a, "ledger", "append", str(file))
    assert (first.returncode, first.stderr) == (0, "")
    assert [line.split()[1:] for line in first.stdout.splitlines()] == [["added"]] * len(world.entries)
    again = json.loads(ubcp(a, "ledger", "append", "--json", str(file)).stdout)
    assert {result["outcome"] for result in again["entries"]} == {"known"}

    shown = ubcp(a, "status").stdout
    assert f"{len(world.entries)} entries of 3 accounts" in shown
    export = tmp_path / "export"
    assert ubcp(a, "ledger", "export", "--out", str(export)).returncode == 0
    audited = ubcp(a, "audit", "--json", str(export))
    assert (audited.returncode, json.loads(audited.stdout)["balances_root"]) == (0, roots_of(a)[1])
    assert ubcp(a, "credits", world.entries[0].entry.author.hex()).returncode == 0
    later = json.loads(ubcp(a, "ledger", "append", "--json", str(export)).stdout)  # an export is taken too
    assert {result["outcome"] for result in later["entries"]} == {"known"}

    broken = world.entries[0]._replace(signatures=((world.entries[0].entry.author, bytes(64)),))
    for text, what in (("zz", "line 1"), (broken.to_bytes().hex(), "signature"), ("00", "signatures")):
        file.write_text(text)
        refused = ubcp(a, "ledger", "append", str(file))
        assert refused.returncode in (1, 2)
        assert "ubcp: error:" in refused.stderr
        assert what in refused.stderr
    assert a.stop() == 0
    assert "no node is running" in ubcp(a, "ledger", "append", str(file)).stderr


@pytest.mark.full
def test_versions_of_the_charter(swarm: Swarm) -> None:
    """One that is published reaches the others; of two of one number each node says that the other has another."""
    world = busy(13, people=2)
    one, other = (
        second_charter(world.charters, world, effective=10_000, grace_slices=grace).to_bytes().hex() for grace in (1, 2)
    )
    a, b = start(swarm, "ab", world)
    assert a.call("charter-publish", charter=one) == {"added": True}
    until(lambda: ledger_of(b)["charters"] == 2, STEP_S, "b has the second version")
    assert b.call("charter-publish", charter=one) == {"added": False}
    with pytest.raises(UbcpError, match="two charters of version 2"):
        b.call("charter-publish", charter=other)

    apart = swarm.add("c", more=charter_file(swarm.home, world))
    apart.start()
    assert apart.call("charter-publish", charter=other) == {"added": True}
    apart.stop()
    apart.start(a.own())

    def said(peer: Peer) -> str:
        return " ".join(found["words"] for found in ledger_of(peer)["versions"])

    for peer in (a, apart):
        until(lambda peer=peer: "has another version 2" in said(peer), STEP_S, f"{peer.name} says so")  # type: ignore[misc]
    assert "two charters of version 2" in str(ledger_of(apart)["trouble"])
    shown = subprocess.run(
        [sys.executable, "-m", "ubcp_p2p", "status", "--profile", str(apart.profile.root)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert "has another version 2 of the charter: the stewards must settle which one holds" in shown
    assert not any(ledger_of(peer)["banned"] for peer in (a, b, apart))
