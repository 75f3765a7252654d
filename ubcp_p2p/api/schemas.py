"""The documents that the API answers with, by name: the shared schemas of its OpenAPI document."""

from __future__ import annotations

from typing import Final

from ubcp_p2p.api.checking import Schema
from ubcp_p2p.api.shapes import AMOUNT, ANY, BOOL, HEX, INT, NUMBER, TEXT, many, maybe, named, obj, table

_LAYER: Final = obj(name=TEXT, active=BOOL, words=TEXT, remedy=TEXT)

_RUN: Final = obj(
    "a run that this node takes part in",
    name=TEXT, recipe=TEXT, run_id=HEX,
    stage={"type": "string", "enum": ["starting", "running", "done", "paused", "failed", "left"]},
    resumed=BOOL, resting=TEXT, phase=maybe(TEXT), round=maybe(INT), rounds=INT, step=maybe(INT), steps=INT,
    peers=maybe(INT), loss=maybe(NUMBER), state_hash=maybe(HEX), retries=maybe(INT), trainer_pid=maybe(INT),
    device=maybe(TEXT), sandbox=maybe(many(_LAYER)), evaluation=maybe(obj()), checkpoint_trouble=maybe(TEXT),
    error=maybe(obj(message=TEXT, hint=maybe(TEXT))),
)  # fmt: skip

_OWNER: Final = obj(
    "what the owner's rules say now",
    works=BOOL, share_permille=INT, words=TEXT, until=maybe(TEXT), causes=many(TEXT),
    pause=maybe(obj(since=TEXT, until=maybe(TEXT), after_round=BOOL)), readings=obj(), trouble=maybe(TEXT),
)  # fmt: skip

_LEDGER: Final = obj(
    "the node's part in its community's ledger",
    community=TEXT, network=HEX, charters=INT, entries=INT, accounts=INT, frozen=many(HEX), pending=INT,
    held_back=INT, entries_root=HEX, balances_root=HEX,
    last_sync=maybe(obj(**{"with": TEXT, "ago_s": NUMBER, "new": INT})),
    banned=many(obj(peer=TEXT, left_s=INT, why=TEXT)), writing=obj(standing=TEXT, words=TEXT, drafts=INT),
    versions=many(obj(peer=TEXT, words=TEXT)), trouble=maybe(TEXT),
)  # fmt: skip

_SERVED: Final = obj(
    request=HEX, run=maybe(TEXT), account=HEX, purpose=TEXT, reason=TEXT, explain=TEXT, units=INT, queue=maybe(INT),
    expected_wait_s=maybe(INT),
)  # fmt: skip

_SERVING: Final = obj(
    "what this node gives to requests in the present slice",
    words=TEXT, notes=many(TEXT), slice=maybe(INT), begins=maybe(TEXT), ends=maybe(TEXT), budget=INT, used=INT,
    settled=BOOL, held=many(HEX), leases=many(_SERVED), freed=many(_SERVED), waiting=many(_SERVED),
    waiting_in_all=INT, carbon=obj(emitted_mg=INT, saved_mg=INT, words=TEXT),
)  # fmt: skip

_STATUS: Final = obj(
    "what the node is doing",
    version=TEXT, pid=INT, role=TEXT, stage=TEXT, loading=many(TEXT), uptime_s=NUMBER, peer_id=TEXT, account=HEX,
    addresses=many(TEXT), reachability=obj(kind=TEXT, words=TEXT), clock_offset_s=maybe(NUMBER), connected=INT,
    p2pd_pid=maybe(INT), p2pd_restarts=INT, runs=many(named("Run")), owner=maybe(named("Owner")),
    ledger=maybe(named("Ledger")), ledger_words=TEXT, serving=maybe(named("Serving")), serving_words=TEXT,
    earning=many(obj(request=HEX, run=TEXT, rounds=INT, earned=AMOUNT, earned_words=TEXT, receipted=AMOUNT,
                     unpaid_rounds=INT, held_rounds=INT, words=TEXT)),
    troubles=many(TEXT),
    api=obj(url=maybe(TEXT), header_file=TEXT),
)  # fmt: skip

_REQUEST: Final = obj(
    "something that the community was asked to train",
    request=HEX, run=TEXT, run_id=HEX, recipe_hash=HEX, recipe=maybe(TEXT), unchecked=maybe(TEXT), account=HEX,
    mine=BOOL, purpose=TEXT,
    state={"type": "string", "enum": ["waiting", "served", "done", "over", "closed"]}, reserved=AMOUNT, paid=AMOUNT,
    peers_min=INT, peers_max=INT, units_per_peer_and_slice=INT, urgency=INT, asked=TEXT, deadline=TEXT,
    deadline_slice=INT, closable=TEXT, leases=maybe(obj(slice=INT, nodes=many(HEX))), expected_wait_s=maybe(INT),
    queue=maybe(INT), words=maybe(TEXT),
)  # fmt: skip

_CLAIM: Final = obj(
    "a run that peers claim to be in", name=TEXT, run_id=HEX, recipe=TEXT, peers=INT, round=INT, rounds=INT
)

_COPY: Final = obj(
    "a model that was fetched from peers: a file on this machine; fetched: when, in Unix seconds",
    name=TEXT, run_id=HEX, recipe=TEXT, recipe_hash=HEX, round=INT, rounds=INT, state_hash=HEX, bytes=INT, path=TEXT,
    fetched=INT,
)  # fmt: skip

_FETCHED: Final = obj(
    "the copy that was fetched, or the kept one; words: why that one, or empty",
    **_COPY["properties"], words=TEXT,
)  # fmt: skip

_RUNS: Final = obj(
    own=many(named("Run")), claimed=many(named("Claim")), requests=many(named("Request")), fetched=many(named("Copy")),
    fetch_troubles={"type": ["object", "array"], "description": "of one run, or by its name: why none could be had"},
)  # fmt: skip

_QUOTE: Final = obj(
    "what a request would cost, whether it can be had, and the entry to sign",
    run=TEXT, run_id=HEX, recipe=TEXT, recipe_hash=HEX, purpose=TEXT, account=HEX, signer=HEX, peers_min=INT,
    peers_max=INT, urgency=INT, rounds=INT, units_per_peer_and_round=INT, units_per_peer_and_slice=INT,
    price=obj(min=AMOUNT, max=AMOUNT), budget=AMOUNT, currency=maybe(TEXT),
    devices=many(obj(device=TEXT, seconds=NUMBER, money=NUMBER, kwh=NUMBER, gco2=NUMBER)), available=AMOUNT,
    available_after=AMOUNT, reservable=AMOUNT, income_claimed=INT, closes_claimed=INT, deadline=TEXT,
    deadline_slice=INT, others=obj(credits=AMOUNT, accounts=INT),
    feasibility=maybe(obj(peers=INT, slices=INT, per_slice=INT, recent=BOOL)), unchecked=maybe(TEXT),
    share=maybe(AMOUNT), queue=maybe(INT), expected_wait_s=maybe(INT), words=TEXT, draft=HEX,
)  # fmt: skip

_CLOSING: Final = obj(
    "the CLOSE of one request, to sign",
    run=TEXT, request=HEX, returned=AMOUNT, paid=AMOUNT, account=HEX, signer=HEX, more=INT, draft=HEX,
)  # fmt: skip

_TAKEN: Final = obj(
    "what became of a signed entry",
    id=HEX, outcome={"type": "string", "enum": ["added", "known", "early", "pending", "refused"]}, missing=many(HEX),
    error=maybe(TEXT),
)  # fmt: skip

_RECENT: Final = obj(entry=HEX, author=HEX, slice=INT, time=TEXT, kind=TEXT, words=TEXT)

_CREDITS: Final = obj(
    "what an account can spend, and why",
    account=HEX, slice=INT, period=INT, available=AMOUNT, reserved=AMOUNT, uncollected=AMOUNT, debt=AMOUNT,
    frozen=BOOL, standing=TEXT,
    enrolment=maybe(obj(**{"class": TEXT, "unit": TEXT, "first": INT, "until": INT, "ends": TEXT})),
    totals=obj(issued=AMOUNT, claimed=AMOUNT, paid=AMOUNT, burned=AMOUNT),
    vintages=many(obj(source=TEXT, period=INT, amount=AMOUNT, expires=TEXT)),
    reserves=many(obj(request=HEX, run=maybe(TEXT), amount=AMOUNT, paid=AMOUNT, expires=TEXT)),
    income=many(obj(node=HEX, uncollected=AMOUNT, earned=AMOUNT)), recent=many(_RECENT),
)  # fmt: skip

_DECISION: Final = obj(
    "what a node has decided for a slice",
    id=HEX, node=HEX, told=INT, slice=INT, begins=TEXT, budget=INT, granule=INT, accepted=many(HEX),
    refused=table(INT), inputs=HEX, words=TEXT,
)  # fmt: skip

_STATS: Final = obj(
    "how a community fares (docs/stats.md)",
    network=HEX, name=TEXT, periods=obj(first=INT, last=INT, begins=TEXT, ends=TEXT), slice=INT, slice_seconds=INT,
    accounts_min=INT, total=obj(), by_purpose=ANY, by_community=ANY, nodes=obj(), refusals=many(obj(reason=TEXT)),
    other_refusals=INT,
)  # fmt: skip

_ENTRY: Final = obj(
    "one entry of the ledger; form is its wire form (ledger/SPEC.md)",
    position=INT, id=HEX, kind=TEXT, author=HEX, seq=INT, slice=INT, time=TEXT, words=TEXT, form=HEX,
)  # fmt: skip

_EVENT: Final = obj("what happens in a run, by kind; other fields by kind", kind=TEXT, round=INT, time=NUMBER)

_HAPPENING: Final = obj(
    "what happens on this node: topic is run, ledger or node; an event of a run has the run's name and its own fields",
    topic={"type": "string", "enum": ["run", "ledger", "node"]}, kind=TEXT, time=NUMBER,
)  # fmt: skip

_PROBLEM: Final = obj(
    "RFC 9457; hint says what to do, exit is the exit code of a command that met it",
    type=TEXT, title=TEXT, status=INT, detail=TEXT, hint=maybe(TEXT), exit=INT,
)  # fmt: skip

SCHEMAS: Final[dict[str, Schema]] = {
    "Claim": _CLAIM, "Closing": _CLOSING, "Copy": _COPY, "Credits": _CREDITS, "Decision": _DECISION, "Entry": _ENTRY,
    "Event": _EVENT, "Fetched": _FETCHED, "Happening": _HAPPENING, "Ledger": _LEDGER, "Owner": _OWNER,
    "Problem": _PROBLEM, "Quote": _QUOTE, "Request": _REQUEST, "Run": _RUN, "Runs": _RUNS, "Serving": _SERVING,
    "Stats": _STATS, "Status": _STATUS, "Taken": _TAKEN,
}  # fmt: skip
