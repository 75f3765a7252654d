"""sync.json: questions and answers of two ledgers that reconcile (SPEC §11)."""

from __future__ import annotations

from typing import Any

from tests.support.ledgers import MemoryLedger
from tests.vectors.ledger.files import Vectors
from tests.vectors.ledger.forms import pack
from tests.vectors.ledger.scene import Scene
from ubcp_p2p.ledger import sync


def vectors() -> Vectors:
    file = Vectors("sync")
    s = Scene(81)
    s.amend(1, exposure_cap=2000)
    a, b = s.account("a"), s.account("b")
    pay = s.node(b, "pay")
    fork = s.back(a, 1)
    first = s.request(a, pay, 100)
    s.now = 1
    second = s.request(fork, pay, 200)
    s.allot(pay, first, pay, 100)
    source = MemoryLedger(s.charters.versions, s.entries)
    (proof,) = source.proof_ids()
    network, unknown = s.charters.network, bytes([9]) * 32
    bucket = a.public[0]

    def ask(name: str, shows: str, question: Any) -> None:
        answer = pack(sync.answer(question, source))
        file.question(name, shows, s, pack(question), answer)

    def refuse(name: str, question: Any) -> None:
        file.question(name, "the stream ends; the asker is at fault", s, pack(question), None)

    ask("HELLO", "charters, proofs, digests of 256 buckets, number of entries", [0, network, 1])
    ask("HELLO of another network", "it sees that this is another", [0, unknown, 1])
    ask("HELLO of another version", "it sees that this is version 1", [0, network, 2])
    ask("both charters", "", [1, [1, 2]])
    ask("charters in another order", "as they were asked for", [1, [2, 1]])
    ask("a charter that there is not", "it is left out", [1, [3, 0, 2]])
    ask("no charters", "", [1, []])
    ask("a proof", "", [2, [proof]])
    ask("a proof that there is not", "", [2, [unknown]])
    ask("heads of a bucket", "both branches, ascending", [3, bucket, bytes(32)])
    ask("heads after all authors of a bucket", "none", [3, bucket, bytes([bucket]) + b"\xff" * 31])
    ask("heads after an author", "it is not among them", [3, bucket, a.public])
    taken = {head.author[0] for head in source.heads()}
    ask("heads of an empty bucket", "", [3, next(n for n in range(256) if n not in taken), bytes(32)])
    ask("a range", "ascending by number, both branches", [4, [[a.public, 0, 9]]])
    ask("a range of one number", "two entries have it", [4, [[a.public, 2, 2]]])
    ask("two ranges", "in the order of the question", [4, [[pay.public, 0, 0], [a.public, 1, 1]]])
    ask("a range that is empty", "last before first", [4, [[a.public, 2, 1]]])
    ask("a range of an unknown author", "", [4, [[unknown, 0, 2**32 - 1]]])
    ask("ids", "in the order of the question", [5, [second.entry.id, first.entry.id]])
    ask("an id that there is not", "it is left out", [5, [unknown, first.entry.id]])
    ask("a blob that there is not", "empty", [6, unknown])
    ask("the log from the start", "all entries, and what to ask for then", [7, 0])
    ask("the log after five entries", "", [7, 5])
    ask("the log after its end", "nothing; ask for the same", [7, len(s.entries)])
    ask("the log beyond its end", "", [7, 2**53 - 1])
    for name, question in (
        ("an unknown question", [8]), ("nothing", []), ("a number", 0), ("a text as the number", ["0"]),
        ("HELLO without a version", [0, network]), ("HELLO of a short network", [0, network[:31], 1]),
        ("65 charters", [1, list(range(65))]), ("charter 1025", [1, [1025]]), ("a charter by its id", [1, [network]]),
        ("65 proofs", [2, [unknown] * 65]), ("a short proof id", [2, [unknown[:31]]]),
        ("bucket 256", [3, 256, bytes(32)]),
        ("heads after a short key", [3, 0, bytes(31)]), ("257 ranges", [4, [[unknown, 0, 0]] * 257]),
        ("a range of two fields", [4, [[unknown, 0]]]), ("a range up to 2^32", [4, [[unknown, 0, 2**32]]]),
        ("257 ids", [5, [unknown] * 257]), ("a blob of a short hash", [6, bytes(31)]),
        ("the log after 2^53", [7, 2**53]),
        ("the log after a text", [7, "0"]), ("a field too many", [7, 0, 0]),
    ):  # fmt: skip
        refuse(name, question)
    for name, data in (
        ("a number in a longer form", b"\x92\x07\xcc\x00"), ("bytes after a question", b"\x92\x07\x00\x00"),
        ("an empty frame", b""), ("nil", b"\x92\x07\xc0"), ("minus one", b"\x92\x07\xff"),
    ):  # fmt: skip
        file.question(name, "not canonical, or not of the model", s, data, None)
    return file
