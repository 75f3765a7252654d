"""A validator's side: tells those who pay for a run what this node found of others' work, with the evidence."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from ubcp_p2p.codec import Value, number
from ubcp_p2p.errors import NetworkError, UbcpError
from ubcp_p2p.files import read_limited
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.peer.checking.values import Checked
from ubcp_p2p.peer.paying.report import EVIDENCE_BYTES_MAX, Report
from ubcp_p2p.peer.paying.wire import ANSWER_S, PROTOCOL, What, answered, question
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.openings import STALL_S

if TYPE_CHECKING:
    from ubcp_p2p.swarm.network import Network

log = logging.getLogger(__name__)

REPORTS_MAX: Final = 64  # under way; a paymaster that hears of no check looks for itself
PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0)  # the round may not have been billed yet


class Reporter:
    """The Clients of a node's checks. paid_by: the REQUESTs that pay for a run, and that this node has a lease on."""

    def __init__(self, network: Network, key: NodeKey, paid_by: Callable[[bytes], list[Asked]]) -> None:
        self._network, self._key, self._paid_by = network, key, paid_by
        self._under_way: set[asyncio.Task[None]] = set()

    def payers(self, run_id: bytes) -> Collection[bytes]:
        """Their paymasters."""
        return {asked.body.paymaster for asked in self._paid_by(run_id)}

    def report(self, run_id: bytes, checked: Checked) -> None:
        """Tell each of them, soon."""
        for asked in self._paid_by(run_id):
            if len(self._under_way) >= REPORTS_MAX:
                log.warning("a check of round %d is not reported: others wait", checked.certificate.group.round)
                return
            task = asyncio.create_task(self._tell(asked, run_id, checked))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Tell nobody any more."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _tell(self, asked: Asked, run_id: bytes, checked: Checked) -> None:
        try:
            evidence = b""
            if checked.evidence is not None:
                evidence = await asyncio.to_thread(read_limited, checked.evidence, bytes_max=EVIDENCE_BYTES_MAX)
            report = Report(run_id, checked.certificate.group.round, checked.peer, checked.verdict.finding)
            if evidence:
                digest = hashlib.sha256(evidence).digest()
                report = Report(run_id, report.round, report.peer, report.finding, digest, len(evidence))
            signed = report.signed(self._key)
            for pause_s in (*PAUSES_S, None):
                try:
                    await self._send(asked, signed, evidence)
                    return
                except UbcpError as error:
                    if pause_s is None:
                        raise
                    log.info("%s does not take a report yet: %s", short(asked.body.paymaster), error.message)
                    await asyncio.sleep(pause_s)
        except UbcpError as error:
            log.info("a report of round %d was not taken: %s", checked.certificate.group.round, error.message)
        except Exception:  # a bug: training goes on
            log.exception("a report of round %d was not sent", checked.certificate.group.round)

    async def _send(self, asked: Asked, report: Report, evidence: bytes) -> None:
        async with self._network.open(asked.body.paymaster, PROTOCOL, timeout_s=ANSWER_S) as stream:
            await stream.send(question(What.REPORT, asked.id, report.to_bytes()), timeout_s=ANSWER_S)
            wanted: Value = answered(await stream.receive(timeout_s=ANSWER_S))
            if not number(wanted, 1):
                return
            if not evidence:
                raise NetworkError("the paymaster wants evidence where there is none")
            await stream.send_block(memoryview(evidence), stall_s=STALL_S)
            answered(await stream.receive(timeout_s=ANSWER_S))
