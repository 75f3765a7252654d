"""Writes what each slice of this folder decides: the JSON of `ubcp allocate`, the problem's bytes, the decision's hash.

`python -m tests.vectors.allocator.generate` writes `NAME.decision.json` for each `NAME.json`; `--check` only compares
and exits 1 when one differs. A difference is a change of the rules or of their arithmetic: decisions of before can
then not be replayed, so it needs a new version of the problem's form.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from ubcp_p2p.allocator.blob import encode_problem, inputs_hash
from ubcp_p2p.allocator.decide import decide
from ubcp_p2p.allocator.document import parse, to_json

FOLDER = Path(__file__).parent
SLICES = tuple(sorted(path for path in FOLDER.glob("*.json") if not path.name.endswith(".decision.json")))


def decision_file(slice_file: Path) -> Path:
    return slice_file.with_suffix(".decision.json")


def text(slice_file: Path) -> str:
    """What the decision file holds."""
    problem = parse(slice_file.read_bytes(), where=slice_file.name)
    decision, blob = decide(problem), encode_problem(problem)
    document = {
        "inputs_hash": inputs_hash(blob).hex(),
        "decision_hash": hashlib.sha256(decision.to_bytes()).hexdigest(),
        "inputs": blob.hex(),
        "output": to_json(problem, decision),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for file in SLICES:
        if sys.argv[1:] == ["--check"]:
            if decision_file(file).read_text() != text(file):
                sys.exit(f"{decision_file(file)} differs from what the code decides")
        else:
            decision_file(file).write_text(text(file))
