"""Writing a chain: the next entry of one author, signed. Knows no store, so it does not guard against forks."""

from __future__ import annotations

from collections.abc import Iterable

from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger.entry import ZERO, Body, Position, Rotate, Voucher, voucher_digest
from ubcp_p2p.ledger.parse import make
from ubcp_p2p.ledger.wire import ROLE_VOUCHER, Signed, SignedVoucher, sign

Key = AccountKey | NodeKey


class Author:
    """One writer and the head of its chain. `public` names the author for ever; the key may have rotated since."""

    def __init__(self, network: bytes, key: Key, *, public: bytes | None = None, head: Position | None = None) -> None:
        self.network = network
        self.key = key
        self.public = public or key.public
        self.head = head

    def write(self, slice_: int, body: Body, cosigners: Iterable[Key] = ()) -> Signed:
        """The next entry; the head moves on. Raises MalformedEntry."""
        signed = self.draft(slice_, body, cosigners)
        self.head = signed.entry.position
        if isinstance(body, Rotate):
            self.key = next(key for key in cosigners if key.public == body.key)
        return signed

    def draft(self, slice_: int, body: Body, cosigners: Iterable[Key] = ()) -> Signed:
        """As `write`, and the head stays where it is."""
        seq, prev = (self.head.seq + 1, self.head.id) if self.head else (0, ZERO)
        entry, data = make(self.network, self.public, seq, prev, slice_, body)
        return sign(entry, data, {key.public: key for key in (self.key, *cosigners)}.values())

    def voucher(self, voucher: Voucher) -> SignedVoucher:
        """Sign a voucher as its paymaster."""
        return SignedVoucher(voucher, self.key.sign(ROLE_VOUCHER, voucher_digest(voucher)))
