"""Where a person asks for computing on the own node: quotes, and the taking in of what the account key has signed.

The account key is never here: a draft goes out, and the signed entry comes back and is judged once more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ubcp_p2p.allocator.problem import Problem
from ubcp_p2p.charter.prices import prices
from ubcp_p2p.errors import ConfigError, NetworkError, UbcpError
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.balances import StandingReport, standing
from ubcp_p2p.ledger.chain import NodeChain
from ubcp_p2p.ledger.entry import Body, Close, Request
from ubcp_p2p.ledger.funds import Funds, funds
from ubcp_p2p.ledger.parse import make
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import Signed, decode_signed
from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.models.unchecked import unchecked
from ubcp_p2p.peer.asking.judge import Judged, draft, judge
from ubcp_p2p.peer.asking.listing import closing, listed, row, with_waits
from ubcp_p2p.peer.asking.paid import PaidRun, paid_runs
from ubcp_p2p.peer.asking.prospect import ASKED_MAX, Prospect, prospect, tried
from ubcp_p2p.peer.asking.requests import open_requests
from ubcp_p2p.peer.asking.values import Known, Refused, moment, wish_of
from ubcp_p2p.peer.paying.share import share_of
from ubcp_p2p.peer.serving.book import Book
from ubcp_p2p.peer.serving.problem import Offer
from ubcp_p2p.peer.serving.supply import Supply, recent_leases, supply
from ubcp_p2p.units import MICROCREDITS

if TYPE_CHECKING:
    from ubcp_p2p.swarm.ledger import LiveLedger

RECIPES_MAX: Final = 4  # of one name, that are asked for; each may take a peer's answering time
AGAIN: Final = "submit it again: nothing was told or reserved"


class Desk:
    """For one account and one node, which is to be the paymaster. book: the node's; clock: Unix seconds."""

    def __init__(
        self, ledger: LiveLedger, book: Book, account: bytes, node: bytes, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger, self._book, self._account, self._node, self._clock = ledger, book, account, node, clock
        self.verbs: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]] = {
            "submit-quote": self.quote,
            "submit": self.submit,
            "requests": self.requests,
            "close-draft": self.close_draft,
            "close": self.close,
        }

    async def quote(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The verb `submit-quote`: what it would cost and whether it can be had, and the draft to sign. Raises Refused,
        ConfigError, NetworkError, WrongClock, StoreError."""
        wish = wish_of(request)
        await self.know_chain()
        known = await self._ledger.read(self._known)
        judged = judge(
            draft(wish, known), wish.recipe, known, part=wish.part, again=wish.again,
            accept_unchecked=wish.accept_unchecked,
        )  # fmt: skip
        entry, data = make(
            await self._network(), self._account, known.funds.head.seq + 1, known.funds.head.id, known.funds.slice,
            judged.body,
        )  # fmt: skip
        asked = Asked(entry.id, self._account, known.funds.slice, judged.body)
        expected = await self._prospect(asked, known)
        return {**_document(judged, wish.recipe, known, expected), "draft": data.hex()}

    async def submit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The verb `submit`: a signed REQUEST and its recipe, judged again, kept and told. Raises as `quote`."""
        signed = self._signed(request, Request)
        recipe = Recipe.from_toml(str(request["recipe"]), where=str(request.get("where", "the recipe")))
        known = await self._ledger.read(self._known)
        assert isinstance(signed.entry.body, Request)
        part, again, accepted = (bool(request.get(name, False)) for name in ("part", "again", "accept_unchecked"))
        judge(signed.entry.body, recipe, known, part=part, again=again, accept_unchecked=accepted)
        kept = await self._ledger.keep(recipe.to_bytes())
        assert kept == signed.entry.body.recipe
        return await self.take(signed)

    async def requests(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The verb `requests`: what the community and this account have asked for, how it stands, how long it waits."""

        def look(store: Store) -> tuple[list[dict[str, Any]], list[Asked], list[Problem]]:
            now = self._now(store)
            self._book.read(store, now)
            ledger, activity = store.ledger, self._book.activity
            asked = listed(ledger, activity, self._account, now)
            leased = recent_leases(ledger, activity, now)
            offered = supply(ledger, activity, leased, now, self._account)
            problems = self._problems(store, now, offered) if asked else []
            return [row(ledger, activity, leased, one, self._account, now) for one in asked], asked, problems

        rows, asked, problems = await self._ledger.read(look)
        if (run := request.get("run")) is not None:  # the recipes of one run alone: they may have to be asked for
            recipes = await self._recipes({one.body.recipe for one in asked if one.body.run == run})
            rows = [{**each, **_shown(recipes.get(each["recipe_hash"]))} for each in rows]
        decisions = await asyncio.to_thread(tried, problems)
        waits = {one.id.hex(): prospect(decisions, one.id, one.body.peers_min) for one in asked}
        return {"requests": with_waits(rows, waits)}

    async def paid(self, name: str | None = None) -> list[PaidRun]:
        """The runs that this account pays for; with a name, those of that name, whoever pays. Raises StoreError."""

        def look(store: Store) -> list[PaidRun]:
            self._book.read(store, self._now(store))
            requests = self._book.activity.requests.values()
            chosen = [
                one for one in requests if (one.author == self._account if name is None else one.body.run == name)
            ]
            return paid_runs(store.ledger, self._book.activity, chosen)

        return await self._ledger.read(look)

    @property
    def slice_s(self) -> int:
        """How long a slice of this community is: no version of a charter changes it."""
        return self._ledger.charters.first.slice_s

    async def _recipes(self, hashes: Collection[bytes]) -> dict[str, Recipe]:
        """These recipes by hash in hex, of those that can be had: from here, or from peers."""
        found = {}
        for hash_ in sorted(hashes)[:RECIPES_MAX]:
            with suppress(ConfigError):  # whoever asked may have named what is no recipe
                if (recipe := await self._ledger.find(hash_, partial(Recipe.from_bytes, where="the blob"))) is not None:
                    found[hash_.hex()] = recipe
        return found

    async def close_draft(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The verb `close-draft`: the CLOSE of a REQUEST of this account for a run, to sign. Raises as `quote`."""
        run = str(request.get("run", ""))
        await self.know_chain()

        def look(store: Store) -> dict[str, Any]:
            now = self._now(store)
            self._book.read(store, now)
            body, more = closing(store.ledger, self._book.activity, self._account, run, now)
            known = self._funds(store, now)
            head = known.head
            data = make(store.ledger.network, self._account, head.seq + 1, head.id, known.slice, body)[1]
            return {
                "run": run, "request": body.request.hex(), "returned": body.returned, "account": self._account.hex(),
                "paid": sum(paid for _, paid in body.final), "signer": known.key.hex(), "more": more,
                "draft": data.hex(),
            }  # fmt: skip

        return await self._ledger.read(look)

    async def close(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The verb `close`: a signed CLOSE, taken in and told."""
        return await self.take(self._signed(request, Close))

    async def know_chain(self) -> None:
        """Before the account signs anything. Raises NetworkError while nobody can say how far its chain is known."""
        if not await self._ledger.learn_chain(self._account):
            raise NetworkError(
                "no peer could say how far it knows the account's chain: an entry after an old head would be a fork",
                hint="`ubcp status` says who is connected; try again when somebody is",
            )
        await self._ledger.read(self._check_chain)

    async def take(self, signed: Signed) -> dict[str, Any]:
        """Append and tell the account's next entry. Raises UbcpError when it was not added."""
        (found,) = await self._ledger.submit_next(signed)
        if found["outcome"] != "added":
            why = found["error"] or f"it is {found['outcome']}"
            raise UbcpError(f"the ledger did not take it: {why}", hint=AGAIN)
        return found

    def _signed(self, request: Mapping[str, Any], kind: type[Body]) -> Signed:
        try:
            form = bytes.fromhex(request["entry"])
        except (TypeError, ValueError):
            raise UbcpError("an entry must be hexadecimal") from None
        signed = decode_signed(form)
        if signed.entry.author != self._account or not isinstance(signed.entry.body, kind):
            raise UbcpError("that is no such entry of this node's account", hint="`ubcp ledger append` takes any entry")
        return signed

    # -- in the thread of the store -------------------------------------------------------------------------------

    def _known(self, store: Store) -> Known:
        ledger, now = store.ledger, self._now(store)
        self._book.read(store, now)
        activity, charter = self._book.activity, ledger.charter_at(now)
        found = self._funds(store, now)
        frozen = frozenset(ledger.frozen())
        return Known(
            charter, now, found, self._node, self._paymaster(store),
            tuple(pair for pair in open_requests(ledger, activity, now) if pair[0].author not in frozen),
            supply(ledger, activity, recent_leases(ledger, activity, now), now, self._account),
        )  # fmt: skip

    def _now(self, store: Store) -> int:
        return store.ledger.charters.first.slice_at(self._clock())

    def _funds(self, store: Store, now: int) -> Funds:
        found = funds(store.ledger, self._account, store.history, now)
        if found is None:
            raise Refused(
                "unknown-account", f"the ledger has no account {self._account.hex()[:16]}…",
                hint="write its OPEN with the account key, `ubcp ledger append` it, and ask your stewards to enrol it",
            )  # fmt: skip
        return found

    def _paymaster(self, store: Store) -> StandingReport | None:
        is_node = any(isinstance(chain, NodeChain) for chain in store.ledger.chains.get(self._node, ()))
        return standing(store.ledger, self._node, store.history) if is_node else None

    def _check_chain(self, store: Store) -> None:
        """Whether what is signed next can be a second entry with a number that is taken. Raises Refused."""
        chain = store.ledger.branch_of(self._account)
        dropped = store.dropped(self._account)
        if dropped and (chain is None or dropped[0].seq > chain.head.seq):
            raise Refused(
                "ended", "a charter has dropped an entry of the account: another one with its number would be a fork",
                hint="ask your stewards to enrol a new account",
            )  # fmt: skip
        known: Funds | None = funds(store.ledger, self._account, store.history, 0)
        if known is not None and store.is_pending(self._account, known.key):
            raise Refused(
                "incomplete", "more of the account's chain exists than has arrived here",
                hint="wait until this node has it: `ubcp status` shows what is missing",
            )  # fmt: skip

    def _problems(self, store: Store, now: int, offered: Supply, considered: Sequence[Asked] = ()) -> list[Problem]:
        """The next slice of the peers that offer most."""
        largest = sorted(offered.budgets.items(), key=lambda each: (-each[1], each[0]))[:ASKED_MAX]
        return [
            self._book.problem(store, now + 1, Offer(node, budget, budget), considered, ahead=1)
            for node, budget in largest
        ]

    async def _prospect(self, asked: Asked, known: Known) -> Prospect:
        problems = await self._ledger.read(lambda store: self._problems(store, known.now, known.supply, [asked]))
        return await asyncio.to_thread(lambda: prospect(tried(problems), asked.id, asked.body.peers_min))

    async def _network(self) -> bytes:
        return await self._ledger.read(lambda store: store.ledger.network)


def _shown(recipe: Recipe | None) -> dict[str, Any]:
    """What a request's row says of its recipe, where it could be had."""
    return {"recipe": recipe and recipe.name, "unchecked": recipe and unchecked(recipe)}


def _document(judged: Judged, recipe: Recipe, known: Known, expected: Prospect) -> dict[str, Any]:
    """JSON for people and programs. Amounts are µcredits, as many as GFLOP."""
    body, funds_, found = judged.body, known.funds, judged.feasibility
    basis = known.charter.cost
    rows = [row.times(Fraction(body.credits, MICROCREDITS)) for row in prices(basis)]
    return {
        "run": body.run, "run_id": run_id(body.run, body.recipe).hex(), "recipe": recipe.name,
        "recipe_hash": body.recipe.hex(), "purpose": body.purpose, "account": funds_.account.hex(),
        "signer": funds_.key.hex(), "peers_min": body.peers_min, "peers_max": body.peers_max,
        "urgency": body.urgency, "rounds": judged.cost.rounds,
        "units_per_peer_and_round": judged.cost.units_per_peer_and_round, "units_per_peer_and_slice": body.units,
        "price": {"min": judged.price_min, "max": judged.price_max}, "budget": body.credits,
        "currency": basis and basis.currency,
        "devices": [
            {"device": row.device, "seconds": float(row.seconds), "money": float(row.total), "kwh": float(row.kwh),
             "gco2": float(row.gco2)}
            for row in rows
        ],
        "available": funds_.available, "available_after": funds_.available - body.credits,
        "reservable": min(funds_.available, funds_.cap),
        "income_claimed": len(body.income), "closes_claimed": len(body.closes),
        "deadline": moment(known.charter, body.deadline + 1), "deadline_slice": body.deadline,
        "others": {"credits": judged.others, "accounts": judged.funders},
        "feasibility": found and {
            "peers": found.peers, "slices": found.slices, "per_slice": found.per_slice,
            "recent": known.supply.recent,
        },
        "unchecked": unchecked(recipe), "share": share_of(body) if unchecked(recipe) else None,
        "queue": expected.queue, "expected_wait_s": expected.wait_s, "words": expected.words,
    }  # fmt: skip
