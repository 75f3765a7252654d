"""What contributors and paymasters say to each other: `/ubcp/pay/3`, one question and one answer a stream (pure).

A question is [what, REQUEST id, payload]; an answer [1, payload], [0, words]: refused, [2, words]: nothing more is paid
for, or [3, words]: not now, ask again. What follows the answer to a report is its evidence, if the answer asks for it,
and a second answer.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from ubcp_p2p.codec import MalformedMessage, Value, bytes_of, fields, hash_of, number, signature_of
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.ledger.entry import Voucher
from ubcp_p2p.ledger.faults import LedgerError
from ubcp_p2p.ledger.parse import parse_voucher
from ubcp_p2p.peer.paying.bill import BILL_BYTES_MAX
from ubcp_p2p.peer.paying.holding import HOLDS_PER_NODE_MAX
from ubcp_p2p.peer.paying.tab import BillRefused, NothingMore, NotYet

PROTOCOL: Final = "/ubcp/pay/3"
ANSWER_S: Final = 10.0
WORDS_MAX: Final = 300
MESSAGE_BYTES_MAX: Final = BILL_BYTES_MAX + 256
_REFUSED: Final = 0
_TAKEN: Final = 1
_NOTHING_MORE: Final = 2
_NOT_YET: Final = 3


class What(IntEnum):
    HELLO = 0  # payload: the device class → nothing: an ALLOT is under way
    BILL = 1  # payload: a Bill → a Statement
    AGAIN = 2  # payload: nothing → a Statement: what checks have released since
    REPORT = 3  # payload: a Report → 1 when its evidence is wanted, else 0


class Promise(NamedTuple):
    """A voucher with the paymaster's signature in role "voucher"."""

    voucher: Voucher
    signature: bytes

    def to_value(self) -> Value:
        return [list(self.voucher), self.signature]

    @classmethod
    def of(cls, value: Value) -> Promise:
        """Raises MalformedMessage."""
        row, signature = fields(value, 2)
        try:
            return cls(parse_voucher(row), signature_of(signature))
        except LedgerError as error:
            raise MalformedMessage(error.message) from None


class Statement(NamedTuple):
    """How a contributor stands. held: rounds that wait for a check; words: of the last one that was not in order."""

    promise: Promise
    held: int
    words: str

    def to_value(self) -> Value:
        return [self.promise.to_value(), self.held, self.words]

    @classmethod
    def of(cls, value: Value) -> Statement:
        """Raises MalformedMessage."""
        promise, held, words = fields(value, 3)
        if not isinstance(words, str) or len(words) > WORDS_MAX:
            raise MalformedMessage("a statement with words that are none")
        return cls(Promise.of(promise), number(held, HOLDS_PER_NODE_MAX), words)


def question(what: What, request: bytes, payload: bytes) -> Value:
    return [int(what), request, payload]


def asked(value: Value) -> tuple[What, bytes, bytes]:
    """Raises MalformedMessage."""
    what, request, payload = fields(value, 3)
    return What(number(what, max(What))), hash_of(request), bytes_of(payload)


def answer(value: Value) -> Value:
    return [_TAKEN, value]


def refusal(error: UbcpError) -> Value:
    """Why something is refused. What went wrong at the paymaster is no fault of the bill: that may come again."""
    kind = _NOT_YET
    if isinstance(error, NothingMore):
        kind = _NOTHING_MORE
    elif isinstance(error, BillRefused | MalformedMessage) and not isinstance(error, NotYet):
        kind = _REFUSED
    return [kind, error.message[:WORDS_MAX]]


def answered(value: Value) -> Value:
    """The payload of an answer. Raises BillRefused, NothingMore or NotYet with its words; MalformedMessage."""
    kind, payload = fields(value, 2)
    if number(kind, _NOT_YET) == _TAKEN:
        return payload
    if not isinstance(payload, str):
        raise MalformedMessage("a refusal without words")
    refused = {_REFUSED: BillRefused, _NOTHING_MORE: NothingMore, _NOT_YET: NotYet}[number(kind)]
    raise refused(f"the paymaster says: {payload[:WORDS_MAX]}")
