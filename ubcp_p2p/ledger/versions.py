"""What a peer's list of charter versions says beside one's own, in words (SPEC §4.2, §4.3). Pure."""

from __future__ import annotations

from collections.abc import Sequence


def differs(mine: Sequence[bytes], theirs: Sequence[bytes]) -> str | None:
    """How the charters of a peer differ from ours, both by number; None when they are the same."""
    for number, (own, other) in enumerate(zip(mine, theirs, strict=False), 1):
        if own != other:
            return f"has another version {number} of the charter: the stewards must settle which one holds"
    if len(theirs) < len(mine):
        return f"has {len(theirs)} of the {len(mine)} versions of the charter so far, and judges by those"
    if len(theirs) > len(mine):
        return f"has {len(theirs)} versions of the charter, of which this node has {len(mine)} so far"
    return None
