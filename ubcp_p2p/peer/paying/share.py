"""What one account may earn of a REQUEST whose work nobody checks: an equal share. Pure.

The limit is in the ALLOTs, so everybody can see it in the ledger. It is an account's, not a node's: nodes cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from ubcp_p2p.ledger.entry import Request
from ubcp_p2p.peer.paying.tab import Terms
from ubcp_p2p.units import credits_text


def share_of(body: Request) -> int:
    """An equal share of the reserved µcredits among as many peers as the REQUEST admits; 1 at least."""
    return max(1, body.credits // max(1, body.peers_max))


def limit_of(terms: Terms, allots: Mapping[bytes, int], opening: bytes, kin: Set[bytes]) -> int:
    """The most µcredits that `opening` may be allotted, now that the other nodes of its account have what they have.

    kin: OPEN ids of the account's nodes. terms.share: None where work is checked; then only the REQUEST is a limit.
    """
    if terms.share is None:
        return terms.credits
    others = sum(credits_ for each, credits_ in allots.items() if each in kin and each != opening)
    return max(0, terms.share - others)


def capped(terms: Terms, limit: int, units: int) -> str | None:
    """Why a contributor whose voucher says `units` earns nothing more, in words; None where it may. limit: of above."""
    if terms.share is None or units < limit:
        return None
    return (
        f"capped: nobody checks the work of this run, so an account earns {credits_text(terms.share)} credits of this "
        "request at most"
    )
