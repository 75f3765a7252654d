"""Entries as values, their ids, and their bytes as `encode` makes them (SPEC §5, §6). Pure.

parse.py goes the other way. What an entry may *do* and who must have signed it is for rules.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec

from ubcp_p2p.units import AMOUNT_MAX

VERSION: Final = 1
ENTRY_BYTES_MAX: Final = 16 * 1024
SEQ_MAX: Final = 2**32 - 1
SLICE_MAX: Final = 2**32 - 1
PEERS_MAX: Final = 65_535
ROUNDS_MAX: Final = 2**32 - 1
SECONDS_MAX: Final = 2**32 - 1
CLAIMS_MAX: Final = 64  # own nodes whose income one REQUEST can claim, and closes likewise
ACCEPTED_MAX: Final = 256
REASONS_MAX: Final = 32
CONTRIBUTORS_MAX: Final = 256  # of one REQUEST, so that its CLOSE fits into an entry
BRANCHES_MAX: Final = 64
URGENCY_MIN, URGENCY_MAX = 1000, 2000  # per mille
TEXT_BYTES_MAX: Final = 64
ZERO: Final = bytes(32)

# With the limits that parse.py has checked while it decodes, for what a ledger has most of.
Key: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]  # or a hash
Signature: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Amount: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]


class Kind(IntEnum):
    """SPEC §6."""

    OPEN = 1
    ENROL = 2
    REQUEST = 3
    DECISION = 4
    ALLOT = 5
    RECEIPT = 6
    CLOSE = 7
    CHECKPOINT = 8
    ROTATE = 9
    HEAL = 10


class Position(NamedTuple):
    """A place on a chain: the entry of `author` with this number and id."""

    author: bytes
    seq: int
    id: bytes


class OpenAccount(NamedTuple):
    """recovery: SHA-256(`"ubcp/recovery/1\\0"` ‖ public recovery key), or zeros for none."""

    recovery: bytes


class OpenNode(NamedTuple):
    """owner: where the owner's chain stood when it signed."""

    owner: Position


class Enrol(NamedTuple):
    """Periods from `first` up to, not including, `until`. nullifier: issued by the stewards to this person."""

    newcomer: bool
    unit: str
    first: int
    until: int
    nullifier: bytes


class Request(NamedTuple):
    """units: GFLOP per peer and slice. credits: the most that it may cost, µcredits. urgency: per mille."""

    run: str
    recipe: bytes
    purpose: str
    peers_min: int
    peers_max: int
    units: int
    credits: int
    expiry: int
    deadline: int
    urgency: int
    paymaster: bytes
    income: tuple[Position, ...]
    closes: tuple[bytes, ...]


class Decision(NamedTuple):
    """A lease. budget, granule: GFLOP. accepted: REQUEST ids, sorted. refused: (reason, count), sorted by reason."""

    slice: int
    budget: int
    granule: int
    accepted: tuple[bytes, ...]
    refused: tuple[tuple[str, int], ...]
    inputs: bytes


class Allot(NamedTuple):
    """The most µcredits that a node may earn from `request`. contributor: the id of its OPEN, and so its owner too."""

    request: bytes
    contributor: bytes
    credits: int


class Voucher(NamedTuple):
    """What the paymaster has signed to a contributor so far; units GFLOP, credits µcredits, seconds of device time."""

    network: Key
    paymaster: Key
    request: Key
    allot: Key
    contributor: Key
    units: Amount
    credits: Amount
    rounds: Annotated[int, msgspec.Meta(ge=0, le=ROUNDS_MAX)]
    device: str
    seconds: Annotated[int, msgspec.Meta(ge=0, le=SECONDS_MAX)]
    evidence: Key


class Receipt(NamedTuple):
    """The newest voucher, and the paymaster's signature under it."""

    voucher: Voucher
    signature: Signature


class Close(NamedTuple):
    """final: (OPEN id of a contributor, cumulative µcredits), sorted. returned: what goes back to the account."""

    request: bytes
    final: tuple[tuple[bytes, int], ...]
    returned: int


class Checkpoint(NamedTuple):
    """The author's append order: its first `size` entries have this RFC 6962 root and lead to this state."""

    size: int
    root: bytes
    state: bytes


class Rotate(NamedTuple):
    """The author's new key, and the hash of its recovery key."""

    key: bytes
    recovery: bytes


class Heal(NamedTuple):
    """abandoned: heads (or any entries) of the author's other branches. refused: ids of forks that are in no ledger."""

    abandoned: tuple[tuple[int, bytes], ...]
    refused: tuple[bytes, ...]


Body: TypeAlias = (
    OpenAccount | OpenNode | Enrol | Request | Decision | Allot | Receipt | Close | Checkpoint | Rotate | Heal
)


class Entry(NamedTuple):
    """One entry; `kind` is a Kind. `id` is the hash of its canonical bytes (SPEC §3.1)."""

    network: bytes
    author: bytes
    seq: int
    prev: bytes
    slice: int
    kind: int
    body: Body
    id: bytes

    @property
    def position(self) -> Position:
        return Position(self.author, self.seq, self.id)


# Copied, not made anew for each of millions of entries.
_ENTRY_DIGEST: Final = hashlib.sha256(b"ubcp/entry/1\0")
_VOUCHER_DIGEST: Final = hashlib.sha256(b"ubcp/voucher/1\0")


def entry_id(data: bytes) -> bytes:
    """SHA-256(`"ubcp/entry/1\\0"` ‖ canonical bytes)."""
    digest = _ENTRY_DIGEST.copy()
    digest.update(data)
    return digest.digest()


def voucher_digest(voucher: Voucher) -> bytes:
    """What the paymaster signs in role "voucher": SHA-256(`"ubcp/voucher/1\\0"` ‖ canonical bytes)."""
    digest = _VOUCHER_DIGEST.copy()
    digest.update(pack(voucher))  # a tuple is an array
    return digest.digest()


def recovery_hash(public: bytes) -> bytes:
    """What OPEN and ROTATE name instead of the recovery key itself."""
    return hashlib.sha256(b"ubcp/recovery/1\0" + public).digest()


def encode(entry: Entry) -> bytes:
    """The canonical bytes of an entry."""
    return pack(
        [VERSION, entry.network, entry.author, entry.seq, entry.prev, entry.slice, entry.kind, body_row(entry.body)]
    )


def references(entry: Entry) -> tuple[bytes, ...]:
    """The ids that an entry refers to, `prev` apart (SPEC §7.1)."""
    body = entry.body
    match body:
        case Receipt():
            return (body.voucher.allot,)
        case OpenNode():
            return (body.owner.id,)
        case Request():
            return (*(claim.id for claim in body.income), *body.closes)
        case Decision():
            return body.accepted
        case Allot():
            return (body.request, body.contributor)
        case Close():
            return (body.request,)
        case Heal():
            return tuple(id_ for _, id_ in body.abandoned)
        case _:
            return ()


# A value as msgpack, in the one canonical form that ours have. Bound once: it runs for every entry of an audit.
pack: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode


KIND_OF: Final[dict[type, Kind]] = {
    OpenAccount: Kind.OPEN,
    OpenNode: Kind.OPEN,
    Enrol: Kind.ENROL,
    Request: Kind.REQUEST,
    Decision: Kind.DECISION,
    Allot: Kind.ALLOT,
    Receipt: Kind.RECEIPT,
    Close: Kind.CLOSE,
    Checkpoint: Kind.CHECKPOINT,
    Rotate: Kind.ROTATE,
    Heal: Kind.HEAL,
}


def body_row(body: Body) -> list[Any]:
    """The array that stands for a body."""
    match body:
        case OpenAccount():
            return [0, body.recovery]
        case OpenNode():
            return [1, list(body.owner)]
        case Enrol():
            return [int(body.newcomer), *body[1:]]
        case Receipt():
            return [list(body.voucher), body.signature]
        case _:
            return [_plain(item) for item in body]


def _plain(value: Any) -> Any:
    """Tuples as arrays, to any depth."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
