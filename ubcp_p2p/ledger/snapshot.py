"""Where an audit stood, as a file: a later audit of the same ledger goes on from there and verifies only what is new.

A snapshot is believed: whoever can write it decides what an audit over it says. Use none but your own. It holds no
code: plain msgpack of the classes listed here, with a checksum, for this version of ubcp alone. It is written over an
earlier one of the same ledger, and over nothing else.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgpack

from ubcp_p2p import __version__
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.files import open_atomic, open_input
from ubcp_p2p.ledger.auditor import Auditor
from ubcp_p2p.ledger.chain import AccountChain, Chain, Enrolment, Income, NodeChain, Paid, Powers
from ubcp_p2p.ledger.decisions import Decided
from ubcp_p2p.ledger.entry import Decision, Position
from ubcp_p2p.ledger.faults import LedgerError
from ubcp_p2p.ledger.forks import Fork, Forks, Healing, Place
from ubcp_p2p.ledger.merkle import Frontier
from ubcp_p2p.ledger.purse import Purse, Reserve, Vintage
from ubcp_p2p.ledger.report import Counts, Fault
from ubcp_p2p.ledger.sources import Source
from ubcp_p2p.ledger.state import DERIVED, AllotFact, CloseFact, Ledger, OpeningFact, RequestFact
from ubcp_p2p.ledger.targets import Occupied, occupied_by
from ubcp_p2p.ledger.wire import decode_signed

MAGIC: Final = b"ubcp-audit-snapshot/1\n"
_HASH_BYTES: Final = 32
_IDENTITY_BYTES_MAX: Final = 1 << 20  # 1024 charters by their ids take 35 kB, the names of all fields less
_BLOCK_BYTES: Final = 1 << 20
_ROWS: Final = (
    Position, Enrolment, Paid, Powers, Vintage, Reserve, RequestFact, AllotFact, CloseFact, OpeningFact, Place, Fork,
    Healing, Fault, Decision, Decided,
)  # fmt: skip
_OBJECTS: Final[tuple[Callable[[], object], ...]] = (
    Income, Purse, Counts, Forks, lambda: AccountChain(b"", b""), lambda: NodeChain(b"", b""),
)  # fmt: skip
_SIMPLE: Final = frozenset({int, bytes, str})
_ARRAY_CODES: Final = frozenset("IQ")
_LINKS: Final = frozenset({"base", "_far"})  # from branch to branch: `base` is written by its place in the list
_AUDITOR: Final = ("counts", "faults", "left_out", "decisions", "applied", "last")
# First items of the arrays that stand for what msgpack does not tell apart.
_NONE, _BOOL, _LIST, _TUPLE, _SET, _FROZENSET, _DICT, _ROW, _OBJECT, _ARRAY, _BYTEARRAY = range(11)


class SnapshotMismatch(UbcpError):
    """A snapshot that is damaged, of another version, or of other entries: everything has to be audited."""


def save(path: Path, auditor: Auditor) -> None:
    """Write where this audit stands, before what concerns the ledger as a whole was judged.

    Raises LocalIOError, and ConfigError where there is something else than a snapshot of this ledger.
    """
    source, ledger = auditor.source, auditor.ledger
    check_target(path, source)
    auditor.fold()
    digest = hashlib.sha256()
    pack = msgpack.Packer(use_bin_type=True).pack
    with open_atomic(path) as file:

        def put(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        put(MAGIC)
        put(pack([__version__, _schema(ledger)]))
        put(pack(_identity(source, auditor.last, ledger.slice)))
        put(pack([auditor.frontier.size, list(auditor.frontier.nodes)]))
        for owner, names in ((auditor, _AUDITOR), (ledger, _ledger_names(ledger))):
            for name in names:
                put(pack(_plain(getattr(owner, name))))
        put(pack(len(ledger.chains)))
        for author, branches in ledger.chains.items():  # one by one: together they are most of the memory
            places: dict[Chain | None, int] = {branch: place for place, branch in enumerate(branches)}
            bases = [places.get(branch.base, -1) for branch in branches]
            put(pack([author, bases, [_plain(branch) for branch in branches]]))
        file.write(digest.digest())


def check_target(path: Path, source: Source) -> bool:
    """Whether there is a snapshot of this ledger, or one too damaged to tell.

    Raises ConfigError where there is something else, which must stay.
    """
    head = occupied_by(path, source.files)
    if not head:
        return False
    if not head.startswith(MAGIC):
        raise Occupied(f"{path} is no snapshot of an audit; it stays as it is", hint="name another file, or a new one")
    whose = _whose(path)
    if whose is not None and whose != (source.charters.network, source.log or b""):
        raise Occupied(f"{path} is a snapshot of another ledger; it stays as it is", hint="name another file")
    return True


def _whose(path: Path) -> tuple[bytes, bytes] | None:
    """The network and the log that a snapshot says it is of."""
    with open_input(path) as file:
        file.seek(len(MAGIC))
        stream = msgpack.Unpacker(file, raw=False, max_buffer_size=_IDENTITY_BYTES_MAX)
        try:
            stream.skip()
            network, log, *_ = stream.unpack()
        except (ValueError, TypeError, msgpack.UnpackException):
            return None
    return (network, log) if isinstance(network, bytes) and isinstance(log, bytes) else None


def load(path: Path, source: Source) -> Auditor | None:
    """The audit that `save` wrote, to go on with over `source`; None when there is no such file.

    Raises SnapshotMismatch when the snapshot is not of the beginning of this ledger, ConfigError as `check_target`.
    """
    if not check_target(path, source):
        return None
    try:
        with open_input(path) as file:
            _check(file)
            return _restored(file, source)
    except OSError as error:
        raise SnapshotMismatch(f"the snapshot {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, LookupError, AttributeError, msgpack.UnpackException) as error:
        raise SnapshotMismatch(f"the snapshot {path} is not used: {error}") from None


def _check(file: BinaryIO) -> None:
    """The checksum; leaves the file after the magic line."""
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("it is none, or one of another format")
    digest = hashlib.sha256(MAGIC)
    tail = b""
    while block := file.read(_BLOCK_BYTES):
        block = tail + block
        digest.update(block[:-_HASH_BYTES])
        tail = block[-_HASH_BYTES:]
    if digest.digest() != tail:
        raise ValueError("it is damaged")
    file.seek(len(MAGIC))


def _restored(file: BinaryIO, source: Source) -> Auditor:
    stream = msgpack.Unpacker(file, raw=False, max_buffer_size=0)
    ledger = Ledger(source.charters)
    if stream.unpack() != [__version__, _schema(ledger)]:
        raise ValueError("another version of ubcp wrote it")
    *identity, last, slice_ = stream.unpack()
    _check_identity(source, identity, last, ledger.period(slice_))
    auditor = Auditor(source, ledger)
    auditor.frontier = Frontier(*stream.unpack())
    for owner, names in ((auditor, _AUDITOR), (ledger, _ledger_names(ledger))):
        for name in names:
            setattr(owner, name, _value(stream.unpack()))
    for _ in range(stream.unpack()):
        author, bases, plain = stream.unpack()
        branches = ledger.chains[author] = [_value(branch) for branch in plain]
        for base, branch in zip(bases, branches, strict=True):
            if base >= 0:
                branch.hang_on(branches[base])  # which comes before it
    auditor.resumed, auditor.signatures_before = auditor.counts.read, auditor.counts.signatures
    if moved := source.first + last - auditor.last:  # other charters, proofs or frozen accounts stand before it
        auditor.last += moved
        for author, offsets in auditor.applied.items():
            auditor.applied[author] = array("Q", (offset + moved for offset in offsets))
    return auditor


def _identity(source: Source, last: int, slice_: int) -> list[Any]:
    """What must be as it was. last: the offset of the last entry. slice_: the newest in the ledger."""
    charters = [version.charter.id for version in source.charters.versions]
    log = source.log or b""
    return [source.charters.network, log, charters, _id_at(source, last), last - source.first, slice_]


def _check_identity(source: Source, identity: list[Any], last: int, period: int) -> None:
    network, log, charters, last_id = identity
    if (network, log) != (source.charters.network, source.log or b""):
        raise ValueError("it is of another ledger")
    if _id_at(source, last + source.first) != last_id:
        raise ValueError("it is of a ledger whose entries were others, or in another order")
    now = source.charters.versions
    is_longer = [version.charter.id for version in now[: len(charters)]] == charters
    if not is_longer or any(version.charter.effective <= period for version in now[len(charters) :]):
        raise ValueError("it was made under other charters")


def _id_at(source: Source, offset: int) -> bytes:
    """Of the entry there; of one that cannot be decoded, the hash of its bytes; empty when there is none."""
    payload = source.entry(offset)
    if payload is None:
        return b""
    try:
        return decode_signed(payload).entry.id
    except LedgerError:
        return hashlib.sha256(payload).digest()


def _ledger_names(ledger: Ledger) -> list[str]:
    return sorted(vars(ledger).keys() - {"charters", "chains"} - DERIVED)


def _schema(ledger: Ledger) -> list[Any]:
    """All names of fields: a change of any makes other snapshots."""
    rows = [[row.__name__, list(row._fields)] for row in _ROWS]
    objects = [[type(o).__name__, _names(o)] for o in (make() for make in _OBJECTS)]
    return [_ledger_names(ledger), list(_AUDITOR), rows, objects]


_ROW_NUMBER: Final = {row: number for number, row in enumerate(_ROWS)}
_OBJECT_NUMBER: Final = {type(make()): number for number, make in enumerate(_OBJECTS)}


def _plain(value: Any) -> Any:
    """As what msgpack has."""
    kind = type(value)
    if kind in _SIMPLE:
        return value
    if kind in _ROW_NUMBER:
        return [_ROW, _ROW_NUMBER[kind], *map(_plain, value)]
    if kind is tuple:
        return [_TUPLE, *map(_plain, value)]
    if kind is list:
        return [_LIST, *map(_plain, value)]
    if kind is dict:
        return [_DICT, *(_plain(part) for item in value.items() for part in item)]
    if kind is set or kind is frozenset:
        return [_SET if kind is set else _FROZENSET, *map(_plain, sorted(value))]
    if kind is array:
        return [_ARRAY, value.typecode, value.itemsize, value.tobytes()]
    if kind is bytearray:
        return [_BYTEARRAY, bytes(value)]
    if kind is bool:
        return [_BOOL, int(value)]
    if value is None:
        return [_NONE]
    return [_OBJECT, _OBJECT_NUMBER[kind], *(_plain(vars(value)[name]) for name in _names(value))]


def _names(value: Any) -> list[str]:
    return sorted(vars(value).keys() - _LINKS)


def _value(plain: Any) -> Any:
    """The inverse of `_plain`."""
    if type(plain) is not list:
        return plain
    tag, *parts = plain
    if tag == _ROW:
        return _ROWS[parts[0]]._make(map(_value, parts[1:]))
    if tag == _TUPLE:
        return tuple(map(_value, parts))
    if tag == _LIST:
        return list(map(_value, parts))
    if tag == _DICT:
        values = list(map(_value, parts))
        return dict(zip(values[::2], values[1::2], strict=True))
    if tag in (_SET, _FROZENSET):
        return (set if tag == _SET else frozenset)(map(_value, parts))
    if tag == _ARRAY:
        code, size, data = parts
        values_ = array(code if code in _ARRAY_CODES else "")
        if values_.itemsize != size:
            raise ValueError("written on another kind of machine")
        values_.frombytes(data)
        return values_
    if tag == _BYTEARRAY:
        return bytearray(parts[0])
    if tag == _BOOL:
        return bool(parts[0])
    if tag == _NONE:
        return None
    made = _OBJECTS[parts[0]]()
    names = _names(made)
    vars(made).update(zip(names, map(_value, parts[1:]), strict=True))
    return made
