"""A stranger's verdict on evidence, from the blob and the recipe alone. Needs torch: no daemon imports this."""

from __future__ import annotations

from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.models.task import build_task
from ubcp_p2p.training.inner import InnerLoop, choose_device
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.verdict import Verdict
from ubcp_p2p.training.witness import Witness
from ubcp_p2p.verification.evidence import Evidence, claim_of


def verify_evidence(blob: bytes, recipe: Recipe, device: str = "cpu") -> Verdict:
    """The verdict that `blob` leads to on this device; the same each time.

    UNOPENED says that the opening is not the card's: nobody is convicted by it. Raises MalformedMessage for bytes that
    are no evidence of a run of `recipe`, ConfigError where its data or the device is not to be had.
    """
    evidence = Evidence.from_bytes(blob, recipe, shape_of(recipe))
    claim = claim_of(evidence.card, recipe)
    if isinstance(claim, Verdict):
        return claim
    loop = InnerLoop(recipe, build_task(recipe), choose_device(device))
    return Witness(recipe, loop).check(claim, evidence.members, evidence.opening)
