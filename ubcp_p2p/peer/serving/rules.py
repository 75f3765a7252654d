"""A charter's rules as the allocator takes them. Pure."""

from __future__ import annotations

from ubcp_p2p.allocator.problem import RESERVE_PERMILLE_MAX, Rules
from ubcp_p2p.charter.values import Charter


def rules_of(charter: Charter) -> Rules:
    """A charter may reserve more for newcomers than the allocator can: then it is as much as that can.

    In an open network nothing is reserved: nobody vouches for persons there, and anybody could be a thousand newcomers.
    """
    return Rules(
        newcomer_permille=min(charter.newcomer_permille, RESERVE_PERMILLE_MAX) if charter.threshold else 0,
        half_life_slices=charter.half_life_slices,
        ageing_slices=charter.ageing_slices,
        slice_s=charter.slice_s,
        purposes=charter.purposes,
    )
