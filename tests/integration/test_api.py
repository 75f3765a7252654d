"""The HTTP API of real nodes: every route answers as its schema says, and the guide's commands do what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import charter_file, hand_in, ledger_of, open_chains, short_slices, ubcp
from tests.support.processes import until
from tests.support.swarm import STEP_S, Peer, Swarm, tiny
from ubcp_p2p.api.checking import fault
from ubcp_p2p.api.client import read_events
from ubcp_p2p.api.openapi import PATH, document
from ubcp_p2p.api.routes import ROUTES
from ubcp_p2p.api.schemas import SCHEMAS
from ubcp_p2p.cli.account import sign_draft
from ubcp_p2p.ledger.entry import Decision
from ubcp_p2p.ledger.export import MAGIC
from ubcp_p2p.peer.control import NotRunning, address_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
GUIDE = Path(__file__).parents[2] / "docs" / "api.md"
BY_VERB = {route.verb: route for route in ROUTES}


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    with Swarm(bootstrap=False, faulty=False) as made:
        yield made


@pytest.fixture(scope="module")
def node(swarm: Swarm) -> Peer:
    """In a community of two nodes, with a decision in its ledger."""
    world = short_slices(51, 20)
    more = charter_file(swarm.home, world)
    a = swarm.add("a", more=more).start()
    b = swarm.add("b", more=more).start(a.own())
    open_chains(a, world)
    open_chains(b, world)
    decider = world.node(world.account("decider"), "decider")
    world.write(decider, Decision(world.now, 40, 1, (), (("full", 2),), b"\1" * 32))
    hand_in(a, world.entries)
    until(lambda: ledger_of(b)["entries"] == len(world.entries), STEP_S, "both have all")
    return a


class Talk:
    """One loopback connection to a node's API, kept alive; each answer is held against its schema."""

    def __init__(self, peer: Peer) -> None:
        address = address_of(peer.profile)
        assert address.url is not None
        self._headers = dict([address.header_file.read_text().strip().split(": ", 1)])
        self._place = address.url.removeprefix("http://")
        self._connection = HTTPConnection(self._place, timeout=STEP_S)
        self.tried: set[str] = set()

    def send(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, bytes]:
        self._connection.request(method, path, body, self._headers | headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def ask(self, verb: str, path: str, body: Any = None, status: int = 200) -> Any:
        """Through the row of the verb."""
        self.tried.add(verb)
        route = BY_VERB[verb]
        found, data = self.send(route.method, path, None if body is None else json.dumps(body))
        answer = json.loads(data)
        assert found == status, answer
        assert fault(answer, route.gives if status == 200 else SCHEMAS["Problem"], SCHEMAS) is None
        return answer

    def follow(self, verb: str, path: str, until_kind: str | None, **headers: str) -> list[tuple[str, Any]]:
        """Events until one of that kind, or the end."""
        self.tried.add(verb)
        route, found = BY_VERB[verb], []
        with closing(HTTPConnection(self._place, timeout=STEP_S)) as connection:
            connection.request("GET", path, headers=self._headers | headers)
            response = connection.getresponse()
            assert response.status == 200
            for name, event in read_events(response):
                assert fault(event, route.gives if name == "message" else route.ends or {}, SCHEMAS) is None
                found.append((name, event))
                if event.get("kind") == until_kind:
                    break
        return found


def test_every_route_answers_as_its_schema_says(node: Peer) -> None:
    talk = Talk(node)
    status = talk.ask("status", "/v1/status")
    assert status["stage"] == "up" and status["api"]["url"] is not None
    assert json.loads(talk.send("GET", PATH)[1]) == document()
    talk.ask("peers", "/v1/peers")

    recipe = tiny(3).to_toml()
    talk.ask("train", "/v1/runs", {"recipe": recipe, "run": "a b"})
    kinds = [
        event["kind"] for name, event in talk.follow("follow", "/v1/runs/a%20b/events", "nothing") if name != "end"
    ]
    assert kinds.count("committed") == 3 and kinds[-1] == "done"
    before = talk.follow("events", "/v1/events?run=a%20b", "done", **{"Last-Event-ID": "another start"})
    assert [event["kind"] for _, event in before if event["kind"] == "committed"] == ["committed"] * 3
    assert {event["topic"] for _, event in before} == {"run"}
    assert talk.ask("run", "/v1/runs/a%20b")["own"][0]["round"] == 3
    assert "known: a b" in talk.ask("run", "/v1/runs/nobody's", status=404)["hint"]
    assert talk.ask("evaluate", "/v1/runs/a%20b/evaluation")["n"] > 0
    talk.ask("sample", "/v1/runs/a%20b/sample", {"length": 10}, status=409)  # it writes no text
    talk.ask("runs", "/v1/runs")
    assert talk.ask("leave", "/v1/runs/a%20b")["stage"] == "left"
    talk.ask("leave", "/v1/runs/other", status=404)
    assert talk.ask("pause", "/v1/pause", {"hours": 2})["causes"] == ["pause"]
    talk.ask("pause", "/v1/pause", {"hours": -1}, status=400)
    assert talk.ask("resume", "/v1/resume")["works"]

    account = talk.ask("credits", "/v1/credits")
    assert talk.ask("credits-of", f"/v1/credits/{account['account'][:12]}") == account
    talk.ask("credits-of", "/v1/credits/0000", status=409)
    talk.ask("credits-of", "/v1/credits/no", status=400)
    wish = {"recipe": recipe, "run": "plays", "purpose": "research"}
    quote = talk.ask("submit-quote", "/v1/quotes", wish)
    assert talk.ask("submit-quote", "/v1/quotes", wish | {"budget": 10**15}, status=409)["hint"]
    entry = sign_draft(node.profile.account_key, bytes.fromhex(quote["draft"]), quote["signer"])
    taken = talk.ask("submit", "/v1/requests", {"entry": entry, "recipe": recipe})
    assert taken["outcome"] == "added"
    assert talk.ask("requests", "/v1/requests?run=plays")["requests"][0]["request"] == taken["id"]
    assert talk.ask("run", "/v1/runs/plays")["requests"][0]["recipe"] == "digits-tiny"
    assert "receipts" in talk.ask("close-draft", "/v1/closes/draft", {"run": "plays"}, status=409)["detail"]
    talk.ask("close", "/v1/closes", {"entry": entry}, status=409)

    (decision,) = talk.ask("decisions", "/v1/decisions")["decisions"]
    assert (decision["budget"], decision["refused"]) == (40, {"full": 2})
    assert talk.ask("decisions", f"/v1/decisions?node={decision['node'][:16]}&limit=1")["decisions"] == [decision]
    page = talk.ask("entries", "/v1/ledger/entries?limit=2")
    assert page["next"] == page["entries"][-1]["position"]
    rest = talk.ask("entries", f"/v1/ledger/entries?after={page['next']}")
    assert rest["next"] is None and len(rest["entries"]) + 2 == ledger_of(node)["entries"]
    first = page["entries"][0]
    (again,) = talk.ask("ledger-append", "/v1/ledger/entries", {"entries": [first["form"]]})["entries"]
    assert again["outcome"] == "known"
    assert talk.ask("ledger-show", f"/v1/ledger/entries/{first['id']}")["words"] == first["words"]
    stats = talk.ask("stats", "/v1/stats?period=0")
    told = ubcp(node, "stats", "--json").document
    assert {key: told[key] for key in stats} == stats
    talk.ask("charter-publish", "/v1/charter", {"charter": "00"}, status=409)
    talk.ask("train", "/v1/runs", {"run": "x", "recipe": "", "colour": "red"}, status=400)

    code, data = talk.send("GET", "/v1/ledger/export")  # the guide's test audits one
    assert (code, data.startswith(MAGIC)) == (200, True)
    assert talk.tried | {"stop", "ledger-export", "fetch"} == set(BY_VERB)  # a fetch: test_fetch.py


def test_the_guides_commands(node: Peer, tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "ubcp").write_text(f'#!/bin/sh\nexec {sys.executable} -m ubcp_p2p "$@"\n')
    (tmp_path / "ubcp").chmod(0o755)
    environment = node.environment() | {"UBCP_HOME": str(node.profile.root)}
    environment["PATH"] = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", "\n".join(blocks)], env=environment, cwd=tmp_path, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert '"stage": "done"' in done.stdout and "no fault" in done.stdout


@pytest.mark.full
def test_a_killed_nodes_address_is_gone_and_a_second_node_is_refused(swarm: Swarm, node: Peer) -> None:
    peer = swarm.add("c", more="[api]\nport = 0\n").start(node.own())
    address = address_of(peer.profile)
    second = ubcp(peer, "up", "--quiet")
    assert (second.code, "is in use by process" in second.err) == (3, True)
    assert address_of(peer.profile) == address
    assert address.url is not None
    taken = swarm.add("d", more=f"[api]\nport = {address.url.rpartition(':')[2]}\n")
    refused = ubcp(taken, "up", "--quiet")
    assert (refused.code, "something else does" in refused.err, "[api]" in refused.err) == (3, True, True)
    peer.kill()
    until(lambda: not address.directory.exists(), STEP_S, "the sweeper has removed the address")
    with pytest.raises(NotRunning):
        address_of(peer.profile)
    peer.start(node.own())
    assert address_of(peer.profile).token != address.token
    talk = Talk(peer)
    assert "ledger" in talk.ask("credits", "/v1/credits", status=400)["detail"]
    assert talk.ask("stop", "/v1/stop")["stopping"]
    assert peer.process is not None and peer.process.wait(STEP_S) == 0
