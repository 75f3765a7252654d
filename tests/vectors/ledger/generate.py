"""Writes ledger/vectors/*.json: the bytes and rules of the ledger, for any implementation (ledger/vectors/README.md).

`python -m tests.vectors.ledger.generate` writes the files; `--check` only compares and exits 1 when one differs. A
difference is a change of the format or of the rules: what was valid for one node is then not so for another.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.vectors.ledger import (
    accounts,
    balances,
    chains,
    charters,
    forks,
    forms,
    nodes,
    signatures,
    statistics,
    syncs,
    trees,
)
from tests.vectors.ledger.files import Vectors

FOLDER = Path(__file__).parents[3] / "ledger" / "vectors"


def rules() -> Vectors:
    file = Vectors("rules")
    accounts.add_to(file)
    nodes.add_to(file)
    forks.add_rules(file)
    return file


FILES = {
    "worked": forms.worked,
    "encoding": forms.encoding,
    "entries": forms.entries,
    "vouchers": forms.vouchers,
    "charters": charters.vectors,
    "ed25519": signatures.vectors,
    "merkle": trees.vectors,
    "chains": chains.vectors,
    "rules": rules,
    "forks": forks.vectors,
    "balances": balances.vectors,
    "sync": syncs.vectors,
    "stats": statistics.vectors,
}


def path(subject: str) -> Path:
    return FOLDER / f"{subject}.json"


def text(subject: str) -> str:
    """The file as it must be."""
    return json.dumps(FILES[subject]().document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in FILES:
        if sys.argv[1:] != ["--check"]:
            path(name).write_text(text(name))
        elif path(name).read_text() != text(name):
            sys.exit(f"{path(name)} differs from what the code makes: a changed format or rule")
