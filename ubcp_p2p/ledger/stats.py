"""How a community fares: waits, acceptance, work, carbon, by its entries alone (SPEC §14). Pure; the same for anybody.

Integers and exact fractions; what is rounded is rounded where it is shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from fractions import Fraction
from itertools import groupby
from typing import Final, NamedTuple

from ubcp_p2p.charter.prices import price_of
from ubcp_p2p.charter.values import Charters
from ubcp_p2p.ledger.activity import Activity, Asked
from ubcp_p2p.ledger.decisions import joined
from ubcp_p2p.ledger.leases import Lease, Leases
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.units import MICROCREDITS

ACCOUNTS_MIN: Final = 5  # that a row by purpose or community rests on, lest it tell of one person
REASONS_MAX: Final = 32  # shown; a DECISION can name any text as a reason


class Span(NamedTuple):
    """Periods, both included."""

    first: int
    last: int

    def slices(self, period_slices: int) -> range:
        return range(self.first * period_slices, (self.last + 1) * period_slices)


class Waits(NamedTuple):
    """Slices, by nearest rank: p90 is the least of them that at least 90 % do not exceed. All 0 where requests is."""

    requests: int
    p50: int = 0
    p90: int = 0
    p99: int = 0
    longest: int = 0


class Newcomers(NamedTuple):
    """What is of accounts that were newcomers at the REQUEST. units: GFLOP."""

    requests: int
    leases: int
    units: int


class Figures(NamedTuple):
    """Of all REQUESTs, or of some. Those asked in the span are `served`, `waiting`, or `unserved`.

    overdue: of those waiting, how many for longer than the charter's ageing. units: GFLOP, and µcredits. gco2: grams,
    of the units but `units_unknown`, for whose device class the charter has no costs.
    """

    accounts: int
    served: Waits
    waiting: Waits
    overdue: int
    unserved: int
    leases: int
    units: int
    newcomers: Newcomers
    gco2: Fraction
    units_unknown: int

    @property
    def requests(self) -> int:
        return self.served.requests + self.waiting.requests + self.unserved

    @property
    def accepted_of(self) -> int:
        """What `served.requests` is to be compared with."""
        return self.served.requests + self.unserved + self.overdue


class Others(NamedTuple):
    """Rows that rest on fewer than ACCOUNTS_MIN accounts each, as one; figures: None where that does too."""

    rows: int
    accounts: int
    figures: Figures | None


class Table(NamedTuple):
    """By purpose, or by community. rows: by name."""

    rows: tuple[tuple[str, Figures], ...]
    others: Others | None


class Refusal(NamedTuple):
    """times: what the DECISIONs that name this reason say, added up."""

    reason: str
    times: int
    decisions: int


class Nodes(NamedTuple):
    """What was decided about the slices of the span. budget_*: GFLOP; leased is at most, for quanta may be cut."""

    decisions: int
    nodes: int
    owners: int
    budget_offered: int
    budget_leased: int


class Statistics(NamedTuple):
    """slice: the newest of all entries; what is known is known up to there. refusals: the most frequent first."""

    span: Span
    slice: int
    total: Figures
    by_purpose: Table
    by_community: Table
    nodes: Nodes
    refusals: tuple[Refusal, ...]
    other_refusals: int


def statistics(activity: Activity, ledger: Ledger, span: Span) -> Statistics:
    """Everything; both of the same entries."""
    charters, leases = ledger.charters, Leases(activity, ledger)
    slices = span.slices(charters.first.period_slices)
    facts = list(_facts(activity, leases, charters, slices, ledger.slice))
    refusals, other_refusals = _refusals(leases, slices)
    return Statistics(
        span,
        ledger.slice,
        _figures(facts, charters),
        _table(facts, charters, lambda fact: fact.purpose),
        _table(facts, charters, lambda fact: fact.community),
        _nodes(activity, leases, slices),
        refusals,
        other_refusals,
    )


def waits_of(slices: Iterable[int]) -> Waits:
    """By nearest rank: of n sorted values the one with the number ⌈n · p / 100⌉, from 1."""
    ordered = sorted(slices)
    if not ordered:
        return Waits(0)
    half, ninety, ninety_nine = (ordered[-(-len(ordered) * p // 100) - 1] for p in (50, 90, 99))
    return Waits(len(ordered), half, ninety, ninety_nine, ordered[-1])


def served_at(request: Asked, leases: Iterable[Lease]) -> int | None:
    """The first slice for which at least peers-min nodes gave it a lease. leases: its own, by slice."""
    by_slice = groupby(leases, key=lambda lease: lease.slice)
    enough = (at for at, rows in by_slice if len({lease.node for lease in rows}) >= request.body.peers_min)
    return next(enough, None)


# -- one REQUEST ------------------------------------------------------------------------------------------------------


class _Fact(NamedTuple):
    """What the span has of one REQUEST. served, waiting: slices, where it was asked in the span and is so.

    work: ((charter version, device class), units). community: None where the entries do not tell.
    """

    account: bytes
    purpose: str
    community: str | None
    newcomer: bool
    served: int | None
    waiting: int | None
    overdue: bool
    unserved: bool
    leases: int
    work: tuple[tuple[tuple[int, str], int], ...]

    @property
    def asked(self) -> bool:
        return self.served is not None or self.waiting is not None or self.unserved

    @property
    def units(self) -> int:
        return sum(units for _, units in self.work)


def _facts(activity: Activity, leases: Leases, charters: Charters, slices: range, slice_: int) -> Iterator[_Fact]:
    """Of each REQUEST that was asked, leased or worked for in these slices."""
    period_slices = charters.first.period_slices
    done: dict[bytes, Counter[str]] = defaultdict(Counter)
    for work in activity.work():
        if work.slice in slices:
            done[work.request][work.device] += work.units
    for id_, request in activity.requests.items():
        of_it = leases.of(id_)
        given = sum(lease.slice in slices for lease in of_it)
        if request.slice not in slices and not given and id_ not in done:
            continue
        period = request.slice // period_slices
        charter, enrolment = charters.at(period), activity.enrolment(id_, period)
        served = waiting = None
        unserved = False
        if request.slice in slices:
            at = served_at(request, of_it)
            if at is not None:
                served = max(0, at - request.slice)
            elif slice_ > request.body.expiry:
                unserved = True
            else:
                waiting = slice_ - request.slice
        yield _Fact(
            account=request.author,
            purpose=request.body.purpose,
            community=enrolment.unit if enrolment else None,
            newcomer=bool(enrolment and enrolment.newcomer),
            served=served,
            waiting=waiting,
            overdue=waiting is not None and waiting > charter.ageing_slices,
            unserved=unserved,
            leases=given,
            work=tuple(((charter.number, device), units) for device, units in done.get(id_, {}).items()),
        )


# -- some of them -----------------------------------------------------------------------------------------------------


def _figures(facts: Collection[_Fact], charters: Charters) -> Figures:
    gco2, unknown = _carbon(facts, charters)
    new = [fact for fact in facts if fact.newcomer]
    return Figures(
        accounts=_accounts(facts),
        served=waits_of(fact.served for fact in facts if fact.served is not None),
        waiting=waits_of(fact.waiting for fact in facts if fact.waiting is not None),
        overdue=sum(fact.overdue for fact in facts),
        unserved=sum(fact.unserved for fact in facts),
        leases=sum(fact.leases for fact in facts),
        units=sum(fact.units for fact in facts),
        newcomers=Newcomers(
            sum(fact.asked for fact in new), sum(fact.leases for fact in new), sum(fact.units for fact in new)
        ),
        gco2=gco2,
        units_unknown=unknown,
    )


def _accounts(facts: Iterable[_Fact]) -> int:
    return len({fact.account for fact in facts})


def _carbon(facts: Iterable[_Fact], charters: Charters) -> tuple[Fraction, int]:
    """(grams, units of which nothing is known), by the charter in force in the period of each REQUEST."""
    units: Counter[tuple[int, str]] = Counter()
    for fact in facts:
        units.update(dict(fact.work))
    grams, unknown = Fraction(0), 0
    for (number, name), amount in units.items():
        basis = charters.versions[number - 1].charter.cost
        device = next((device for device in basis.devices if device.name == name), None) if basis else None
        if basis is None or device is None:
            unknown += amount
        else:
            grams += price_of(basis, device).gco2 * Fraction(amount, MICROCREDITS)
    return grams, unknown


def _table(facts: Collection[_Fact], charters: Charters, name_of: Callable[[_Fact], str | None]) -> Table:
    groups: dict[str | None, list[_Fact]] = defaultdict(list)
    for fact in facts:
        groups[name_of(fact)].append(fact)
    rows, rest, count = [], [], 0
    for name, group in groups.items():
        if name is not None and _accounts(group) >= ACCOUNTS_MIN:
            rows.append((name, _figures(group, charters)))
        else:
            rest += group
            count += 1
    accounts = _accounts(rest)
    figures = _figures(rest, charters) if accounts >= ACCOUNTS_MIN else None
    rows.sort(key=lambda row: row[0].encode())
    return Table(tuple(rows), Others(count, accounts, figures) if rest else None)


# -- the DECISIONs ----------------------------------------------------------------------------------------------------


def _nodes(activity: Activity, leases: Leases, slices: range) -> Nodes:
    """Parts of one decision are one, with all their leases; so are those on branches, with the greatest budget."""
    found = [decided for decided in leases.decided if decided.body.slice in slices]
    budgets: dict[tuple[bytes, int], int] = {}
    accepted: dict[tuple[bytes, int], set[bytes]] = defaultdict(set)
    for decided in found:
        place = decided.node, decided.body.slice
        budgets[place] = max(budgets.get(place, 0), decided.body.budget)
        accepted[place].update(decided.body.accepted)
    leased = 0
    for place, budget in budgets.items():
        leased += min(budget, sum(activity.requests[id_].body.units for id_ in accepted[place]))
    nodes = {node for node, _ in budgets}
    owners = {activity.owners[node] for node in nodes}
    return Nodes(len(found), len(nodes), len(owners), sum(budgets.values()), leased)


def _refusals(leases: Leases, slices: range) -> tuple[tuple[Refusal, ...], int]:
    """The most frequent reasons, and the sum of the counts of all others. Parts of one decision count once."""
    counts: Counter[str] = Counter()
    decisions: Counter[str] = Counter()
    for decided in joined(leases.decided):
        if decided.body.slice in slices:
            for reason, count in decided.body.refused:
                counts[reason] += count
                decisions[reason] += 1
    ordered = sorted(counts, key=lambda reason: (-counts[reason], reason.encode()))
    shown = tuple(Refusal(reason, counts[reason], decisions[reason]) for reason in ordered[:REASONS_MAX])
    return shown, sum(counts[reason] for reason in ordered[REASONS_MAX:])
