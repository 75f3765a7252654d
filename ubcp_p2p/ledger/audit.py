"""Auditing a ledger, from its beginning or from where an earlier audit of it stood (SPEC §12)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.ledger import snapshot
from ubcp_p2p.ledger.auditor import Auditor
from ubcp_p2p.ledger.facts import Replay
from ubcp_p2p.ledger.report import Report
from ubcp_p2p.ledger.sources import Source
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.verifying import Workers


def audit(
    source: Source,
    *,
    jobs: int,
    clock: int,
    as_of: int | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] | None = None,
    say: Callable[[str], None] | None = None,
    unsaved: Callable[[UbcpError], None] | None = None,
    replay: Replay | None = None,
) -> Report:
    """Audit everything in `source`. clock: the slice that it is now. as_of: leave out entries of later slices.

    checkpoint: a snapshot to go on from, and to write. progress: told the offset reached. say: told in words what
    became of the snapshot. unsaved: told why it could not be written, which costs no report. replay: the allocator's
    rules, for decisions. Raises UnreadableExport; ConfigError where `checkpoint` is something else that must stay;
    LocalIOError without `unsaved`.
    """
    assert checkpoint is None or as_of is None  # what is left out now must not be missing later
    say = say or (lambda _: None)
    with Workers(jobs) as workers:
        auditor = None
        if checkpoint is not None:
            try:
                auditor = snapshot.load(checkpoint, source)
            except snapshot.SnapshotMismatch as error:
                say(f"{error.message}; everything is audited")
        auditor = auditor or Auditor(source, Ledger(source.charters))
        auditor.run(workers, clock=clock, as_of=as_of, progress=progress)
        if checkpoint is not None and auditor.counts.read:
            if any(fault.code == "slice-ahead" for fault in auditor.faults):
                say(f"{checkpoint} is not written: an entry is from the future, and may be valid later")
            else:
                try:
                    snapshot.save(checkpoint, auditor)
                except UbcpError as error:
                    if unsaved is None:
                        raise
                    unsaved(error)
        return auditor.report(workers, replay)
