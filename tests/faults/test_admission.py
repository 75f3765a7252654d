"""A run that is paid for: who holds no lease of it is refused in words, gets no state, and holds nobody up."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.live import charter_file, hand_in, ledger_of, open_chains, short_slices, submission, ubcp
from tests.support.processes import until
from tests.support.swarm import STEP_S, Event, Peer, Swarm, assert_agreed, tiny, together
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, OpenAccount, OpenNode
from ubcp_p2p.ledger.world import World
from ubcp_p2p.peer.admission import NO_LEASE, NO_NODE, NODE_FROZEN, NOT_ENROLLED

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(300)]
SLICE_S = 8
SLICES = 24  # from the request to its deadline
SERVING = '[serving]\ndevice_class = "cpu-8"\n'
RUN = "plays"
ROUNDS, TRIES_MAX = 20, 3
_BASE = tiny(2000, local_steps=20)
RECIPE = _BASE.model_copy(update={"model": _BASE.model.model_copy(update={"channels": (32, 64)})})


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm(bootstrap=False) as made:
        yield made


@pytest.fixture
def three() -> Iterator[Swarm]:
    with Swarm("abc") as made:
        for peer in made.of("abc"):
            peer.train(tiny(100_000), peers_min=2)
        together(made.of("abc"))
        yield made


def test_a_member_whose_ledger_is_behind_costs_a_try_and_not_the_run(
    three: Swarm, figure: Callable[[str], None]
) -> None:
    """b does not know yet that c is let in: a goes on with one of them, and all are together again when b knows."""
    a, b, c = three.of("abc")
    marks = three.marks()
    b.call("behave", modes={"shuts": [c.public.hex()]})
    reached = a.wait("committed", after=marks["a"])["round"] + ROUNDS
    a.wait("committed", after=marks["a"], where=lambda event: event["round"] >= reached)
    retries = [peer.count("retry", marks[peer.name]) for peer in (a, b, c)]
    began_s = time.monotonic()
    b.call("behave", modes={})
    together([a, b, c], after=three.marks())
    figure(f"retries in {ROUNDS} rounds {retries}, together again after {time.monotonic() - began_s:.1f} s")
    assert_agreed([a, b, c], marks)
    assert sorted(retries)[1] <= TRIES_MAX  # the third is who is left out, and follows


def test_a_liar_that_refuses_an_honest_peer_keeps_it_from_nobody_else(three: Swarm) -> None:
    a, b, liar = three.of("abc")
    marks = three.marks()
    liar.call("behave", modes={"shuts": [a.public.hex()]})
    for _ in range(4):
        together([a, b], after=three.marks())
    for peer in (a, b):
        assert not any(event["waits"] for event in peer.events[marks[peer.name] :] if event["kind"] == "refused")
    assert_agreed([a, b], marks)


def open_and_fork(peer: Peer, world: World) -> None:
    """Open the chains of the peer, enrol its account, and sign two entries with one number by its node."""
    account = Author(world.charters.network, AccountKey.load(peer.profile.account_key))
    node = Author(world.charters.network, NodeKey.load(peer.profile.node_key))
    world.write(account, OpenAccount(ZERO))
    world.enrol(account, peer.name)
    assert account.head is not None
    world.write(node, OpenNode(account.head), [account.key])
    before = copy.copy(node)
    world.decide(node, budget=1)
    world.decide(before, budget=2)


def refused(peer: Peer) -> Event:
    """The peer takes part in the run by hand, and hears that it may not."""
    peer.train(RECIPE, run=RUN)
    event = peer.wait("refused")
    assert event["waits"]
    return event


def test_who_holds_no_lease_is_told_why_and_gets_no_state(swarm: Swarm, tmp_path: Path) -> None:
    world = short_slices(59, SLICE_S, grace_slices=1)
    community = charter_file(swarm.home, world)
    payer = swarm.add("payer", more=community).start()
    b, c = (swarm.add(name, more=community + SERVING).start(payer.own()) for name in "bc")
    frozen, poor = (swarm.add(name, more=community).start(payer.own()) for name in ("frozen", "poor"))
    stranger = swarm.add("stranger").start(payer.own())
    for peer in (payer, b, c):
        open_chains(peer, world)
    open_chains(poor, world, enrol=False)
    open_and_fork(frozen, world)
    hand_in(payer, world.entries)
    members = (payer, b, c)
    until(lambda: all(frozen.public.hex() in ledger_of(p)["frozen"] for p in members), STEP_S, "all know the fork")
    until(lambda: all(ledger_of(p)["writing"]["standing"] == "confirmed" for p in members), STEP_S, "may sign")

    ask = submission(RECIPE, tmp_path, RUN, SLICES * SLICE_S)
    done = ubcp(payer, *ask, "--peers-max", "2")
    assert done.code == 0, done.err
    until(lambda: all(any(r["name"] == RUN for r in p.status()["runs"]) for p in (b, c)), STEP_S, "both have begun")
    for peer in (b, c):
        peer.listen(RUN)
    together([b, c])

    marks = swarm.marks()
    for peer, words in ((frozen, NODE_FROZEN), (poor, NOT_ENROLLED), (stranger, NO_NODE)):
        event = refused(peer)
        assert event["reason"] == words
        assert set(event["by"]) == {b.public.hex(), c.public.hex()}
        assert f"NOT LET IN: {words}" in ubcp(peer, "status").out
        together([b, c], after=swarm.marks())
        run = peer.run(RUN)
        assert (run["round"], run["refused"]) == (0, words)
        assert peer.count("committed") + peer.count("adopted") == 0
        peer.call("leave", run=RUN)

    event = refused(payer)  # its owner has paid: it may have the model, but no place in a group
    assert event["reason"] == NO_LEASE
    assert payer.wait("adopted")["how"] == "download"
    assert payer.count("committed") == 0

    together([b, c], after=swarm.marks())
    assert assert_agreed([b, c], marks) > 0
    for peer in (b, c):
        assert peer.count("retry", marks[peer.name]) <= 1
        assert peer.run(RUN)["refused"] == ""
