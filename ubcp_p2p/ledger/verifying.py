"""Verifying entries on several cores: form, id and signatures, everything that needs no ledger (SPEC §2, §3, §5.1).

The caller's process takes part: it verifies whatever no worker has begun, so that it never waits for one to start, and
one core needs no worker at all.
"""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from types import TracebackType
from typing import Final, NamedTuple, TypeAlias

import msgpack

from ubcp_p2p import keys
from ubcp_p2p.ledger.blame import Authorship
from ubcp_p2p.ledger.entry import ENTRY_BYTES_MAX, entry_id
from ubcp_p2p.ledger.export import Record
from ubcp_p2p.ledger.faults import LedgerError
from ubcp_p2p.ledger.parse import decode
from ubcp_p2p.ledger.wire import (
    ROLE_ENTRY,
    SIGNATURES_MAX,
    Signed,
    decode_signed,
    decode_signed_again,
    signatures_of,
    signatures_of_all,
    verify,
)

# Entries at once. Decoding, verifying and applying evict each other from the processor's caches, so many at once cost
# less (bench/audit.py); but what a worker has begun cannot be taken back, and at the end the others wait for it.
BATCH: Final = 1024  # some 120 ms of work
BATCH_ALONE: Final = 2048  # without workers
_BATCH_BYTES: Final = 4 << 20  # of their wire forms: ten times what entries usually have
_AHEAD: Final = 3  # batches on their way per worker: two of them given to it, for it to go on without a pause
_WORTHWHILE: Final = 3  # batches; fewer are verified before a spawned worker would have started
_AT_START: Final = 4  # batches more: what this process can verify while the first one starts (0.25 s; forked, at once)
_ID_BYTES: Final = 32


class Bad(NamedTuple):
    """An entry that is malformed or badly signed. id, authorship: as far as its bytes tell, else empty and None."""

    code: str
    id: bytes
    authorship: Authorship | None
    message: str


Outcome: TypeAlias = Signed | Bad
_Answer: TypeAlias = tuple[bytes, dict[int, Bad]]  # the ids of a batch one after another, and what is bad by index


def check(batch: Sequence[bytes]) -> list[Outcome]:
    """Decode signed entries and verify all their signatures.

    First the one, then the other: not in turns.
    """
    outcomes = [_decoded(data) for data in batch]
    verdicts = keys.verify_each(*signatures_of_all([outcome for outcome in outcomes if type(outcome) is Signed]))
    if not all(verdicts):
        rest = iter(verdicts)
        for n, outcome in enumerate(outcomes):
            if isinstance(outcome, Signed) and not all(list(islice(rest, len(signatures_of(outcome))))):
                outcomes[n] = _unverified(batch[n])
        assert next(rest, None) is None
    return outcomes


def _decoded(data: bytes) -> Outcome:
    try:
        return decode_signed(data)
    except LedgerError as error:
        return Bad(error.code, *_name_of(data), error.message)


def _unverified(data: bytes) -> Bad:
    """What is wrong with the signatures of an entry."""
    signed = decode_signed(data)
    id_, authorship = signed.entry.id, Authorship.of(signed)
    if not all(keys.verify(*check) for check in signatures_of(signed)[: len(signed.signatures)]):
        authorship = authorship._replace(signers=frozenset())  # the copy's fault; else the voucher's, which is in it
    try:
        verify(signed)
    except LedgerError as error:
        return Bad(error.code, id_, authorship, error.message)
    raise AssertionError("a signature that did not hold a moment ago")


def batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """Lists of up to `size`, and of 4 MiB or one record more."""
    batch: list[Record] = []
    room = _BATCH_BYTES
    for record in records:
        batch.append(record)
        room -= len(record.payload)
        if len(batch) == size or room <= 0:
            yield batch
            batch, room = [], _BATCH_BYTES
    if batch:
        yield batch


class Workers:
    """The processes beside this one, `jobs - 1` of them, from the moment that there is enough to do for them."""

    def __init__(self, jobs: int) -> None:
        self._beside = jobs - 1
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def are_any(self) -> bool:
        """Whether batches are for several processes."""
        return self._beside > 0

    def checked(self, payloads: Iterable[Sequence[bytes]]) -> Iterator[list[Outcome]]:
        """`check` for all payloads of each batch, in order; this process takes part."""
        rest = iter(payloads)
        few = list(islice(rest, _WORTHWHILE if self._beside else 0))
        if len(few) < _WORTHWHILE:
            for batch in chain(few, rest):
                yield check(batch)
            return
        # Forked, they begin at once; but not beside other threads of Python, whose locks they would inherit held
        # (numpy's own hold none). They see the end of this process by themselves.
        how = "fork" if sys.platform == "linux" and threading.active_count() == 1 else "spawn"
        context = multiprocessing.get_context(how)
        self._pool = ProcessPoolExecutor(self._beside, mp_context=context, initializer=_begin_worker)
        yield from _shared(self._pool, self._beside, chain(few, rest))

    def aside(self, function: Callable[[bytes], bytes], data: bytes) -> Callable[[], bytes]:
        """Have a worker do this meanwhile; returns what waits for the result. Without workers it is done then."""
        if self._pool is None:
            return partial(function, data)
        with _interrupts_wait():
            return self._pool.submit(function, data).result


@dataclass
class _Work:
    """One batch: not begun, given to a worker, or done here."""

    batch: Sequence[bytes]
    given: Future[_Answer] | None = None
    done: list[Outcome] | None = None


def _shared(pool: ProcessPoolExecutor, workers: int, payloads: Iterator[Sequence[bytes]]) -> Iterator[list[Outcome]]:
    waiting: deque[_Work] = deque()
    is_last = False
    while True:
        while not is_last and len(waiting) < _AT_START + _AHEAD * workers:
            batch = next(payloads, None)
            if batch is None:
                is_last = True
            else:
                waiting.append(_Work(batch))
        if not waiting:
            return
        busy = sum(work.given is not None and not work.given.done() for work in waiting)
        not_begun = deque(work for work in waiting if work.given is None and work.done is None)
        ahead = 1 if is_last else 2  # one that runs, and the next; at the end this process can do the next as well
        while not_begun and busy < ahead * workers:
            work = not_begun.popleft()
            with _interrupts_wait():  # this may start a worker
                work.given = pool.submit(_check_batch, work.batch)
            busy += 1
        head = waiting[0]
        if head.given is not None and not head.given.done() and not_begun:
            not_begun[0].done = check(not_begun[0].batch)
            continue
        waiting.popleft()
        yield head.done if head.given is None and head.done else _outcomes(head.batch, head.given)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C reaches a worker that starts as well, and it inherits what is blocked here: until it ignores it itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outcomes(batch: Sequence[bytes], given: Future[_Answer] | None) -> list[Outcome]:
    """What a worker found, with the entries decoded here: cheaper than to send them."""
    assert given is not None
    ids, bad = given.result()
    starts = range(0, len(ids), _ID_BYTES)
    if not bad:
        return [decode_signed_again(data, ids[i : i + _ID_BYTES]) for data, i in zip(batch, starts, strict=True)]
    return [
        bad[n] if n in bad else decode_signed_again(data, ids[i : i + _ID_BYTES])
        for n, (data, i) in enumerate(zip(batch, starts, strict=True))
    ]


# -- in a worker ------------------------------------------------------------------------------------------------------


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    gc.disable()  # nothing that it does makes cycles, and the collector would walk each batch again and again
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def end_with_parent() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)  # killed: nobody is left to tell it to end

    threading.Thread(target=end_with_parent, daemon=True).start()


def _check_batch(batch: Sequence[bytes]) -> _Answer:
    ids = []
    bad = {}
    for n, outcome in enumerate(check(batch)):
        if isinstance(outcome, Bad):
            bad[n] = outcome
            ids.append(bytes(_ID_BYTES))
        else:
            ids.append(outcome.entry.id)
    return b"".join(ids), bad


def _name_of(data: bytes) -> tuple[bytes, Authorship | None]:
    """(id, authorship) of a malformed entry, whose bytes may be anything, for a report."""
    try:
        body, rows, *_ = msgpack.unpackb(data)
        if not isinstance(body, bytes) or len(body) > ENTRY_BYTES_MAX * 2:
            return b"", None
        id_ = entry_id(body)
    except Exception:  # whatever msgpack makes of junk
        return b"", None
    try:
        _, _, author, seq, prev, *_ = msgpack.unpackb(body)
    except Exception:
        return id_, None
    if not (isinstance(author, bytes) and len(author) == _ID_BYTES):
        return id_, None
    if not (isinstance(seq, int) and isinstance(prev, bytes) and len(prev) == _ID_BYTES):
        return id_, Authorship(author, 0, bytes(_ID_BYTES), frozenset())
    return id_, Authorship(author, seq, prev, _signers(id_, rows) if _is_malformed(body) else frozenset())


def _is_malformed(body: bytes) -> bool:
    """Whether the entry itself is; else only what is around it."""
    try:
        decode(body)
    except LedgerError:
        return True
    return False


def _signers(id_: bytes, rows: object) -> frozenset[bytes]:
    """The keys that have signed an id, of a list that may be anything."""
    pairs = rows[:SIGNATURES_MAX] if isinstance(rows, list) else []
    found = set()
    for pair in pairs:
        match pair:
            case [bytes(key), bytes(signature)] if len(key) == _ID_BYTES and len(signature) == 2 * _ID_BYTES:
                if keys.verify(key, ROLE_ENTRY, id_, signature):
                    found.add(key)
    return frozenset(found)
