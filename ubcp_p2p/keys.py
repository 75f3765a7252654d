"""Ed25519 keys: the account's (a person), the node's (a machine), and the statement that the one owns the other.

All signing and verifying goes through libsodium (PyNaCl): OpenSSL accepts small-order keys that libsodium refuses, and
two verifiers that disagree would split whatever they guard. What is signed is always `"ubcp/sign/<role>/1\\0"` + a
32-byte digest, so that a signature made in one role is worthless in another.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Final

import nacl.exceptions
import nacl.pwhash.argon2id
import nacl.secret
import nacl.signing
import nacl.utils
from nacl._sodium import ffi, lib  # type: ignore[import-not-found]  # compiled, without types

from ubcp_p2p.errors import ConfigError, LocalIOError, UbcpError
from ubcp_p2p.files import create_new, read_limited

SEED_BYTES: Final = 32
PUBLIC_BYTES: Final = 32
DIGEST_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_NULL: Final = ffi.NULL
_PEER_ID_PREFIX: Final = bytes.fromhex("002408011220")  # identity multihash of a libp2p public-key protobuf (Ed25519)
_NODE_FILE_PREFIX: Final = bytes.fromhex("08011240")  # libp2p private-key protobuf: type Ed25519, 64 bytes of data
_KEY_FILE_BYTES_MAX: Final = 4096  # the largest of the three files has under 600
_ROLE: Final = re.compile(r"[a-z0-9-]{1,32}")

_ACCOUNT_FORMAT: Final = "ubcp/account-key/1"
_OWNER_FORMAT: Final = "ubcp/owner/1"
# Limits that a key file may ask for: a planted file must not make us fill the memory or compute for minutes.
_OPS_MAX: Final = 16
_MEMORY_BYTES_MAX: Final = 1 << 30

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_CHARS_MAX: Final = 128  # a peer id has 52; bounds the quadratic conversion on hostile input


class MalformedPeerId(UbcpError, ValueError):
    """A peer id that is not base58, not Ed25519, or of the wrong length; the one who sent it is at fault."""


class MalformedKeyFile(ConfigError):
    """A key or owner file that is damaged, of another format, or readable by others."""


class PassphraseNeeded(ConfigError):
    """The account key is encrypted and no passphrase was given."""


class WrongPassphrase(ConfigError):
    """The passphrase does not open the account key, or the file was altered."""


def verify(public: bytes, role: str, digest: bytes, signature: bytes) -> bool:
    """Whether `signature` is by `public` over `digest` in `role`; False for anything malformed, never an exception."""
    if len(public) != PUBLIC_BYTES or len(digest) != DIGEST_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    signed = signature + signed_prefix(role) + digest
    # What VerifyKey.verify calls, without the copy of the message and the three objects for each of millions.
    verdict: int = lib.crypto_sign_open(_NULL, _NULL, signed, len(signed), public)
    return verdict == 0


def verify_each(publics: Sequence[bytes], signed: Sequence[bytes]) -> list[bool]:
    """`verify` for millions, with as little as can be between: whether each key has signed.

    signed: signature ‖ `signed_prefix(role)` ‖ digest of each. Here nothing tells the three apart: it is the caller who
    has seen that a signature has 64 bytes and a digest 32. Raises ValueError for keys of another length than 32, and
    for more of the one than of the other.
    """
    if len(publics) != len(signed):  # the rest would pass unseen
        raise ValueError(f"{len(publics)} keys and {len(signed)} that they have signed")
    if not {PUBLIC_BYTES}.issuperset(map(len, publics)):  # libsodium would read on behind them
        raise ValueError(f"a public key has {PUBLIC_BYTES} bytes")
    verdicts = map(lib.crypto_sign_open, repeat(_NULL), repeat(_NULL), signed, map(len, signed), publics)
    return [verdict == 0 for verdict in verdicts]


def peer_id_of(public: bytes) -> bytes:
    """The libp2p peer id (38 bytes) of an Ed25519 public key (32 bytes): it contains the key itself."""
    assert len(public) == PUBLIC_BYTES
    return _PEER_ID_PREFIX + public


def public_of(peer_id: bytes) -> bytes:
    """The Ed25519 public key inside a peer id. Raises MalformedPeerId for any other kind of id."""
    if len(peer_id) != len(_PEER_ID_PREFIX) + PUBLIC_BYTES or not peer_id.startswith(_PEER_ID_PREFIX):
        raise MalformedPeerId(
            f"peer id of {len(peer_id)} bytes is not one of an Ed25519 key",
            hint="ids of ubcp nodes start with 12D3KooW",
        )
    return peer_id[len(_PEER_ID_PREFIX) :]


def to_base58(data: bytes) -> str:
    """Bitcoin's base58, as libp2p prints peer ids (`12D3KooW…`)."""
    zeros = len(data) - len(data.lstrip(b"\0"))
    digits = []
    number = int.from_bytes(data, "big")
    while number:
        number, digit = divmod(number, 58)
        digits.append(_BASE58[digit])
    return "1" * zeros + "".join(reversed(digits))


def from_base58(text: str) -> bytes:
    """Inverse of `to_base58`. Raises MalformedPeerId for other characters or more than 128 of them."""
    if len(text) > _BASE58_CHARS_MAX:
        raise MalformedPeerId(f"base58 text of {len(text)} characters; at most {_BASE58_CHARS_MAX} are allowed")
    number = 0
    for char in text:
        digit = _BASE58.find(char)
        if digit < 0:
            raise MalformedPeerId(f"{char!r} is not a base58 character")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


@dataclass(frozen=True)
class _Ed25519Key:
    """What both keys share; `seed` never appears in a repr."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        assert len(self.seed) == SEED_BYTES

    @functools.cached_property
    def _signer(self) -> nacl.signing.SigningKey:
        return nacl.signing.SigningKey(self.seed)

    @functools.cached_property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return bytes(self._signer.verify_key)

    def sign(self, role: str, digest: bytes) -> bytes:
        """Sign a 32-byte digest in a role (1–32 of a–z, 0–9, -); 64 bytes."""
        assert len(digest) == DIGEST_BYTES
        return self._signer.sign(signed_prefix(role) + digest).signature


class NodeKey(_Ed25519Key):
    """A machine's key: its libp2p peer, its DHT identity, the author of what it signs; plain, for p2pd to read."""

    @classmethod
    def generate(cls) -> NodeKey:
        return cls(nacl.utils.random(SEED_BYTES))

    @property
    def peer_id(self) -> bytes:
        """38 bytes; `to_base58` gives the usual text."""
        return peer_id_of(self.public)

    def to_bytes(self) -> bytes:
        """p2pd's identity file: libp2p's private-key protobuf, 68 bytes."""
        return _NODE_FILE_PREFIX + self.seed + self.public

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "node key") -> NodeKey:
        """Inverse of `to_bytes`. Raises MalformedKeyFile."""
        start = len(_NODE_FILE_PREFIX)
        if len(data) != start + SEED_BYTES + PUBLIC_BYTES or not data.startswith(_NODE_FILE_PREFIX):
            raise MalformedKeyFile(f"{where} is not an Ed25519 libp2p key file", hint=_RESTORE)
        key = cls(data[start : start + SEED_BYTES])
        if key.public != data[start + SEED_BYTES :]:
            raise MalformedKeyFile(f"{where} is damaged: its two halves do not belong together", hint=_RESTORE)
        return key

    def save(self, path: Path) -> None:
        """Write the identity file, mode 0400. Raises FileExistsError, LocalIOError."""
        create_new(path, self.to_bytes(), mode=0o400)

    @classmethod
    def load(cls, path: Path) -> NodeKey:
        """Raises FileNotFoundError, MalformedKeyFile (also when others may read the file), LocalIOError."""
        return cls.from_bytes(_read_secret(path), where=str(path))


class AccountKey(_Ed25519Key):
    """A person's or institution's key: signs rarely, never leaves for p2pd, may live behind a passphrase."""

    @classmethod
    def generate(cls) -> AccountKey:
        return cls(nacl.utils.random(SEED_BYTES))

    def to_bytes(self, passphrase: str | None) -> bytes:
        """The JSON key file; with a passphrase the seed is in a secretbox under Argon2id (moderate: 256 MiB).

        Raises LocalIOError when there is not the memory for it.
        """
        document: dict[str, object] = {"format": _ACCOUNT_FORMAT, "public": self.public.hex()}
        if passphrase is None:
            document["seed"] = self.seed.hex()
        else:
            kdf = nacl.pwhash.argon2id
            salt = nacl.utils.random(kdf.SALTBYTES)
            box_key = _stretch(passphrase, salt, kdf.OPSLIMIT_MODERATE, kdf.MEMLIMIT_MODERATE)
            document["encrypted"] = {
                "kdf": "argon2id13",
                "ops": kdf.OPSLIMIT_MODERATE,
                "memory_bytes": kdf.MEMLIMIT_MODERATE,
                "salt": salt.hex(),
                "box": bytes(nacl.secret.SecretBox(box_key).encrypt(self.seed)).hex(),  # nonce first
            }
        return (json.dumps(document, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, passphrase: str | None, *, where: str = "account key") -> AccountKey:
        """Inverse of `to_bytes`; a passphrase for a plain file is ignored.

        Raises MalformedKeyFile, PassphraseNeeded, WrongPassphrase, LocalIOError (no memory for Argon2id).
        """
        document = _json_object(data, _ACCOUNT_FORMAT, where)
        public = _hex_field(document, "public", PUBLIC_BYTES, where)
        if set(document) == {"format", "public", "seed"}:
            key = cls(_hex_field(document, "seed", SEED_BYTES, where))
        elif set(document) == {"format", "public", "encrypted"}:
            key = cls(_open_box(document["encrypted"], passphrase, where))
        else:
            raise MalformedKeyFile(f"{where} needs either 'seed' or 'encrypted' and no other key", hint=_RESTORE)
        if key.public != public:
            raise MalformedKeyFile(f"{where} is damaged: its public key is not that of its seed", hint=_RESTORE)
        return key

    def save(self, path: Path, passphrase: str | None = None) -> None:
        """Write the key file, mode 0600. Raises FileExistsError, LocalIOError."""
        create_new(path, self.to_bytes(passphrase), mode=0o600)

    @classmethod
    def load(cls, path: Path, passphrase: str | None = None) -> AccountKey:
        """Raises FileNotFoundError and as `from_bytes`; MalformedKeyFile also when others may read the file."""
        return cls.from_bytes(_read_secret(path), passphrase, where=str(path))

    @staticmethod
    def is_encrypted(path: Path) -> bool:
        """Whether the file needs a passphrase. Raises FileNotFoundError, MalformedKeyFile, LocalIOError."""
        return "encrypted" in _json_object(_read_secret(path), _ACCOUNT_FORMAT, str(path))


@dataclass(frozen=True)
class Ownership:
    """The account's signed word that a node is its own; public, shown to peers."""

    account: bytes  # public key, 32
    node: bytes  # public key, 32
    signature: bytes  # 64, by the account, role "owner"

    @classmethod
    def make(cls, account: AccountKey, node: bytes) -> Ownership:
        """Sign that `account` owns the node with the public key `node`."""
        return cls(account.public, node, account.sign("owner", _owner_digest(node)))

    def is_valid(self) -> bool:
        """Whether the signature holds; False for anything malformed."""
        return len(self.node) == PUBLIC_BYTES and verify(
            self.account, "owner", _owner_digest(self.node), self.signature
        )

    def to_bytes(self) -> bytes:
        """The JSON file `owner.json`."""
        document = {
            "format": _OWNER_FORMAT,
            "account": self.account.hex(),
            "node": self.node.hex(),
            "signature": self.signature.hex(),
        }
        return (json.dumps(document, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "owner statement") -> Ownership:
        """Inverse of `to_bytes`. Raises MalformedKeyFile, also when the signature does not hold."""
        document = _json_object(data, _OWNER_FORMAT, where)
        statement = cls(
            _hex_field(document, "account", PUBLIC_BYTES, where),
            _hex_field(document, "node", PUBLIC_BYTES, where),
            _hex_field(document, "signature", SIGNATURE_BYTES, where),
        )
        if len(document) != 4 or not statement.is_valid():
            raise MalformedKeyFile(
                f"{where} is not a valid statement: the account's signature does not hold", hint=_RESTORE
            )
        return statement

    def save(self, path: Path) -> None:
        """Write the file, mode 0600. Raises FileExistsError, LocalIOError."""
        create_new(path, self.to_bytes(), mode=0o600)

    @classmethod
    def load(cls, path: Path) -> Ownership:
        """Raises FileNotFoundError, MalformedKeyFile, LocalIOError."""
        return cls.from_bytes(read_limited(path, bytes_max=_KEY_FILE_BYTES_MAX), where=str(path))


_RESTORE: Final = "restore it from a backup, or make a new profile with `ubcp init --profile DIR`"


@functools.cache
def signed_prefix(role: str) -> bytes:
    """What stands before the digest in what is signed."""
    assert _ROLE.fullmatch(role), role
    return b"ubcp/sign/" + role.encode() + b"/1\0"


def _owner_digest(node: bytes) -> bytes:
    return hashlib.sha256(b"ubcp/owner/1\0" + node).digest()


def _read_secret(path: Path) -> bytes:
    data = read_limited(path, bytes_max=_KEY_FILE_BYTES_MAX)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise MalformedKeyFile(f"others may read the secret key {path}", hint=f"chmod go= {path}")
    return data


def _stretch(passphrase: str, salt: bytes, ops: int, memory_bytes: int) -> bytes:
    # NFC: the same passphrase typed on another system must give the same bytes.
    secret = unicodedata.normalize("NFC", passphrase).encode()
    try:
        return nacl.pwhash.argon2id.kdf(nacl.secret.SecretBox.KEY_SIZE, secret, salt, ops, memory_bytes)
    except nacl.exceptions.RuntimeError:
        raise LocalIOError(
            f"not enough memory to open the account key: {memory_bytes >> 20} MiB are needed",
            hint="free some and try again",
        ) from None


def _open_box(fields: object, passphrase: str | None, where: str) -> bytes:
    if not isinstance(fields, dict) or set(fields) != {"kdf", "ops", "memory_bytes", "salt", "box"}:
        raise MalformedKeyFile(f"{where}: 'encrypted' lacks a field or has an unknown one", hint=_RESTORE)
    kdf = nacl.pwhash.argon2id
    ops = _int_field(fields, "ops", kdf.OPSLIMIT_MIN, _OPS_MAX, where)
    memory_bytes = _int_field(fields, "memory_bytes", kdf.MEMLIMIT_MIN, _MEMORY_BYTES_MAX, where)
    if fields["kdf"] != "argon2id13":
        raise MalformedKeyFile(f"{where}: unknown kdf {fields['kdf']!r}", hint="use a newer ubcp")
    salt = _hex_field(fields, "salt", kdf.SALTBYTES, where)
    box = _hex_field(
        fields, "box", nacl.secret.SecretBox.NONCE_SIZE + nacl.secret.SecretBox.MACBYTES + SEED_BYTES, where
    )
    if passphrase is None:
        raise PassphraseNeeded(f"{where} is protected by a passphrase", hint="type it, or set UBCP_PASSPHRASE")
    try:
        return nacl.secret.SecretBox(_stretch(passphrase, salt, ops, memory_bytes)).decrypt(box)
    except nacl.exceptions.CryptoError:
        raise WrongPassphrase(
            f"the passphrase does not open {where}", hint="mind upper and lower case; nothing was changed"
        ) from None


def _json_object(data: bytes, expected_format: str, where: str) -> dict[str, object]:
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise MalformedKeyFile(f"{where} is not JSON", hint=_RESTORE) from None
    if not isinstance(document, dict) or document.get("format") != expected_format:
        raise MalformedKeyFile(f"{where} does not have the format {expected_format!r}", hint=_RESTORE)
    return document


def _hex_field(document: dict[str, object], name: str, length: int, where: str) -> bytes:
    value = document.get(name)
    if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{2 * length}}}", value):
        raise MalformedKeyFile(f"{where}: {name!r} must be {2 * length} hex digits", hint=_RESTORE)
    return bytes.fromhex(value)


def _int_field(document: dict[str, object], name: str, low: int, high: int, where: str) -> int:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise MalformedKeyFile(f"{where}: {name!r} must be between {low} and {high}", hint=_RESTORE)
    return value
