"""Keys: files byte for byte, signatures bound to their role, refusals of damaged and hostile files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from ubcp_p2p.errors import Exit
from ubcp_p2p.keys import (
    AccountKey,
    MalformedKeyFile,
    MalformedPeerId,
    NodeKey,
    Ownership,
    PassphraseNeeded,
    WrongPassphrase,
    from_base58,
    peer_id_of,
    public_of,
    signed_prefix,
    to_base58,
    verify,
    verify_each,
)

DIGEST = hashlib.sha256(b"something").digest()
# RFC 8032, section 7.1, test 1.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_node_key_file_is_libp2ps_protobuf() -> None:
    key = NodeKey(SEED)
    assert key.public == PUBLIC
    assert key.to_bytes() == bytes.fromhex("08011240") + SEED + PUBLIC
    assert NodeKey.from_bytes(key.to_bytes()) == key
    assert key.peer_id == bytes.fromhex("002408011220") + PUBLIC
    assert to_base58(key.peer_id).startswith("12D3KooW")
    assert public_of(key.peer_id) == PUBLIC


def test_a_known_peer_id() -> None:
    # libp2p's "Peer Ids and Keys" specification, its Ed25519 example.
    private = bytes.fromhex(
        "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
        "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
    )
    assert NodeKey.from_bytes(private).to_bytes() == private


def test_the_seed_is_in_no_repr() -> None:
    for key in (NodeKey(SEED), AccountKey(SEED)):
        assert SEED.hex() not in repr(key)
        assert repr(SEED) not in repr(key)


def test_a_signature_holds_for_its_role_digest_and_key_alone() -> None:
    key = NodeKey(SEED)
    signature = key.sign("state", DIGEST)
    assert len(signature) == 64
    assert verify(key.public, "state", DIGEST, signature)
    assert not verify(key.public, "offer", DIGEST, signature)
    assert not verify(key.public, "state", hashlib.sha256(b"other").digest(), signature)
    assert not verify(NodeKey.generate().public, "state", DIGEST, signature)
    assert not verify(key.public, "state", DIGEST, bytes([signature[0] ^ 1]) + signature[1:])


MALFORMED = [
    (b"", DIGEST, bytes(64)),
    (PUBLIC[:31], DIGEST, bytes(64)),
    (PUBLIC, DIGEST[:5], bytes(64)),
    (PUBLIC, DIGEST, bytes(63)),
    (PUBLIC, DIGEST, bytes(10_000)),
    (bytes(32), DIGEST, bytes(64)),
    (b"\xff" * 32, DIGEST, b"\xff" * 64),
    # A point of small order: with it, one signature would hold for many messages.
    (bytes.fromhex("01" + "00" * 31), DIGEST, bytes.fromhex("01" + "00" * 63)),
]


@pytest.mark.parametrize(("public", "digest", "signature"), MALFORMED)
def test_verify_says_no_to_malformed_input(public: bytes, digest: bytes, signature: bytes) -> None:
    assert verify(public, "state", digest, signature) is False


def test_many_signatures_at_once_are_judged_as_each_alone() -> None:
    keys = [NodeKey(SEED), AccountKey(bytes(32))]
    good = [(key.public, role, DIGEST, key.sign(role, DIGEST)) for key in keys for role in ("state", "offer")]
    (public, role, digest, signature), *_ = good
    bad = [
        (public, "offer", digest, signature), (keys[1].public, role, digest, signature),
        (public, role, digest, signature[:-1] + bytes([signature[-1] ^ 1])),
        *((malformed[0], "state", *malformed[1:]) for malformed in MALFORMED if len(malformed[0]) == 32),
    ]  # fmt: skip
    mixed = [check for pair in zip(bad, good * len(bad), strict=False) for check in pair]
    publics = [public for public, _, _, _ in mixed]
    signed = [signature + signed_prefix(role) + digest for _, role, digest, signature in mixed]
    assert verify_each(publics, signed) == [False, True] * len(bad) == [verify(*check) for check in mixed]
    assert verify_each([], []) == []
    for fewer in ((publics, signed[1:]), (publics[1:], signed)):
        with pytest.raises(ValueError, match="keys and"):
            verify_each(*fewer)
    for length in (0, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            verify_each([public, bytes(length)], signed[:2])


def test_node_key_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    key = NodeKey.generate()
    key.save(path)
    assert path.stat().st_mode & 0o777 == 0o400
    assert NodeKey.load(path) == key
    with pytest.raises(FileExistsError):
        NodeKey.generate().save(path)
    assert NodeKey.load(path) == key
    assert os.listdir(tmp_path) == ["node.key"]


@pytest.mark.parametrize("damage", [b"", b"garbage", bytes(68), b"\x08\x01\x12\x40" + SEED + bytes(32)])
def test_damaged_node_keys_are_refused(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(damage)
    path.chmod(0o400)
    with pytest.raises(MalformedKeyFile, match=r"node\.key") as caught:
        NodeKey.load(path)
    assert caught.value.hint
    assert caught.value.exit_code == Exit.USAGE


def test_secrets_that_others_may_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    NodeKey.generate().save(path)
    path.chmod(0o440)
    with pytest.raises(MalformedKeyFile, match="others may read") as caught:
        NodeKey.load(path)
    assert "chmod" in str(caught.value.hint)


def test_account_key_without_a_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "account.key"
    key = AccountKey.generate()
    key.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert AccountKey.load(path) == key
    assert AccountKey.load(path, "not needed") == key
    assert not AccountKey.is_encrypted(path)


@pytest.mark.slow
def test_account_key_behind_a_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "account.key"
    key = AccountKey.generate()
    key.save(path, "pässphrase")
    assert key.seed.hex() not in path.read_text()
    assert AccountKey.is_encrypted(path)
    assert AccountKey.load(path, "pässphrase") == key
    assert AccountKey.load(path, "pa\u0308ssphrase") == key, "the same letters, typed on another system"
    with pytest.raises(PassphraseNeeded, match=r"account\.key"):
        AccountKey.load(path)
    with pytest.raises(WrongPassphrase, match=r"account\.key"):
        AccountKey.load(path, "passphrase")


def _encrypted_fields(**changes: object) -> bytes:
    fields = {
        "kdf": "argon2id13",
        "ops": 1,
        "memory_bytes": 8192,
        "salt": "00" * 16,
        "box": "00" * (24 + 16 + 32),
    } | changes
    return json.dumps({"format": "ubcp/account-key/1", "public": PUBLIC.hex(), "encrypted": fields}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[" * 4000,
        b"[]",
        b"{}",
        b'{"format": "ubcp/account-key/2"}',
        json.dumps({"format": "ubcp/account-key/1", "public": PUBLIC.hex()}).encode(),
        json.dumps({"format": "ubcp/account-key/1", "public": PUBLIC.hex(), "seed": "00" * 32}).encode(),
        json.dumps({"format": "ubcp/account-key/1", "public": PUBLIC.hex(), "seed": SEED.hex()[:-2]}).encode(),
        json.dumps({"format": "ubcp/account-key/1", "public": PUBLIC.hex(), "seed": SEED.hex(), "x": 1}).encode(),
        json.dumps({"format": "ubcp/account-key/1", "public": PUBLIC.hex(), "seed": 5}).encode(),
        _encrypted_fields(ops=10**9),
        _encrypted_fields(ops=True),
        _encrypted_fields(ops=1.5),
        _encrypted_fields(memory_bytes=1 << 50),
        _encrypted_fields(memory_bytes=-1),
        _encrypted_fields(kdf="none"),
        _encrypted_fields(kdf=["argon2id13"]),
        _encrypted_fields(salt=""),
        _encrypted_fields(box="zz" * 72),
        _encrypted_fields(more=1),
    ],
)
def test_hostile_account_files_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedKeyFile):
        AccountKey.from_bytes(data, "passphrase")


def test_an_altered_box_is_a_wrong_passphrase() -> None:
    with pytest.raises(WrongPassphrase):
        AccountKey.from_bytes(_encrypted_fields(), "passphrase")


def test_ownership(tmp_path: Path) -> None:
    account, node = AccountKey.generate(), NodeKey.generate()
    statement = Ownership.make(account, node.public)
    assert statement.is_valid()
    path = tmp_path / "owner.json"
    statement.save(path)
    assert Ownership.load(path) == statement
    assert json.loads(path.read_bytes())["node"] == node.public.hex()
    digest = hashlib.sha256(b"ubcp/owner/1\0" + node.public).digest()
    assert verify(account.public, "owner", digest, statement.signature)
    assert not Ownership(account.public, NodeKey.generate().public, statement.signature).is_valid()
    assert not Ownership(b"", b"", b"").is_valid()


def test_a_forged_owner_file_is_refused() -> None:
    statement = Ownership.make(AccountKey.generate(), NodeKey.generate().public)
    forged = Ownership(AccountKey.generate().public, statement.node, statement.signature)
    with pytest.raises(MalformedKeyFile, match="does not hold"):
        Ownership.from_bytes(forged.to_bytes())


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"\0\0", "11"),
        (b"Hello World!", "2NEpo7TZRRrLZSi2U"),
        (bytes.fromhex("0000287fb4cd"), "11233QC4"),
    ],
)
def test_base58_known_values(data: bytes, text: str) -> None:  # the Internet-Draft draft-msporny-base58, section 5
    assert to_base58(data) == text
    assert from_base58(text) == data


@pytest.mark.parametrize("text", ["0", "O", "I", "l", "12D3 ", "é", "1" * 129])
def test_malformed_base58(text: str) -> None:
    with pytest.raises(MalformedPeerId):
        from_base58(text)


@pytest.mark.parametrize("peer_id", [b"", bytes(38), peer_id_of(PUBLIC)[:-1], peer_id_of(PUBLIC) + b"\0", PUBLIC])
def test_malformed_peer_ids(peer_id: bytes) -> None:
    with pytest.raises(MalformedPeerId):
        public_of(peer_id)
