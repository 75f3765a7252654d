"""May this be asked for, and can it be had? A draft of the REQUEST from a wish, and the judgement on a REQUEST. Pure.

What is refused here is refused before anything is reserved. A request that comes by another way, as by gossip, is
judged by the ledger's rules and the allocators alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from ubcp_p2p.allocator.feasible import Feasibility, Lack, Need, feasible, room
from ubcp_p2p.ledger.balances import Standing
from ubcp_p2p.ledger.entry import Request
from ubcp_p2p.models.cost import Cost, cost_of
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.models.run_name import check_name
from ubcp_p2p.models.unchecked import unchecked
from ubcp_p2p.peer.asking.values import Known, Refused, Wish, deadline_slice, moment
from ubcp_p2p.peer.paying.share import share_of
from ubcp_p2p.units import credits_text


@dataclass(frozen=True)
class Judged:
    """A REQUEST that may be signed. price_min, price_max: of the whole run with the fewest and the most of its peers.

    others: µcredits that open REQUESTs of other accounts have left for the very same run, from so many of them.
    feasibility: None where nothing is known of who serves.
    """

    body: Request
    cost: Cost
    price_min: int
    price_max: int
    others: int
    funders: int
    feasibility: Feasibility | None


def draft(wish: Wish, known: Known) -> Request:
    """The REQUEST that a wish leads to; what it leaves open is chosen here. Raises Refused, ConfigError."""
    charter, funds, recipe = known.charter, known.funds, wish.recipe
    purpose = wish.purpose
    if purpose is None:
        if len(charter.purposes) > 1:
            raise Refused(
                "purpose", "a request says what it is for, and this community has several purposes",
                hint=f"--purpose with one of: {', '.join(charter.purposes)}",
            )  # fmt: skip
        purpose = charter.purposes[0]
    peers_max = wish.peers_max or max(wish.peers_min, recipe.rounds.peers_max)
    _check_peers(recipe, wish.peers_min, peers_max)
    if wish.deadline is None:  # a period is long enough to wait in, and the credits are not bound for longer
        deadline = min(funds.slice + charter.period_slices, _latest(known))
    else:
        deadline = deadline_slice(charter, wish.deadline, known.now)
    whole = cost_of(recipe, 1).units
    rooms = sorted((room(each, charter.newcomer_permille) for each in known.supply.budgets.values()), reverse=True)
    enough = rooms[wish.peers_min - 1] if len(rooms) >= wish.peers_min else whole
    budget = wish.budget
    if budget is None:
        least, most = (cost_of(recipe, count).units for count in (wish.peers_min, peers_max))
        budget = max(least, min(most, funds.available, funds.cap))
    return Request(
        run=wish.run,
        recipe=recipe.hash(),
        purpose=purpose,
        peers_min=wish.peers_min,
        peers_max=peers_max,
        units=max(cost_of(recipe, 1).units_per_peer_and_round, min(whole, enough)),
        credits=budget,
        expiry=max(deadline, 0),
        deadline=max(deadline, 0),
        urgency=wish.urgency,
        paymaster=known.node,
        income=funds.income,
        closes=funds.closes,
    )


def judge(
    body: Request,
    recipe: Recipe,
    known: Known,
    *,
    part: bool = False,
    again: bool = False,
    accept_unchecked: bool = False,
) -> Judged:
    """Whether to sign and tell this REQUEST. Raises Refused, with what happened, why, and what to do; ConfigError."""
    if body.recipe != recipe.hash():
        raise Refused("recipe", "the request names another recipe than the one given", hint="give that very recipe")
    if Recipe.from_bytes(recipe.to_bytes(), "the recipe") != recipe:
        raise Refused(
            "local-path", "the recipe says where files lie on this machine: peers do not share that, and have them "
            "elsewhere",
            hint="remove data.path from the recipe",
        )  # fmt: skip
    why = unchecked(recipe)
    if why is not None and not accept_unchecked:
        raise Refused(
            "unchecked", f"{why}. Who does nothing is paid like the others, up to {credits_text(share_of(body))} "
            "credits an account",
            hint="--accept-unchecked asks for it all the same; what it reserves may bring nothing",
        )  # fmt: skip
    _check_account(known)
    _check_paymaster(body, known)
    if body.purpose not in known.charter.purposes:
        raise Refused(
            "purpose", f"the community's charter does not allow the purpose {body.purpose!r}",
            hint=f"it allows: {', '.join(known.charter.purposes)}",
        )  # fmt: skip
    _check_peers(recipe, body.peers_min, body.peers_max)
    others, funders = _check_name(body, known, again)
    _check_deadline(body, known)
    least, most = (cost_of(recipe, count) for count in (body.peers_min, body.peers_max))
    _check_budget(body, least, others, known, part)
    found = _check_supply(body, least, known)
    return Judged(body, least, least.units, most.units, others, funders, found)


def _check_account(known: Known) -> None:
    funds, charter = known.funds, known.charter
    if funds.standing.standing is Standing.FROZEN:
        raise Refused("frozen", f"the account is frozen: {funds.standing.words}", hint="ask your stewards for a HEAL")
    if funds.enrolment is None:
        if funds.last is not None:
            ended = moment(charter, funds.last.until * charter.period_slices)
            raise Refused(
                "enrolment-expired", f"the account's enrolment ended at {ended}: it may ask for nothing",
                hint="ask your stewards to enrol it again",
            )  # fmt: skip
        raise Refused(
            "not-enrolled", "the account is not enrolled in this community now: it may ask for nothing",
            hint="ask your stewards to enrol it; `ubcp credits` shows its state",
        )  # fmt: skip
    if funds.standing.standing is not Standing.GOOD:
        raise Refused(
            "indebted", f"nobody would serve the account: {funds.standing.words}",
            hint="its next allowances and income repay it; `ubcp credits` shows how much is left",
        )  # fmt: skip


def _check_paymaster(body: Request, known: Known) -> None:
    """The node that is to pay must be able to: only this one is looked at."""
    if body.paymaster != known.node:
        raise Refused(
            "paymaster", "the request names another paymaster than the node that it was given to",
            hint="submit it on that node",
        )  # fmt: skip
    if known.paymaster is None:
        raise Refused(
            "paymaster", "this node has no chain in the ledger, so it could pay nobody",
            hint="write its OPEN with the account key, and `ubcp ledger append` it",
        )  # fmt: skip
    if known.paymaster.standing is not Standing.GOOD:
        raise Refused(
            "paymaster", f"this node could pay nobody: {known.paymaster.words}",
            hint="make a new node with `ubcp init --profile NEW`",
        )  # fmt: skip


def _check_peers(recipe: Recipe, peers_min: int, peers_max: int) -> None:
    if peers_min > peers_max:
        raise Refused("peers", f"at least {peers_min} peers and at most {peers_max}", hint="lower --peers-min")
    if peers_max > recipe.rounds.peers_max:
        raise Refused(
            "peers", f"{peers_max} peers, where the recipe {recipe.name} admits {recipe.rounds.peers_max}",
            hint="ask for fewer, or raise rounds.peers_max in a recipe of your own",
        )  # fmt: skip


def _check_name(body: Request, known: Known, again: bool) -> tuple[int, int]:
    """Joint funding is the same name and the same recipe; the same name and another recipe is a clash.

    Returns µcredits that others have left for this run, and from how many accounts. Raises Refused, ConfigError.
    """
    check_name(body.run)  # once more: what was signed need not be what was drafted
    same_name = [(asked, done) for asked, done in known.open if asked.body.run == body.run]
    for asked, _ in same_name:
        if asked.body.recipe != body.recipe:
            raise Refused(
                "name-taken", f"an open request of {asked.author.hex()[:16]}… is for a run {body.run!r} with another "
                "recipe: peers could not tell the two apart",
                hint="take another --run name; or that very recipe, to pay for that run together",
            )  # fmt: skip
    mine = [asked for asked, _ in same_name if asked.author == known.funds.account]
    if mine and not again:
        raise Refused(
            "asked-already", f"this account has an open request for this very run: {mine[0].id.hex()[:16]}…",
            hint="`ubcp runs show` tells how it stands; --again reserves more credits beside it",
        )  # fmt: skip
    rest = [(asked, done) for asked, done in same_name if asked.author != known.funds.account]
    left = sum(max(0, asked.body.credits - done) for asked, done in rest)
    return left, len({asked.author for asked, _ in rest})


def _latest(known: Known) -> int:
    """The last slice that a REQUEST written now may name (SPEC §6.3)."""
    return known.funds.slice + known.charter.allowance_periods * known.charter.period_slices


def _check_deadline(body: Request, known: Known) -> None:
    charter = known.charter
    if body.deadline <= known.now:
        when = moment(charter, body.deadline + 1)
        raise Refused(
            "deadline", f"the deadline has passed, or no whole slice is left before it ({when})",
            hint=f"a slice has {charter.slice_s} s, and the next one begins at {moment(charter, known.now + 1)}",
        )  # fmt: skip
    if body.expiry > _latest(known):
        raise Refused(
            "deadline", f"the deadline is later than a request may live: {moment(charter, _latest(known) + 1)}",
            hint="set an earlier --deadline; ask again for what is left by then",
        )  # fmt: skip


def _check_budget(body: Request, least: Cost, others: int, known: Known, part: bool) -> None:
    funds, asked = known.funds, credits_text(body.credits)
    if body.credits > funds.available:
        raise Refused(
            "balance", f"the budget is {asked} credits, and the account has {credits_text(funds.available)} available",
            hint="lower --budget, take a smaller recipe, or let others pay a part with requests of their own (--part)",
        )  # fmt: skip
    if body.credits > funds.cap:
        raise Refused(
            "exposure", f"the budget is {asked} credits, and the charter lets the account reserve "
            f"{credits_text(funds.cap)} more in this period",
            hint=f"lower --budget, or wait until {_next_period(known)}",
        )  # fmt: skip
    with_others = f" with the {credits_text(others)} that others have left for it" if others else ""
    if body.credits < least.units_per_round:
        raise Refused(
            "too-small", f"the budget is {asked} credits, and one round of {least.peers} peers costs "
            f"{credits_text(least.units_per_round)}: nothing would be trained",
            hint=f"--budget {credits_text(least.units)} pays for the whole run",
        )  # fmt: skip
    if body.credits + others < least.units and not part:
        raise Refused(
            "too-small", f"the budget is {asked} credits{with_others}, and the smallest useful run, all rounds of "
            f"{least.peers} peers, costs {credits_text(least.units)}",
            hint="raise --budget; or --part, when others will pay for the rest",
        )  # fmt: skip


def _next_period(known: Known) -> str:
    charter = known.charter
    return moment(charter, (charter.period(known.now) + 1) * charter.period_slices)


def _check_supply(body: Request, least: Cost, known: Known) -> Feasibility | None:
    charter, supply = known.charter, known.supply
    round_, slices = least.units_per_peer_and_round, body.deadline - known.now
    fastest = room(max(device.peak for device in charter.devices) * charter.slice_s, charter.newcomer_permille)
    if round_ > fastest:
        raise Refused(
            "above-every-slice", f"a peer's round is {round_:,} GFLOP, and the fastest device of the charter gives "
            f"{fastest:,} in a slice",
            hint="lower rounds.local_steps or inner.batch in a recipe of your own",
        )  # fmt: skip
    if not supply.recent and not supply.budgets:
        return None  # nobody has asked lately, so that nobody has said what it has
    total = min(body.credits, least.units)  # the budget is a maximum: what is useful at all has to be possible
    need = Need(round_, body.units, total, body.peers_min, body.peers_max, slices)
    found = feasible(need, supply.budgets.values(), charter.newcomer_permille)
    if found.lack is None or not supply.recent:  # what was true a while ago refuses nobody
        return found
    there = f"{len(supply.budgets)} peers have decided in the last slices"
    if found.lack is Lack.ROUND:
        raise Refused(
            "above-every-slice", f"a peer's round is {round_:,} GFLOP, more than any peer has in a slice: {there}",
            hint="lower rounds.local_steps or inner.batch in a recipe of your own",
        )  # fmt: skip
    if found.lack is Lack.PEERS:
        raise Refused(
            "too-few-peers", f"it needs {body.peers_min} peers at least, and {found.peers} could serve it: {there}",
            hint="lower --peers-min, or wait for more peers: `ubcp status` shows who decides",
        )  # fmt: skip
    raise Refused(
        "above-every-slice", f"{total:,} GFLOP take {found.slices:,} slices at least, where {found.per_slice:,} in a "
        f"slice are the most that {body.peers_max} peers give together; {slices:,} are left until the deadline",
        hint="set a later --deadline, lower --budget, or take a smaller recipe",
    )  # fmt: skip
