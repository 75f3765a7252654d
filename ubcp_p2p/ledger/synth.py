"""Synthetic ledgers: a lifelike community from a seed, the same bytes for the same arguments. For tests and measuring.

Campaigns of work, one after another and side by side: a REQUEST, its ALLOTs, a RECEIPT per contributor and step, and a
CLOSE after the grace; people join and rotate keys, claim what their nodes earned, and spend it. plant.py adds a fraud.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from ubcp_p2p.codec import encode
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger import rules
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.balances import balances, balances_root, entries_root, statement
from ubcp_p2p.ledger.chain import AccountChain, NodeChain
from ubcp_p2p.ledger.entry import CLAIMS_MAX, Checkpoint, Close, Decision, Entry, Rotate, recovery_hash
from ubcp_p2p.ledger.export import Roots
from ubcp_p2p.ledger.merkle import Frontier
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import CHARTER, World, secret
from ubcp_p2p.units import MICROCREDITS

ACCOUNTS_MIN: Final = 2  # nobody is paid by oneself
ENTRIES_PER_ACCOUNT: Final = 3  # OPEN, ENROL, and the OPEN of a node
ENTRIES_MIN: Final = 24  # that one campaign fits in
CONTRIBUTORS: Final = 4  # of one campaign, where there are as many
STEPS: Final = 24  # RECEIPTs of one contributor in one campaign
PERIODS: Final = 6  # that a ledger extends over
CREDITS_MAX: Final = 2_000 * MICROCREDITS  # of one campaign

# 2024, so that the auditor's clock is later than every entry.
_CHARTER: Final = replace(
    CHARTER, epoch=1_704_067_200, exposure_cap=100_000 * MICROCREDITS, grace_slices=24, name="synthetic"
)


@dataclass
class _Campaign:
    """One REQUEST at work. steps: how many are left."""

    requester: int
    request: Signed
    allots: list[tuple[Author, Signed]]
    share: int
    steps: int


@dataclass
class _Person:
    author: Author
    nodes: list[Author] = field(default_factory=list)
    claimed: dict[bytes, int] = field(default_factory=dict)  # node → seq up to which its income was claimed
    closes: deque[bytes] = field(default_factory=deque)  # not claimed yet


class _Enough(Exception):
    """The ledger has as many entries as were asked for."""


# (slice, ledger, requests and who asks, node) → its decision on these requests, and the blob that its inputs name.
Deciding: TypeAlias = Callable[[int, Ledger, Activity, bytes], tuple[Decision, bytes]]


class Community(World):
    """A World that hands every entry on and keeps those of accounts alone, for History."""

    def __init__(self, seed: int, deciding: Deciding | None = None) -> None:
        super().__init__(seed, charter=_CHARTER, trusting=True)
        self.deciding = deciding
        self.random = random.Random(seed)
        self.people: list[_Person] = []
        self.wire: list[bytes] = []  # made and not handed on yet
        self.blobs: list[bytes] = []
        self.count = 0
        self.limit: int | None = None
        self.tree = Frontier()

    @property
    def log(self) -> bytes:
        """The public key of the node whose append order the ledger is in: the first that joins."""
        return NodeKey(secret(self.seed, "node 0")).public

    @property
    def log_author(self) -> Author:
        """Its writer."""
        return self.people[0].nodes[0]

    def take(self, signed: Signed) -> Signed:
        """Apply an entry. Raises what rules.apply raises."""
        rules.apply(self.ledger, signed, self.history)
        self.tree.append(signed.entry.id)
        if self.limit is None or isinstance(self.ledger.chains[signed.entry.author][0], AccountChain):
            self._by_author.setdefault(signed.entry.author, []).append(signed)
        self.put(signed.to_bytes())
        return signed

    def put(self, data: bytes) -> None:
        """An entry as bytes, whatever it is worth."""
        self.wire.append(data)
        self.count += 1
        if self.count == self.limit:
            raise _Enough

    def taken(self) -> list[bytes]:
        """What was put since the last call."""
        made, self.wire = self.wire, []
        return made

    def roots(self) -> Roots:
        """Of all valid entries so far."""
        return Roots(entries_root(self.ledger), balances_root(balances(self.ledger, self.history)))

    def checkpoint(self) -> Signed:
        """The log's node says what its order leads to."""
        return self.write(self.log_author, Checkpoint(self.tree.size, self.tree.root(), self.roots().balances))


def simulate(world: Community, accounts: int, entries: int) -> Iterator[bytes]:
    """Exactly `entries` valid entries of `accounts` people, in causal order. Raises ConfigError for too few."""
    least = ENTRIES_PER_ACCOUNT * accounts + ENTRIES_MIN
    if accounts < ACCOUNTS_MIN or entries < least:
        raise ConfigError(
            f"{entries} entries are too few for {accounts} accounts",
            hint=f"at least {ACCOUNTS_MIN} accounts, and {least} entries for {accounts} of them",
        )
    world.limit = entries
    try:
        for _ in _Simulation(world, accounts, entries).steps():
            yield from world.taken()
    except _Enough:
        pass
    world.limit = None
    yield from world.taken()


class _Simulation:
    """The course of events. One step is one slice or more, so that every contributor can write one RECEIPT in it."""

    def __init__(self, world: Community, accounts: int, entries: int) -> None:
        self.world, self.accounts = world, accounts
        work = entries - ENTRIES_PER_ACCOUNT * accounts
        slices = PERIODS * world.charter.period_slices
        self.contributors = min(CONTRIBUTORS, accounts - 1)
        self.parallel = max(1, round(work / (0.7 * slices * self.contributors)))  # 0.7: leaves room for what differs
        self.count = max(2 * STEPS, work // (self.parallel * self.contributors))
        self.step_slices = max(1.0, slices / self.count)
        per_period = work / ((STEPS + 1) * self.contributors * accounts * PERIODS)  # campaigns of one account
        self.credits = min(CREDITS_MAX, int(0.4 * world.charter.allowance.newcomer / max(1.0, per_period)))
        self.second_nodes = entries > 8 * accounts
        self.active: list[_Campaign] = []
        self.ended: deque[tuple[int, _Campaign]] = deque()  # (slice from which it can be closed, which)

    def steps(self) -> Iterator[None]:
        """Yield after each step, for ever."""
        world, draw = self.world, self.world.random
        for _ in range(max(2, self.accounts * 4 // 5)):
            self._join()
            yield
        number = 0
        while True:
            number += 1
            world.now = int(number * self.step_slices)
            if len(world.people) < self.accounts and number % max(1, self.count // self.accounts) == 0:
                self._join()
            self._pay()
            self._close()
            while len(self.active) < self.parallel and self._begin():
                pass
            if number % 24 == 12:
                self._decide()
            if number % max(24, self.count // max(4, self.accounts // 10)) == 20:
                self._rotate(draw.randrange(len(world.people)))
            if number % max(40, self.count // 3) == 30:
                world.checkpoint()
            yield

    def _join(self) -> None:
        world = self.world
        index = len(world.people)
        recovery = AccountKey(secret(world.seed, f"recovery {index}")).public
        author = world.account(f"{index}", newcomer=world.random.random() < 0.2, recovery=recovery_hash(recovery))
        person = _Person(author, [world.node(author, f"{index}")])
        if self.second_nodes and world.random.random() < 0.2:
            person.nodes.append(world.node(author, f"{index} second"))
        world.people.append(person)

    def _begin(self) -> bool:
        """One more campaign, if somebody can pay for it."""
        world, draw = self.world, self.world.random
        nodes = [(i, node) for i, person in enumerate(world.people) for node in person.nodes]
        for requester in (draw.randrange(len(world.people)) for _ in range(4)):
            person = world.people[requester]
            amount = int(self.credits * draw.uniform(0.3, 1.0))
            balance = statement(world.ledger, person.author.public, world.history, world.now).balance
            if balance.available < amount or self._reserved(person) + amount > world.charter.exposure_cap:
                continue
            income = [node.head for node in person.nodes if node.head and self._earned(person, node)]
            closes = [person.closes.popleft() for _ in range(min(CLAIMS_MAX, len(person.closes)))]
            person.claimed.update((position.author, position.seq) for position in income)
            slices = int((STEPS + 2) * self.step_slices) + 1
            request = world.request(person.author, person.nodes[0], amount, slices=slices, income=income, closes=closes)
            others = [node for i, node in draw.sample(nodes, min(len(nodes), 3 * CONTRIBUTORS)) if i != requester]
            chosen = others[: self.contributors]
            share = amount // max(1, len(chosen))
            allots = [(node, world.allot(person.nodes[0], request, node, share)) for node in chosen]
            self.active.append(_Campaign(requester, request, allots, share, STEPS))
            return True
        return False

    def _earned(self, person: _Person, node: Author) -> bool:
        assert node.head is not None
        return node.head.seq > person.claimed.get(node.public, 0) and self.world.random.random() < 0.8

    def _reserved(self, person: _Person) -> int:
        chain = self.world.ledger.chains[person.author.public][0]
        assert isinstance(chain, AccountChain)
        return chain.outflow[1] if chain.outflow[0] == self.world.ledger.period(self.world.now) else 0

    def _pay(self) -> None:
        """A RECEIPT from every contributor of every campaign."""
        world, draw = self.world, self.world.random
        for campaign in self.active:
            paymaster = world.people[campaign.requester].nodes[0]
            for node, allot in campaign.allots:
                world.receipt(node, paymaster, allot, max(1, int(campaign.share / STEPS * draw.uniform(0.3, 1.0))))
            campaign.steps -= 1
        for campaign in [campaign for campaign in self.active if campaign.steps == 0]:
            self.active.remove(campaign)
            fact = world.ledger.requests[campaign.request.entry.id]
            self.ended.append((fact.expiry + world.charter.grace_slices + 1, campaign))

    def _close(self) -> None:
        """The CLOSE of every campaign whose grace is over."""
        world = self.world
        while self.ended and self.ended[0][0] <= world.now:
            _, campaign = self.ended.popleft()
            person = world.people[campaign.requester]
            fact = world.ledger.requests[campaign.request.entry.id]
            paid = world.ledger.paid.get(fact.id, {})
            openings = sorted(world.opening(node) for node, _ in campaign.allots)
            final = tuple((opening, paid.get(opening, 0)) for opening in openings)
            close = world.write(person.nodes[0], Close(fact.id, final, fact.credits - sum(c for _, c in final)))
            person.closes.append(close.entry.id)

    def _decide(self) -> None:
        """A lease, and the blob that it was made from."""
        world, draw = self.world, self.world.random
        entries = {campaign.request.entry.id: campaign.request.entry for campaign in self.active}
        chosen = [entries[id_] for id_ in sorted(entries)[:8]]
        node = world.people[draw.randrange(len(world.people))].nodes[0]
        refused = (("full", draw.randrange(1, 9)),)
        if world.deciding is None:
            blob = encode([world.now, [entry.id for entry in chosen]])
            inputs = hashlib.sha256(blob).digest()
            body = Decision(world.now, 10**9, 10**6, tuple(entry.id for entry in chosen), refused, inputs)
        else:
            body, blob = world.deciding(world.now, world.ledger, self._asked(chosen, node), node.public)
        world.blobs.append(blob)
        world.write(node, body)

    def _asked(self, chosen: Iterable[Entry], node: Author) -> Activity:
        """These REQUESTs, and what their accounts have written; whose the node is."""
        entries, activity = {entry.id: entry for entry in chosen}, Activity()
        for author in {entry.author for entry in entries.values()}:
            for signed in self.world.history(author):
                activity.add(signed.entry)
        activity.requests = {id_: activity.requests[id_] for id_ in entries}
        chain = self.world.ledger.chains[node.public][0]
        assert isinstance(chain, NodeChain)
        activity.owners[node.public] = chain.owner
        return activity

    def _rotate(self, index: int) -> None:
        """Somebody's key is replaced by a new one."""
        world = self.world
        author = world.people[index].author
        chain = world.ledger.chains[author.public][0]
        assert isinstance(chain, AccountChain)
        key = AccountKey(secret(world.seed, f"rotated {index} {world.now}"))
        world.write(author, Rotate(key.public, chain.powers.recovery), [key])
