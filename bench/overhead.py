"""What commitments, checks, metering and the ledger cost in a run, as percent of a round's time and bytes.

A run of four peers with 1M parameters, H = 50, q = 2 %. Each part is measured by itself, in CPU seconds of one process,
by the code that runs in a node; a round is one peer's local steps, and the three offers that it gets.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import BenchError, Figure, Table, add_output_options, machine, number, publish, say
from verification import PARAMETERS_COST, Q_PPM, cost, gpt

from ubcp_p2p.codec import encode
from ubcp_p2p.files import atomic_write
from ubcp_p2p.keys import NodeKey, verify
from ubcp_p2p.ledger.entry import ZERO, Voucher, voucher_digest
from ubcp_p2p.models.cost import cost_of
from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.peer.paying.bill import Bill
from ubcp_p2p.peer.paying.report import Report
from ubcp_p2p.peer.paying.tab import Tab, Terms
from ubcp_p2p.peer.paying.wire import Promise, Statement, What, answer, question
from ubcp_p2p.swarm.quorum import Card, Certificate, Group, Seat, vote_digest
from ubcp_p2p.training.inner import set_up_torch
from ubcp_p2p.training.verdict import PPM, Finding
from ubcp_p2p.verification.draw import draws_of

PEERS = 4
KEYS = [NodeKey(hashlib.sha256(b"overhead %d" % number).digest()) for number in range(PEERS)]
REQUEST = bytes(32)
SLICE_S = 900
# Of bench/gossip.py (docs/measurements.md): an entry, for each node that receives it.
ENTRY_CPU_S, ENTRY_BYTES = 0.00159, 4900
ENTRIES_PER_PEER_AND_SLICE = 3  # a DECISION, a RECEIPT, and fewer ALLOTs than one
LIMIT = 3.0  # percent


def rounds_of(recipe: Recipe, count: int) -> list[Certificate]:
    """A line of certified rounds of four peers."""
    run, weight = run_id("overhead", recipe.hash()), recipe.inner.batch * recipe.rounds.local_steps
    found, base = [], bytes(32)
    for round_ in range(count):
        state = hashlib.sha256(base).digest()
        seats = tuple(sorted(Seat(key.public, weight, state, base, REQUEST) for key in KEYS))
        group = Group(run, round_, base, seats)
        vote = vote_digest(group.digest, state)
        found.append(Certificate(group, state, tuple(sorted((k.public, k.sign("vote", vote)) for k in KEYS))))
        base = state
    return found


def timed(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


def metering(recipe: Recipe, count: int) -> dict[str, Any]:
    """CPU seconds and bytes of one bill of one contributor, at both ends, fsync included."""
    price = cost_of(recipe)
    run = run_id("overhead", recipe.hash())
    terms = Terms(REQUEST, run, price.flop_per_sample, price.samples_per_round, PEERS, count, 10**9)
    tab, me, paymaster = Tab(terms), KEYS[0].public, KEYS[1]
    tab.welcome(me, bytes(32), "cpu", 0)
    leased = frozenset(key.public for key in KEYS)
    seconds, sizes = [], []
    with tempfile.TemporaryDirectory(prefix="ubcp-bench-") as folder:
        for certificate in rounds_of(recipe, count):

            def bill(certificate: Certificate = certificate) -> None:
                draws_of(certificate, recipe)
                data = Bill(certificate).to_bytes()
                sent = encode(question(What.BILL, REQUEST, data))
                heard = Bill.from_bytes(data, run, members_max=PEERS).certificate
                tab.meter(me, heard, leased, draws_of(heard, recipe).get(me), 0)
                tab.promise(me, tab.due(me, 10**9, 10**6, 100), ZERO)
                atomic_write(Path(folder) / "tab", tab.to_bytes())
                units = tab.accounts[me].units
                voucher = Voucher(ZERO, paymaster.public, REQUEST, ZERO, me, units, units, 1, "cpu", 100, ZERO)
                promise = Promise(voucher, paymaster.sign("voucher", voucher_digest(voucher)))
                assert verify(paymaster.public, "voucher", voucher_digest(voucher), promise.signature)
                atomic_write(Path(folder) / "voucher", encode(promise.to_value()))
                sizes.append(len(sent) + len(encode(answer(Statement(promise, 0, "").to_value()))))

            seconds.append(timed(bill))
    return {"s": seconds, "bytes": sizes}


def committing(recipe: Recipe) -> int:
    """Bytes that a card has for its trail, from each of the others."""
    card = Card(bytes(32), 1, bytes(32), KEYS[0].public, 400, bytes(32), 4, bytes(32)).signed(KEYS[0])
    return (PEERS - 1) * (len(card.to_bytes()) - len(replace(card, trail=b"").to_bytes()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test: a small network, one round")
    add_output_options(parser)
    chosen = parser.parse_args()
    set_up_torch(1)
    facts = machine()
    shape = (32, 1, 16, 4) if chosen.quick else PARAMETERS_COST["1M"]
    recipe = gpt(*shape, 50)
    trained = cost("overhead", shape, 1 if chosen.quick else 5)
    say("bills …")
    billed = metering(recipe, 20 if chosen.quick else 200)
    q = Q_PPM / PPM
    round_s, round_bytes = Figure.of(trained["round_s"]), (PEERS - 1) * recipe.parameters() * 4
    rounds_per_slice = SLICE_S / round_s.median
    report = Report(REQUEST, 1, KEYS[0].public, Finding.HONEST).signed(KEYS[1])
    said = len(encode(question(What.REPORT, REQUEST, report.to_bytes())))
    lean, part = (sum(trained[name]) / len(trained[name]) for name in ("lean_bytes", "part_bytes"))
    entries = ENTRIES_PER_PEER_AND_SLICE * PEERS / rounds_per_slice
    # Each peer is checked with chance q, so each checks as often: by its own opening, and by another's that it gets.
    parts: dict[str, tuple[float, float]] = {
        "commitments": (Figure.of(trained["record_s"]).median, committing(recipe)),
        "checks, the same bits": (q * Figure.of(trained["check_s"]).median, q * (lean + said)),
        "checks, other bits": (q * Figure.of(trained["check_s"]).median, q * (part + said)),
        "metering": (Figure.of(billed["s"]).median, Figure.of(billed["bytes"]).median),
        "ledger": (entries * ENTRY_CPU_S, entries * ENTRY_BYTES),
    }
    rows = tuple(
        (name, number(seconds * 1e3), number(100 * seconds / round_s.median, 2), number(size / 1e3),
         number(100 * size / round_bytes, 2))
        for name, (seconds, size) in parts.items()
    )  # fmt: skip
    over = [name for name, (s, size) in parts.items() if max(s / round_s.median, size / round_bytes) * 100 > LIMIT]
    note = (
        f"A round: {round_s.text()} CPU s of local steps, {number(round_bytes / 1e6)} MB of offers received. "
        f"Over {LIMIT:.0f} %: {', '.join(over) or 'none'}. The ledger's row is bench/gossip.py's cost of an entry "
        f"times {ENTRIES_PER_PEER_AND_SLICE} entries of each of {PEERS} peers in a slice of {SLICE_S} s."
    )
    columns = ("part", "CPU ms a round", "% of the round's", "kB a round", "% of the round's")
    table = Table(f"{recipe.parameters():,} parameters, H = 50, q = 2 %, {PEERS} peers", columns, rows, note)
    document = {"benchmark": "overhead", "machine": facts, "trained": trained, "billed": billed, "parts": parts}
    try:
        publish("overhead", document, [table], markdown=chosen.markdown, docs=chosen.docs)
    except BenchError as error:
        sys.exit(f"bench: error: {error}")


if __name__ == "__main__":
    main()
