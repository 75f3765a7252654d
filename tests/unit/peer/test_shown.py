"""What a node opens of its own work: once, to whom it may, also when the trainer and the node's first life are gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.trails import SHAPE, made_up
from tests.unit.swarm.made import KEYS, RUN, Wires, digest
from ubcp_p2p.errors import TrainingError
from ubcp_p2p.peer.checking import shown as module
from ubcp_p2p.peer.checking.shown import ASKS_MAX, Shown
from ubcp_p2p.swarm.frames import Unreachable
from ubcp_p2p.training.ends import LEAN, WHOLE, DrawnEnd, drawn_by
from ubcp_p2p.training.opening import Opening

ME, VALIDATOR, PAYER, STRANGER = KEYS[:4]
TRAIL = digest("trail")


class Peers:
    """ME shows; the others ask. made: what its trainer was asked for."""

    def __init__(self, folder: Path) -> None:
        self.wires, self.folder = Wires(), folder
        self.made: list[tuple[bytes, int]] = []
        self.shown = self.of(ME)

    def of(self, who: Any) -> Shown:
        return Shown(self.wires.node(who), RUN, SHAPE, self.folder / who.public.hex()[:8])

    async def make(self, trail: bytes, stretch: int) -> bytes:
        self.made.append((trail, stretch))
        return b"stretch %d" % stretch

    async def ask(self, who: Any, stretch: int) -> bytes:
        return await self.of(who).openings.ask(ME.public, TRAIL, stretch, end=WHOLE, total_s=20.0)


@pytest.mark.asyncio
async def test_what_was_drawn_is_opened_once_to_who_may_ask(tmp_path: Path) -> None:
    peers = Peers(tmp_path)
    await peers.shown.open()
    for _ in range(2):
        peers.shown.show(TRAIL, (1, 3), (VALIDATOR.public, PAYER.public), peers.make)
    assert await peers.ask(VALIDATOR, 3) == await peers.ask(PAYER, 3) == b"stretch 3"
    assert await peers.ask(VALIDATOR, 1) == b"stretch 1"
    for who, stretch in ((STRANGER, 3), (VALIDATOR, 2)):
        with pytest.raises(Unreachable, match="does not open"):
            await peers.ask(who, stretch)
    assert sorted(peers.made) == [(TRAIL, 1), (TRAIL, 3)]
    await peers.shown.close()


@pytest.mark.asyncio
async def test_who_asks_says_how_much_of_the_end_it_wants(tmp_path: Path) -> None:
    whole = made_up(7, 1)[1]

    async def make(trail: bytes, stretch: int) -> bytes:
        return whole.to_bytes()

    peers = Peers(tmp_path)
    await peers.shown.open()
    peers.shown.show(TRAIL, (1,), (VALIDATOR.public,), make)
    ask = peers.of(VALIDATOR).openings.ask
    data = await ask(ME.public, TRAIL, 1, end=LEAN, total_s=20.0)
    assert Opening.from_bytes(data, SHAPE).end is None
    data = await ask(ME.public, TRAIL, 1, end=drawn_by(b"s" * 32), total_s=20.0)
    end = Opening.from_bytes(data, SHAPE).end
    assert isinstance(end, DrawnEnd)
    assert end.seed == b"s" * 32
    assert await ask(ME.public, TRAIL, 1, end=WHOLE, total_s=20.0) == whole.to_bytes()
    for junk in (b"", b"\3", b"\2" * 32, b"x" * 64):
        with pytest.raises(Unreachable):
            await ask(ME.public, TRAIL, 1, end=junk, total_s=20.0)
    await peers.shown.close()


@pytest.mark.asyncio
async def test_nobody_may_ask_for_ever(tmp_path: Path) -> None:
    peers = Peers(tmp_path)
    await peers.shown.open()
    peers.shown.show(TRAIL, (1,), (VALIDATOR.public, PAYER.public), peers.make)
    for _ in range(ASKS_MAX):
        await peers.ask(VALIDATOR, 1)
    with pytest.raises(Unreachable, match="does not open"):
        await peers.ask(VALIDATOR, 1)
    assert await peers.ask(PAYER, 1) == b"stretch 1"
    await peers.shown.close()


@pytest.mark.asyncio
async def test_it_is_answered_for_after_a_restart_too(tmp_path: Path) -> None:
    peers = Peers(tmp_path)
    await peers.shown.open()
    peers.shown.show(TRAIL, (1,), (VALIDATOR.public,), peers.make)
    await peers.ask(VALIDATOR, 1)
    await peers.shown.close()
    (tmp_path / ME.public.hex()[:8] / "junk.askers").write_bytes(b"x")
    again = peers.of(ME)
    await again.open()
    assert await peers.ask(VALIDATOR, 1) == b"stretch 1"
    with pytest.raises(Unreachable, match="does not open"):
        await peers.ask(STRANGER, 1)
    assert peers.made == [(TRAIL, 1)]
    await again.close()


@pytest.mark.asyncio
async def test_what_the_trainer_cannot_open_is_refused(tmp_path: Path) -> None:
    async def forgotten(trail: bytes, stretch: int) -> bytes:
        raise TrainingError("no longer remembered")

    peers = Peers(tmp_path)
    await peers.shown.open()
    peers.shown.show(TRAIL, (1,), (VALIDATOR.public,), forgotten)
    with pytest.raises(Unreachable, match="does not open"):
        await peers.ask(VALIDATOR, 1)
    await peers.shown.close()


@pytest.mark.asyncio
async def test_the_oldest_go_where_there_is_no_more_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 2)
    peers = Peers(tmp_path)
    await peers.shown.open()
    for stretch in range(4):
        peers.shown.show(TRAIL, (stretch,), (VALIDATOR.public,), peers.make)
        await peers.ask(VALIDATOR, stretch)
    for stretch in (0, 1):
        with pytest.raises(Unreachable, match="does not open"):
            await peers.ask(VALIDATOR, stretch)
    for stretch in (2, 3):
        assert await peers.ask(VALIDATOR, stretch) == b"stretch %d" % stretch
    assert len(list((tmp_path / ME.public.hex()[:8]).iterdir())) == 4
    await peers.shown.close()
