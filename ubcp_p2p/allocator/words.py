"""A decision in words for whoever asked: what happened, what would have to give way, how long it may take. Pure."""

from __future__ import annotations

from ubcp_p2p.allocator.decide import Outcome
from ubcp_p2p.allocator.problem import Ask, Problem, Reason


def explain(problem: Problem, ask: Ask, outcome: Outcome) -> str:
    """One line: "not this slice: full; yours would displace 3.1 % more value than its own; …"."""
    reason = outcome.reason
    if reason is Reason.ACCEPTED:
        cut = f" (of {ask.units:,} asked for)" if outcome.units < ask.units else ""
        return f"accepted: {outcome.units:,} GFLOP{cut}; {_use(outcome)}; {_waited(problem, ask)}"
    if reason is Reason.FULL:
        parts = ["not this slice: full"]
        parts += [_displaces(outcome.displaces)] if outcome.displaces is not None else []
        parts += [_use(outcome), _waited(problem, ask), f"number {outcome.queue} in the queue", _expected(outcome)]
        return "; ".join(parts)
    if reason is Reason.HELD and ask.cleaner is not None and problem.carbon is not None:
        saved = 100 - -(-100 * ask.cleaner.g_per_kwh // problem.carbon)
        when = duration(ask.cleaner.slices_ahead * problem.rules.slice_s)
        return f"held: power is {saved} % cleaner in {when}, before its deadline; {_waited(problem, ask)}"
    if reason is Reason.SMALL_SLICE:
        return (
            f"not this slice: it is too small; yours needs {ask.units_min:,} GFLOP at once; "
            f"{_waited(problem, ask)}; a larger slice can take it"
        )
    if reason is Reason.TOO_LARGE:
        return (
            f"refused: too large for every slice of this node; yours needs {ask.units_min:,} GFLOP at once; "
            "submit it again with a smaller quantum"
        )
    return _REFUSED[reason].format(purpose=ask.purpose)


def explain_seat(outcome: Outcome, asked: int, seats: int) -> str:
    """Why a peer has no seat in a run's group, in one line."""
    if outcome.reason is not Reason.FULL:
        return _REFUSED[outcome.reason].format(purpose="")
    parts = [f"no seat in this round: {asked} peers asked for {seats}"]
    if outcome.displaces is not None:
        # Seats cost the same: who would have to give way is worth as much, or more.
        equal = outcome.displaces[1] == 0
        why = "others of the same verified work drew lower lots" if equal else "others have more verified work"
        parts.append(why if equal else f"{why}; {_displaces(outcome.displaces)}")
    parts += [f"number {outcome.queue} of those without", "it is decided anew in each round"]
    return "; ".join(parts)


def duration(seconds: int) -> str:
    """In the largest unit that leaves two digits or so: "45 s", "30 min", "3 h", "12 days"."""
    for length, name in ((2 * 86_400, "days"), (2 * 3600, "h"), (120, "min")):
        if seconds >= length:
            unit = {"days": 86_400, "h": 3600, "min": 60}[name]
            return f"{-(-seconds // unit):,} {name}"
    return f"{seconds} s"


_REFUSED = {
    Reason.FROZEN: "refused: the account is frozen, because it signed two entries with one number",
    Reason.INDEBTED: "refused: the account owes credits, and debts are repaid first",
    Reason.TOO_FEW_PEERS: "not this slice: fewer peers serve here than it needs at least",
    Reason.NOT_ENROLLED: "refused: the account is not enrolled now",
    Reason.OWNER_REFUSED: "refused: the owner of this node does not serve it",
    Reason.PURPOSE: 'refused: the community\'s charter does not allow the purpose "{purpose}"',
}


def _use(outcome: Outcome) -> str:
    tenths = (outcome.use_permille + 50) // 100
    whose, whom = ("your unit's", "its") if outcome.of_unit else ("your", "your")
    return f"{whose} use is {tenths // 10:,}.{tenths % 10}× {whom} fair share"


def _waited(problem: Problem, ask: Ask) -> str:
    return f"waited {duration(ask.waited * problem.rules.slice_s)}" if ask.waited else "new in this slice"


def _displaces(bounds: tuple[int, int]) -> str:
    least, most = bounds
    if least == most == 0:
        return "others of the same value were first by their ids"
    figures = _percent(most) if least == most else f"{_percent(least)} to {_percent(most)}"
    return f"yours would displace {figures} % more value than its own"


def _percent(permille: int) -> str:
    return f"{permille // 10:,}.{permille % 10}"


def _expected(outcome: Outcome) -> str:
    return "nobody can say when" if outcome.wait_s is None else f"expected within {duration(outcome.wait_s)}"
