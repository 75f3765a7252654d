"""When a paymaster believes that its own data are the run's: only then a lie that hangs on them is one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.swarm.made import KEYS, RUN, digest
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.models.recipe import IambicData, load_recipe
from ubcp_p2p.peer.config import TrainingConfig
from ubcp_p2p.peer.paying.verifier import CannotJudge, Unsure, Verifier, doubt, hangs_on_data
from ubcp_p2p.swarm.directory import NODES_MAX
from ubcp_p2p.training.verdict import Claim, Finding

LIAR, A, B = (key.public for key in KEYS[:3])
MINE, OTHER = digest("data"), digest("other data")
CLAIM = Claim(RUN, 3, LIAR, digest("base"), 5, digest("offer"), digest("trail"))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "no other member"),
        ({LIAR: OTHER}, "no other member"),
        ({LIAR: MINE}, ""),  # it has named these data itself
        ({LIAR: MINE, A: OTHER, B: OTHER}, ""),
        ({LIAR: OTHER, A: MINE}, ""),  # a group of two, where only the liar claims other data
        ({LIAR: OTHER, A: MINE, B: OTHER}, ""),  # as many others as same, without the liar's own word
        ({A: MINE}, ""),
        ({A: OTHER}, "1 of its group's other members claim other data"),
        ({LIAR: OTHER, A: OTHER}, "1 of its group's other members claim other data"),
        ({A: OTHER, B: OTHER}, "2 of its group's other members claim other data"),
    ],
)
def test_whose_word_says_that_the_data_are_the_runs(told: dict[bytes, bytes], words: str) -> None:
    found = doubt(told, LIAR, MINE)
    assert words in found
    assert bool(found) is bool(words)


def test_which_lies_hang_on_the_data() -> None:
    digits, plays = load_recipe("digits-tiny"), load_recipe("shakespeare-nano")
    assert not any(hangs_on_data(finding, digits) for finding in (Finding.COUNT, Finding.BASE, Finding.OFFER))
    assert all(hangs_on_data(finding, digits) for finding in (Finding.STEPS, Finding.MEMORY, Finding.DATA))
    assert not hangs_on_data(Finding.STEPS, plays)  # the recipe names them by their hash
    assert isinstance(plays.data, IambicData)
    any_edition = plays.model_copy(update={"data": plays.data.model_copy(update={"sha256": None})})
    assert hangs_on_data(Finding.STEPS, any_edition)


class Directory:
    """What the DHT says: claims by their authors, or that it cannot be asked."""

    def __init__(self, claims: dict[bytes, bytes] | None, run: bytes = RUN) -> None:
        self._claims, self._run = claims, run
        self.connected = frozenset[bytes]()

    async def claims(self, key: str) -> list[Any]:
        if self._claims is None:
            raise NetworkError("p2pd is down")
        return [
            SimpleNamespace(author=author, value=[["plays", self._run, "recipe", digest("recipe"), 3, 9, hash_]])
            for author, hash_ in self._claims.items()
        ]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("directory", "group", "words", "kind"),
    [
        (Directory(None), {LIAR, A}, "nobody can be asked", Unsure),
        (Directory({}), {LIAR, A}, "no other member", Unsure),
        (Directory({LIAR: OTHER}), {LIAR, A}, "no other member", Unsure),
        (Directory({LIAR: OTHER}), {LIAR}, "no other member", CannotJudge),  # it was alone, and has spoken
        (Directory({A: MINE}), set(), "is not known here", CannotJudge),  # whose word counts
        (Directory({A: MINE}, digest("another run")), {LIAR, A}, "no other member", Unsure),
        (Directory({A: b""}), {LIAR, A}, "no other member", Unsure),  # of a version that does not tell its data
        (Directory({A: OTHER}), {LIAR, A}, "claim other data", CannotJudge),
        (Directory({A: OTHER}), {LIAR, A, B}, "claim other data", CannotJudge),
        (Directory({A: MINE, B: OTHER}), {LIAR, A}, "", None),  # B is no member
    ],
)
async def test_silence_of_the_directory_convicts_nobody(
    tmp_path: Path, directory: Any, group: set[bytes], words: str, kind: type[CannotJudge] | None
) -> None:
    verifier = Verifier(directory, TrainingConfig(), tmp_path)
    if kind is not None:
        with pytest.raises(CannotJudge, match=words) as raised:
            await verifier._require_same_data("plays", CLAIM, MINE, group)
        assert type(raised.value) is kind
    else:
        await verifier._require_same_data("plays", CLAIM, MINE, group)


@pytest.mark.asyncio
async def test_strangers_in_the_directory_do_not_silence_the_members(tmp_path: Path) -> None:
    crowd = {digest(f"stranger {n}"): OTHER for n in range(NODES_MAX)}
    directory: Any = Directory({**crowd, A: MINE})
    verifier = Verifier(directory, TrainingConfig(), tmp_path)
    await verifier._require_same_data("plays", CLAIM, MINE, {LIAR, A})
    with pytest.raises(Unsure, match="no other member"):  # it is asked about the run of that name
        await verifier._require_same_data("another", CLAIM, MINE, {LIAR, A})
