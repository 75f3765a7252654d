"""Reconciling two ledgers: the questions of the sync protocol, and what to answer to each (SPEC §11). Pure, sans-IO.

The asking side is pull.py.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol, TypeAlias

from ubcp_p2p.codec import MalformedMessage, Value, fields, hash_of, items, number
from ubcp_p2p.ledger.entry import SEQ_MAX, Position

PROTOCOL: Final = "/ubcp/ledger/sync/1"
VERSION: Final = 1
FRAME_BYTES_MAX: Final = 1 << 20
QUESTION_BYTES_MAX: Final = 16 * 1024  # 256 ranges take 11 KiB, 256 ids 9 KiB
ANSWER_BYTES_MAX: Final = 900 * 1024  # of the entries or the blob in one answer: leaves room for what frames them
BUCKETS: Final = 256
CHARTERS_MAX: Final = 1024
PROOFS_MAX: Final = 4096
PER_ASK_MAX: Final = 64  # charters or proofs in one question
AUTHORS_MAX: Final = 1024
HEADS_MAX: Final = 64
RANGES_MAX: Final = 256
IDS_MAX: Final = 256
ENTRIES_MAX: Final = 512
LOG_MAX: Final = 2048
AMOUNT_MAX: Final = 2**53 - 1
NOTHING: Final = bytes(32)  # the digest of an empty bucket

HELLO, CHARTERS, PROOFS, HEADS, RANGES, IDS, BLOB, LOG = range(8)

Range: TypeAlias = tuple[bytes, int, int]  # author, first, last number


class Heads:
    """The heads of all branches at one moment, by bucket (SPEC §11): to be kept as long as they are the same."""

    def __init__(self, heads: Iterable[Position]) -> None:
        self._buckets: list[list[Position]] = [[] for _ in range(BUCKETS)]
        for head in heads:
            self._buckets[head.author[0]].append(head)
        self._digests: list[bytes] | None = None

    def __iter__(self) -> Iterator[Position]:
        return itertools.chain.from_iterable(self._buckets)

    def of_bucket(self, bucket: int) -> list[Position]:
        """Ascending."""
        self._buckets[bucket].sort()  # nothing to do from the second time on
        return self._buckets[bucket]

    def digests(self) -> list[bytes]:
        """Of the 256 buckets."""
        if self._digests is None:
            self._digests = [self._digest(bucket) for bucket in range(BUCKETS)]
        return self._digests

    def _digest(self, bucket: int) -> bytes:
        heads = self.of_bucket(bucket)
        if not heads:
            return NOTHING
        return hashlib.sha256(b"".join(author + seq.to_bytes(4, "big") + id_ for author, seq, id_ in heads)).digest()


class Source(Protocol):
    """What a ledger offers to `answer`. Wire forms throughout; iterables are read only as far as an answer goes."""

    @property
    def network(self) -> bytes: ...
    @property
    def size(self) -> int: ...
    def charter_ids(self) -> Sequence[bytes]: ...
    def charter(self, number: int) -> bytes | None: ...
    def proof_ids(self) -> Iterable[bytes]: ...
    def proof(self, id_: bytes) -> bytes | None: ...
    def heads(self) -> Heads: ...
    def range(self, author: bytes, first: int, last: int) -> Iterable[bytes]: ...
    def entry(self, id_: bytes) -> bytes | None: ...
    def blob(self, hash_: bytes) -> bytes | None: ...
    def log(self, after: int) -> Iterable[tuple[int, bytes]]: ...


def answer(question: Value, source: Source, place: int = 0) -> Value:
    """The answer to one question. Raises MalformedMessage for a question that is none.

    place: any number, another one each time: where in the circle of fork ids HELLO begins to name them, if it cannot
    name all.
    """
    if not isinstance(question, list) or not question or not isinstance(question[0], int):
        raise MalformedMessage("a question is a list that begins with its number")
    what = question[0]
    if what == HELLO:
        _, theirs, version = fields(question, 3)
        hash_of(theirs), number(version, AMOUNT_MAX)  # whichever they are: the asker sees that we are others
        proofs: list[Value] = list(_some(sorted(source.proof_ids()), place))
        return [
            HELLO, source.network, list(source.charter_ids()), proofs, list(source.heads().digests()), source.size
        ]  # fmt: skip
    if what == CHARTERS:
        numbers = [number(n, CHARTERS_MAX) for n in items(fields(question, 2)[1], PER_ASK_MAX)]
        return [CHARTERS, _fitting(data for n in numbers if (data := source.charter(n)) is not None)]
    if what == PROOFS:
        ids = [hash_of(id_) for id_ in items(fields(question, 2)[1], PER_ASK_MAX)]
        return [PROOFS, _fitting(data for id_ in ids if (data := source.proof(id_)) is not None)]
    if what == HEADS:
        _, bucket, after = fields(question, 3)
        return [HEADS, _heads_of(source.heads().of_bucket(number(bucket, BUCKETS - 1)), hash_of(after))]
    if what == RANGES:
        rows = [fields(row, 3) for row in items(fields(question, 2)[1], RANGES_MAX)]
        wanted = [(hash_of(a), number(first, SEQ_MAX), number(last, SEQ_MAX)) for a, first, last in rows]
        return [RANGES, _fitting((data for row in wanted for data in source.range(*row)), ENTRIES_MAX)]
    if what == IDS:
        ids = [hash_of(id_) for id_ in items(fields(question, 2)[1], IDS_MAX)]
        return [IDS, _fitting((data for id_ in ids if (data := source.entry(id_)) is not None), ENTRIES_MAX)]
    if what == BLOB:
        blob = source.blob(hash_of(fields(question, 2)[1]))
        return [BLOB, blob if blob is not None and len(blob) <= ANSWER_BYTES_MAX else b""]
    if what == LOG:
        return _log_after(source, number(fields(question, 2)[1], AMOUNT_MAX))
    raise MalformedMessage(f"unknown question {what}")


def _some(ids: Sequence[bytes], place: int) -> Sequence[bytes]:
    """At most PROOFS_MAX of these, ascending: whoever asks often enough is told all of them."""
    if len(ids) <= PROOFS_MAX:
        return ids
    start = place % len(ids)
    end = start + PROOFS_MAX
    return [*ids[: max(0, end - len(ids))], *ids[start:end]]


def _heads_of(heads: Sequence[Position], after: bytes) -> list[Value]:
    """heads: of a bucket, ascending."""
    start = bisect.bisect_right(heads, after, key=lambda head: head.author)
    by_author = itertools.groupby(itertools.islice(heads, start, None), key=lambda head: head.author)
    return [
        [author, [[head.seq, head.id] for head in list(branches)[-HEADS_MAX:]]]
        for author, branches in itertools.islice(by_author, AUTHORS_MAX)
    ]


def _fitting(found: Iterable[bytes], count_max: int = PER_ASK_MAX) -> list[Value]:
    """As many of `found` as one answer may hold."""
    taken: list[Value] = []
    room = ANSWER_BYTES_MAX
    for data in found:
        room -= len(data) + 8
        if room < 0:
            break
        taken.append(data)
        if len(taken) == count_max:  # before another is read
            break
    return taken


def _log_after(source: Source, after: int) -> Value:
    taken: list[Value] = []
    room, reached = ANSWER_BYTES_MAX, after
    for position, data in source.log(after):
        room -= len(data) + 8
        if room < 0 or len(taken) >= LOG_MAX:
            break
        taken.append(data)
        reached = position
    return [LOG, reached, taken]
