"""Reconciling two ledgers, the asking side: what to ask a peer next, and what of its answers to take in (SPEC §11).

Pure, sans-IO. `pull` is a generator: it yields an Ask, and is sent the answer; it yields a Take, and goes on when the
things in it were verified and taken in, or not. Whoever drives it owns the clock and the stream.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from ubcp_p2p.codec import MalformedMessage, Value, bytes_of, fields, hash_of, items, number
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.ledger.entry import SEQ_MAX, Entry, Position
from ubcp_p2p.ledger.faults import MalformedEntry
from ubcp_p2p.ledger.sync import (
    AMOUNT_MAX,
    AUTHORS_MAX,
    BUCKETS,
    CHARTERS,
    CHARTERS_MAX,
    ENTRIES_MAX,
    HEADS,
    HEADS_MAX,
    HELLO,
    IDS,
    IDS_MAX,
    LOG,
    LOG_MAX,
    NOTHING,
    PER_ASK_MAX,
    PROOFS,
    PROOFS_MAX,
    RANGES,
    RANGES_MAX,
    VERSION,
    Heads,
)
from ubcp_p2p.ledger.wire import Signed, decode_signed

LOG_WHEN: Final = (
    1024  # the other's log is quicker than the search for what differs when it is this much above twice ours
)
BACK_FIRST: Final = 64  # how far before our end the search for where a branch parts begins; then four times as far
IDS_ROUNDS_MAX: Final = 64
# Answers that bring nothing new. An honest peer needs a few hundred for its buckets, and in its log it has at least 32
# of our entries in each.
PATIENCE: Final = 256
PATIENCE_PER: Final = 32


class OtherNetwork(NetworkError):
    """The peer is in another community; nobody is at fault."""


class Local(Protocol):
    """What `pull` must know of one's own ledger, at every moment. length: of the author's longest branch."""

    @property
    def network(self) -> bytes: ...
    @property
    def size(self) -> int: ...
    def charter_ids(self) -> Sequence[bytes]: ...
    def proof_ids(self) -> Iterable[bytes]: ...
    def heads(self) -> Heads: ...
    def contains(self, author: bytes, seq: int, id_: bytes) -> bool: ...
    def length(self, author: bytes) -> int: ...
    def missing(self) -> Iterable[bytes]: ...


class Ask(NamedTuple):
    """Send this question; send the answer back into the generator."""

    question: Value


class Take(NamedTuple):
    """Verify these and take in what holds. what: CHARTERS or PROOFS (wire forms in `data`), or IDS (in `entries`).

    LOG: `entries` of the peer's log in its order, known ones too; `after`: where it goes on.
    """

    what: int
    data: Sequence[bytes] = ()
    entries: Sequence[Signed] = ()
    after: int = 0


Step: TypeAlias = Ask | Take
Steps: TypeAlias = "Generator[Step, Value | None, None]"


def pull(local: Local, *, log_after: int | None = None) -> Generator[Step, Value | None, int]:
    """Take from a peer what it has and `local` lacks; returns how many entries more there are then.

    log_after: read the peer's log on from there, whatever the sizes (whoever wants to check its CHECKPOINTs must).
    Charters first, then fork proofs, then entries. Raises OtherNetwork, and MalformedMessage for an answer that does
    not fit its question, or for many that bring nothing: that is the peer's fault.
    """
    before = local.size
    yield from _Pull(local, log_after).run()
    return local.size - before


class Hello(NamedTuple):
    """What the other side has."""

    charter_ids: tuple[bytes, ...]
    proof_ids: tuple[bytes, ...]
    digests: tuple[bytes, ...]
    size: int

    @classmethod
    def of(cls, value: Value | None, network: bytes) -> Hello:
        """Parse the answer to HELLO. Raises OtherNetwork, MalformedMessage."""
        theirs, charters, proofs, buckets, size = _parts(value, HELLO, 5)
        if hash_of(theirs) != network:
            raise OtherNetwork("the peer's ledger is another community's", hint="compare `ubcp status` on both")
        found = tuple(hash_of(digest) for digest in items(buckets, BUCKETS))
        if len(found) != BUCKETS:
            raise MalformedMessage(f"{len(found)} digests where {BUCKETS} belong")
        ids = tuple(hash_of(id_) for id_ in items(charters, CHARTERS_MAX))
        return cls(ids, tuple(hash_of(i) for i in items(proofs, PROOFS_MAX)), found, number(size, AMOUNT_MAX))


def hello(network: bytes) -> Value:
    """The first question on a stream."""
    return [HELLO, network, VERSION]


def heads_from(value: Value | None, bucket: int, after: bytes) -> dict[bytes, list[Position]]:
    """The branch heads by author, ascending, in an answer to HEADS. Raises MalformedMessage."""
    (rows,) = _parts(value, HEADS, 1)
    result: dict[bytes, list[Position]] = {}
    for row in items(rows, AUTHORS_MAX):
        author, branches = fields(row, 2)
        key = hash_of(author)
        if key[0] != bucket or key <= after:
            raise MalformedMessage("authors that were not asked for")
        if not branches:
            raise MalformedMessage("an author without entries")
        pairs = [fields(pair, 2) for pair in items(branches, HEADS_MAX)]
        result[key] = [Position(key, number(seq, SEQ_MAX), hash_of(id_)) for seq, id_ in pairs]
        after = key
    return result


class _Search:
    """For the entries of one author from `first` to `last` that we lack."""

    def __init__(self, author: bytes, first: int, last: int) -> None:
        self.author = author
        self.first = first
        self.last = last
        self._back = BACK_FIRST  # 0: it has found where to begin

    def went(self, got: Sequence[Entry], local: Local, *, whole: bool) -> bool:
        """Note what was answered, after it was taken in; whether to go on. whole: it is not cut off at its end."""
        if not got:
            return False  # the peer does not have them, or no longer
        if self._back and self.first > 0 and _hangs(got, local):
            self.first, self._back = max(0, self.first - self._back), 4 * self._back
            return True
        self._back = 0
        if whole or got[-1].seq >= self.last:
            return False
        # Again from the last number: of several branches, the answer may have had some of that number.
        self.first = max(self.first + 1, got[-1].seq)
        return True


def _hangs(got: Sequence[Entry], local: Local) -> bool:
    """Whether one of them follows something that we do not have: the branch parts from ours further back."""
    ids = {entry.id for entry in got}
    return any(
        entry.seq > 0 and entry.prev not in ids and not local.contains(entry.author, entry.seq - 1, entry.prev)
        for entry in got
    )


class _Pull:
    """One exchange."""

    def __init__(self, local: Local, log_after: int | None) -> None:
        self._local = local
        self._log_after = log_after
        self._patience = PATIENCE + local.size // PATIENCE_PER

    def run(self) -> Steps:
        local = self._local
        theirs = Hello.of((yield Ask(hello(local.network))), local.network)
        yield from self._charters(theirs)
        yield from self._proofs(theirs)
        if self._log_after is not None or theirs.size > 2 * local.size + LOG_WHEN:
            yield from self._log(theirs.size, self._log_after or 0)
        mine = local.heads().digests()
        for bucket in range(BUCKETS):
            if theirs.digests[bucket] not in (mine[bucket], NOTHING):
                yield from self._bucket(bucket)
        yield from self._missing()

    def _charters(self, theirs: Hello) -> Steps:
        mine = self._local.charter_ids()
        wanted = [n + 1 for n, id_ in enumerate(theirs.charter_ids) if n >= len(mine) or mine[n] != id_]
        for batch in _batches(wanted, PER_ASK_MAX):
            yield from self._documents(CHARTERS, batch)

    def _proofs(self, theirs: Hello) -> Steps:
        wanted = sorted(set(theirs.proof_ids) - set(self._local.proof_ids()))
        for batch in _batches(wanted, PER_ASK_MAX):
            yield from self._documents(PROOFS, batch)

    def _documents(self, what: int, batch: Sequence[Value]) -> Steps:
        (rows,) = _parts((yield Ask([what, list(batch)])), what, 1)
        yield Take(what, data=[bytes_of(row) for row in items(rows, len(batch))])

    def _log(self, size: int, after: int) -> Steps:
        """The other's log: it is in causal order."""
        while after < size:
            reached, rows = _parts((yield Ask([LOG, after])), LOG, 2)
            got = self._decoded(rows, LOG_MAX)
            if not got:
                return  # it has no more, or lied about its size: the search finds what differs
            if number(reached, AMOUNT_MAX) < after + len(got):
                raise MalformedMessage("a log that does not go on")
            after = number(reached, AMOUNT_MAX)
            yield from self._take(got, None if self._log_after is None else Take(LOG, entries=got, after=after))

    def _bucket(self, bucket: int) -> Steps:
        after = NOTHING
        while True:
            heads = heads_from((yield Ask([HEADS, bucket, after])), bucket, after)
            yield from self._chains(heads)
            if len(heads) < AUTHORS_MAX:
                return
            after = max(heads)
            self._tire()

    def _chains(self, heads: dict[bytes, list[Position]]) -> Steps:
        """Ask for what leads to the heads that are not here."""
        searches = {}
        for author, branches in heads.items():
            unknown = [head.seq for head in branches if not self._local.contains(*head)]
            if len(branches) == HEADS_MAX:  # there may be more, which nothing else would ever tell of
                searches[author] = _Search(author, 0, SEQ_MAX)
            elif unknown:
                first = min(self._local.length(author), *unknown)
                searches[author] = _Search(author, first, max(unknown))
        while searches:
            wanted = [searches[author] for author in sorted(searches)[:RANGES_MAX]]
            question: list[Value] = [[search.author, search.first, search.last] for search in wanted]
            (rows,) = _parts((yield Ask([RANGES, question])), RANGES, 1)
            got = self._decoded(rows, ENTRIES_MAX)
            by_author = _sorted_out(got, wanted)
            yield from self._take(got)
            end = got[-1].entry.author if got else wanted[-1].author  # the answer reaches this far
            for search in wanted:
                if search.author > end:
                    break
                whole = search.author < end
                if not search.went(by_author.get(search.author, ()), self._local, whole=whole):
                    del searches[search.author]

    def _missing(self) -> Steps:
        """Ask by id for what pending entries wait for, each once."""
        asked: set[bytes] = set()
        for _ in range(IDS_ROUNDS_MAX):
            wanted = [id_ for id_ in self._local.missing() if id_ not in asked][:IDS_MAX]
            if not wanted:
                return
            asked.update(wanted)
            (rows,) = _parts((yield Ask([IDS, list(wanted)])), IDS, 1)
            got = self._decoded(rows, len(wanted))
            if not {signed.entry.id for signed in got} <= set(wanted):
                raise MalformedMessage("entries that were not asked for")
            yield from self._take(got)

    def _decoded(self, rows: Value, count_max: int) -> list[Signed]:
        try:
            got = [decode_signed(bytes_of(row)) for row in items(rows, count_max)]
        except MalformedEntry as error:
            raise MalformedMessage(f"something that is no entry: {error.message}") from None
        if any(signed.entry.network != self._local.network for signed in got):
            raise MalformedMessage("an entry of another community's ledger")
        return got

    def _take(self, got: Sequence[Signed], whole: Take | None = None) -> Steps:
        local = self._local
        fresh = [s for s in got if not local.contains(s.entry.author, s.entry.seq, s.entry.id)]
        if whole is not None or fresh:
            yield whole or Take(IDS, entries=fresh)
        if not any(local.contains(s.entry.author, s.entry.seq, s.entry.id) for s in fresh):
            self._tire()

    def _tire(self) -> None:
        self._patience -= 1
        if self._patience < 0:
            raise MalformedMessage("answers without end that bring nothing new")


def _sorted_out(got: Sequence[Signed], wanted: Sequence[_Search]) -> dict[bytes, list[Entry]]:
    """By author; raises MalformedMessage for what was not asked for, or is not in the order of the question."""
    limits = {search.author: search for search in wanted}
    result: dict[bytes, list[Entry]] = {}
    last = (b"", -1)
    for signed in got:
        entry = signed.entry
        search = limits.get(entry.author)
        if search is None or not search.first <= entry.seq <= search.last:
            raise MalformedMessage("entries that were not asked for")
        if (entry.author, entry.seq) < last:
            raise MalformedMessage("entries in another order than asked for")
        last = (entry.author, entry.seq)
        result.setdefault(entry.author, []).append(entry)
    return result


def _parts(value: Value | None, kind: int, count: int) -> list[Value]:
    """What follows the number of an answer of this kind."""
    assert value is not None
    number, *rest = fields(value, count + 1)
    if number != kind:
        raise MalformedMessage("an answer to another question")
    return rest


def _batches(values: Sequence[Value], size: int) -> Iterator[Sequence[Value]]:
    return (values[start : start + size] for start in range(0, len(values), size))
