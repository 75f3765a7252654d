"""The one table of what the node serves over HTTP: server, client and the OpenAPI document are made from it.

A verb that has no row (those of a test) is served as `POST /v1/VERB`, takes any fields, and is in no document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from ubcp_p2p.api.checking import Schema
from ubcp_p2p.api.shapes import BOOL, HEX, INT, NUMBER, TEXT, many, maybe, named, obj, takes, text, whole

PREFIX: Final = "/v1"
RECIPE_CHARS_MAX: Final = 1 << 16
ENTRIES_MAX: Final = 256  # signed entries in one call
PAGE_MAX: Final = 200  # entries or decisions in one answer
_LARGE: Final = (1 << 63) - 1
_PARAMETER: Final = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Route:
    """One row. takes: the fields of a request, of path, query (GET, DELETE) or body. gives: the answer, or each event.

    ends: the last document of a stream.
    """

    verb: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    takes: Schema
    gives: Schema
    kind: Literal["document", "events", "file"] = "document"
    ends: Schema | None = None

    @property
    def in_path(self) -> tuple[str, ...]:
        """Names of the fields that stand in the path."""
        return tuple(_PARAMETER.findall(self.path))


_RUN: Final = text(256, "a run's name")
_RECIPE: Final = text(RECIPE_CHARS_MAX, "a recipe, as TOML")
_WHERE: Final = text(4096, "what the recipe is called in errors")
_DIGITS: Final = text(128, "the first 4 or more hex digits, or a node's peer id")
_LIMIT: Final = whole(1, PAGE_MAX)
_SIGNED: Final = text(1 << 18, "a signed entry, in hexadecimal")
_NOTHING: Final = takes()

ROUTES: Final = (
    Route("status", "GET", "/v1/status", "What the node is doing", _NOTHING, named("Status")),
    Route("peers", "GET", "/v1/peers", "The peers that the node knows", _NOTHING,
          obj(own=many(TEXT), connected=many(TEXT), remembered=many(TEXT))),
    Route("events", "GET", "/v1/events", "What happens on this node, as it happens", takes(run=_RUN),
          named("Happening"), "events", obj()),
    Route("runs", "GET", "/v1/runs", "Own runs, those that peers claim to be in, and what was asked for",
          takes(run=_RUN), named("Runs")),
    Route("train", "POST", "/v1/runs", "Take part in a run",
          takes("recipe", "run", recipe=_RECIPE, where=_WHERE, run=_RUN, peers_min=whole(1, 64),
                checkpoint_every_s=NUMBER, new=BOOL),
          named("Run")),
    Route("run", "GET", "/v1/runs/{run}", "All that is known of the runs of one name", takes("run", run=_RUN),
          named("Runs")),
    Route("leave", "DELETE", "/v1/runs/{run}", "Leave a run: a checkpoint is kept", takes("run", run=_RUN),
          named("Run")),
    Route("follow", "GET", "/v1/runs/{run}/events", "A run's events, from the first that is kept until it ends",
          takes("run", run=_RUN), named("Event"), "events", named("Run")),
    Route("fetch", "POST", "/v1/runs/{run}/fetch", "Fetch the model of a run: where it lies on this machine",
          takes("run", run=_RUN, recipe=_RECIPE, where=_WHERE), obj(kind=TEXT), "events", named("Fetched")),
    Route("sample", "POST", "/v1/runs/{run}/sample", "Text that the model writes",
          takes("run", run=_RUN, prompt=text(1 << 16), length=whole(1, 100_000), seed=whole(0, _LARGE)),
          obj(text=TEXT)),
    Route("evaluate", "POST", "/v1/runs/{run}/evaluation", "Measure the model on held-out data",
          takes("run", run=_RUN),
          obj(round=INT, loss=NUMBER, stderr=NUMBER, accuracy=maybe(NUMBER), n=INT)),
    Route("requests", "GET", "/v1/requests", "What the community was asked to train", takes(run=_RUN),
          obj(requests=many(named("Request")))),
    Route("submit-quote", "POST", "/v1/quotes", "What a request would cost, and the entry to sign: nothing is reserved",
          takes("recipe", "run", recipe=_RECIPE, where=_WHERE, run=_RUN, purpose=maybe(text(64)),
                budget=maybe(whole(1, _LARGE, "µcredits")), urgency=maybe(whole(1000, 2000, "per mille")),
                deadline=maybe(text(64)), peers_min=maybe(whole(1, 1 << 16)), peers_max=maybe(whole(1, 1 << 16)),
                part=BOOL, again=BOOL, accept_unchecked=BOOL),
          named("Quote")),
    Route("submit", "POST", "/v1/requests", "Ask for what was quoted, by the entry that the account key has signed",
          takes("entry", "recipe", entry=_SIGNED, recipe=_RECIPE, where=_WHERE, part=BOOL, again=BOOL,
                accept_unchecked=BOOL),
          named("Taken")),
    Route("close-draft", "POST", "/v1/closes/draft", "The CLOSE of a request of this account, to sign",
          takes("run", run=_RUN), named("Closing")),
    Route("close", "POST", "/v1/closes", "Close a request, by the entry that the account key has signed",
          takes("entry", entry=_SIGNED), named("Taken")),
    Route("pause", "POST", "/v1/pause", "Stop working for others",
          takes(hours=maybe(NUMBER), after_round=BOOL), named("Owner")),
    Route("resume", "POST", "/v1/resume", "End the pause", _NOTHING, named("Owner")),
    Route("stop", "POST", "/v1/stop", "Stop the node in order", _NOTHING, obj(stopping=BOOL, pid=INT)),
    Route("credits", "GET", "/v1/credits", "What this node's account can spend, and why", _NOTHING, named("Credits")),
    Route("credits-of", "GET", "/v1/credits/{account}", "What an account can spend, and why",
          takes("account", account=_DIGITS), named("Credits")),
    Route("decisions", "GET", "/v1/decisions", "What nodes have decided, the newest slice first",
          takes(node=_DIGITS, limit=_LIMIT), obj(decisions=many(named("Decision")))),
    Route("stats", "GET", "/v1/stats", "How the community fares",
          takes(period=text(32, "N or FROM..TO; all periods where it is missing")), named("Stats")),
    Route("entries", "GET", "/v1/ledger/entries", "Entries in the order in which they came here",
          takes(after=whole(0, _LARGE, "the position of the last one that is known"), limit=_LIMIT),
          obj(entries=many(named("Entry")), next=maybe(INT))),
    Route("ledger-append", "POST", "/v1/ledger/entries", "Hand in entries that were signed elsewhere",
          takes("entries", entries=many(_SIGNED, ENTRIES_MAX)), obj(entries=many(named("Taken")))),
    Route("ledger-show", "GET", "/v1/ledger/entries/{digits}", "One entry, account or node",
          takes("digits", digits=_DIGITS), obj(what=TEXT)),
    Route("ledger-export", "GET", "/v1/ledger/export", "The whole ledger, for `ubcp audit`", _NOTHING, HEX, "file"),
    Route("charter-publish", "POST", "/v1/charter", "Hand in a next version of the charter",
          takes("charter", charter=text(1 << 20, "signed, in hexadecimal")), obj(added=BOOL)),
)  # fmt: skip

_BY_VERB: Final = {route.verb: route for route in ROUTES}


def route_of(verb: str) -> Route:
    """The row of a verb; that of a verb without one, where there is none."""
    return _BY_VERB.get(verb) or Route(verb, "POST", f"{PREFIX}/{verb}", "", {"type": "object"}, {})
