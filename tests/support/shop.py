"""A paymaster over real streams, with a real store and a real writer of its chain; only gossip is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from tests.unit.swarm.made import Wires, certificate, digest
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import Allot, Body, Close, Request
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import CHARTER, DEVICE, World
from ubcp_p2p.ledger.writer import Writer
from ubcp_p2p.models.cost import UNIT_FLOP, cost_of
from ubcp_p2p.models.recipe import Recipe, load_recipe, run_id
from ubcp_p2p.peer.config import TrainingConfig
from ubcp_p2p.peer.paying.bill import Bill
from ubcp_p2p.peer.paying.paymaster import Paymaster
from ubcp_p2p.peer.paying.wire import PROTOCOL, Statement, What, answered, question
from ubcp_p2p.peer.serving.book import Book
from ubcp_p2p.swarm.quorum import Card, Certificate, vote_digest
from ubcp_p2p.units import MICROCREDITS
from ubcp_p2p.verification.draw import draws_of

T = TypeVar("T")
SHIPPED = load_recipe("shakespeare-nano")
RECIPE = SHIPPED.model_copy(update={"checks": SHIPPED.checks.model_copy(update={"rate": 0.000001})})  # nothing is drawn
COST = cost_of(RECIPE)
ROUND_UNITS = COST.samples_per_round * COST.flop_per_sample // UNIT_FLOP


class Books:
    """What a paymaster asks of a LiveLedger. gates: after a write of that kind; fetched: recipes asked for."""

    def __init__(self, world: World, author: Author, path: Path, clock: Callable[[], float]) -> None:
        self.store = Store.create(path, world.charters)
        self.store.append(world.entries)
        self.writer = Writer(self.store, author.key)
        assert author.head is not None
        self.writer.confirm([[author.head]])
        self.charters, self._clock = world.charters, clock
        self.gates: dict[type, asyncio.Event] = {}
        self.arrived = asyncio.Event()  # at a gate, or at a recipe that nobody has
        self.fetched: list[bytes] = []
        self.nobody_answers: set[bytes] = set()
        self.elsewhere: dict[bytes, bytes] = {}  # blobs that peers have

    async def read(self, function: Callable[[Store], T]) -> T:
        await asyncio.sleep(0)
        return function(self.store)

    async def may_write(self) -> bool:
        await asyncio.sleep(0)
        return self.writer.standing.value == "confirmed"

    async def write(self, body: Body) -> Signed | None:
        signed = self.writer.write(body, now_s=self._clock(), offsets_s=())
        gate = self.gates.get(type(body))
        if gate is not None:
            self.arrived.set()
            await gate.wait()
        return signed

    async def find(self, hash_: bytes, parse: Callable[[bytes], T]) -> T | None:
        if (here := self.store.blob(hash_)) is not None:
            return parse(here)
        self.fetched.append(hash_)
        if hash_ in self.nobody_answers:
            self.arrived.set()
            await asyncio.Event().wait()
        return parse(self.elsewhere[hash_]) if hash_ in self.elsewhere else None

    async def keep(self, blob: bytes) -> bytes:
        return self.store.put_blob(blob)


class Shop:
    """Ann's node pays for runs; the machines of Ben and Cid have leases. `open` once, `close` at the end.

    is_one_run: all requests are for the same. named: the hash that they name, if another than the recipe's.
    """

    def __init__(
        self, folder: Path, *, requests: int = 1, recipe: Recipe = RECIPE, is_one_run: bool = False,
        named: bytes | None = None, **charter: Any,
    ) -> None:  # fmt: skip
        self._is_one_run, self._named = is_one_run, named or recipe.hash()
        self.world = World(7, charter=replace(CHARTER, **charter))
        owners = {name: self.world.account(name) for name in ("ann", "ben", "cid")}
        self.nodes = {name: self.world.node(owner, name) for name, owner in owners.items()}
        self.world.now, self.slice = 10, 10
        self.requests = [self.world.write(owners["ann"], self._body(number)) for number in range(requests)]
        for name in ("ben", "cid"):
            for slice_ in (10, 20):
                self.world.decide(self.nodes[name], self.requests, slice_=slice_)
        self.recipe, self.folder, self.seconds = recipe, folder, 0
        self.wires = Wires()
        self.books = Books(self.world, self.nodes["ann"], folder / "ledger", self.clock)
        self.books.store.put_blob(recipe.to_bytes())
        self.paymaster = self.made()

    def _run(self, number: int) -> str:
        return f"run {0 if self._is_one_run else number}"

    def _body(self, number: int) -> Request:
        ann = self.nodes["ann"].public
        return Request(
            self._run(number), self._named, "research", 1, 8, 100, 1000 * MICROCREDITS, 20, 20, 1000, ann, (), ()
        )  # fmt: skip

    def made(self) -> Paymaster:
        """The paymaster, as a node that begins has it."""
        ledger: Any = self.books
        key = self.nodes["ann"].key
        assert isinstance(key, NodeKey)
        network: Any = self.wires.node(key)
        book = Book(key.public)
        return Paymaster(network, ledger, book, key, self.folder / "paying", TrainingConfig(), clock=self.clock)

    def clock(self) -> float:
        return self.world.charter.epoch + self.slice * self.world.charter.slice_s + self.seconds

    async def open(self) -> Shop:
        (self.folder / "paying").mkdir(exist_ok=True)
        await self.node("ann").handle(PROTOCOL, self.paymaster._serve)
        return self

    async def restart(self) -> None:
        """The paymaster goes on from its disk."""
        self.paymaster = self.made()
        await self.open()

    def node(self, name: str) -> Any:
        key = self.nodes[name].key
        assert isinstance(key, NodeKey)
        return self.wires.node(key)

    def id(self, number: int = 0) -> bytes:
        return self.requests[number].entry.id

    def tab(self, number: int = 0) -> Path:
        return self.folder / "paying" / f"{self.id(number).hex()}.tab"

    async def ask(self, name: str, what: What, payload: bytes = b"", number: int = 0) -> Any:
        """What the paymaster answers to a contributor. Raises what it says."""
        async with self.node(name).open(self.nodes["ann"].public, PROTOCOL, timeout_s=5.0) as stream:
            await stream.send(question(what, self.id(number), payload), timeout_s=5.0)
            return answered(await stream.receive(timeout_s=5.0))

    async def hello(self, name: str, number: int = 0) -> None:
        await self.ask(name, What.HELLO, DEVICE.encode(), number)

    async def bill(self, name: str, round_: int, number: int = 0, *, line: str = "") -> Statement:
        return Statement.of(await self.ask(name, What.BILL, self.made_bill(name, round_, number, line), number))

    def made_bill(self, name: str, round_: int, number: int = 0, line: str = "") -> bytes:
        """What the node of this name sends; with its card where a check is drawn, in the first round."""
        certificate, key = self.round(round_, number, line), self.nodes[name].key
        if key.public not in draws_of(certificate, self.recipe):
            return Bill(certificate).to_bytes()
        assert isinstance(key, NodeKey)
        group = certificate.group
        seat = next(seat for seat in group.members if seat.peer == key.public)
        card = Card(group.run_id, round_, group.base_hash, key.public, seat.weight, seat.offer, 10, seat.trail)
        return Bill(certificate, replace(card, payer=seat.payer).signed(key)).to_bytes()

    def round(self, round_: int, number: int = 0, line: str = "") -> Certificate:
        """A full round of Ben's and Cid's nodes, both for the request of this number."""
        keys = [key for key in (self.nodes["ben"].key, self.nodes["cid"].key) if isinstance(key, NodeKey)]
        state = [digest(f"state {at}{line if at > round_ else ''}") for at in (round_, round_ + 1)]
        made = certificate(keys, keys, round_=round_, base=state[0], state=state[1], payer=self.id(number))
        seats = tuple(seat._replace(weight=COST.samples_per_round) for seat in made.group.members)
        run = run_id(self._run(number), self.recipe.hash())
        group = replace(made.group, run_id=run, members=seats)
        votes = sorted((key.public, key.sign("vote", vote_digest(group.digest, state[1]))) for key in keys)
        return Certificate(group, state[1], tuple(votes))

    def written(self, kind: type[Allot] | type[Close]) -> list[Any]:
        """What the paymaster has put into the ledger."""
        bodies = [signed.entry.body for signed in self.books.store.chain(self.nodes["ann"].public)]
        return [body for body in bodies if isinstance(body, kind)]
