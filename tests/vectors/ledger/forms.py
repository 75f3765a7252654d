"""encoding.json, entries.json, vouchers.json, worked.json: bytes, alone (SPEC §0, §2, §3, §5.1, §6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import msgpack

from tests.vectors.ledger.files import Vectors
from tests.vectors.ledger.scene import Scene
from ubcp_p2p.charter.values import Allowance, CostBasis, DeviceClass, DeviceCost, Unit
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, OpenAccount, Voucher, entry_id, recovery_hash, voucher_digest
from ubcp_p2p.ledger.wire import SignedVoucher
from ubcp_p2p.ledger.world import CHARTER

H = [bytes([number]) * 32 for number in range(16)]
U32, AMOUNT = 2**32 - 1, 2**53 - 1
VOUCHER = [H[1], H[2], H[3], H[4], H[5], 7, 7, 2, "cpu-8", 60, H[6]]
BODIES: dict[str, tuple[int, list[Any]]] = {
    "OPEN of an account": (1, [0, H[3]]),
    "OPEN of a node": (1, [1, [H[4], 5, H[5]]]),
    "ENROL": (2, [0, "lab", 3, 9, H[3]]),
    "REQUEST": (3, ["run", H[3], "research", 1, 8, 100, 800, 50, 40, 1000, H[4], [[H[5], 6, H[6]]], [H[7]]]),
    "DECISION": (4, [9, 1000, 10, [H[3], H[4]], [["busy", 2]], H[5]]),
    "ALLOT": (5, [H[3], H[4], 100]),
    "RECEIPT": (6, [VOUCHER, bytes(range(64))]),
    "CLOSE": (7, [H[3], [[H[4], 0], [H[5], 60]], 40]),
    "CHECKPOINT": (8, [12, H[3], H[4]]),
    "ROTATE": (9, [H[3], H[4]]),
    "HEAL": (10, [[[3, H[3]]], [H[5]]]),
}


class Field(NamedTuple):
    """What stands at a path of a row. kind: hash, text, signature, list, or number from least to most."""

    path: tuple[int, ...]
    kind: str
    most: int = 0
    least: int = 0


_V = ("hash", "hash", "hash", "hash", "hash")
FIELDS: dict[str, list[Field]] = {
    "OPEN of an account": [Field((0,), "number", 0), Field((1,), "hash")],
    "OPEN of a node": [Field((1, 0), "hash"), Field((1, 1), "number", U32), Field((1, 2), "hash")],
    "ENROL": [Field((0,), "number", 1), Field((1,), "text"), Field((2,), "number", U32), Field((3,), "number", U32),
              Field((4,), "hash")],
    "REQUEST": [Field((0,), "text"), Field((1,), "hash"), Field((2,), "text"), Field((3,), "number", 65535, 1),
                Field((4,), "number", 65535, 1), Field((5,), "number", AMOUNT, 1), Field((6,), "number", AMOUNT, 1),
                Field((7,), "number", U32), Field((8,), "number", U32), Field((9,), "number", 2000, 1000),
                Field((10,), "hash"), Field((11,), "list", 64), Field((11, 0, 0), "hash"),
                Field((11, 0, 1), "number", U32), Field((11, 0, 2), "hash"), Field((12,), "list", 64),
                Field((12, 0), "hash")],
    "DECISION": [Field((0,), "number", U32), Field((1,), "number", AMOUNT), Field((2,), "number", AMOUNT, 1),
                 Field((3,), "list", 256), Field((3, 0), "hash"), Field((4,), "list", 32), Field((4, 0, 0), "text"),
                 Field((4, 0, 1), "number", AMOUNT, 1), Field((5,), "hash")],
    "ALLOT": [Field((0,), "hash"), Field((1,), "hash"), Field((2,), "number", AMOUNT, 1)],
    "RECEIPT": [*(Field((0, at), "hash") for at in (0, 1, 2, 3, 4, 10)), Field((0, 5), "number", AMOUNT),
                Field((0, 6), "number", AMOUNT), Field((0, 7), "number", U32), Field((0, 8), "text"),
                Field((0, 9), "number", U32), Field((1,), "signature")],
    "CLOSE": [Field((0,), "hash"), Field((1,), "list", 256), Field((1, 0, 0), "hash"),
              Field((1, 0, 1), "number", AMOUNT), Field((2,), "number", AMOUNT)],
    "CHECKPOINT": [Field((0,), "number", AMOUNT), Field((1,), "hash"), Field((2,), "hash")],
    "ROTATE": [Field((0,), "hash"), Field((1,), "hash")],
    "HEAL": [Field((0,), "list", 64), Field((0, 0, 0), "number", U32), Field((0, 0, 1), "hash"),
             Field((1,), "list", 64), Field((1, 0), "hash")],
}  # fmt: skip
# What to fill a list with: the item with a rising number in it.
ITEMS: dict[tuple[str, int], Any] = {
    ("REQUEST", 11): lambda n: [n.to_bytes(32, "big"), 1, H[1]],
    ("REQUEST", 12): lambda n: n.to_bytes(32, "big"),
    ("DECISION", 3): lambda n: n.to_bytes(32, "big"),
    ("DECISION", 4): lambda n: [f"reason {n:04}", 1],
    ("CLOSE", 1): lambda n: [n.to_bytes(32, "big"), 1],
    ("HEAL", 0): lambda n: [n, H[1]],
    ("HEAL", 1): lambda n: n.to_bytes(32, "big"),
}


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def row(kind: int, body: Any, *, seq: int = 3, slice_: int = 7) -> list[Any]:
    """An entry's array."""
    return [1, H[1], H[2], seq, H[9], slice_, kind, body]


def entries() -> Vectors:
    """Every kind, each field at its limits and beyond."""
    file = Vectors("entries")

    def add(name: str, shows: str, section: str, value: Any, expected: str = "ok") -> None:
        data = pack(value)
        fields = {"id": entry_id(data).hex()} if expected == "ok" else {}
        file.add(name, shows, section, form="entry", bytes=data.hex(), expected=expected, **fields)

    for name, (kind, body) in BODIES.items():
        add(name, "valid alone", "6", row(kind, body))
        add(f"{name}: a field too many", "", "6", row(kind, [*body, 0]), "field")
        add(f"{name}: a field too few", "", "6", row(kind, body[:-1]), "field")
        for field in FIELDS[name]:
            where = f"{name}, field {'.'.join(map(str, field.path))}"
            for what, value, expected in _values(name, field):
                add(f"{where}: {what}", "", "2.2", row(kind, _with(body, field.path, value)), expected)
    kind, body = BODIES["ENROL"]
    for at, which in ((1, "network"), (2, "author"), (4, "prev")):
        for what, value, expected in _values("", Field((), "hash")):
            add(f"{which}: {what}", "", "5.1", _with(row(kind, body), (at,), value), expected)
    for at, which in ((3, "seq"), (5, "slice")):
        for what, value, expected in _values("", Field((), "number", U32)):
            add(f"{which}: {what}", "", "5.1", _with(row(kind, body), (at,), value), expected)
    for what, value in (("0", 0), ("11", 11), ("a text", "OPEN"), ("a byte string", b"\1"), ("an array", [1])):
        add(f"kind: {what}", "", "5.1", _with(row(kind, body), (6,), value), "field")
    for what, value in (("0", 0), ("2", 2), ("a text", "1")):
        add(f"version: {what}", "", "5.1", _with(row(kind, body), (0,), value), "version")
    for what, value in (("a byte string", b""), ("a number", 0), ("a text", "")):
        add(f"body: {what}", "", "5.1", _with(row(kind, body), (7,), value), "field")
    for form in (2, "0", b"\0"):
        add(f"OPEN of the form {form!r}", "0 or 1", "6", row(1, [form, H[3]]), "field")
    add("OPEN of an account with a position", "", "6", row(1, [0, [H[4], 5, H[5]]]), "field")
    add("OPEN of a node with a hash", "", "6", row(1, [1, H[3]]), "field")
    add("OPEN of a node with a long position", "", "6", row(1, [1, [H[4], 5, H[5], 6]]), "field")
    add("REQUEST with a short position", "", "6", row(3, _with(BODIES["REQUEST"][1], (11, 0), [H[5], 6])), "field")
    add("RECEIPT with a long voucher", "", "6", row(6, [[*VOUCHER, 0], bytes(64)]), "field")
    add("RECEIPT with a short voucher", "", "6", row(6, [VOUCHER[:-1], bytes(64)]), "field")
    add("an entry of 9 fields", "", "5.1", [*row(kind, body), 0], "encoding")
    add("an entry of 7 fields", "", "5.1", row(kind, body)[:7], "encoding")
    return file


def _with(value: Any, path: tuple[int, ...], new: Any) -> Any:
    """`value` with `new` at `path`."""
    if not path:
        return new
    return [_with(item, path[1:], new) if at == path[0] else item for at, item in enumerate(value)]


def _values(name: str, field: Field) -> Iterator[tuple[str, Any, str]]:
    """What it may be at its limits, and what it may not."""
    match field.kind:
        case "hash":
            yield "31 bytes", bytes(31), "field"
            yield "33 bytes", bytes(33), "field"
            yield "a text of 32 bytes", "a" * 32, "field"
            yield "a number", 0, "field"
        case "signature":
            for value in (bytes(63), bytes(65), "a" * 64):
                yield f"{len(value)} {'bytes' if isinstance(value, bytes) else 'characters'}", value, "field"
        case "number":
            yield "the most", field.most, "ok"
            yield "the least", field.least, "ok"
            yield "one above the most", field.most + 1, "field"
            if field.least:
                yield "one below the least", field.least - 1, "field"
            yield "a byte string", b"\1", "field"
            yield "a text", "1", "field"
        case "text":
            yield from (
                ("empty", "", "field"), ("one byte", "a", "ok"), ("64 bytes", "a" * 64, "ok"),
                ("65 bytes", "a" * 65, "field"), ("64 bytes of 32 characters", "é" * 32, "ok"),
                ("66 bytes of 33 characters", "é" * 33, "field"), ("a control character", "a\x1fb", "field"),
                ("a delete character", "a\x7fb", "field"), ("a blank", " ", "ok"),
                ("above the control characters", "\x80", "ok"), ("a line feed", "a\n", "field"),
            )  # fmt: skip
            yield "a byte string", b"a", "field"
        case "list":
            item = ITEMS[name, field.path[0]]
            yield "none", [], "ok"
            yield "the most", [item(n) for n in range(1, field.most + 1)], "ok"
            yield "one above the most", [item(n) for n in range(1, field.most + 2)], "field"
            yield "falling", [item(2), item(1)], "field"
            yield "doubled", [item(1), item(1)], "field"
            yield "a number", 0, "field"


def encoding() -> Vectors:
    """One value has one encoding: every other one of an ENROL and of its wire form."""
    file = Vectors("encoding")
    parts = [pack(item) for item in row(2, [])[:7]]
    body = [pack(item) for item in BODIES["ENROL"][1]]

    def add(name: str, shows: str, data: bytes, expected: str = "encoding", form: str = "entry") -> None:
        file.add(name, shows, "2.1", form=form, bytes=data.hex(), expected=expected)

    def entry(**changes: bytes) -> bytes:
        """The ENROL with other bytes for: head, seq, slice, version, network, bodyhead, class_, unit, nullifier."""
        at = {"version": 0, "network": 1, "seq": 3, "slice": 5}
        outer = [changes.get(name, parts[n]) for n, name in _names(at, 7)]
        inner = [
            changes.get(name, body[n]) for n, name in _names({"class_": 0, "unit": 1, "first": 2, "nullifier": 4}, 5)
        ]
        return changes.get("head", b"\x98") + b"".join(outer) + changes.get("bodyhead", b"\x95") + b"".join(inner)

    add("canonical", "the ENROL that the others differ from", entry(), "ok")
    for name, data in (
        ("in 1 byte more", b"\xcc\x03"), ("in 2 bytes", b"\xcd\0\x03"), ("in 4 bytes", b"\xce\0\0\0\x03"),
        ("in 8 bytes", b"\xcf" + bytes(7) + b"\x03"), ("signed in 1 byte", b"\xd0\x03"),
        ("signed in 2 bytes", b"\xd1\0\x03"), ("signed in 4 bytes", b"\xd2\0\0\0\x03"),
        ("signed in 8 bytes", b"\xd3" + bytes(7) + b"\x03"),
    ):  # fmt: skip
        add(f"the number 3 {name}", "the shortest form counts", entry(seq=data))
    for name, data in (("128 in 2 bytes", b"\xcd\0\x80"), ("256 in 4 bytes", b"\xce\0\0\1\0"),
                       ("65536 in 8 bytes", b"\xcf" + (65536).to_bytes(8, "big"))):  # fmt: skip
        add(f"the number {name}", "", entry(seq=data))
    for name, data in (("127", b"\x7f"), ("128", b"\xcc\x80"), ("256", b"\xcd\1\0"), ("65536", b"\xce\0\1\0\0")):
        add(f"the number {name} in its shortest form", "", entry(seq=data), "ok")
    for name, data in (
        ("minus one", b"\xff"), ("minus one in 1 byte", b"\xd0\xff"), ("nil", b"\xc0"), ("false", b"\xc2"),
        ("true", b"\xc3"), ("a float", b"\xca\x40\x40\0\0"), ("a double", b"\xcb\x40\x08" + bytes(6)),
        ("an extension", b"\xd4\1\0"), ("an extension of no bytes", b"\xc7\0\1"),
        ("a timestamp", b"\xd6\xff\0\0\0\1"), ("a map", b"\x81\0\0"), ("an empty map", b"\x80"),
        ("an unused byte", b"\xc1"),
    ):  # fmt: skip
        add(f"{name} as a number", "not of the model", entry(seq=data),
            "encoding" if data[0] in b"\xd0\xca\xd4\xd6\x81\xc1" else "field")  # fmt: skip
    add("true as the version", "1 and true are not one value", entry(version=b"\xc3"), "version")
    add("a float as the version", "", entry(version=b"\xcb\x3f\xf0" + bytes(6)), "version")
    add("a hash in a longer form", "bin 16 for 32 bytes", entry(nullifier=b"\xc5\0\x20" + H[3]))
    add("a hash in the longest form", "bin 32 for 32 bytes", entry(nullifier=b"\xc6\0\0\0\x20" + H[3]))
    add("a hash as a text", "raw bytes of the old msgpack", entry(nullifier=b"\xda\0\x20" + b"a" * 32))
    add("a text in a longer form", "str 8 for 3 bytes", entry(unit=b"\xd9\x03lab"))
    add("a text in the longest form", "str 32 for 3 bytes", entry(unit=b"\xdb\0\0\0\x03lab"))
    add("a text as a byte string", "", entry(unit=b"\xc4\x03lab"), "field")
    for name, text in (("a lone continuation byte", b"\xa1\x80"), ("an overlong slash", b"\xa2\xc0\xaf"),
                       ("a surrogate", b"\xa3\xed\xa0\x80"), ("beyond Unicode", b"\xa4\xf4\x90\x80\x80")):  # fmt: skip
        add(f"a text with {name}", "not UTF-8", entry(unit=text))
    add("an array in a longer form", "array 16 for 8 fields", entry(head=b"\xdc\0\x08"))
    add("an array in the longest form", "array 32 for 8 fields", entry(head=b"\xdd\0\0\0\x08"))
    add("a body in a longer form", "", entry(bodyhead=b"\xdc\0\x05"))
    add("bytes after the end", "", entry() + b"\0")
    add("the last byte missing", "", entry()[:-1])
    add("nothing", "", b"")
    add("a number", "not an array", b"\1")
    add("an empty array", "", b"\x90")
    add("an array of 2^32 − 1 items", "a length is checked before memory is taken", b"\xdd\xff\xff\xff\xff")
    add("a byte string of 2^32 − 1 bytes", "", b"\xc6\xff\xff\xff\xff")
    add("1000 arrays deep", "", b"\x91" * 1000 + b"\0", "version")
    add("9 arrays deep in the body", "", entry(class_=b"\x91" * 7 + b"\0"), "field")
    size = 16384
    filler = size - len(pack([1, b"x" * 300]))
    add("16385 bytes", "the limit is 16384", pack([1, b"x" * (300 + filler + 1)]), "length")
    add("16384 bytes", "within the limit, and no entry", pack([1, b"x" * (300 + filler)]), "encoding")
    _wire(file)
    return file


def _names(at: dict[str, int], count: int) -> list[tuple[int, str]]:
    by_number = {number: name for name, number in at.items()}
    return [(number, by_number.get(number, "")) for number in range(count)]


def _wire(file: Vectors) -> None:
    """The wire form of a signed entry (§5.1); signatures are not what is wrong with these."""
    s = Scene(91)
    author = Author(s.charters.network, s.key("author"))
    signed = s.draft(author, OpenAccount(ZERO))
    pair = [signed.signatures[0][0], signed.signatures[0][1]]

    def add(name: str, shows: str, value: Any, expected: str = "encoding") -> None:
        data = value if isinstance(value, bytes) else pack(value)
        file.add(name, shows, "5.1", form="signed", bytes=data.hex(), expected=expected)

    add("signed entry", "", signed.to_bytes(), "ok")
    add("signed entry without signatures", "1 to 66", [signed.data, []])
    others = [[bytes([n]) * 32, bytes(64)] for n in range(1, 67)]
    add("signed entry with 67 signatures", "", [signed.data, [*others, [bytes([67]) * 32, bytes(64)]]])
    add("signed entry with 66 signatures", "none of them holds", [signed.data, others], "signature")
    add("signed twice by one key", "rising, hence once", [signed.data, [pair, pair]])
    add("signatures falling", "by key", [signed.data, [[H[9], bytes(64)], [H[8], bytes(64)]]])
    add("a signature of 63 bytes", "", [signed.data, [[pair[0], pair[1][:63]]]])
    add("a key of 31 bytes", "", [signed.data, [[pair[0][:31], pair[1]]]])
    add("a signature as a text", "", [signed.data, [[pair[0], "a" * 64]]])
    add("a pair of three", "", [signed.data, [[*pair, 0]]])
    add("a pair that is none", "", [signed.data, [pair[0]]])
    add("signatures that are no array", "", [signed.data, pair[0]])
    add("an entry that is an array", "it is a byte string, as it was signed", [row(1, [0, ZERO]), [pair]])
    add("three parts", "", [signed.data, [pair], 0])
    add("one part", "", [signed.data])
    add("an array in a longer form around a signed entry", "", b"\xdc\0\x02" + signed.to_bytes()[1:])
    add("bytes after a signed entry", "", signed.to_bytes() + b"\0")
    add("an entry of another version in it", "the entry's own fault is told", [pack([2]), [pair]], "version")
    add("a signed entry of more than 23132 bytes", "16384 + 66 × 102 + 16", [b"x" * 23133, [pair]], "length")


def vouchers() -> Vectors:
    """Vouchers and their signatures, as they go from paymaster to contributor (§6.6)."""
    file = Vectors("vouchers")
    paymaster = NodeKey(bytes([4]) * 32)
    good: list[Any] = [H[1], paymaster.public, *VOUCHER[2:]]

    def add(
        name: str, shows: str, section: str, value: list[Any], expected: str = "ok", key: NodeKey = paymaster
    ) -> None:
        voucher = Voucher(*value)
        digest = voucher_digest(voucher)
        fields = {"digest": digest.hex()} if expected == "ok" else {}
        data = SignedVoucher(voucher, key.sign("voucher", digest)).to_bytes()
        file.add(name, shows, section, form="voucher", bytes=data.hex(), expected=expected, **fields)

    add("a voucher", "signed by its paymaster", "6.6", good)
    add("a voucher signed by another", "", "6.6", good, "signature", NodeKey(bytes([5]) * 32))
    for field in FIELDS["RECEIPT"][:-1]:
        for what, value, expected in _values("", field):
            if field.path[1] != 1:
                add(f"field {field.path[1]}: {what}", "", "2.2", _with(good, field.path[1:], value), expected)
    signed = SignedVoucher(Voucher(*good), paymaster.sign("voucher", voucher_digest(Voucher(*good))))
    for name, value, expected in (
        ("a signature of 63 bytes", [good, bytes(63)], "field"), ("no signature", [good], "field"),
        ("three parts", [good, signed.signature, 0], "field"),
        ("a long voucher", [[*good, 0], signed.signature], "field"),
        ("a voucher as a byte string", [pack(good), signed.signature], "field"),
        ("the entry role", [good, paymaster.sign("entry", voucher_digest(Voucher(*good)))], "signature"),
        ("a voucher of more than 1024 bytes", [good, bytes(1024)], "length"),
    ):  # fmt: skip
        file.add(name, "", "6.6", form="voucher", bytes=pack(value).hex(), expected=expected)
    file.add("bytes after a voucher", "", "2.1", form="voucher", bytes=(signed.to_bytes() + b"\0").hex(),
             expected="encoding")  # fmt: skip
    return file


def worked() -> Vectors:
    """The worked bytes of §0."""
    steward, recovery = AccountKey(H[3]), AccountKey(H[2])
    charter = replace(
        CHARTER, name="Commons", allowance=Allowance(10_000_000, 5_000_000), exposure_cap=100_000_000, threshold=1,
        stewards=(steward.public,), units=(Unit("village", 1),), devices=(DeviceClass("cpu-8", 500),),
        purposes=("education",), languages=("en",), refused=("mining",),
        cost=CostBasis("EUR", 300_000, 350, (DeviceCost("cpu-8", 200, 65_000, 400_000_000, 40_000),)),
    )  # fmt: skip
    signed = Author(charter.id, AccountKey(H[1])).write(7, OpenAccount(recovery_hash(recovery.public)))
    paymaster, contributor = NodeKey(H[4]), NodeKey(H[5])
    voucher = Voucher(
        charter.id, paymaster.public, H[6], H[7], contributor.public, 1_500_000, 1_500_000, 3, "cpu-8", 3000, ZERO
    )
    digest = voucher_digest(voucher)
    file = Vectors("worked")
    for name, shows, value in (
        ("charter", "canonical bytes", charter.to_bytes()), ("network", "id of the charter", charter.id),
        ("author", "public key of the seed 01…01", signed.entry.author),
        ("recovery", "recovery hash of the key of the seed 02…02", recovery_hash(recovery.public)),
        ("entry", "canonical bytes", signed.data), ("id", "of the entry", signed.entry.id),
        ("signature", "of the entry, by the author", signed.signatures[0][1]),
        ("wire", "the signed entry", signed.to_bytes()), ("voucher", "canonical bytes", pack(list(voucher))),
        ("digest", "of the voucher", digest),
        ("voucher signature", "by the key of the seed 04…04", paymaster.sign("voucher", digest)),
    ):  # fmt: skip
        file.add(name, shows, "0", bytes=value.hex())
    return file
