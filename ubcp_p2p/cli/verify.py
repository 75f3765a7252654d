"""`ubcp verify`: whether a peer's work was honest, by the evidence that a validator made and the recipe alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ubcp_p2p.cli.output import JsonOption, emit_json
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.log import printable


def verify(
    evidence: Annotated[Path, typer.Argument(metavar="EVIDENCE", help="A file of evidence.")],
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The run's recipe: a shipped one's name, or a file.")],
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="cpu, cuda or auto.")] = "cpu",
    json: JsonOption = False,
) -> None:
    """Verify evidence against a peer, without a network, and say what it shows.

    A stretch of the peer's training is taken again, from the state that the peer signed, and compared.

    Exit code 0 where no lie is shown, 1 where one is, 2 for a file that is no evidence of a run of this recipe.
    """
    import asyncio
    import tempfile

    from ubcp_p2p.codec import MalformedMessage
    from ubcp_p2p.files import read_limited
    from ubcp_p2p.keys import peer_id_of, to_base58
    from ubcp_p2p.models.recipe import load_recipe
    from ubcp_p2p.training.shape import shape_of
    from ubcp_p2p.training.verdict import Finding, Verdict
    from ubcp_p2p.verification.evidence import Evidence, bytes_max, claim_of
    from ubcp_p2p.verification.judge import judge_apart

    found = load_recipe(recipe)
    shape = shape_of(found)
    blob = read_limited(evidence, bytes_max=bytes_max(shape))
    try:
        shown = Evidence.from_bytes(blob, found, shape)
    except MalformedMessage as error:
        raise ConfigError(
            f"{evidence} is no evidence of a run of {found.name}: {error.message}",
            hint="give the recipe that the run has: `ubcp runs show NAME` tells its hash",
        ) from None
    claim = claim_of(shown.card, found)
    verdict, data = claim, None
    notes: tuple[str, ...] = ()
    if not isinstance(claim, Verdict):
        with tempfile.TemporaryDirectory(prefix="ubcp-verify-") as folder:
            judged = asyncio.run(judge_apart(found, claim, shown.members, shown.opening, Path(folder), device=device))
        verdict, data, notes = judged.verdict, judged.data_name, judged.notes
        if verdict.finding == Finding.DATA and shown.members is not None:
            group = ", ".join(to_base58(peer_id_of(member)) for member in shown.members)
            notes = (*notes, f"a lie only if the state before was made by {group}: that is the word of these alone")
    assert isinstance(verdict, Verdict)
    peer = to_base58(peer_id_of(shown.card.peer))
    if json:
        emit_json(
            {
                "run": shown.run, "round": shown.card.round, "peer": peer, "finding": verdict.finding.value,
                "lie": verdict.is_lie, "distance_ppm": verdict.distance_ppm, "words": verdict.words, "data": data,
                "notes": list(notes),
            }
        )  # fmt: skip
    else:
        said = "a lie" if verdict.is_lie else "no lie is shown"
        place = f"{peer} in round {shown.card.round} of {shown.run}"
        print(printable(f"{place}: {said} ({verdict.finding}): {verdict.words}"))
        if data is not None:
            print(printable("; ".join((f"verified on {data}", *notes))))
    if verdict.is_lie:
        raise typer.Exit(1)
