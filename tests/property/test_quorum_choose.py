"""Where peers stand after what others claim: one liar moves nobody, and honest peers end on one state."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import digest, unsigned
from ubcp_p2p.swarm.quorum import Standing, choose

HONEST = [digest(f"honest {n}") for n in range(9)]
LIARS = [digest(f"liar {n}") for n in range(4)]
DEAD = [digest(f"throwaway {n}") for n in range(4)]  # keys that the liars own and that no live peer has
SEATS = 16


def moved(mine: Standing, others: dict[bytes, Standing], me: bytes, known: set[bytes], seats: int = SEATS) -> Standing:
    """Where `me` stands after one look at the others."""
    chosen = choose(mine, others, me=me, known=known - {me}, seats=seats)
    return mine if chosen is None else Standing(chosen.state_hash, chosen)


def without(standings: dict[bytes, Standing], me: bytes) -> dict[bytes, Standing]:
    return {peer: standing for peer, standing in standings.items() if peer != me}


@dataclass(frozen=True)
class Scene:
    """Honest peers on one line, some of them one round ahead, and liars with any certificate that they can make."""

    honest: dict[bytes, Standing]
    liars: dict[bytes, Standing]
    known: set[bytes]
    truth: set[tuple[int, bytes]]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Short enough to read when hypothesis prints it."""
        names = {digest(f"state {n}"): f"S{n}" for n in range(9)} | {digest(f"evil {n}"): f"E{n}" for n in (1, 2)}
        for kind, keys in (("h", HONEST), ("l", LIARS), ("d", DEAD)):
            names |= {key: f"{kind}{n}" for n, key in enumerate(keys)}
        lines = []
        for peer, standing in (self.honest | self.liars).items():
            tip = standing.certificate
            signers = [names[p] for p, _ in tip.signatures] if tip else []
            base = f" from {tip.base[0]}/{names[tip.base[1]]} by {signers}" if tip else ""
            lines.append(f"{names[peer]} on {standing.round}/{names[standing.state_hash]}{base}")
        printer.text("; ".join(lines))


@st.composite
def scenes(draw: st.DrawFn, most_liars: int) -> Scene:
    count = draw(st.integers(2, 6))
    liars = LIARS[: draw(st.integers(1, max(1, min(most_liars, (count - 1) // 2))))]
    honest = HONEST[:count]
    round_ = draw(st.integers(0, 4))
    states = [digest(f"state {n}") for n in range(round_ + 2)]
    ahead = draw(st.integers(0, count))

    def line(at: int) -> Standing:
        if at == 0:
            return Standing(states[0], None)
        signers = honest[: draw(st.integers(count // 2 + 1, count))]
        return unsigned(honest, signers, at - 1, states[at - 1], states[at])

    standings = {peer: line(round_ + (number < ahead)) for number, peer in enumerate(honest)}
    hashes = [*states, digest("evil 1"), digest("evil 2")]
    forged = {}
    for liar in liars:
        if draw(st.integers(0, 9)) == 0:  # a genuine certificate, old or new
            forged[liar] = line(draw(st.integers(0, round_ + 1)))
            continue
        signers = draw(st.lists(st.sampled_from([*liars, *DEAD]), unique=True, min_size=1))
        listed = draw(st.lists(st.sampled_from(honest), unique=True, max_size=len(signers) - 1))
        after = draw(st.sampled_from([round_ - 1, round_, round_ + 1, 48]).filter(lambda r: r >= 0))
        forged[liar] = unsigned(
            [*signers, *listed], signers, after, draw(st.sampled_from(hashes)), draw(st.sampled_from(hashes))
        )
    known = {*honest, *liars} if round_ > 0 else set()
    return Scene(standings, forged, known, {(at, state) for at, state in enumerate(states)})


@given(scenes(most_liars=1))
def test_one_liar_moves_no_honest_peer(scene: Scene) -> None:
    """Whatever it signs: round, base, state, members, throwaway signers; with two or more honest peers there."""
    for me, mine in scene.honest.items():
        after = moved(mine, without(scene.honest, me) | scene.liars, me, scene.known)
        assert after.place in scene.truth
        assert after.round >= mine.round


@given(scenes(most_liars=3))
def test_less_than_a_third_of_liars_moves_no_honest_peer(scene: Scene) -> None:
    for me, mine in scene.honest.items():
        after = moved(mine, without(scene.honest, me) | scene.liars, me, scene.known)
        assert after.place in scene.truth
        assert after.round >= mine.round


@given(scenes(most_liars=1))
def test_those_who_missed_the_end_of_a_round_take_it_in_spite_of_a_liar(scene: Scene) -> None:
    """Each honest peer ends on the newest honest state when more than half of the honest are there or signed it."""
    newest = max(standing.round for standing in scene.honest.values())
    there = [peer for peer, standing in scene.honest.items() if standing.round == newest]
    if 2 * len(there) <= len(scene.honest) + len(scene.liars):
        return
    for me, mine in scene.honest.items():
        after = moved(mine, without(scene.honest, me) | scene.liars, me, scene.known)
        assert after.round >= newest


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_two_halves_of_a_partition_end_on_one_state(left: int, right: int, more: int, more2: int, shared: bool) -> None:
    """All at once, each knowing the others from before: exactly one side moves, and all of it."""
    fork, peers = digest("fork"), HONEST[: left + right if left + right <= 9 else 9]
    sides = peers[:left], peers[left:]
    standings: dict[bytes, Standing] = {}
    for name, side, rounds in (("left", sides[0], more), ("right", sides[1], more2)):
        base = fork if rounds == 0 and shared else digest(f"{name} before")
        standings |= {peer: unsigned(side, side, 5 + rounds, base, digest(name)) for peer in side}
    ends = {moved(mine, without(standings, me), me, set(peers)).place for me, mine in standings.items()}
    assert len(ends) == 1


@given(st.integers(0, 60), st.integers(0, 60))
def test_two_lone_strangers_leave_each_other_alone(mine_round: int, their_round: int) -> None:
    a, b = HONEST[:2]
    mine = unsigned([a], [a], mine_round, digest("a0"), digest("a1"))
    theirs = unsigned([b, DEAD[0]], [b, DEAD[0]], their_round, digest("b0"), digest("b1"))
    assert moved(mine, {b: theirs}, a, known=set()) == mine


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=2, max_size=8), st.randoms())
def test_honest_peers_scattered_over_any_branches_come_to_rest(
    spots: list[tuple[int, int]], chance: random.Random
) -> None:
    """One after another, in any order: no cycle. And whoever sees the same others decides the same."""
    peers = HONEST[: len(spots)]

    def state(round_: int, branch: int) -> bytes:
        return digest(f"{round_} {branch if round_ else 0}")

    standings: dict[bytes, Standing] = {}
    for peer, (round_, branch) in zip(peers, spots, strict=True):
        on_it = [p for p, spot in zip(peers, spots, strict=True) if spot == (round_, branch)]
        standings[peer] = (
            unsigned(on_it, on_it, round_ - 1, state(round_ - 1, branch), state(round_, branch))
            if round_
            else Standing(state(0, 0), None)
        )
    for _ in range(2 * len(peers) + 2):
        order = list(peers)
        chance.shuffle(order)
        before = dict(standings)
        for me in order:
            standings[me] = moved(standings[me], without(standings, me), me, set(peers))
        if standings == before:
            return
    raise AssertionError("they move for ever")


@given(scenes(most_liars=3), st.randoms())
def test_the_order_in_which_answers_came_does_not_matter(scene: Scene, chance: random.Random) -> None:
    me, mine = next(iter(scene.honest.items()))
    others = without(scene.honest, me) | scene.liars
    shuffled = list(others.items())
    chance.shuffle(shuffled)
    assert moved(mine, others, me, scene.known) == moved(mine, dict(shuffled), me, scene.known)
