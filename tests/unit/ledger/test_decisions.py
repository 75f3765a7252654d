"""Decisions of an audit: joined where a node told several, replayed where their inputs are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ubcp_p2p.cli.decisions import replay, synthetic
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.audit import audit
from ubcp_p2p.ledger.decisions import Decided, joined
from ubcp_p2p.ledger.entry import Decision
from ubcp_p2p.ledger.plant import write_synthetic
from ubcp_p2p.ledger.report import Report
from ubcp_p2p.ledger.sources import ExportSource
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.synth import Deciding

LATE = 2**31


def report_of(path: Path, deciding: Deciding | None) -> Report:
    write_synthetic(path, accounts=6, entries=600, seed=3, deciding=deciding)
    with ExportSource(path) as source:
        return audit(source, jobs=1, clock=LATE, replay=replay)


def test_real_decisions_follow_from_their_inputs(tmp_path: Path) -> None:
    report = report_of(tmp_path / "ledger", synthetic)
    assert report.faults == ()
    assert report.counts.replayed > 0
    with ExportSource(tmp_path / "ledger") as source:
        alone = audit(source, jobs=1, clock=LATE)  # by somebody without the allocator's rules
    assert (alone.faults, alone.counts.replayed) == ((), 0)


@pytest.mark.parametrize("lie", ["accepts nobody", "refuses more", "another budget", "other inputs"])
def test_whoever_decides_otherwise_than_by_the_rules_is_named(tmp_path: Path, lie: str) -> None:
    def deciding(slice_: int, ledger: Ledger, activity: Activity, node: bytes) -> tuple[Decision, bytes]:
        body, blob = synthetic(slice_, ledger, activity, node)
        changed = {
            "accepts nobody": body._replace(accepted=(), refused=(*body.refused,)),
            "refuses more": body._replace(refused=(("full", 9),)),
            "another budget": body._replace(budget=body.budget + 1),
            "other inputs": body,
        }[lie]
        return changed, b"no problem of a slice" if lie == "other inputs" else blob

    report = report_of(tmp_path / "ledger", deciding)
    if lie == "other inputs":  # the blob that is there is not the one that was named: nothing can be said
        assert (report.counts.replayed, report.faults) == (0, ())
        assert report.blobs_missing > 0
        return
    assert report.counts.replayed == len(report.faults) > 0
    assert {(fault.code, bool(fault.account), bool(fault.entry)) for fault in report.faults} == {
        ("decision-inputs", True, True)
    }


def test_junk_instead_of_inputs_is_a_fault(tmp_path: Path) -> None:
    report = report_of(tmp_path / "ledger", None)
    assert {fault.code for fault in report.faults} == {"decision-inputs"}
    assert all("no problem of a slice" in fault.message for fault in report.faults)


def test_several_entries_are_one_decision() -> None:
    body = Decision(5, 100, 1, (b"a" * 32, b"c" * 32), (("full", 1),), b"i" * 32)
    first = Decided(b"2" * 32, b"n" * 32, 1, 5, body)
    second = first._replace(id=b"1" * 32, seq=2, body=body._replace(accepted=(b"b" * 32,)))
    other = first._replace(id=b"3" * 32, seq=3, body=body._replace(slice=6))
    one, two = joined([second, other, first])
    assert one == first._replace(body=body._replace(accepted=(b"a" * 32, b"b" * 32, b"c" * 32)))
    assert two == other
