"""A node that bills each round to all of its requests: `python -m tests.support.double_billing_node`, like `ubcp`."""

from __future__ import annotations

import time

from ubcp_p2p.__main__ import entry
from ubcp_p2p.peer.paying.bill import Bill
from ubcp_p2p.peer.paying.contributor import Contributor
from ubcp_p2p.swarm.events import Committed


class DoubleBiller(Contributor):
    """Sends what names one payer to the others, too; works for any of them, paid or not."""

    def on_round(self, committed: Committed) -> None:
        super().on_round(committed)
        bill = Bill(committed.certificate).to_bytes()
        for job in self.jobs():
            if bill not in job.bills:
                job.work(bill, 0, time.monotonic(), drawn=False)


if __name__ == "__main__":
    from ubcp_p2p.peer.paying import contributor

    contributor.Contributor = DoubleBiller  # type: ignore[misc]  # the node looks it up there when it begins
    entry()
