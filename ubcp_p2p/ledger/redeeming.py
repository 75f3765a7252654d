"""Whether the ledger would take a RECEIPT over a voucher, before one is written: by the rule itself. Pure."""

from __future__ import annotations

from ubcp_p2p.ledger.chain import NodeChain
from ubcp_p2p.ledger.entry import ZERO, Entry, Kind, Receipt
from ubcp_p2p.ledger.faults import Pending, RuleViolation
from ubcp_p2p.ledger.rules_nodes import on_one_branch, voucher_allot
from ubcp_p2p.ledger.state import Ledger


def check_redeemable(ledger: Ledger, node: bytes, slice_: int, body: Receipt) -> None:
    """Raise Pending while the ALLOT, or the node's own chain, is not here; RuleViolation where no RECEIPT can hold it.

    That it grows over the voucher before, and that one slice takes one RECEIPT, is for who keeps the vouchers.
    """
    chain = ledger.branch_of(node)
    if not isinstance(chain, NodeChain):
        raise Pending([body.voucher.allot])
    entry = Entry(ledger.network, node, 0, ZERO, slice_, Kind.RECEIPT, body, ZERO)
    allot = voucher_allot(ledger, chain, entry, body)
    before = chain.paid.get(body.voucher.request)
    if (
        before is not None
        and before.allot != allot.id
        and not on_one_branch(ledger, ledger.allots[before.allot], allot)
    ):
        raise RuleViolation("two-branches", "a voucher from another branch of a paymaster that has forked")
