"""charters.json: charters, their limits, their signatures, and how versions follow each other (SPEC §4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.vectors.ledger.files import Vectors
from tests.vectors.ledger.forms import AMOUNT, U32, pack
from tests.vectors.ledger.scene import SMALL
from ubcp_p2p.charter.values import Charter, CostBasis, DeviceCost, SignedCharter
from ubcp_p2p.keys import AccountKey

STEWARDS = sorted((AccountKey(bytes([n]) * 32) for n in (21, 22, 23)), key=lambda key: key.public)
FIRST = replace(SMALL, stewards=tuple(key.public for key in STEWARDS), threshold=2)


def vectors() -> Vectors:
    file = Vectors("charters")
    _fields(file)
    _signatures(file)
    _versions(file)
    return file


def _sign(charter: Charter, keys: list[AccountKey] = STEWARDS[:2]) -> SignedCharter:
    return SignedCharter(charter).signed((key.public, key.sign("charter", charter.id)) for key in keys)


def _add(file: Vectors, section: str, name: str, shows: str, versions: list[bytes], expected: str = "ok") -> None:
    """expected: what comes of the last; those before are valid."""
    file.add(name, shows, section, versions=[version.hex() for version in versions], expected=expected)


def _fields(file: Vectors) -> None:
    """Open networks without stewards, so that no signature is asked for."""
    row = [1, 1, bytes(32), 0, "small", 1_767_225_600, 86_400, 10, 1000, 400, 2, 3, 1500, 4, 6, 0, [],
           [["lab", 1], ["village", 2]], [["cpu-8", 500], ["gpu-24g", 80_000]], ["education", "research"], ["en"], 150,
           70, 10, ["mining"], ["EUR", 300_000, 350, [["cpu-8", 200, 65_000, 400_000_000, 40_000]]]]  # fmt: skip

    def add(name: str, shows: str, value: Any, expected: str = "ok") -> None:
        _add(file, "4.1", name, shows, [pack([value if isinstance(value, bytes) else pack(value), []])], expected)

    def put(at: int, value: Any) -> list[Any]:
        return [value if place == at else item for place, item in enumerate(row)]

    add("a charter", "an open network: no stewards, no signatures", row)
    numbers = {
        3: ("effective", 0, 0), 5: ("epoch", 0, 2**37), 6: ("slice seconds", 1, 86_400), 7: ("period slices", 1, 2**20),
        8: ("allowance of a member", 0, AMOUNT), 9: ("allowance of a newcomer", 0, AMOUNT),
        10: ("allowance periods", 1, 1024), 11: ("earned periods", 1, 1024), 12: ("exposure cap", 0, AMOUNT),
        13: ("grace slices", 0, 2**20), 14: ("longest enrolment", 1, 37), 21: ("newcomer reserve", 0, 1000),
        22: ("half-life", 1, 2**20), 23: ("ageing", 1, 2**20),
    }  # fmt: skip
    for at, (name, least, most) in numbers.items():
        base = put(14, 1) if at == 7 else row
        for what, value, expected in (
            ("the least", least, "ok"), ("the most", most, "ok"), ("one above the most", most + 1, "charter-field"),
            *([("one below the least", least - 1, "charter-field")] if least else []),
            ("a text", "1", "charter-encoding"),
        ):  # fmt: skip
            if at == 3 and what == "one above the most":
                expected = "charter-chain"
            add(f"{name}: {what}", "", [value if place == at else item for place, item in enumerate(base)], expected)
    names: tuple[tuple[int, str, str, Callable[[str], Any]], ...] = (
        (17, "units", "charter-field", lambda text: [text, 1]), (19, "purposes", "charter-field", lambda text: text),
        (18, "device classes", "charter-field", lambda text: [text, 1]),
        (24, "refused purposes", "ok", lambda text: text),
    )  # fmt: skip
    free = put(25, [])  # no costs: they name device classes
    for at, name, of_none, item in names:
        for what, texts, expected in (
            ("none", [], of_none), ("falling", ["b", "a"], "charter-field"),
            ("doubled", ["a", "a"], "charter-field"), ("rising by bytes", ["Z", "a", "é"], "ok"),
            ("1024", [f"{n:04}" for n in range(1024)], "ok"),
            ("1025", [f"{n:04}" for n in range(1025)], "charter-encoding"),
            ("an empty name", [""], "charter-field"), ("a name of 65 bytes", ["a" * 65], "charter-field"),
            ("a name with a line feed", ["a\n"], "charter-field"), ("one", ["a"], "ok"),
            ("a name with U+007F", ["a\x7f"], "charter-field"),
            ("a good name and a bad one", ["a", "b\n"], "charter-field"),
        ):  # fmt: skip
            add(f"{name}: {what}", "", [*free[:at], [item(text) for text in texts], *free[at + 1 :]], expected)
    for at, name, most in ((17, "weight", 10**6), (18, "peak", 10**12)):
        for value, expected in ((1, "ok"), (most, "ok"), (0, "charter-field"), (most + 1, "charter-field")):
            add(f"{name} {value}", "", [*free[:at], [["a", value]], *free[at + 1 :]], expected)
        add(f"{name} missing", "", put(at, [["a"]]), "charter-encoding")
        add(
            f"{name}: a good one and a bad one",
            "",
            [*free[:at], [["a", 1], ["b", 0]], *free[at + 1 :]],
            "charter-field",
        )
    _languages(lambda *case: add(case[0], case[1], put(20, case[2]), case[3]))
    _costs(lambda *case: add(case[0], case[1], put(25, case[2]), case[3]))
    many = [f"{n:04}" for n in range(1024)]
    costs = ["EUR", 0, 0, [[text, 1, 1, 0, 1] for text in many]]
    add("1024 devices with a cost", "", [*row[:18], [[text, 1] for text in many], *row[19:25], costs])
    for nr, (at, value, expected) in enumerate((
        (0, 2, "charter-format"), (1, 0, "charter-field"), (1, 2, "charter-chain"), (1, 1025, "charter-field"),
        (1, 1024, "charter-chain"), (3, U32, "charter-chain"),
        (2, bytes(31), "charter-encoding"), (2, bytes([1]) * 32, "charter-chain"), (4, "", "charter-field"),
        (4, b"small", "charter-encoding"), (15, 1, "charter-field"), (16, [bytes(31)], "charter-encoding"),
        (16, [bytes([2]) * 32, bytes([1]) * 32], "charter-field"), (16, [bytes(32), bytes(32)], "charter-field"),
        (16, [n.to_bytes(32, "big") for n in range(64)], "ok"),
        (16, [n.to_bytes(32, "big") for n in range(65)], "charter-encoding"),
    )):  # fmt: skip
        add(f"field {at}, case {nr}", "", put(at, value), expected)
    add("a purpose both allowed and refused", "", put(24, ["mining", "research"]), "charter-field")
    add("a refused purpose as bytes", "", put(24, [b"mining"]), "charter-encoding")
    add("a charter of 20 fields", "before costs and languages", row[:20], "charter-encoding")
    add("a charter of 25 fields", "", row[:-1], "charter-encoding")
    add("a charter of 27 fields", "", [*row, 0], "charter-encoding")
    add("a charter with bytes after it", "", pack(row) + b"\0", "charter-encoding")
    add("a charter of 65537 bytes", "the limit is 65536", bytes(65537), "charter-encoding")
    for size, expected in ((65_536, "ok"), (65_537, "charter-encoding")):
        add(f"a whole charter of {size} bytes", "the limit is 65536", _sized(row, size), expected)
    add("longest enrolment above a year", "38 periods of 10 days", put(14, 38), "charter-field")
    long = [value if at not in (6, 7, 14) else {6: 86_400, 7: 366, 14: 1}[at] for at, value in enumerate(row)]
    add("a period of a year", "", long)
    add("two periods of a year", "", [2 if at == 14 else value for at, value in enumerate(long)], "charter-field")
    daily = [value if at not in (6, 7, 14) else {6: 86_400, 7: 1, 14: 366}[at] for at, value in enumerate(row)]
    add("366 periods of a day", "", daily)
    add("367 periods of a day", "", [367 if at == 14 else value for at, value in enumerate(daily)], "charter-field")
    short = [value if at not in (6, 7, 14) else {6: 60, 7: 1, 14: 1024}[at] for at, value in enumerate(row)]
    add("1024 short periods", "", short)
    add("1025 short periods", "", [1025 if at == 14 else value for at, value in enumerate(short)], "charter-field")
    add("effective 1", "the first charter holds from period 0", put(3, 1), "charter-chain")
    add("effective beyond 2^32 − 1", "", put(3, U32 + 1), "charter-field")


def _sized(row: list[Any], size: int) -> list[Any]:
    """The row with as many and as long refused purposes as make `size` bytes."""
    texts = [*(f"{n:064}" for n in range(989)), "y" * 40]
    rest = size - len(pack([*row[:24], [*texts, ""], *row[25:]]))
    assert 32 < rest < 64, rest
    return [*row[:24], [*texts, "z" * (rest - 1)], *row[25:]]  # above 31 bytes a text has one more before it


def _languages(add: Callable[[str, str, Any, str], None]) -> None:
    for what, tags, expected in (
        ("none", [], "ok"), ("tags of BCP 47", ["de", "pt-BR", "zh-Hant-TW"], "ok"), ("2 characters", ["a1"], "ok"),
        ("1 character", ["a"], "charter-field"), ("35 characters", ["a" * 35], "ok"),
        ("36 characters", ["a" * 36], "charter-field"), ("an underscore", ["pt_BR"], "charter-field"),
        ("a letter that is not ASCII", ["ñá"], "charter-field"), ("a line feed at the end", ["en\n"], "charter-field"),
        ("falling", ["en", "de"], "charter-field"), ("doubled", ["en", "en"], "charter-field"),
        ("a good one and a bad one", ["en", "pt_BR"], "charter-field"),
        ("64", [f"a{n:02}" for n in range(64)], "ok"), ("65", [f"a{n:02}" for n in range(65)], "charter-encoding"),
        ("a number", [1], "charter-encoding"), ("no list", "en", "charter-encoding"),
    ):  # fmt: skip
        add(f"languages: {what}", "", tags, expected)


def _costs(add: Callable[[str, str, Any, str], None]) -> None:
    good: list[Any] = ["EUR", 300_000, 350, [["cpu-8", 200, 65_000, 400_000_000, 40_000]]]

    def put(at: int, value: Any) -> list[Any]:
        return [value if place == at else item for place, item in enumerate(good)]

    def device(at: int, value: Any) -> list[Any]:
        return put(3, [[value if place == at else item for place, item in enumerate(good[3][0])]])

    add("cost: none", "no cost basis", [], "ok")
    value: Any
    for at, name, least, most in ((1, "tariff", 0, 10**12), (2, "carbon", 0, 10**6)):
        for value, expected in ((least, "ok"), (most, "ok"), (most + 1, "charter-field"), ("1", "charter-encoding")):
            add(f"cost: {name} {value!r}", "", put(at, value), expected)
    currencies: tuple[tuple[Any, str], ...] = (
        ("AAA", "ok"), ("ZZZ", "ok"), ("EU", "charter-field"), ("EURO", "charter-field"), ("eur", "charter-field"),
        ("EÜR", "charter-field"), ("EUR\n", "charter-field"), (b"EUR", "charter-encoding"),
    )  # fmt: skip
    for value, expected in currencies:
        add(f"cost: currency {value!r}", "", put(0, value), expected)
    for at, name, least, most in ((1, "sustained", 1, 500), (2, "power", 1, 10**12), (3, "price", 0, AMOUNT),
                                  (4, "lifetime", 1, 10**6)):  # fmt: skip
        for value, expected in (
            (least, "ok"), (most, "ok"), (most + 1, "charter-field"), ("1", "charter-encoding"),
            *([(0, "charter-field")] if least else []),
        ):  # fmt: skip
            add(f"cost: {name} {value!r}", "a peak of 500 GFLOP/s" if at == 1 else "", device(at, value), expected)
    both: list[Any] = [["cpu-8", 1, 1, 0, 1], ["gpu-24g", 1, 1, 0, 1]]
    for what, rows, expected in (
        ("both devices", both, "ok"), ("falling", both[::-1], "charter-field"),
        ("doubled", [both[0], both[0]], "charter-field"), ("no device", [], "charter-field"),
        ("another device", [["tpu", 1, 1, 0, 1]], "charter-field"),
        ("a good device and a bad one", [both[0], ["gpu-24g", 1, 0, 0, 1]], "charter-field"),
        ("1025 devices", [[f"{n:04}", 1, 1, 0, 1] for n in range(1025)], "charter-encoding"),
        ("a device of 4 fields", [both[0][:4]], "charter-encoding"),
        ("a device of 6 fields", [[*both[0], 0]], "charter-encoding"), ("no list", "cpu-8", "charter-encoding"),
        ("a name as bytes", [[b"cpu-8", 1, 1, 0, 1]], "charter-encoding"),
    ):  # fmt: skip
        add(f"cost: {what}", "", put(3, rows), expected)
    add("cost: 3 fields", "", good[:3], "charter-encoding")
    add("cost: 5 fields", "", [*good, 0], "charter-encoding")
    add("cost: a number", "", 0, "charter-encoding")


def _signatures(file: Vectors) -> None:
    def add(name: str, shows: str, signed: SignedCharter | Any, expected: str = "ok") -> None:
        data = signed.to_bytes() if isinstance(signed, SignedCharter) else pack(signed)
        _add(file, "4.2", name, shows, [data], expected)

    good = _sign(FIRST)
    body, pairs = FIRST.to_bytes(), [list(pair) for pair in good.signatures]
    add("signed by two of three", "the threshold", good)
    add("signed by all", "", _sign(FIRST, STEWARDS))
    add("signed by one", "the threshold is 2", _sign(FIRST, STEWARDS[:1]), "charter-signature")
    add("signed by none", "", SignedCharter(FIRST), "charter-signature")
    add("signed by a stranger too", "two stewards, and one who is none",
        _sign(FIRST, [*STEWARDS[:2], AccountKey(bytes([24]) * 32)]), "charter-signature")  # fmt: skip
    key, signature = pairs[1]
    flipped = [key, signature[:9] + bytes([signature[9] ^ 1]) + signature[10:]]
    add("a flipped bit in a signature", "", [body, [pairs[0], flipped]], "charter-signature")
    third = [STEWARDS[2].public, bytes(64)]
    add(
        "two good signatures and a bad one", "every one present must hold", [body, [*pairs, third]], "charter-signature"
    )
    add("signatures falling", "", [body, pairs[::-1]], "charter-encoding")
    add("one signature twice", "", [body, [pairs[0], pairs[0]]], "charter-encoding")
    add("a signature of 63 bytes", "", [body, [[key, signature[:63]]]], "charter-encoding")
    add("a signature without its key", "", [body, [[signature]]], "charter-encoding")
    add("a signature of three parts", "", [body, [[key, signature, 0]]], "charter-encoding")
    add("a signed charter of one part", "", [body], "charter-encoding")
    add("a signed charter that is a number", "", 0, "charter-encoding")
    _add(file, "4.2", "a signed charter with bytes after it", "", [good.to_bytes() + b"\0"], "charter-encoding")
    add("a signed charter of three parts", "", [body, pairs, 0], "charter-encoding")
    other = [[key.public, key.sign("entry", FIRST.id)] for key in STEWARDS[:2]]
    add("signed in another role", "role entry instead of charter", [body, other], "charter-signature")


def _versions(file: Vectors) -> None:
    new = AccountKey(bytes([25]) * 32)
    second = replace(FIRST, number=2, previous=FIRST.id, effective=3, exposure_cap=2000)
    moved = replace(second, stewards=(new.public,), threshold=1)
    third = replace(moved, number=3, previous=moved.id, effective=4)
    first = _sign(FIRST).to_bytes()

    def add(name: str, shows: str, charter: Charter, expected: str = "ok", *before: SignedCharter,
            keys: list[AccountKey] = STEWARDS[:2]) -> None:  # fmt: skip
        versions = [first, *(version.to_bytes() for version in before), _sign(charter, keys).to_bytes()]
        _add(file, "4.2", name, shows, versions, expected)

    add("a second version", "signed by two stewards of the first", second)
    add("the first again", "known: nothing changes", FIRST)
    add("a second version by other stewards", "the stewards of the first decide", moved)
    add("a second version signed by its own stewards", "", moved, "charter-signature", keys=[new])
    add("a third version by the stewards of the second", "", third, "ok", _sign(moved), keys=[new])
    add("a third version by the stewards of the first", "", third, "charter-signature", _sign(moved))
    add("a version left out", "3 after 1", third, "charter-chain", keys=[new])
    add("another previous", "", replace(second, previous=bytes([1]) * 32), "charter-chain")
    add("in force no later", "effective 0 after 0", replace(second, effective=0), "charter-chain")
    add("in force one period later", "", replace(second, effective=1))
    add("other costs, languages and reserve", "", replace(
        second, languages=("de", "en"), newcomer_permille=0, half_life_slices=1, ageing_slices=1, refused=("mining",),
        cost=CostBasis("EUR", 0, 0, (DeviceCost("cpu-8", 500, 1, 0, 1),)),
    ))  # fmt: skip
    add("another epoch", "", replace(second, epoch=FIRST.epoch + 1), "charter-chain")
    add("another slice length", "", replace(second, slice_s=43_200), "charter-chain")
    add("another period length", "", replace(second, period_slices=11), "charter-chain")
    _add(file, "4.3", "two second versions", "the one that came first is kept",
         [first, _sign(second).to_bytes(), _sign(moved).to_bytes()], "charter-conflict")  # fmt: skip
    _add(file, "4.2", "a second version again", "known: nothing changes",
         [first, _sign(moved).to_bytes(), _sign(moved).to_bytes()])  # fmt: skip
    _add(file, "4.3", "another second version by the stewards of the second", "the stewards of the first decide",
         [first, _sign(moved).to_bytes(), _sign(second, [new]).to_bytes()], "charter-signature")  # fmt: skip
    _add(file, "4.3", "another second version after a third", "",
         [first, _sign(moved).to_bytes(), _sign(third, [new]).to_bytes(), _sign(second).to_bytes()],
         "charter-conflict")  # fmt: skip
    _add(file, "4.3", "another second version without signatures", "not a conflict: anybody can make one",
         [first, _sign(second).to_bytes(), SignedCharter(moved).to_bytes()], "charter-signature")  # fmt: skip
    _add(file, "4.3", "another first version", "another network's",
         [first, _sign(replace(FIRST, name="other")).to_bytes()], "charter-conflict")  # fmt: skip
