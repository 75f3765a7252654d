"""From the ledger to the allocator: the problem of one slice, as one node sees it. Pure.

What the community knows comes from the entries (requests, decisions, receipts, enrolments), what only this node knows
comes as an `Offer`: its budget, its owner's refusals, its grid, when it first saw a request.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ubcp_p2p.allocator.problem import (
    ASKS_MAX,
    SLICE_MAX,
    USERS_MAX,
    Applicant,
    Ask,
    Cleaner,
    Problem,
    Reason,
    UnitUse,
    grid,
    problem_of,
)
from ubcp_p2p.allocator.usage import HALF_LIVES_MAX, charges, decayed_use
from ubcp_p2p.allocator.usage import Lease as Charged
from ubcp_p2p.allocator.usage import Receipt as Credited
from ubcp_p2p.carbon.choose import cleanest
from ubcp_p2p.carbon.values import Slot
from ubcp_p2p.charter.values import Charter
from ubcp_p2p.ledger.activity import Activity, Asked
from ubcp_p2p.ledger.chain import AccountChain, Enrolment
from ubcp_p2p.ledger.entry import Request
from ubcp_p2p.ledger.leases import Lease, Leases, holders
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.models.recipe import run_id
from ubcp_p2p.models.run_name import is_name
from ubcp_p2p.peer.serving.rules import rules_of
from ubcp_p2p.peer.serving.supply import budgets
from ubcp_p2p.units import AMOUNT_MAX


@dataclass(frozen=True)
class Offer:
    """What this node can give in a slice, and what it alone knows.

    budget: units of this slice; budget_max: of its best one. first_seen: REQUEST → the slice in which it came here.
    refuse_*: what the owner does not serve: purposes, and runs by name or id in hex. forecast: of carbon, from now on.
    reserve_carried: what newcomers left of the last slice's reserve. indebted: accounts that owe credits.
    """

    node: bytes
    budget: int
    budget_max: int
    first_seen: Mapping[bytes, int] = field(default_factory=dict)
    refuse_purposes: Collection[str] = ()
    refuse_runs: Collection[str] = ()
    carbon: int | None = None
    forecast: tuple[Slot, ...] = ()
    reserve_carried: int = 0
    indebted: Collection[bytes] = ()

    def carrying(self, reserve: int) -> Offer:
        """With what newcomers left of the last slice's reserve."""
        return replace(self, reserve_carried=reserve)

    def knowing(self, first_seen: Mapping[bytes, int], indebted: Collection[bytes]) -> Offer:
        """With when requests came here, and who owes credits."""
        return replace(self, first_seen=first_seen, indebted=indebted)


class _Place(NamedTuple):
    """Where an account stands: its unit, whether it is a newcomer there, whether it is enrolled now."""

    unit: str
    newcomer: bool
    enrolled: bool


def assemble(
    ledger: Ledger, activity: Activity, slice_: int, offer: Offer, considered: Iterable[Asked] = ()
) -> Problem:
    """The problem of `slice_`; its asks are the REQUESTs that are open in it and want one more peer.

    considered: REQUESTs that are in no ledger yet, and are weighed as if they were.
    Of more than the allocator takes, the oldest come first. Raises BadProblem for what cannot be in a ledger.
    """
    charter = ledger.charter_at(slice_)
    leases = Leases(activity, ledger, since=_oldest(charter, slice_))
    served = _last_served(activity, leases, charter, slice_)
    frozen = frozenset(ledger.frozen())
    known = (asked for asked in activity.requests.values() if asked.id in ledger.requests)
    wanted = _in_turn(
        [asked for asked in (*known, *considered) if _is_open(ledger, activity, leases, asked, slice_, offer, frozen)],
        offer,
    )[:ASKS_MAX]
    use = _use(activity, leases, charter, slice_)
    people = {asked.author for asked in wanted} | {user for user, amount in use.items() if amount}
    asking: dict[bytes, list[bytes]] = defaultdict(list)
    for asked in wanted:
        asking[asked.author].append(asked.id)
    places = {
        user: _place(ledger, activity, charter, user, asking.get(user, ()), ledger.period(slice_))
        for user in _first(people, wanted, use)
    }
    wanted = [asked for asked in wanted if asked.author in places]
    rules = rules_of(charter)
    reserve = rules.newcomer_permille
    others = budgets(leases, charter, slice_, frozen | {offer.node})
    view = _View(
        activity, slice_, charter, offer, served, places, frozen, 1 + len(others),
        largest(offer.budget_max, reserve),
    )  # fmt: skip
    asks = [_ask(view, asked) for asked in wanted]
    firsts = _waiting_since(asks, slice_)
    return problem_of(
        slice=slice_,
        rules=rules,
        budget=offer.budget,
        budget_max=offer.budget_max,
        capacity=min(AMOUNT_MAX, offer.budget + sum(others.values())),
        reserve_carried=min(offer.reserve_carried, offer.budget_max * reserve // 1000),
        carbon=offer.carbon,
        units=_units(charter, places, use, firsts, served, slice_),
        applicants=[
            Applicant(
                user, place.unit, place.newcomer, use.get(user, 0),
                _stalled(slice_, firsts.get(user), served.get(user)),
            )
            for user, place in places.items()
        ],
        asks=asks,
    )  # fmt: skip


# -- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """What `_ask` goes by. peers: how many have decided of late, this one included; fits: the largest quantum here."""

    activity: Activity
    slice: int
    charter: Charter
    offer: Offer
    served: Mapping[bytes, int]
    places: Mapping[bytes, _Place]
    frozen: frozenset[bytes]
    peers: int
    fits: int
    cleaner: dict[int, Cleaner | None] = field(default_factory=dict)  # by the last slice to begin in


def _in_turn(wanted: Iterable[Asked], offer: Offer) -> list[Asked]:
    """Everybody's first request before anybody's second; of one author, and of one turn, those that came first."""
    turns: dict[bytes, int] = defaultdict(int)
    ranked = []
    for asked in sorted(wanted, key=lambda asked: (_since(asked, offer), asked.id)):
        ranked.append((turns[asked.author], _since(asked, offer), asked.id, asked))
        turns[asked.author] += 1
    return [asked for *_, asked in sorted(ranked, key=lambda row: row[:3])]


def _since(asked: Asked, offer: Offer) -> int:
    """The later of when it claims to be from, and when it came here."""
    return max(asked.slice, offer.first_seen.get(asked.id, asked.slice))


def _is_open(
    ledger: Ledger,
    activity: Activity,
    leases: Leases,
    asked: Asked,
    slice_: int,
    offer: Offer,
    frozen: frozenset[bytes],
) -> bool:
    """Whether it still wants a peer like this one in this slice."""
    body = asked.body
    if asked.slice > slice_ or body.deadline < slice_ or asked.id in activity.closed:
        return False
    seen = offer.first_seen.get(asked.id, asked.slice)
    if seen - asked.slice > ledger.charters.first.period_slices:
        return False  # nobody tells of a request a whole period late by accident
    if activity.owners.get(offer.node) == asked.author:
        return False  # a receipt between nodes of one owner is void
    if activity.done(asked.id) >= body.credits:
        return False
    others = {lease.node for lease in leases.of(asked.id) if lease.slice == slice_ and lease.node != offer.node}
    return len(others - frozen) < body.peers_max


def _ask(view: _View, asked: Asked) -> Ask:
    body, slice_ = asked.body, view.slice
    left = body.credits - view.activity.done(asked.id)
    slices_left = slices_for(left, body, view.fits)
    since = max(_since(asked, view.offer), view.served.get(asked.id, -1) + 1)
    last_start = body.deadline - slices_left + 1
    if last_start not in view.cleaner:
        view.cleaner[last_start] = _cleaner(view, last_start)
    return Ask(
        id=asked.id,
        applicant=asked.author,
        purpose=body.purpose,
        units=min(body.units, left),
        units_min=1,  # a REQUEST's quantum is cut to what fits: it is paid by the unit
        waited=max(0, slice_ - since),
        urgency=body.urgency,
        slices_left=slices_left,
        cleaner=view.cleaner[last_start],
        standing=_standing(view, asked),
    )


def slices_for(left: int, body: Request, fits: int) -> int:
    """How many slices a REQUEST needs for the units that are left, where quanta of `fits` are the largest."""
    return min(-(-left // (min(body.units, fits) * body.peers_min)), SLICE_MAX)


def largest(budget_max: int, reserve_permille: int) -> int:
    """The largest quantum that fits a node's best slice."""
    return max(1, grid(budget_max, reserve_permille).fits)


def _standing(view: _View, asked: Asked) -> Reason | None:
    body, offer = asked.body, view.offer
    if asked.author in view.frozen or body.paymaster in view.frozen:
        return Reason.FROZEN
    if asked.author in offer.indebted:
        return Reason.INDEBTED
    if not view.places[asked.author].enrolled:
        return Reason.NOT_ENROLLED
    named = {body.run, run_id(body.run, body.recipe).hex()}
    # The ledger takes any text for a name: a run that this node could not be in gets no lease of it.
    if body.purpose in offer.refuse_purposes or not named.isdisjoint(offer.refuse_runs) or not is_name(body.run):
        return Reason.OWNER_REFUSED
    return Reason.TOO_FEW_PEERS if body.peers_min > view.peers else None


def _cleaner(view: _View, last_start: int) -> Cleaner | None:
    """The cleanest slice that the work can wait for; last_start: the last slice in which it must begin."""
    charter, slice_, offer = view.charter, view.slice, view.offer
    if offer.carbon is None or not offer.forecast or last_start <= slice_:
        return None
    begin = charter.epoch + slice_ * charter.slice_s
    hold = cleanest(offer.forecast, begin, begin + (last_start - slice_ + 1) * charter.slice_s, charter.slice_s)
    return None if hold is None else Cleaner(hold.g_then, (hold.start - begin) // charter.slice_s)


# -- people -----------------------------------------------------------------------------------------------------------


def _first(people: Iterable[bytes], wanted: Iterable[Asked], use: Mapping[bytes, int]) -> list[bytes]:
    """Of more users than the allocator takes, those with a request, then those with most use."""
    asking = {asked.author for asked in wanted}
    return sorted(people, key=lambda user: (user not in asking, -use.get(user, 0), user))[:USERS_MAX]


def unit_in(charter: Charter, name: str) -> str:
    """A unit that a later version of the charter has no more is its first."""
    return name if charter.has_unit(name) else charter.units[0].name


def _place(
    ledger: Ledger, activity: Activity, charter: Charter, account: bytes, asks: Iterable[bytes], period: int
) -> _Place:
    """By the enrolment now, else by the last one there was; who was never enrolled counts to the charter's first.

    asks: its REQUESTs. What is before one of them goes first: whoever audits knows that too (SPEC §12.1).
    """
    for id_ in sorted(asks):
        if (known := activity.enrolled_before(id_, period)) is not None:
            return _Place(unit_in(charter, known.unit), known.newcomer, True)
    enrolments: list[Enrolment] = []
    for chain in ledger.chains.get(account, ()):
        if isinstance(chain, AccountChain):
            enrolments += chain.enrolments
    now = next((one for one in reversed(enrolments) if one.covers(period)), None)
    last = now or max(enrolments, key=lambda one: one.until, default=None)
    unit = unit_in(charter, last.unit if last is not None else "")
    return _Place(unit, now is not None and now.newcomer, now is not None)


def _units(
    charter: Charter,
    places: Mapping[bytes, _Place],
    use: Mapping[bytes, int],
    firsts: Mapping[bytes, int],
    served: Mapping[bytes, int],
    slice_: int,
) -> list[UnitUse]:
    total: dict[str, int] = defaultdict(int)
    since: dict[str, int] = {}
    last: dict[str, int] = {}
    for user, place in places.items():
        total[place.unit] += use.get(user, 0)
        if user in firsts:
            since[place.unit] = min(since.get(place.unit, firsts[user]), firsts[user])
        if user in served:
            last[place.unit] = max(last.get(place.unit, served[user]), served[user])
    return [
        UnitUse(
            unit.name, unit.weight, total[unit.name], _stalled(slice_, since.get(unit.name), last.get(unit.name))
        )
        for unit in charter.units
    ]  # fmt: skip


def _waiting_since(asks: Iterable[Ask], slice_: int) -> dict[bytes, int]:
    """User → the slice since which its longest waiting request has waited."""
    firsts: dict[bytes, int] = {}
    for ask in asks:
        since = slice_ - ask.waited
        firsts[ask.applicant] = min(firsts.get(ask.applicant, since), since)
    return firsts


def _stalled(slice_: int, first: int | None, served: int | None) -> int:
    """For how many slices nobody moved up: since the first request waits, or since one was served."""
    if first is None:
        return 0
    return max(0, slice_ - max(first, -1 if served is None else served + 1))


# -- use --------------------------------------------------------------------------------------------------------------


def _oldest(charter: Charter, slice_: int) -> int:
    """The first of the slices whose leases can still matter."""
    return slice_ - HALF_LIVES_MAX * charter.half_life_slices


def _recent(activity: Activity, leases: Leases, charter: Charter, slice_: int) -> Iterator[tuple[Asked, list[Lease]]]:
    """Requests whose leases can still matter, with those before `slice_`: what is older has decayed to nothing."""
    oldest = _oldest(charter, slice_)
    for asked in activity.requests.values():
        if asked.body.deadline >= oldest:
            of_it = [lease for lease in leases.of(asked.id) if oldest <= lease.slice < slice_]
            if of_it:
                yield asked, of_it


def _last_served(activity: Activity, leases: Leases, charter: Charter, slice_: int) -> dict[bytes, int]:
    """REQUEST → the last slice before this one in which it had leases; account → … in which leases of it held.

    A request whose leases were freed, as too few peers took it, does not grow on what it has wasted.
    """
    last: dict[bytes, int] = {}
    for asked, of_it in _recent(activity, leases, charter, slice_):
        last[asked.id] = max(lease.slice for lease in of_it)
        for then in sorted({lease.slice for lease in of_it}, reverse=True):
            if holders(asked, then, of_it):
                last[asked.author] = max(last.get(asked.author, then), then)
                break
    return last


def _use(activity: Activity, leases: Leases, charter: Charter, slice_: int) -> dict[bytes, int]:
    """Decayed use of every account that has any, from leases that held and from receipts."""
    charged = []
    for asked, of_it in _recent(activity, leases, charter, slice_):
        for then in {lease.slice for lease in of_it}:
            for node in holders(asked, then, of_it):
                charged.append(Charged(asked.author, asked.id, node, then, asked.body.units, asked.body.urgency))
    credited = [Credited(work.request, work.node, work.slice, work.units) for work in activity.work()]
    found = charges(charged, credited, now=slice_, grace=charter.grace_slices)
    use = {
        user: amount
        for user, amount in decayed_use(found, now=slice_, half_life=charter.half_life_slices).items()
        if amount
    }
    room = AMOUNT_MAX // max(1, len(use))
    return {user: min(amount, room) for user, amount in use.items()}
