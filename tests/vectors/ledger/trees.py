"""merkle.json: RFC 6962 trees. The first eight roots are those of Certificate Transparency's own tests (SPEC §9)."""

from __future__ import annotations

from typing import Any

from tests.vectors.ledger.files import Vectors
from ubcp_p2p.ledger.merkle import inclusion_proof, root_of

LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def vectors() -> Vectors:
    file = Vectors("merkle")
    for size, expected in enumerate(ROOTS):
        file.add(f"{size} leaves", "the root", "9", leaves=LEAVES[:size], root=expected, inclusion=[])
    for size in (1, 2, 3, 7, 8, 13):
        leaves = [bytes.fromhex(LEAVES[n % 8]) + bytes([n]) for n in range(size)]
        shows = "proofs that hold, and proofs too long, too short, or of another leaf"
        file.add(f"inclusion in {size} leaves", shows, "9", leaves=[leaf.hex() for leaf in leaves],
                 root=root_of(leaves).hex(), inclusion=_proofs(leaves))  # fmt: skip
    return file


def _proofs(leaves: list[bytes]) -> list[dict[str, Any]]:
    size = len(leaves)
    rows: list[dict[str, Any]] = []
    for leaf in range(size):
        proof = inclusion_proof(leaves, leaf)
        for index, path, holds in (
            (leaf, proof, True),
            (leaf, [*proof, root_of(leaves)], False),
            (leaf, proof[:-1], size == 1),
            (size, proof, False),
            ((leaf + 1) % size, proof, size == 1),
        ):
            rows.append({"leaf": leaf, "index": index, "proof": [node.hex() for node in path], "holds": holds})
    return rows
