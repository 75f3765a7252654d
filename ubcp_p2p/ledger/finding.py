"""What a few hex digits name in a store, and the document that shows it; what a store cannot show is said in words."""

from __future__ import annotations

from typing import Any, Final

from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.keys import MalformedPeerId, from_base58, public_of
from ubcp_p2p.ledger.chain import AccountChain, NodeChain
from ubcp_p2p.ledger.entry import Kind
from ubcp_p2p.ledger.explain import explain
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.views import account_view, credits_view, entry_words, node_view

PREFIX_DIGITS_MIN: Final = 4
MATCHES_MAX: Final = 8  # named in the error when a prefix fits more than one


def find(store: Store, text: str) -> bytes:
    """The entry id or author that these hex digits begin, or the node of a peer id. Raises ConfigError, UbcpError."""
    digits = text.lower()
    if not set(digits) <= set("0123456789abcdef"):
        try:
            digits = public_of(from_base58(text)).hex()
        except MalformedPeerId:
            raise ConfigError(f"{text!r:.80} is neither hex digits nor a peer id") from None
    if not PREFIX_DIGITS_MIN <= len(digits) <= 64:
        raise ConfigError(f"{text!r:.80} has {len(digits)} hex digits; {PREFIX_DIGITS_MIN} to 64 name an entry")
    low, high = bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f"))
    ids, authors = store.starting(low, high, MATCHES_MAX + 1)
    found = [*authors, *ids]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UbcpError(f"nothing in this ledger begins with {digits}", hint="`ubcp status` says how far the ledger is")
    names = [f"{key.hex()[:16]}… (author)" for key in authors] + [f"{id_.hex()[:16]}… (entry)" for id_ in ids]
    more = ", …" if len(found) > MATCHES_MAX else ""
    raise ConfigError(f"{digits} begins more than one: {', '.join(names[:MATCHES_MAX])}{more}", hint="give more digits")


def shown(store: Store, text: str) -> dict[str, Any]:
    """An entry with what it does in words, an account, or a node. Raises as `find`."""
    found = find(store, text)
    signed = store.entry(found)
    if signed is not None:
        return {**explain(signed.to_bytes()), "words": entry_words(signed.entry)}
    is_account = isinstance(store.ledger.chains[found][0], AccountChain)
    return account_view(store, found) if is_account else node_view(store, found)


def credits_of(store: Store, account: bytes, now: int) -> dict[str, Any]:
    """What an account has at slice `now`, and why. Raises UbcpError for what is no account, with what it is instead."""
    try:
        return credits_view(store, account, now)
    except KeyError:
        raise _no_account(store, account) from None


def _no_account(store: Store, key: bytes) -> UbcpError:
    node = next((chain for chain in store.ledger.chains.get(key, ()) if isinstance(chain, NodeChain)), None)
    if node is not None:
        return UbcpError(
            f"{key.hex()} is a node, no account: what it earns is its owner's",
            hint=f"`ubcp credits {node.owner.hex()[:16]}` shows the owner's credits",
        )
    signed = store.entry(key)
    if signed is not None:
        kind, author = Kind(signed.entry.kind).name, signed.entry.author.hex()
        return UbcpError(
            f"{key.hex()} is an entry ({kind} of {author[:16]}…), no account",
            hint=f"`ubcp ledger show {key.hex()[:16]}` shows it",
        )
    return UbcpError(
        f"the ledger in {store.path} has no account {key.hex()}",
        hint="it is there once the account's first entry (OPEN) has arrived",
    )
