"""What contributors and paymasters say to each other: `/ubcp/pay/1`, one question and one answer a stream (pure).

A question is [what, REQUEST id, payload]; an answer [1, payload] or [0, words].
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from ubcp_p2p.codec import MalformedMessage, Value, bytes_of, fields, hash_of, number, signature_of
from ubcp_p2p.ledger.entry import Voucher
from ubcp_p2p.ledger.faults import LedgerError
from ubcp_p2p.ledger.parse import parse_voucher
from ubcp_p2p.peer.paying.tab import BillRefused
from ubcp_p2p.swarm.quorum import CERTIFICATE_BYTES_MAX

PROTOCOL: Final = "/ubcp/pay/1"
ANSWER_S: Final = 10.0
WORDS_MAX: Final = 300
MESSAGE_BYTES_MAX: Final = CERTIFICATE_BYTES_MAX + 256


class What(IntEnum):
    HELLO = 0  # payload: the device class → nothing: an ALLOT is under way
    BILL = 1  # payload: a certificate → [voucher, signature]


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


def question(what: What, request: bytes, payload: bytes) -> Value:
    return [int(what), request, payload]


def asked(value: Value) -> tuple[What, bytes, bytes]:
    """Raises MalformedMessage."""
    what, request, payload = fields(value, 3)
    return What(number(what, max(What))), hash_of(request), bytes_of(payload)


def answer(value: Value) -> Value:
    return [1, value]


def refusal(words: str) -> Value:
    return [0, words[:WORDS_MAX]]


def answered(value: Value) -> Value:
    """The payload of an answer. Raises BillRefused with the paymaster's words, MalformedMessage."""
    good, payload = fields(value, 2)
    if number(good, 1):
        return payload
    if not isinstance(payload, str):
        raise MalformedMessage("a refusal without words")
    raise BillRefused(f"the paymaster says: {payload[:WORDS_MAX]}")
