"""Which run is meant, whom to ask, what may be replaced, and what is said when a model cannot be had."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from tests.support.models import evaluate
from tests.unit.peer.test_paid import RUN as PAID
from tests.unit.swarm.made import KEYS, Wires, digest
from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.errors import ConfigError, LocalIOError, NetworkError, TrainingError, UbcpError
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.models.recipe import Recipe, load_recipe, run_id
from ubcp_p2p.peer.fetching import Fetcher, Sought
from ubcp_p2p.peer.rescue import Rescue
from ubcp_p2p.swarm import fetching
from ubcp_p2p.swarm.directory import NODES_MAX, key_of
from ubcp_p2p.swarm.quorum import Certificate, Group, Seat, vote_digest
from ubcp_p2p.swarm.records import Claim
from ubcp_p2p.swarm.states import States
from ubcp_p2p.training.state import state_hash, vector

RECIPE = load_recipe("digits-tiny")
OTHER = RECIPE.model_copy(update={"seed": 99})
A, B, ASKER = KEYS[:3]


class Scene:
    """Peers that stand on rounds of runs and claim them, and an asker."""

    def __init__(self, folder: Path) -> None:
        self.wires = Wires()
        self.folder = folder
        self.rows: dict[bytes, list[Any]] = {}
        self.paid: list[Any] = []
        self.own: list[Any] = []
        self.blobs: dict[bytes, bytes] = {}
        self.network = self.wires.node(ASKER)
        self.network.claims = self._claims
        desk: Any = SimpleNamespace(paid=self._paid, slice_s=900)
        ledger: Any = SimpleNamespace(find=self._find)
        self.fetcher = Fetcher(self.network, folder, ledger, lambda: desk, lambda: ())
        self.rescue = Rescue(self.network, self.fetcher, lambda: desk, lambda _: 0, clock=lambda: self.now_s)
        self.now_s = 1000.0
        self.heard: list[dict[str, Any]] = []
        self._open: list[tuple[States, SharedBuffer]] = []

    async def _claims(self, key: str) -> list[Claim]:
        claims = [
            Claim(author, [row for row in rows if key == key_of(row[0])], 0.0) for author, rows in self.rows.items()
        ]
        return [claim for claim in claims if claim.value]

    async def _paid(self, name: str | None = None) -> list[Any]:
        return self.own if name is None else self.paid

    async def _find(self, hash_: bytes, parse: Callable[[bytes], Recipe]) -> Recipe | None:
        return parse(self.blobs[hash_]) if hash_ in self.blobs else None

    async def stand(
        self, who: NodeKey, round_: int, recipe: Recipe = RECIPE, *, fill: float = 0.5, signers: Sequence[NodeKey] = ()
    ) -> None:
        """It claims the run, and stands on a round of it, which it signed itself, with the others of its group."""
        name, signers = "plays", signers or [who]
        run = run_id(name, recipe.hash())
        wanted = Sought(name, recipe, ()).wanted
        buffer = SharedBuffer.create(wanted.state_bytes)
        vector(buffer)[:] = np.float32(fill)
        with buffer.view as view:
            digest = state_hash(run, round_, view)
        seats = sorted(Seat(key.public, 1, b"\2" * 32, b"\3" * 32) for key in signers)
        group = Group(run, round_ - 1, b"\1" * 32, tuple(seats))
        vote = vote_digest(group.digest, digest)
        signatures = tuple(sorted((key.public, key.sign("vote", vote)) for key in signers))
        server = States(self.wires.node(who), run, wanted.state_bytes, wanted.rounds, wanted.peers_max)
        server.publish(buffer, digest, Certificate(group, digest, signatures))
        await server.open()
        self._open.append((server, buffer))
        row = [name, run, recipe.name, recipe.hash(), round_, recipe.rounds.total, b""]
        self.rows.setdefault(who.public, []).append(row)

    async def leave(self) -> None:
        for server, _ in self._open:
            await server.close()

    async def fetch(self, run: str = "plays", **more: str) -> dict[str, Any]:
        async def emit(event: dict[str, Any], id_: str | None = None, /) -> None:
            self.heard.append(event)

        return await self.fetcher.fetch({"run": run, **more}, emit)

    async def close(self) -> None:
        await self.leave()
        for _, buffer in self._open:
            buffer.close()


def _file(found: dict[str, Any]) -> Path:
    return Path(found["path"])


@pytest_asyncio.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(fetching, "AGAIN_S", 0.0)
    made = Scene(tmp_path)
    yield made
    await made.close()


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_shipped_recipe_needs_no_telling(scene: Scene) -> None:
    await scene.stand(A, 3)
    found = await scene.fetch()
    assert (found["name"], found["round"], found["rounds"], found["words"]) == ("plays", 3, RECIPE.rounds.total, "")
    assert scene.fetcher.status() == {"fetched": [{k: v for k, v in found.items() if k != "words"}],
                                      "fetch_troubles": {}}  # fmt: skip
    certificate, result = evaluate(_file(found))
    assert certificate.group.peers == (A.public,) and result.n == RECIPE.evaluation.samples
    assert [event["kind"] for event in scene.heard][:2] == ["asking", "downloading"]


@pytest.mark.asyncio
async def test_another_recipe_comes_by_its_hash_or_is_named(scene: Scene) -> None:
    await scene.stand(A, 3, OTHER)
    with pytest.raises(ConfigError, match="no peer could show the recipe of 'plays'") as caught:
        await scene.fetch()
    assert caught.value.hint == "name it: --recipe FILE"
    assert (await scene.fetch(recipe=OTHER.to_toml()))["recipe_hash"] == OTHER.hash().hex()
    scene.blobs[OTHER.hash()] = OTHER.to_bytes()
    assert (await scene.fetch())["round"] == 3


@pytest.mark.asyncio
async def test_two_runs_of_one_name_are_told_apart_by_the_recipe(scene: Scene) -> None:
    await scene.stand(A, 3)
    await scene.stand(B, 4, OTHER)
    with pytest.raises(ConfigError, match="several runs are called 'plays'"):
        await scene.fetch()
    assert (await scene.fetch(recipe=RECIPE.to_toml()))["round"] == 3
    scene.paid = [PAID._replace(recipe=OTHER.hash())]  # what is paid for is what is meant
    scene.blobs[OTHER.hash()] = OTHER.to_bytes()
    assert (await scene.fetch())["round"] == 4


@pytest.mark.asyncio
async def test_a_strangers_request_does_not_take_an_own_runs_name(scene: Scene) -> None:
    await scene.stand(A, 3)
    await scene.stand(B, 4, OTHER)
    scene.blobs[OTHER.hash()] = OTHER.to_bytes()
    mine, strangers = PAID, PAID._replace(recipe=OTHER.hash())  # asked for later
    scene.paid = [mine, strangers]
    with pytest.raises(ConfigError, match=f"several runs are called 'plays'.*{OTHER.hash().hex()[:16]}") as caught:
        await scene.fetch()
    assert "--recipe" in str(caught.value.hint)
    scene.own = [PAID._replace(name="else", recipe=OTHER.hash()), mine]
    assert (await scene.fetch())["round"] == 3


@pytest.mark.asyncio
async def test_a_claim_whose_run_is_not_of_its_recipe_counts_for_nothing(scene: Scene) -> None:
    scene.rows[A.public] = [["plays", b"x" * 32, "tiny", RECIPE.hash(), 1, 2, b""]]
    with pytest.raises(UbcpError, match="nobody is in a run called 'plays'"):
        await scene.fetch()
    with pytest.raises(ConfigError, match="a run's name has"):
        await scene.fetch("")


@pytest.mark.asyncio
async def test_of_a_paid_run_those_are_asked_who_earn_with_it(scene: Scene) -> None:
    await scene.stand(A, 3)
    await scene.stand(B, 40, fill=0.7)  # a stranger, further on by its own word
    scene.paid = [PAID._replace(earners=frozenset([A.public]))]
    assert (await scene.fetch())["round"] == 3
    scene.paid = []
    assert (await scene.fetch())["round"] == 40


@pytest.mark.asyncio
async def test_when_all_have_gone_the_kept_copy_is_given(scene: Scene) -> None:
    await scene.stand(A, 3)
    first = await scene.fetch()
    await scene.leave()
    found = await scene.fetch()
    assert found["words"] == "no peer of the run answers: this is the copy that the node has kept"
    assert {**found, "words": ""} == first
    _file(first).unlink()
    with pytest.raises(NetworkError, match="the model of 'plays' cannot be had now: no peer of the run answers"):
        await scene.fetch()
    assert scene.fetcher.status() == {"fetched": [], "fetch_troubles": {"plays": ["no peer of the run answers"]}}


@pytest.mark.asyncio
async def test_an_older_round_does_not_take_the_place_of_a_newer_one(scene: Scene) -> None:
    await scene.stand(A, 3)
    first = await scene.fetch()
    kept = _file(first).read_bytes()
    await scene.leave()
    await scene.stand(B, 2)
    with pytest.raises(NetworkError, match="stand on round 2, and the copy here is of round 3"):
        await scene.fetch()
    assert _file(first).read_bytes() == kept
    _file(first).write_bytes(b"damaged")
    assert (await scene.fetch())["round"] == 2


@pytest.mark.asyncio
async def test_the_last_one_there_cannot_drive_out_what_more_have_signed(scene: Scene) -> None:
    await scene.stand(A, 3, signers=[A, B])
    first = await scene.fetch()
    kept = _file(first).read_bytes()
    (scene.folder / f".{_file(first).name}.0a.tmp").touch()  # of a node that was killed
    await scene.stand(A, 50, fill=0.0)
    found = await scene.fetch()
    assert found["round"] == 50
    both = {row["round"]: _file(row).read_bytes() for row in scene.fetcher.status()["fetched"]}
    assert (len(both), both[3]) == (2, kept)
    await scene.stand(A, 50, fill=0.1)
    await scene.fetch()
    assert {row["round"] for row in scene.fetcher.status()["fetched"]} == {3, 50}
    assert len(os.listdir(scene.folder)) == 2
    await scene.stand(A, 50, fill=0.2, signers=[A, B])
    await scene.fetch()
    assert os.listdir(scene.folder) == [_file(first).name]


@pytest.mark.asyncio
async def test_values_that_are_no_numbers_are_not_kept(scene: Scene) -> None:
    await scene.stand(A, 3, fill=float("nan"))
    with pytest.raises(TrainingError, match="values that are no numbers"):
        await scene.fetch()
    assert os.listdir(scene.folder) == []


@pytest.mark.asyncio
async def test_a_full_disk_is_said_before_the_download(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.stand(A, 3)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=4096))
    with pytest.raises(LocalIOError, match="the disk is full: the model takes"):
        await scene.fetch()
    assert scene.heard == []


# -- in time ----------------------------------------------------------------------------------------------------------


def _earning(*who: NodeKey) -> list[Any]:
    return [PAID._replace(earners=frozenset(key.public for key in who))]


def _round(scene: Scene) -> int | None:
    return next((row["round"] for row in scene.fetcher.status()["fetched"]), None)


@pytest.mark.asyncio
async def test_what_is_paid_for_is_fetched_at_each_halving(scene: Scene) -> None:
    await scene.stand(A, 3)
    await scene.rescue.look(_earning(), 900)
    assert _round(scene) is None  # nobody earns with it yet: whom to believe is not known
    await scene.rescue.look(_earning(A), 900)
    assert _round(scene) == 3
    await scene.stand(A, 4)
    scene.now_s = 1499.0
    await scene.rescue.look(_earning(A), 900)
    assert _round(scene) == 3
    scene.now_s = 1500.0
    await scene.rescue.look(_earning(A), 900)
    assert _round(scene) == 4


@pytest.mark.asyncio
async def test_the_last_round_is_fetched_when_it_is_made_and_then_never_again(scene: Scene) -> None:
    await scene.stand(A, 3)
    await scene.rescue.look(_earning(A), 900)
    await scene.stand(B, RECIPE.rounds.total)
    await scene.rescue.look(_earning(A), 900)
    assert _round(scene) == 3  # B does not earn with it
    await scene.stand(A, RECIPE.rounds.total)
    await scene.rescue.look(_earning(A), 900)
    assert _round(scene) == RECIPE.rounds.total
    opened = len(scene.network.opened)
    scene.now_s = 1999.0
    await scene.rescue.look(_earning(A), 900)
    assert len(scene.network.opened) == opened


@pytest.mark.asyncio
async def test_strangers_do_not_hide_the_last_round_of_who_earns(scene: Scene) -> None:
    await scene.stand(A, 3)
    await scene.rescue.look(_earning(A), 900)
    (row,) = scene.rows[A.public]
    crowd = {digest(f"stranger {number}"): [row] for number in range(NODES_MAX)}
    await scene.stand(A, RECIPE.rounds.total)
    scene.rows = {**crowd, **scene.rows}
    await scene.rescue.look(_earning(A), 900)
    assert _round(scene) == RECIPE.rounds.total


@pytest.mark.asyncio
async def test_one_that_fails_is_not_tried_at_every_look(scene: Scene) -> None:
    await scene.rescue.look(_earning(A), 900)
    opened = len(scene.network.opened)
    assert opened > 0
    await scene.rescue.look(_earning(A), 900)
    assert len(scene.network.opened) == opened
    assert scene.fetcher.status()["fetch_troubles"] == {"plays": ["no peer of the run answers"]}


@pytest.mark.asyncio
async def test_long_after_its_end_a_run_is_not_looked_for(scene: Scene) -> None:
    await scene.stand(A, 3)
    scene.now_s = float(PAID.end_s + 2 * 900)
    await scene.rescue.look(_earning(A), 900)
    assert _round(scene) is None
    scene.now_s -= 1
    await scene.rescue.look(_earning(A), 900)
    assert _round(scene) == 3
