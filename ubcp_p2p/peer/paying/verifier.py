"""Judges an opening for the paymaster: in a trainer's process, sandboxed, started for this and ended again.

The daemon loads no torch, and a paymaster need not be in the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ubcp_p2p.errors import NetworkError, UbcpError
from ubcp_p2p.models.recipe import IambicData, Recipe
from ubcp_p2p.peer.config import TrainingConfig
from ubcp_p2p.swarm import directory
from ubcp_p2p.training.sandbox.reach import data_folders, within
from ubcp_p2p.training.verdict import Claim, Finding, Verdict
from ubcp_p2p.verification.judge import judge_apart

if TYPE_CHECKING:
    from ubcp_p2p.swarm.network import Network

JUDGE_S: Final = 600.0  # torch's import, the data and one stretch; then it is as if it could not be judged


class CannotJudge(UbcpError):
    """This machine cannot say whether the work is honest, and why."""


class Unsure(CannotJudge):
    """A lie by this machine's data, where nobody says now whether those are the run's: to be asked again."""


class Verifier:
    """folder: for the process, which writes nothing there."""

    def __init__(self, network: Network, config: TrainingConfig, folder: Path) -> None:
        self._network, self._config, self._folder = network, config, folder

    async def judge(
        self, name: str, recipe: Recipe, claim: Claim, members: tuple[bytes, ...] | None, opening: bytes,
        group: Collection[bytes],
    ) -> Verdict:  # fmt: skip
        """See TrainerProcess.check. name: the run's. group: the round's members, whose word tells whether they have
        this machine's data.

        Raises CannotJudge; Unsure where it may be able to later.
        """
        path = recipe.data_path()
        confinement = self._config.confinement()
        if path is not None and not within(path, data_folders(confinement.read_dirs)):
            raise CannotJudge(f"the recipe's data lies in {path}, which recipes may not read here")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            async with asyncio.timeout(JUDGE_S):
                judged = await judge_apart(
                    recipe, claim, members, opening, self._folder,
                    device=self._config.device, threads=self._config.threads, sandbox=confinement,
                )  # fmt: skip
        except TimeoutError:
            raise CannotJudge(f"it took longer than {JUDGE_S:.0f} s") from None
        except (UbcpError, OSError) as error:
            raise CannotJudge(error.message if isinstance(error, UbcpError) else str(error)) from None
        if judged.verdict.is_lie and hangs_on_data(judged.verdict.finding, recipe):
            await self._require_same_data(name, claim, bytes.fromhex(judged.data_sha256), group)
        return judged.verdict

    async def _require_same_data(self, name: str, claim: Claim, data_hash: bytes, group: Collection[bytes]) -> None:
        """Raises CannotJudge where what the members claim in the directory says that they may have other data; Unsure
        where that is silent, and somebody is left who may speak: a liar must not gain by a moment of silence."""
        if not group:
            raise CannotJudge("it is not known here who the other members of its group were")
        try:
            claims = await directory.lookup(self._network, name, group)
        except NetworkError:
            raise Unsure("nobody can be asked now which data the run has") from None
        told = {author: entry.data_hash for author, entry in claims if entry.run_id == claim.run_id and entry.data_hash}
        if words := doubt(told, claim.peer, data_hash):
            others, silent = set(told) - {claim.peer}, set(group) - set(told)
            raise Unsure(words) if silent and not others else CannotJudge(words)


def doubt(told: Mapping[bytes, bytes], accused: bytes, data_hash: bytes) -> str:
    """Why a lie that was found on the data of this hash may be honest work on other data; "" where it is none.

    told: by member of the round's group, the hash of the data that it claims. The accused's own claim of other data
    frees it of nothing: the others' word decides, also that of one other alone.
    """
    if told.get(accused) == data_hash:
        return ""  # it says itself that it trains on these
    others = [hash_ for member, hash_ in told.items() if member != accused]
    if not others:
        return "no other member of its group says now which data the run has"
    same = others.count(data_hash)
    if len(others) - same > same:
        return f"{len(others) - same} of its group's other members claim other data than this machine has"
    return ""


def hangs_on_data(finding: Finding, recipe: Recipe) -> bool:
    """Whether honest work on other data could look like this lie. A recipe may name its data by their hash: a machine
    with others does not even begin."""
    if finding in (Finding.COUNT, Finding.BASE, Finding.OFFER):  # the card and the trail's ends alone show it
        return False
    return not (isinstance(recipe.data, IambicData) and recipe.data.sha256 is not None)
