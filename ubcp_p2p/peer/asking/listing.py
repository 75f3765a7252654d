"""What was asked for, and how it stands: open REQUESTs of a community, and those that an account has not closed. Pure.

JSON types; amounts are µcredits, as many as GFLOP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ubcp_p2p.api.problems import NotFound
from ubcp_p2p.ledger.activity import Activity, Asked
from ubcp_p2p.ledger.entry import Close
from ubcp_p2p.ledger.funds import open_reserves
from ubcp_p2p.ledger.leases import Leases, holders
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.models.recipe import run_id
from ubcp_p2p.peer.asking.prospect import Prospect
from ubcp_p2p.peer.asking.requests import open_requests
from ubcp_p2p.peer.asking.values import Refused, moment
from ubcp_p2p.units import credits_text

OTHERS_MAX: Final = 200  # REQUESTs of others that are told, the oldest first
RECENT_SLICES: Final = 2  # a slice's decisions come in its first minute: what held in the one before is being done


def listed(ledger: Ledger, activity: Activity, account: bytes, now: int) -> list[Asked]:
    """The account's own that it has not closed, then those of others that are open; each the oldest first."""
    own = open_reserves(ledger, account).reserves
    mine = [asked for id_, asked in activity.requests.items() if id_ in own]
    others = [asked for asked, _ in open_requests(ledger, activity, now) if asked.author != account]
    in_order = sorted(others, key=_age)[:OTHERS_MAX]
    return [*sorted(mine, key=_age), *in_order]


def row(ledger: Ledger, activity: Activity, leased: Leases, asked: Asked, account: bytes, now: int) -> dict[str, Any]:
    """One REQUEST. leases: who holds it, in the newest slice in which somebody did; null before the first."""
    body, charter = asked.body, ledger.charter_at(now)
    paid = sum(ledger.paid.get(asked.id, {}).values())
    leases = _newest_leases(leased, asked, now)
    return {
        "request": asked.id.hex(), "run": body.run, "run_id": run_id(body.run, body.recipe).hex(),
        "recipe_hash": body.recipe.hex(), "recipe": None, "unchecked": None, "account": asked.author.hex(),
        "mine": asked.author == account, "purpose": body.purpose,
        "state": _state(activity, asked, leases, now), "reserved": body.credits, "paid": paid,
        "peers_min": body.peers_min, "peers_max": body.peers_max, "units_per_peer_and_slice": body.units,
        "urgency": body.urgency, "asked": moment(charter, asked.slice), "deadline": moment(charter, body.deadline + 1),
        "deadline_slice": body.deadline, "closable": moment(charter, _closable(ledger, asked)), "leases": leases,
        "expected_wait_s": None, "queue": None, "words": None,
    }  # fmt: skip


def with_waits(rows: Iterable[dict[str, Any]], found: Mapping[str, Prospect]) -> list[dict[str, Any]]:
    """With what the allocators of peers would say of those that wait. found: by id in hex."""
    return [
        {**each, "expected_wait_s": said.wait_s, "queue": said.queue, "words": said.words}
        if (said := found.get(each["request"])) is not None and each["state"] in ("waiting", "served")
        else each
        for each in rows
    ]


def closing(ledger: Ledger, activity: Activity, account: bytes, run: str, now: int) -> tuple[Close, int]:
    """The CLOSE of the oldest REQUEST of this account for a run that can be closed, and how many more there are.

    The contributors keep what their RECEIPTs say, the rest returns. Raises Refused where there is none.
    """
    mine = [asked for asked in listed(ledger, activity, account, now) if asked.author == account]
    named = [asked for asked in mine if asked.body.run == run]
    if not named:
        runs = ", ".join(sorted({asked.body.run for asked in mine})) or "none"
        raise Refused(
            "nothing-to-close", f"this account has no credits reserved for a run {run!r}",
            hint=f"its runs: {runs}; `ubcp leave` ends this node's own part in a run",
        )  # fmt: skip
    over = [asked for asked in named if now >= _closable(ledger, asked)]
    if not over:
        first = min(named, key=lambda asked: _closable(ledger, asked))
        reserved = sum(asked.body.credits for asked in named)
        raise Refused(
            "too-early", f"the {credits_text(reserved)} credits for {run!r} are bound until "
            f"{moment(ledger.charter_at(now), _closable(ledger, first))}: until then contributors may hand in "
            "receipts, and a ledger has nothing that takes a request back",
            hint="close it then; what was not paid returns",
        )  # fmt: skip
    asked = over[0]
    final = tuple(sorted((opening, paid) for opening, paid in ledger.paid.get(asked.id, {}).items() if paid))
    returned = asked.body.credits - sum(paid for _, paid in final)
    if returned < 0:
        raise Refused(
            "overpaid", f"the paymaster of {asked.id.hex()[:16]}… has signed more than was reserved: no CLOSE adds up",
            hint="`ubcp audit` names who is at fault",
        )  # fmt: skip
    return Close(asked.id, final, returned), len(over) - 1


def of_name(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Of each list of runs and requests those of one name, which requests have as `run`; of a table by names its row.

    Raises NotFound.
    """
    lists = {key: each for key, each in found.items() if isinstance(each, list)}
    rows: dict[str, Any] = {key: [row for row in each if _name(row) == name] for key, each in lists.items()}
    rows |= {key: each.get(name, []) for key, each in found.items() if isinstance(each, dict)}
    if not any(rows.values()):
        known = sorted({_name(row) for each in lists.values() for row in each})
        raise NotFound(f"nobody knows a run called {name!r}", hint=f"known: {', '.join(known) or 'none'}")
    return rows


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("name", row.get("run")))


def _age(asked: Asked) -> tuple[int, bytes]:
    return asked.slice, asked.id


def _closable(ledger: Ledger, asked: Asked) -> int:
    """The first slice in which it may be closed (SPEC §6.7)."""
    return asked.body.expiry + ledger.charter_at(asked.slice).grace_slices + 1


def _newest_leases(leased: Leases, asked: Asked, now: int) -> dict[str, Any] | None:
    leases = [lease for lease in leased.of(asked.id) if lease.slice <= now]
    for slice_ in sorted({lease.slice for lease in leases}, reverse=True):
        if nodes := holders(asked, slice_, leases):
            return {"slice": slice_, "nodes": [node.hex() for node in nodes]}
    return None


def _state(activity: Activity, asked: Asked, leases: dict[str, Any] | None, now: int) -> str:
    """ "done": all of it was paid. "over": its deadline has passed. "closed": only its paymaster has closed it."""
    if asked.id in activity.closed:
        return "closed"
    if activity.done(asked.id) >= asked.body.credits:
        return "done"
    if asked.body.deadline < now:
        return "over"
    return "served" if leases is not None and leases["slice"] > now - RECENT_SLICES else "waiting"
