"""Reconciling two ledgers by questions and answers (SPEC §11): what to answer, and what to ask next. Pure, sans-IO.

`answer` is all that the answering side does. `pull` is a generator for the asking side: it yields an Ask, and is sent
the answer; it yields a Take, and is sent how many of the things in it were new. Whoever drives it owns the clock, the
stream and the verification of everything that is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from ubcp_p2p.codec import MalformedMessage, Value
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.ledger.entry import SEQ_MAX, Position

PROTOCOL: Final = "/ubcp/ledger/sync/1"
VERSION: Final = 1
FRAME_BYTES_MAX: Final = 1 << 20
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
LOG_WHEN: Final = 1024  # this many entries behind, the other's log is quicker than the search for what differs
BACK_FIRST: Final = 64  # how far before a head that does not fit the search for a fork begins; then four times as far
MISSING_ROUNDS_MAX: Final = 64
AMOUNT_MAX: Final = 2**53 - 1

HELLO, CHARTERS, PROOFS, HEADS, RANGES, IDS, BLOB, LOG = range(8)

Range: TypeAlias = tuple[bytes, int, int]  # author, first, last number


class OtherNetwork(NetworkError):
    """The peer is in another community; nobody is at fault."""


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
    def heads(self) -> Iterable[Position]: ...
    def range(self, author: bytes, first: int, last: int) -> Iterable[bytes]: ...
    def entry(self, id_: bytes) -> bytes | None: ...
    def blob(self, hash_: bytes) -> bytes | None: ...
    def log(self, after: int) -> Iterable[tuple[int, bytes]]: ...


class Local(Protocol):
    """What `pull` must know of one's own ledger, at every moment."""

    @property
    def network(self) -> bytes: ...
    @property
    def size(self) -> int: ...
    def charter_ids(self) -> Sequence[bytes]: ...
    def proof_ids(self) -> Iterable[bytes]: ...
    def heads(self) -> Iterable[Position]: ...
    def contains(self, author: bytes, seq: int, id_: bytes) -> bool: ...
    def length(self, author: bytes) -> int: ...
    def missing(self) -> Iterable[bytes]: ...


class Ask(NamedTuple):
    """Send this question; send the answer back into the generator."""

    question: Value


class Take(NamedTuple):
    """Verify and take in these wire forms; send back how many were new. what: CHARTERS, PROOFS or IDS (entries)."""

    what: int
    items: Sequence[bytes]


Step: TypeAlias = Ask | Take


def digests(heads: Iterable[Position]) -> list[bytes]:
    """The 256 bucket digests over all branch heads (SPEC §11)."""
    buckets: dict[int, list[Position]] = {}
    for head in heads:
        buckets.setdefault(head.author[0], []).append(head)
    result = [bytes(32)] * BUCKETS
    for bucket, members in buckets.items():
        digest = hashlib.sha256()
        for author, seq, id_ in sorted(members):
            digest.update(author + seq.to_bytes(4, "big") + id_)
        result[bucket] = digest.digest()
    return result


# -- answering --------------------------------------------------------------------------------------------------------


def answer(question: Value, source: Source) -> Value:
    """The answer to one question. Raises MalformedMessage for a question that is none."""
    if not isinstance(question, list) or not question or not isinstance(question[0], int):
        raise MalformedMessage("a question is a list that begins with its number")
    what = question[0]
    if what == HELLO:
        _fields(question, 3)
        proofs: list[Value] = list(sorted(source.proof_ids())[:PROOFS_MAX])
        return [
            HELLO, source.network, list(source.charter_ids()), proofs, list(digests(source.heads())), source.size
        ]  # fmt: skip
    if what == CHARTERS:
        numbers = [_number(n, CHARTERS_MAX) for n in _items(_fields(question, 2)[1], PER_ASK_MAX)]
        return [CHARTERS, [data for n in numbers if (data := source.charter(n)) is not None]]
    if what == PROOFS:
        ids = [_hash(id_) for id_ in _items(_fields(question, 2)[1], PER_ASK_MAX)]
        return [PROOFS, _fitting(data for id_ in ids if (data := source.proof(id_)) is not None)]
    if what == HEADS:
        _, bucket, after = _fields(question, 3)
        return [HEADS, _heads_of(source.heads(), _number(bucket, BUCKETS - 1), _bytes(after, 32))]
    if what == RANGES:
        rows = [_fields(row, 3) for row in _items(_fields(question, 2)[1], RANGES_MAX)]
        wanted = [(_hash(a), _number(first, SEQ_MAX), _number(last, SEQ_MAX)) for a, first, last in rows]
        return [RANGES, _fitting((data for row in wanted for data in source.range(*row)), ENTRIES_MAX)]
    if what == IDS:
        ids = [_hash(id_) for id_ in _items(_fields(question, 2)[1], IDS_MAX)]
        return [IDS, _fitting((data for id_ in ids if (data := source.entry(id_)) is not None), ENTRIES_MAX)]
    if what == BLOB:
        blob = source.blob(_hash(_fields(question, 2)[1]))
        return [BLOB, blob if blob is not None and len(blob) <= ANSWER_BYTES_MAX else b""]
    if what == LOG:
        return _log_after(source, _number(_fields(question, 2)[1], AMOUNT_MAX))
    raise MalformedMessage(f"unknown question {what}")


def _heads_of(heads: Iterable[Position], bucket: int, after: bytes) -> list[Value]:
    authors: dict[bytes, list[Position]] = {}
    for head in heads:
        if head.author[0] == bucket and head.author > after:
            authors.setdefault(head.author, []).append(head)
    return [
        [author, [[head.seq, head.id] for head in sorted(authors[author])[-HEADS_MAX:]]]
        for author in sorted(authors)[:AUTHORS_MAX]
    ]


def _fitting(items: Iterable[bytes], count_max: int = PER_ASK_MAX) -> list[Value]:
    """As many of `items` as one answer may hold."""
    taken: list[Value] = []
    room = ANSWER_BYTES_MAX
    for data in items:
        room -= len(data) + 8
        if room < 0 or len(taken) >= count_max:
            break
        taken.append(data)
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


# -- asking -----------------------------------------------------------------------------------------------------------


class Hello(NamedTuple):
    """What the other side has."""

    charter_ids: tuple[bytes, ...]
    proof_ids: tuple[bytes, ...]
    digests: tuple[bytes, ...]
    size: int


def pull(local: Local) -> Generator[Step, Value, int]:
    """Take from a peer what it has and `local` lacks; returns how many entries were new.

    Charters first, then fork proofs, then entries. Raises OtherNetwork, and MalformedMessage for an answer that does
    not fit its question: that is the peer's fault.
    """
    hello = _hello((yield Ask([HELLO, local.network, VERSION])), local.network)
    yield from _pull_charters(local, hello)
    yield from _pull_proofs(local, hello)
    new = 0
    if hello.size > local.size + LOG_WHEN:
        new += yield from _pull_log(hello.size)
    mine = digests(local.heads())
    for bucket in range(BUCKETS):
        if hello.digests[bucket] not in (mine[bucket], bytes(32)):
            new += yield from _pull_bucket(local, bucket)
    for _ in range(MISSING_ROUNDS_MAX):
        wanted: list[Value] = [*sorted(local.missing())[:IDS_MAX]]
        if not wanted:
            break
        added = yield from _take((yield Ask([IDS, wanted])), IDS, ENTRIES_MAX)
        new += added
        if not added:
            break
    return new


def _hello(value: Value, network: bytes) -> Hello:
    kind, theirs, charters, proofs, buckets, size = _fields(value, 6)
    if kind != HELLO:
        raise MalformedMessage("an answer to another question")
    if _hash(theirs) != network:
        raise OtherNetwork("the peer's ledger is another community's", hint="compare `ubcp status` on both")
    found = [_hash(digest) for digest in _items(buckets, BUCKETS)]
    if len(found) != BUCKETS:
        raise MalformedMessage(f"{len(found)} digests where {BUCKETS} belong")
    ids = tuple(_hash(id_) for id_ in _items(charters, CHARTERS_MAX))
    return Hello(ids, tuple(_hash(id_) for id_ in _items(proofs, PROOFS_MAX)), tuple(found), _number(size, AMOUNT_MAX))


def _pull_charters(local: Local, hello: Hello) -> Generator[Step, Value, None]:
    mine = local.charter_ids()
    wanted = [n + 1 for n, id_ in enumerate(hello.charter_ids) if n >= len(mine) or mine[n] != id_]
    for batch in _batches(wanted, PER_ASK_MAX):
        yield from _take((yield Ask([CHARTERS, list(batch)])), CHARTERS, PER_ASK_MAX)


def _pull_proofs(local: Local, hello: Hello) -> Generator[Step, Value, None]:
    wanted = sorted(set(hello.proof_ids) - set(local.proof_ids()))
    for batch in _batches(wanted, PER_ASK_MAX):
        yield from _take((yield Ask([PROOFS, list(batch)])), PROOFS, PER_ASK_MAX)


def _pull_log(size: int) -> Generator[Step, Value, int]:
    """The other's whole log from its beginning: it is in causal order, and what is known costs little."""
    after = new = 0
    while after < size:
        kind, reached, rows = _fields((yield Ask([LOG, after])), 3)
        items = _wire_forms(rows, LOG_MAX)
        if kind != LOG or not isinstance(reached, int) or reached <= after or not items:
            return new  # it has no more, or lies about its size: the search below finds what differs
        new += _count((yield Take(IDS, items)))
        after = reached
    return new


def _pull_bucket(local: Local, bucket: int) -> Generator[Step, Value, int]:
    new, after = 0, bytes(32)
    while True:
        heads = _heads((yield Ask([HEADS, bucket, after])), bucket, after)
        new += yield from _pull_chains(local, heads)
        if len(heads) < AUTHORS_MAX:
            return new
        after = max(heads)


def _heads(value: Value, bucket: int, after: bytes) -> dict[bytes, list[Position]]:
    kind, rows = _fields(value, 2)
    result: dict[bytes, list[Position]] = {}
    for row in _items(rows, AUTHORS_MAX):
        author, branches = _fields(row, 2)
        key = _hash(author)
        if kind != HEADS or key[0] != bucket or key <= after:
            raise MalformedMessage("authors that were not asked for")
        pairs = [_fields(pair, 2) for pair in _items(branches, HEADS_MAX)]
        result[key] = [Position(key, _number(seq, SEQ_MAX), _hash(id_)) for seq, id_ in pairs]
        after = key
    return result


def _pull_chains(local: Local, heads: dict[bytes, list[Position]]) -> Generator[Step, Value, int]:
    """Ask for what leads to the heads that are not here; ever further back for branches that do not fit."""
    new = 0
    back = dict.fromkeys(heads, 0)  # author → how many entries before our own end to begin
    while True:
        wanted: list[Range] = []
        for author, branches in sorted(heads.items()):
            unknown = [head.seq for head in branches if not local.contains(*head)]
            if unknown and back[author] >= 0:
                first = max(0, min(local.length(author), min(unknown)) - back[author])
                wanted.append((author, first, max(unknown)))
        wanted = wanted[:RANGES_MAX]
        if not wanted:
            return new
        question: list[Value] = [[author, first, last] for author, first, last in wanted]
        added = yield from _take((yield Ask([RANGES, question])), RANGES, ENTRIES_MAX)
        new += added
        if added:
            continue
        for author, first, _ in wanted:  # nothing new: the branches part further back, or the peer does not have them
            back[author] = max(BACK_FIRST, 4 * back[author]) if first > 0 else -1


def _take(value: Value, kind: int, count_max: int) -> Generator[Step, Value, int]:
    got, rows = _fields(value, 2)
    if got != kind:
        raise MalformedMessage("an answer to another question")
    items = _wire_forms(rows, count_max)
    return _count((yield Take(kind if kind in (CHARTERS, PROOFS) else IDS, items))) if items else 0


def _wire_forms(value: Value, count_max: int) -> list[bytes]:
    return [_bytes(item, None) for item in _items(value, count_max)]


def _count(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _batches(items: Sequence[Value], size: int) -> Iterator[Sequence[Value]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _fields(value: Value, count: int) -> list[Value]:
    if not isinstance(value, list) or len(value) != count:
        raise MalformedMessage(f"expected {count} fields")
    return value


def _items(value: Value, count_max: int) -> list[Value]:
    if not isinstance(value, list) or len(value) > count_max:
        raise MalformedMessage(f"expected at most {count_max} items")
    return value


def _bytes(value: Value, length: int | None) -> bytes:
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise MalformedMessage("expected bytes")
    return value


def _hash(value: Value) -> bytes:
    return _bytes(value, 32)


def _number(value: Value, most: int) -> int:
    if not isinstance(value, int) or value > most:
        raise MalformedMessage(f"expected a number up to {most}")
    return value
