"""What one signed entry, voucher or fork proof says, once its form and signatures are checked: for people."""

from __future__ import annotations

from typing import Any

import msgpack

from ubcp_p2p.ledger.entry import Entry, Kind, Receipt
from ubcp_p2p.ledger.faults import MalformedEntry
from ubcp_p2p.ledger.wire import ForkProof, Signed, SignedVoucher, decode_signed, verify, verify_proof


def explain(data: bytes) -> dict[str, Any]:
    """Facts by name; bytes as hex, amounts in µcredits. Raises MalformedEntry, BadSignature."""
    match _shape(data):
        case "voucher":
            voucher = SignedVoucher.from_bytes(data).voucher
            return {"what": "voucher", **_fields(voucher)}
        case "proof":
            proof = ForkProof.from_bytes(data)
            verify_proof(proof)
            return {
                "what": "fork proof", "id": proof.id.hex(), "author": proof.author.hex(),
                "seq": proof.first.entry.seq, "first": proof.first.entry.id.hex(),
                "second": proof.second.entry.id.hex(),
            }  # fmt: skip
        case _:
            signed = decode_signed(data)
            verify(signed)
            return _entry(signed)


def _entry(signed: Signed) -> dict[str, Any]:
    entry: Entry = signed.entry
    signers = [key.hex() for key, _ in signed.signatures]
    facts = {
        "what": Kind(entry.kind).name, "id": entry.id.hex(), "network": entry.network.hex(),
        "author": entry.author.hex(), "seq": entry.seq, "prev": entry.prev.hex(), "slice": entry.slice,
        "signed by": signers,
    }  # fmt: skip
    body = entry.body
    return facts | {"body": _fields(body.voucher) if isinstance(body, Receipt) else _fields(body)}


def _shape(data: bytes) -> str:
    """Which of the three these bytes would be: all are arrays of two."""
    try:
        row = msgpack.unpackb(data)
        first, second = row
    except Exception as error:  # whatever msgpack makes of junk
        raise MalformedEntry("encoding", "neither a signed entry, nor a voucher, nor a fork proof") from error
    if isinstance(first, list):
        return "voucher"
    return "proof" if isinstance(second, bytes) else "entry"


def _fields(value: Any) -> dict[str, Any]:
    return {name: _json(item) for name, item in value._asdict().items()}


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return value
