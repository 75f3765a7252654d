"""The demo's script: who asks, who serves, who comes late, who is killed, who is paid, and what must then be true.

It reads from top to bottom as what happens; its means are in `stage`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ubcp_p2p.ledger.store import Store
from ubcp_p2p.peer.demo import books, commands, villain
from ubcp_p2p.peer.demo.alone import Alone, train_alone
from ubcp_p2p.peer.demo.board import Board, HeldOut
from ubcp_p2p.peer.demo.books import Books, Credits
from ubcp_p2p.peer.demo.community import DEVICE_CLASS, PURPOSE, STEWARDS, THRESHOLD, Community
from ubcp_p2p.peer.demo.follow import Trap
from ubcp_p2p.peer.demo.processes import NodeProcess, Swarm, workplace
from ubcp_p2p.peer.demo.stage import RUN, figure
from ubcp_p2p.peer.demo.trial import Trial
from ubcp_p2p.peer.demo.villain import VILLAINS, Caught
from ubcp_p2p.units import credits_text

ASKER = "asker"
FIRST, SECOND, LATE, VICTIM = "peer 1", "peer 2", "peer 3", "peer 4"
EARLY = (FIRST, SECOND, VICTIM)  # there from the beginning
SURVIVORS = (FIRST, SECOND, LATE)
CONTRIBUTORS = (FIRST, SECOND, LATE, VICTIM)
PEERS_MIN, PEERS_MAX = 2, 4
DEADLINE = "1h"
SAMPLE_PROMPT = "ROMEO. "
SAMPLE_BYTES = 280
SAMPLE_SEED = 1
HELD_S = 15.0  # for the last checks; where no round follows, a paymaster waits longer for a validator that is gone

LEDGER = '\n[ledger]\ncharter = "{charter}"\n'
SERVES = f'\n[serving]\ndevice_class = "{DEVICE_CLASS}"\n'
# More rounds on credit than the usual 5: on a busy machine the short ones are faster than a paymaster's answer.
SERVING = f"{SERVES}rounds_unpaid_max = 30\n"


@dataclass(frozen=True)
class Kill:
    """How the kill -9 went. `place`: what the victim was last heard to do; went_on_s: until the others committed."""

    round: int
    place: str
    went_on_s: float
    left: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """All that the demo found out."""

    board: Board
    last: HeldOut
    alone: tuple[Alone, ...]
    hashes: dict[str, tuple[int, str]]  # who has the model -> (round, state hash), as that node says
    late_round: int
    kill: Kill
    sample: str | None
    books: Books
    seconds: float
    parts: dict[str, float] = field(default_factory=dict)  # part of the demo -> seconds
    villain: Caught | None = None

    @property
    def first(self) -> HeldOut:
        """The untrained model, which the peer alone has measured: everybody begins with the same parameters."""
        return self.alone[0].curve[0]

    @property
    def best_alone(self) -> Alone:
        return min(self.alone, key=lambda alone: alone.last.loss)

    @property
    def replicas_identical(self) -> bool:
        return len(set(self.hashes.values())) == 1


class Story(Trial):
    """One telling of the demo."""

    def tell(self, keep: Path | None) -> Outcome:
        """Run the whole demo; every process is gone when it returns or raises. Raises DemoFailed and UbcpErrors."""
        with workplace(keep) as directory:
            with Swarm(directory, self._plan.device) as self._swarm, self._last_words():
                with self._part("start"):
                    self._found_community()
                    seed = self._start_network()
                    before = self._open_books()
                with self._part("ask"):
                    self._ask()
                    self._begin_run()
                with self._part("rounds"):
                    late_round = self._let_one_in(seed)
                    kill = self._kill_one()
                    self._finish_rounds()
                with self._part("measure"):
                    hashes, last, sample = self._measure()
                with self._part("settle"):
                    self._settle()
                    evidence = self._evidence([self._node(name) for name in (ASKER, *SURVIVORS)], self._node(ASKER))
                with self._part("stop"):
                    self._say("Stopping the nodes: they leave the run, keep a checkpoint, and end.")
                    self._swarm.stop()
                with self._part("audit"):
                    found = self._audit(before)
            with self._part("alone"):
                alone = self._train_alone(directory)
            caught = self._judge(evidence, found, last, CONTRIBUTORS) if evidence is not None else None
        seconds = time.monotonic() - self._began_s
        return Outcome(
            self._board, last, tuple(alone), hashes, late_round, kill, sample, found, seconds, self._parts,
            caught,
        )  # fmt: skip

    # -- a community ----------------------------------------------------------------------------------------------

    def _found_community(self) -> None:
        """Stewards, a charter, and a profile for everybody."""
        self._community = Community(time.time(), self._plan.slice_s)
        charter = self._community.publish(self._swarm.directory)
        self._say(
            f"{STEWARDS} stewards sign a charter, {THRESHOLD} of them each enrolment. Each person gets "
            f"{credits_text(self._community.charter.allowance.member)} credits a day; a slice has "
            f"{self._community.charter.slice_s} s here, a quarter of an hour in earnest."
        )
        self._say(f"Making profiles in {self._swarm.directory}: each node gets keys of its own, as from `ubcp init`.")
        ledger = LEDGER.format(charter=charter)
        self._swarm.make("bootstrap")
        self._swarm.make(ASKER, ledger)
        for name in CONTRIBUTORS:
            node = self._swarm.make(name, ledger + SERVING)
            self._board.add(name, node.public)
        if self._plan.villain is not None:
            serves = VILLAINS[self._plan.villain].serves
            node = self._swarm.make(villain.NAME, ledger + (SERVES if serves else ""))
            self._board.add(villain.NAME, node.public)
            self._mortal.add(villain.NAME)  # its end would be no failure of the story

    def _start_network(self) -> str:
        """A seed node, the asker, and the peers that are there from the beginning; returns the seed's address."""
        seed = self._node("bootstrap")
        self._say("Starting the bootstrap node: newcomers ask it whom they can meet. It trains and decides nothing.")
        seed.start("bootstrap")
        address: str = self._until_up(seed)["addresses"][0]
        self._say(
            f"Starting {ASKER}, {FIRST}, {SECOND} and {VICTIM}: each is a node of its own, and knows only the "
            "bootstrap node's address."
        )
        self._node(ASKER).start("up", join=[address])
        for name in EARLY:
            self._start(name, address)
        if (kind := self._plan.villain) is not None:
            self._say(f"Among them is a villain with an account like everybody's ({kind}): it {VILLAINS[kind].does}.")
            self._node(villain.NAME).start("up", join=[address], program=(villain.PROGRAM, kind))
        self._now("their libp2p daemons start and join the network")
        for node in self._there():
            self._until_up(node)
        return address

    def _open_books(self) -> dict[str, Credits]:
        """Everybody's entries come into the ledger and go to everybody; returns what each account has then."""
        people = self._people()
        entries = [entry for node in people for entry in self._community.welcome(node.profile, time.time())]
        self._call(self._node(ASKER), "ledger-append", entries=[signed.to_bytes().hex() for signed in entries])
        self._now("each node verifies all entries itself, and asks the others how far they know its own chain")

        def so(status: dict[str, Any]) -> bool:
            ledger = status["ledger"]
            return (
                ledger is not None
                and ledger["entries"] >= len(entries)
                and ledger["writing"]["standing"] == "confirmed"
            )

        self._until_all(self._there(), so, "all nodes to have the ledger")
        self._say(
            f"{len(people)} accounts and nodes are opened and enrolled: {len(entries)} entries, which every node has."
        )
        with Store.open(self._node(ASKER).profile.ledger_store, read_only=True) as store:
            return books.credits_by_name(store, people)

    # -- a run ----------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """The asker, who has no GPU and nothing but the allowance, asks for the run."""
        self._until(lambda: not self._community.decides(time.time()), "the slice's decisions to be over", ends=True)
        recipe = self._swarm.directory / "recipe.toml"
        recipe.write_text(self._recipe.to_toml())
        peers = PEERS_MAX + (self._plan.villain is not None and VILLAINS[self._plan.villain].serves)
        quote = commands.run(
            (
                "submit", str(recipe), "--run", RUN, "--purpose", PURPOSE, "--peers-min", str(PEERS_MIN),
                "--peers-max", str(peers), "--deadline", DEADLINE, "--yes",
                "--profile", str(self._node(ASKER).profile.root),
            )
        ).document  # fmt: skip
        self._say(
            f"{ASKER}, who trains nothing, asks: `ubcp submit {self._recipe.name} --run {RUN}`. The whole run costs "
            f"{credits_text(quote['price']['min'])} to {credits_text(quote['price']['max'])} credits with "
            f"{PEERS_MIN} to {peers} peers; of {credits_text(quote['available'])} available it reserves "
            f"{credits_text(quote['budget'])}."
        )

    def _begin_run(self) -> None:
        """The peers' allocators take the request up in the next slice, and the run begins."""
        self._now("the next slice begins: each peer's allocator decides for itself, signs that and tells it")
        for name in EARLY:
            self._followers.follow(self._node(name), RUN)
        words: dict[str, str] = {}

        def so() -> bool:
            for name in EARLY:
                words.update(self._decided(self._node(name), words.get(name)))
            return len(words) == len(EARLY) and sum("accepted" in said for said in words.values()) >= PEERS_MIN

        self._until(so, "the peers' allocators to decide", ends=True)
        for name, said in words.items():
            self._say(f"{name}'s allocator: {said}.")
        self._now("they get the recipe by its hash, load their trainers, and listen to each other's heartbeats")
        self._say(
            f"Rounds: each peer takes {self._board.local_steps} steps on its own part of the data, which "
            "nobody else sees, then all average what they learned. Each bills the round by its certificate, and "
            f"{ASKER}'s node answers with a voucher over all that it owes."
        )

    def _decided(self, node: NodeProcess, known: str | None) -> dict[str, str]:
        """What a peer's allocator says of the request, once the slice's leases are settled; by name, or nothing yet."""
        if known is not None and known.startswith("accepted"):
            return {}
        status = node.status()
        serving = status["serving"] if status else None
        rows = [*serving["leases"], *serving["waiting"]] if serving is not None and serving["settled"] else []
        return {node.name: str(rows[0]["explain"])} if rows else {}

    def _let_one_in(self, seed: str) -> int:
        """The third peer comes late; returns the first round that it took part in."""
        begin = self._plan.late_from
        if begin:
            self._now("three peers train; every round ends with all of them at the same model, or it does not count")
        self._until(lambda: self._board.round >= begin, f"round {begin}")
        self._say(f"{LATE} starts now, late: it has never seen the model, and asks the others for it.")
        self._now(f"{LATE} starts, and decides in the next slice; the others do not wait for it")
        row = self._board.peers[LATE]
        self._start(LATE, seed)
        node = self._node(LATE)
        self._until_up(node)
        self._followers.follow(node, RUN)
        self._until(lambda: bool(row.taken), f"{LATE} to take part in a round")
        self._say(
            f"{LATE} is in: round {row.taken[0]} is its first, with {len(self._board.members[row.taken[0]])} members."
        )
        return row.taken[0]

    def _kill_one(self) -> Kill:
        """The fourth peer is killed in the middle of an exchange; the others must go on and nothing of it may stay."""
        least = max(self._board.peers[LATE].taken[0] + 2, self._plan.kill_from)
        self._now("all four train")
        self._until(lambda: self._board.round >= least - 1, f"round {least - 1}")
        node, row = self._node(VICTIM), self._board.peers[VICTIM]
        self._until_all(
            [node], lambda status: any(each["receipted"] for each in status["earning"]), f"a receipt of {VICTIM}",
            ends=False,
        )  # fmt: skip
        begin = max(least, self._board.round + 1)
        remains = node.remains()
        self._mortal.add(VICTIM)
        self._followers.traps[VICTIM] = Trap(node, "exchange", begin)
        self._now(f"{VICTIM} will be killed when the next exchange begins: the others then count on it")
        killed_s = self._until(lambda: row.killed_s, "the next exchange")
        assert row.round is not None
        round_ = row.round
        self._now("the others notice the silence, and make the round without it")
        after = self._until(
            lambda: min((at_s for at_s in self._board.committed_s.values() if at_s > killed_s), default=None),
            "the others to go on",
        )
        self._say(f"The others went on: their next commit came {after - killed_s:.1f} s after the kill.")
        left = remains.left()
        what = (
            "its node, libp2p daemon, trainer and sockets are gone" if not left else f"LEFT BEHIND: {', '.join(left)}"
        )
        self._say(f"What is left of {VICTIM}: {'nothing; ' if not left else ''}{what}.")
        return Kill(round_, row.place or "unknown", after - killed_s, tuple(left))

    def _finish_rounds(self) -> None:
        self._now("three peers train to the end; the late one has caught up by now")
        survivors = [self._board.peers[name] for name in SURVIVORS]
        self._until(lambda: all(row.done for row in survivors), "the last round", ends=True)
        self._say(f"All {self._recipe.rounds.total} rounds are done.")

    # -- what came of it ------------------------------------------------------------------------------------------

    def _measure(self) -> tuple[dict[str, tuple[int, str]], HeldOut, str | None]:
        """Compare the replicas and what the asker gets, measure the trained model, and let it write."""
        self._now("comparing the survivors' models with each other and with what the asker fetches; measuring it")
        hashes = {}
        for name in SURVIVORS:
            status = self._node(name).status()
            run = next((run for run in status["runs"] if run["name"] == RUN), None) if status else None
            if run is None:
                raise self._node(name).failure(f"{name} does not answer at the end of the run")
            hashes[name] = (int(run["round"]), str(run["state_hash"]))
        asker = str(self._node(ASKER).profile.root)
        out = str(self._swarm.directory / "model.safetensors")
        got = commands.run(("runs", "fetch", RUN, "--out", out, "--profile", asker)).document
        hashes[ASKER] = (int(got["round"]), str(got["state_hash"]))
        self._say(
            f"{ASKER} has its model, by `ubcp runs fetch {RUN}`: {got['bytes']:,} bytes of round {got['round']}, "
            "checked against what its group has signed."
        )
        last = self._held_out(self._node(FIRST))
        self._board.held_out[last.round] = last
        self._say(f"Held-out loss after round {last.round}: {figure(last)}.")
        sample = None
        if self._recipe.model.kind == "gpt":
            answer = self._call(
                self._node(LATE), "sample", run=RUN, prompt=SAMPLE_PROMPT, length=SAMPLE_BYTES, seed=SAMPLE_SEED
            )
            sample = str(answer["text"])
        return hashes, last, sample

    def _settle(self) -> None:
        """Wait until the ledger has the receipts of all that the survivors have earned, and all agree on it."""
        self._now("each peer puts its newest voucher into the ledger, as a receipt: one a slice")
        patience_s = time.monotonic() + HELD_S

        def so(status: dict[str, Any]) -> bool:
            """Some may never be paid: rounds of a branch that lost, and those whose validator was killed."""
            late = time.monotonic() > patience_s
            return all(
                row["earned"] and row["earned"] == row["receipted"]
                and (late or not (row["unpaid_rounds"] or row["held_rounds"]))
                for row in status["earning"]
            )  # fmt: skip

        self._until_all([self._node(name) for name in SURVIVORS], so, "the last receipts")

        def agreed() -> bool:
            found = [self._node(name).status() for name in (ASKER, *SURVIVORS)]
            return len({each["ledger"]["balances_root"] for each in found if each and each["ledger"]}) == 1

        self._until(agreed, "all nodes to agree on all balances", ends=True)
        self._say("All nodes have the receipts, and come to the same balances.")
        for name in SURVIVORS:
            status = self._node(name).status()
            for row in status["earning"] if status else ():
                if row["held_rounds"] or row["unpaid_rounds"]:
                    why = f": {row['words']}" if row["words"] else ""
                    held, unpaid = row["held_rounds"], row["unpaid_rounds"]
                    self._say(f"{name}: {held} rounds still wait for a check, and {unpaid} are not paid{why}.")

    def _audit(self, before: Mapping[str, Credits]) -> Books:
        self._now("bringing the nodes' stores together into one export, and auditing it in a process of its own")
        contributors = [self._node(name) for name in CONTRIBUTORS]
        found = books.read(self._swarm.directory, self._node(ASKER), contributors, before, self._people())
        faults = len(found.audit.faults)
        self._say(
            f"`ubcp audit`: {found.audit.entries} entries, {found.audit.valid} valid, {found.audit.replayed} decisions "
            f"made again from their inputs; {f'{faults} FAULTS' if faults else 'no fault'}."
        )
        return found

    def _train_alone(self, directory: Path) -> list[Alone]:
        steps = self._recipe.total_steps
        self._say(
            f"For comparison, one peer alone takes the same {steps} steps from the same start, in each of two ways."
        )
        self._now(f"one peer alone: {steps} steps, the swarm is gone; the better way is what the swarm must beat")

        def on_steps(way: str, done: int) -> None:
            self._board.alone_steps[way] = done
            self._view.refresh()

        return asyncio.run(train_alone(self._recipe, directory, self._plan.device, on_steps))

    def _people(self) -> list[NodeProcess]:
        """Everybody with an account."""
        rogues = [villain.NAME] if self._plan.villain is not None else []
        return [self._node(name) for name in (ASKER, *CONTRIBUTORS, *rogues)]

    def _there(self) -> list[NodeProcess]:
        """The honest nodes that are there from the beginning."""
        return [self._node(name) for name in (ASKER, *EARLY)]
