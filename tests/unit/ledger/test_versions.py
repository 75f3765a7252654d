"""How a peer's charters differ from ours, in words."""

from __future__ import annotations

import pytest

from ubcp_p2p.ledger.versions import differs

A, B, C, OTHER = (bytes([n]) * 32 for n in range(4))


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        ([A, B], [A, B], None),
        ([A], [A], None),
        ([A, B, C], [A, B], "has 2 of the 3 versions of the charter so far"),
        ([A], [A, B, C], "has 3 versions of the charter, of which this node has 1 so far"),
        ([A, B], [A, OTHER], "has another version 2 of the charter"),
        ([A, B], [A, OTHER, C], "has another version 2 of the charter"),
        ([A, B, C], [A, OTHER], "has another version 2 of the charter"),
        ([A, B], [], "has 0 of the 2 versions"),
    ],
)
def test_words(mine: list[bytes], theirs: list[bytes], words: str | None) -> None:
    found = differs(mine, theirs)
    assert found is words if words is None else found is not None and found.startswith(words)
