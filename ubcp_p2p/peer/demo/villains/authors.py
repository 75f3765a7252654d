"""Authors that lie to the ledger: one that spends its allowance twice, one that spends what it does not have.

Their own nodes would refuse such entries; so they go to the others past their own store.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Final

from ubcp_p2p.codec import encode
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.keys import AccountKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import URGENCY_MIN, Position, Request
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.peer.node import Node
from ubcp_p2p.swarm.entry_gossip import ENTRY, topic_of
from ubcp_p2p.swarm.network import Network

LOOK_S: Final = 0.2
TIMES: Final = 10  # that it tells its entries, so that nobody can have missed them
OFTEN: Final = 10  # times what it has
SLICES: Final = 20


class _Liar(Node):
    """Once its account is enrolled it writes, and tells."""

    def entries(self, account: Author, slice_: int, amount: int) -> Sequence[Signed]:
        """What it tells. amount: µcredits that it has."""
        raise NotImplementedError

    async def _announce_ready(self, network: Network) -> None:
        await super()._announce_ready(network)
        assert self.ledger is not None
        ledger, key = self.ledger, AccountKey.load(self.profile.account_key)
        while (head := await ledger.read(self._head)) is None:  # noqa: ASYNC110  # the store has no event for it
            await asyncio.sleep(LOOK_S)
        charter = ledger.charters.first
        slice_ = await ledger.read(lambda store: store.ledger.slice)
        account = Author(ledger.charters.network, key, head=head)
        told = self.entries(account, slice_, charter.allowance.member)
        for _ in range(TIMES):
            for signed in told:
                try:
                    await network.publish(topic_of(account.network), encode([ENTRY, signed.to_bytes()]))
                except UbcpError:
                    break  # the network is down for a moment
            await asyncio.sleep(1.0)

    def _head(self, store: Store) -> Position | None:
        """Where its account stands, once it is enrolled."""
        chain = store.ledger.branch_of(self.owner.account)
        enrolled = store.ledger.is_enrolled(self.owner.account, store.ledger.period(store.ledger.slice))
        return chain.head if chain is not None and enrolled else None

    def request(self, run: str, slice_: int, amount: int, purpose: str) -> Request:
        """A REQUEST for a run that nobody has heard of."""
        until = slice_ + SLICES
        recipe = hashlib.sha256(run.encode()).digest()
        return Request(
            run, recipe, purpose, 1, 1, 1, amount, until, until, URGENCY_MIN, self.key.public, (), ()
        )  # fmt: skip


class Forker(_Liar):
    """Its account signs two entries with one number: two requests, each over all that it has."""

    def entries(self, account: Author, slice_: int, amount: int) -> Sequence[Signed]:
        assert self.community is not None
        purpose = self.community.first.purposes[0]
        runs = ("villain's one", "villain's other")
        return [account.draft(slice_, self.request(run, slice_, amount, purpose)) for run in runs]


class Overspender(_Liar):
    """Its account asks for ten times what it has."""

    def entries(self, account: Author, slice_: int, amount: int) -> Sequence[Signed]:
        assert self.community is not None
        purpose = self.community.first.purposes[0]
        return [account.draft(slice_, self.request("villain's", slice_, OFTEN * amount, purpose))]
