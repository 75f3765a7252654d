"""Entries from bytes: the type and the limits of every field (SPEC §2, §5.1, §6). Pure.

`decode` turns canonical bytes into an Entry or raises MalformedEntry; entry.encode is its inverse. Four fifths of a
ledger are RECEIPTs, so those have a short way, which checks types and limits in C while it decodes; whatever does not
pass there takes the long way, which every other entry takes and which says what is wrong. Both accept the same bytes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgpack
import msgspec

from ubcp_p2p.ledger.entry import (
    ACCEPTED_MAX,
    BRANCHES_MAX,
    CLAIMS_MAX,
    CONTRIBUTORS_MAX,
    ENTRY_BYTES_MAX,
    KIND_OF,
    PEERS_MAX,
    REASONS_MAX,
    ROUNDS_MAX,
    SECONDS_MAX,
    SEQ_MAX,
    SLICE_MAX,
    TEXT_BYTES_MAX,
    URGENCY_MAX,
    URGENCY_MIN,
    VERSION,
    Allot,
    Body,
    Checkpoint,
    Close,
    Decision,
    Enrol,
    Entry,
    Heal,
    Key,
    Kind,
    OpenAccount,
    OpenNode,
    Position,
    Receipt,
    Request,
    Rotate,
    Voucher,
    body_row,
    entry_id,
    pack,
)
from ubcp_p2p.ledger.faults import MalformedEntry
from ubcp_p2p.units import AMOUNT_MAX

T = TypeVar("T")
_Seq: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]
_Slice: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=SLICE_MAX)]
_RECEIPT: Final = msgspec.msgpack.Decoder(tuple[Literal[1], Key, Key, _Seq, Key, _Slice, Literal[6], Receipt])
assert (VERSION, int(Kind.RECEIPT)) == (1, 6)  # as in the literals


def make(network: bytes, author: bytes, seq: int, prev: bytes, slice_: int, body: Body) -> tuple[Entry, bytes]:
    """A new entry and its canonical bytes. Raises MalformedEntry for fields that break a limit."""
    row = [VERSION, network, author, seq, prev, slice_, int(KIND_OF[type(body)]), body_row(body)]
    data = pack(row)
    return decode(data), data


def decode(data: bytes) -> Entry:
    """The entry with these canonical bytes. Raises MalformedEntry."""
    receipt = unpack_as(_RECEIPT, data) if len(data) <= ENTRY_BYTES_MAX else None
    if receipt is not None:  # four fifths of a ledger
        _, network, author, seq, prev, slice_, kind, body = receipt
        _text(body.voucher.device)
        return Entry(network, author, seq, prev, slice_, kind, body, entry_id(data))
    return _decode_any(data)


def _decode_any(data: bytes) -> Entry:
    """The long way."""
    row = unpack(data, ENTRY_BYTES_MAX)
    if type(row) is not list or not row:
        raise MalformedEntry("encoding", "an entry is an array")
    if row[0] != VERSION or type(row[0]) is not int:
        raise MalformedEntry("version", f"an entry of version {_number_text(row[0])}; this program knows {VERSION}",
                             hint="a newer ubcp may read it")  # fmt: skip
    if len(row) != 8:
        raise MalformedEntry("encoding", f"an entry has 8 fields, not {len(row)}")
    _, network, author, seq, prev, slice_, kind, body = row
    if not (type(network) is type(author) is type(prev) is bytes and len(network) == len(author) == len(prev) == 32):
        raise _no_hash()
    _number(seq, SEQ_MAX), _number(slice_, SLICE_MAX)
    parse = _PARSERS.get(kind) if type(kind) is int else None
    if parse is None:
        raise MalformedEntry("field", f"unknown kind of entry {_number_text(kind)}")
    if type(body) is not list:
        raise MalformedEntry("field", "an entry's body is an array")
    return Entry(network, author, seq, prev, slice_, kind, parse(body), entry_id(data))


def decode_again(data: bytes, id_: bytes) -> Entry:
    """The entry with bytes that `decode` has accepted before, in whatever process, and its id: nothing is checked."""
    try:
        _, network, author, seq, prev, slice_, kind, body = _RECEIPT.decode(data)
    except msgspec.ValidationError:  # another kind
        _, network, author, seq, prev, slice_, kind, row = UNPACK_AGAIN(data)
        return Entry(network, author, seq, prev, slice_, kind, _PARSERS[kind](row), id_)
    return Entry(network, author, seq, prev, slice_, kind, body, id_)


def unpack(data: bytes, bytes_max: int) -> Any:
    """msgpack of our subset in its one canonical form (SPEC §2.1). Raises MalformedEntry.

    The parsers below check the type of every field, so the walk over all values that codec.decode makes is left out.
    """
    if len(data) > bytes_max:
        raise MalformedEntry("length", f"{len(data)} bytes where at most {bytes_max} are allowed")
    try:
        row = _UNPACK(data)
        if _PACK(row) != data:
            raise MalformedEntry("encoding", "not the canonical encoding")
    except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise MalformedEntry("encoding", f"not msgpack of the ledger's subset: {error}") from None
    return row


def unpack_as(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T | None:
    """The canonical bytes of a value that `decoder` checks wholly, or None: then `unpack` says what they are."""
    try:
        row = decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return row if pack(row) == data else None


# Bound once, as entry.pack is. The last one is for bytes that were accepted before.
_PACK: Final[Callable[[Any], bytes]] = msgpack.Packer(use_bin_type=True).pack  # refuses what nests deeper than 511
_UNPACK: Final[Callable[[bytes], Any]] = functools.partial(msgpack.unpackb, raw=False, max_map_len=0, max_ext_len=0)
UNPACK_AGAIN: Final[Callable[[bytes], Any]] = msgspec.msgpack.Decoder().decode


def _hash(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != 32:
        raise _no_hash()
    return value


def _number_text(value: Any) -> str:
    """For messages: no repr of anything else, which may nest deeper than repr can."""
    return str(value) if type(value) is int else "that is no number"


def _no_hash() -> MalformedEntry:
    return MalformedEntry("field", "something else where a key or a hash of 32 bytes belongs")


def _number(value: Any, most: int = AMOUNT_MAX, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:
        raise MalformedEntry("field", f"something else where a number from {least} to {most} belongs")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or not 0 < len(value) <= TEXT_BYTES_MAX:
        raise MalformedEntry("field", f"something else where a text of 1 to {TEXT_BYTES_MAX} bytes belongs")
    return _short_text(value)


@functools.lru_cache(1024)  # the same few names of device classes, units and purposes, over and over
def _short_text(value: str) -> str:
    if len(value.encode()) > TEXT_BYTES_MAX:
        raise MalformedEntry("field", f"something else where a text of 1 to {TEXT_BYTES_MAX} bytes belongs")
    if min(value) < " " or "\x7f" in value:
        raise MalformedEntry("field", "a text with a control character")
    return value


def _rows(value: Any, count_max: int) -> list[Any]:
    if type(value) is not list or len(value) > count_max:
        raise MalformedEntry("field", f"something else where a list of at most {count_max} belongs")
    return value


def _fields(value: Any, count: int) -> list[Any]:
    if type(value) is not list or len(value) != count:
        raise MalformedEntry("field", f"something else where a list of {count} fields belongs")
    return value


def _rising(keys: list[Any], what: str) -> None:
    if any(a >= b for a, b in itertools.pairwise(keys)):
        raise MalformedEntry("field", f"{what} must be sorted, each once")


def _position(value: Any) -> Position:
    author, seq, id_ = _fields(value, 3)
    return Position(_hash(author), _number(seq, SEQ_MAX), _hash(id_))


def _open(body: list[Any]) -> OpenAccount | OpenNode:
    form, value = _fields(body, 2)
    if type(form) is int and form == 0:
        return OpenAccount(_hash(value))
    if type(form) is int and form == 1:
        return OpenNode(_position(value))
    raise MalformedEntry("field", "an OPEN is of an account (0) or a node (1)")


def _enrol(body: list[Any]) -> Enrol:
    class_, unit, first, until, nullifier = _fields(body, 5)
    newcomer = _number(class_, 1) == 1
    return Enrol(newcomer, _text(unit), _number(first, SLICE_MAX), _number(until, SLICE_MAX), _hash(nullifier))


def _request(body: list[Any]) -> Request:
    (
        run, recipe, purpose, peers_min, peers_max, units, credits_, expiry, deadline, urgency, paymaster, income,
        closes,
    ) = _fields(body, 13)  # fmt: skip
    claims = tuple(_position(row) for row in _rows(income, CLAIMS_MAX))
    _rising([claim.author for claim in claims], "the nodes whose income is claimed")
    closed = tuple(_hash(id_) for id_ in _rows(closes, CLAIMS_MAX))
    _rising(list(closed), "the closes claimed")
    return Request(
        _text(run), _hash(recipe), _text(purpose), _number(peers_min, PEERS_MAX, 1), _number(peers_max, PEERS_MAX, 1),
        _number(units, AMOUNT_MAX, 1), _number(credits_, AMOUNT_MAX, 1), _number(expiry, SLICE_MAX),
        _number(deadline, SLICE_MAX), _number(urgency, URGENCY_MAX, URGENCY_MIN), _hash(paymaster), claims, closed,
    )  # fmt: skip


def _decision(body: list[Any]) -> Decision:
    slice_, budget, granule, accepted, refused, inputs = _fields(body, 6)
    ids = tuple(_hash(id_) for id_ in _rows(accepted, ACCEPTED_MAX))
    _rising(list(ids), "the accepted requests")
    reasons = tuple(
        (_text(reason), _number(count, AMOUNT_MAX, 1))
        for reason, count in (_fields(row, 2) for row in _rows(refused, REASONS_MAX))
    )
    _rising([reason.encode() for reason, _ in reasons], "the reasons of refusal")
    return Decision(
        _number(slice_, SLICE_MAX), _number(budget), _number(granule, AMOUNT_MAX, 1), ids, reasons, _hash(inputs)
    )


def _allot(body: list[Any]) -> Allot:
    request, contributor, credits_ = _fields(body, 3)
    return Allot(_hash(request), _hash(contributor), _number(credits_, AMOUNT_MAX, 1))


def parse_voucher(value: Any) -> Voucher:
    """The voucher in this decoded array. Raises MalformedEntry."""
    network, paymaster, request, allot, contributor, units, credits_, rounds, device, seconds, evidence = _fields(
        value, 11
    )
    if not (
        type(network) is type(paymaster) is type(request) is type(allot) is type(contributor) is type(evidence) is bytes
        and len(network) == len(paymaster) == len(request) == len(allot) == len(contributor) == len(evidence) == 32
    ):  # written out: four fifths of a ledger are vouchers
        raise _no_hash()
    if not (
        type(units) is type(credits_) is type(rounds) is type(seconds) is int
        and 0 <= units <= AMOUNT_MAX
        and 0 <= credits_ <= AMOUNT_MAX
        and 0 <= rounds <= ROUNDS_MAX
        and 0 <= seconds <= SECONDS_MAX
    ):
        raise MalformedEntry("field", "a voucher with a number that is none, or too great")
    _text(device)
    return Voucher._make(value)


def _receipt(body: list[Any]) -> Receipt:
    voucher, signature = _fields(body, 2)
    if type(signature) is not bytes or len(signature) != 64:
        raise MalformedEntry("field", "something else where a signature of 64 bytes belongs")
    return Receipt(parse_voucher(voucher), signature)


def _close(body: list[Any]) -> Close:
    request, final, returned = _fields(body, 3)
    rows = tuple(
        (_hash(contributor), _number(credits_))
        for contributor, credits_ in (_fields(row, 2) for row in _rows(final, CONTRIBUTORS_MAX))
    )
    _rising([contributor for contributor, _ in rows], "the contributors of a CLOSE")
    return Close(_hash(request), rows, _number(returned))


def _checkpoint(body: list[Any]) -> Checkpoint:
    size, root, state = _fields(body, 3)
    return Checkpoint(_number(size), _hash(root), _hash(state))


def _rotate(body: list[Any]) -> Rotate:
    key, recovery = _fields(body, 2)
    return Rotate(_hash(key), _hash(recovery))


def _heal(body: list[Any]) -> Heal:
    abandoned, refused = _fields(body, 2)
    branches = tuple(
        (_number(seq, SEQ_MAX), _hash(id_)) for seq, id_ in (_fields(row, 2) for row in _rows(abandoned, BRANCHES_MAX))
    )
    _rising(list(branches), "the abandoned branches")
    ids = tuple(_hash(id_) for id_ in _rows(refused, BRANCHES_MAX))
    _rising(list(ids), "the refused forks")
    return Heal(branches, ids)


_PARSERS: Final[dict[int, Callable[[list[Any]], Body]]] = {
    Kind.OPEN: _open,
    Kind.ENROL: _enrol,
    Kind.REQUEST: _request,
    Kind.DECISION: _decision,
    Kind.ALLOT: _allot,
    Kind.RECEIPT: _receipt,
    Kind.CLOSE: _close,
    Kind.CHECKPOINT: _checkpoint,
    Kind.ROTATE: _rotate,
    Kind.HEAL: _heal,
}
