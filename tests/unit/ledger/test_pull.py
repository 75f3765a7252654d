"""What a pull asks in each situation, and what it makes of answers that fit no question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from typing import Any

import pytest

from tests.support.ledgers import MemoryLedger, at, busy
from ubcp_p2p.codec import MalformedMessage, Value, encode
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, Decision, Kind, OpenAccount
from ubcp_p2p.ledger.pull import LOG_WHEN, PATIENCE, Ask, Hello, OtherNetwork, Take, pull
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import World, secret

Reply = Callable[[list[Any]], "Value | None"]  # another answer to a question, or None: the honest one


def ledger(world: World, size: int | None = None) -> MemoryLedger:
    """The first `size` entries of a World."""
    return MemoryLedger(world.charters.versions, world.entries[:size])


def drive(local: MemoryLedger, honest: MemoryLedger, lie: Reply = lambda question: None) -> int:
    """Pull with some answers replaced; returns how many questions it took."""
    steps, reply = pull(local), None
    for asked in range(10_000_000):
        try:
            step = steps.send(reply)
        except StopIteration:
            return asked
        reply = None
        if isinstance(step, Ask):
            question = step.question
            assert isinstance(question, list)
            assert len(encode(question)) <= sync.QUESTION_BYTES_MAX
            reply = lie(question)
            reply = honest.answer(question) if reply is None else reply
        else:
            local.take(step)
    raise AssertionError("it never ends")


@cache
def small() -> World:
    return busy(1, receipts=3, forks=[(2, 2)])


@cache
def large() -> World:
    """Thousands of entries, whose signatures cost 1 s."""
    return busy(2, people=4, receipts=800)


# -- what is asked ----------------------------------------------------------------------------------------------------


def test_equal_ledgers_ask_one_question() -> None:
    a, b = ledger(small()), ledger(small())
    assert a.pull(b) == 0
    assert b.questions == [sync.HELLO]


def test_one_entry_behind_costs_three_questions() -> None:
    a, b = ledger(large(), -1), ledger(large())
    assert a.pull(b) == 1
    assert b.questions == [sync.HELLO, sync.HEADS, sync.RANGES]


@pytest.mark.slow
def test_who_is_far_behind_reads_the_log() -> None:
    b = ledger(large())
    assert b.size > 2048 + LOG_WHEN > sync.ENTRIES_MAX
    for have in (0, 200):
        a = ledger(large(), have)
        b.questions.clear()
        assert a.pull(b) == b.size - have
        assert a.roots() == b.roots()
        assert set(b.questions) == {sync.HELLO, sync.LOG}


@pytest.mark.slow
def test_long_chains_come_in_pieces() -> None:
    """Too little behind for the log: every chain by its own ranges, more than an answer holds."""
    b = ledger(large())
    a = ledger(large(), b.size // 2)
    assert a.pull(b) == b.size - b.size // 2
    assert a.roots() == b.roots()
    assert sync.LOG not in b.questions


@pytest.mark.parametrize("depth", [0, 1, 63, 64, 65, 320, 600])
def test_a_fork_is_found_however_deep(depth: int) -> None:
    """Both have long branches of one author that part `depth` entries before their ends."""
    world = World(5)
    owner = world.account("owner")
    node = world.node(owner, "node")
    trunk = list(world.entries)

    def extend(author: Author, length: int, mark: bytes) -> list[Signed]:
        start = len(world.entries)
        for _ in range(length):
            world.write(author, Decision(world.now, 0, 1, (), (), mark * 32))
        return world.entries[start:]

    trunk += extend(node, 700 - depth, b"t")
    twin = at(node, node.head)
    one, other = extend(node, depth + 1, b"1"), extend(twin, depth + 1, b"2")
    a = MemoryLedger(world.charters.versions, trunk + one)
    b = MemoryLedger(world.charters.versions, trunk + other)
    assert a.pull(b) == depth + 1
    assert a.roots() == ledger(world).roots()
    assert a.ledger.frozen() == [node.public]
    assert len(b.questions) < 12


def test_more_branches_than_an_answer_tells_of() -> None:
    """One who forks a hundred times cannot keep two honest ledgers apart."""
    world = World(6)
    node = world.node(world.account("owner"), "node")
    places = [node.head]
    for _ in range(sync.HEADS_MAX + 10):
        world.write(node, Decision(world.now, 0, 1, (), (), ZERO))
        places.append(node.head)
    trunk = len(world.entries)
    for place in places[:-1]:
        world.write(at(node, place), Decision(world.now, 0, 1, (), (), b"b" * 32))
    a, b = (
        MemoryLedger(world.charters.versions, [s for n, s in enumerate(world.entries) if n - trunk not in lacking])
        for lacking in ((0, 2), (1,))
    )
    assert (a.pull(b), b.pull(a)) == (2, 1)
    assert a.roots() == b.roots() == ledger(world).roots()
    assert a.pull(b) == 0
    assert b.questions[-1] == sync.HELLO


def test_a_proof_comes_before_entries_and_freezes() -> None:
    a, b = ledger(small(), -2), ledger(small())
    assert not a.ledger.frozen()
    steps, order = pull(a), []
    reply: Value | None = None
    try:
        while True:
            step = steps.send(reply)
            reply = None
            if isinstance(step, Ask):
                reply = b.answer(step.question)
            else:
                order.append((step.what, bool(a.ledger.frozen())))
                a.take(step)
    except StopIteration:
        pass
    assert order[0] == (sync.PROOFS, False)
    assert order[1] == (sync.IDS, True)
    assert a.roots() == b.roots()


def test_long_chains_of_one_bucket_share_answers() -> None:
    """Three authors in one question: the answers stop in the middle of each."""
    world = World(4)
    owner = world.account("owner")
    names = (f"node {n}" for n in count())
    first_byte = NodeKey(secret(4, "node first")).public[0]
    alike = (name for name in names if NodeKey(secret(4, f"node {name}")).public[0] == first_byte)
    nodes = sorted((world.node(owner, next(alike)) for _ in range(3)), key=lambda node: node.public)
    before = len(world.entries)
    for node, length in zip(nodes, (515, 505, 5), strict=True):
        for _ in range(length):
            world.write(node, Decision(world.now, 0, 1, (), (), ZERO))
    a, b = ledger(world, before), ledger(world)
    assert a.pull(b) == 1025
    assert b.questions == [sync.HELLO, sync.HEADS, sync.RANGES, sync.RANGES, sync.RANGES]


def test_entries_that_must_wait_starve_no_other() -> None:
    """600 entries of the first author in the bucket hang on the second; that one is asked for all the same."""
    world = World(9)
    accounts = [world.account(f"person {n}") for n in range(2)]
    earner = world.node(accounts[1], "earner")
    names = (f"payer {n}" for n in count())
    payer_name = next(
        name
        for name in names
        if earner.public < NodeKey(secret(9, f"node {name}")).public
        and NodeKey(secret(9, f"node {name}")).public[0] == earner.public[0]
    )
    before = len(world.entries)
    payer = world.node(accounts[0], payer_name)
    request = world.request(accounts[0], payer, 5_000_000, slices=20_000)
    allot = world.allot(payer, request, earner, 5_000_000)
    for _ in range(600):
        world.now += 1
        world.receipt(earner, payer, allot, 1)
    a, b = ledger(world, before), ledger(world)
    a.pull(b)
    assert a.roots() == b.roots()


def test_junk_that_waits_for_nothing_real_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is asked for by id, each once: here nothing else tells that the peer has it."""
    whole = ledger(small())
    a = MemoryLedger(small().charters.versions, [s for s in whole.order if s.entry.kind != Kind.ALLOT])
    junk = [bytes([n]) * 32 for n in range(256)]
    real = a.missing
    assert real()
    monkeypatch.setattr(a, "missing", lambda: junk + real())

    def nothing_new(question: list[Any]) -> Value | None:
        honest = whole.answer(question)
        assert isinstance(honest, list)
        return [*honest[:4], list(a.heads().digests()), honest[5]] if question[0] == sync.HELLO else None

    drive(a, whole, nothing_new)
    assert a.roots() == whole.roots()


def test_buckets_of_many_authors_come_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "AUTHORS_MAX", 2)
    monkeypatch.setattr("ubcp_p2p.ledger.pull.AUTHORS_MAX", 2)
    network = small().charters.network
    keys = (AccountKey(n.to_bytes(32, "big")) for n in range(600))
    entries = [Author(network, key).write(0, OpenAccount(ZERO)) for key in keys]
    sizes = Counter(signed.entry.author[0] for signed in entries)
    assert max(sizes.values()) > 4
    versions = small().charters.versions
    a, b = MemoryLedger(versions, entries[:1]), MemoryLedger(versions, entries)
    assert a.pull(b) == 599
    differing = {bucket: size for bucket, size in sizes.items() if (bucket, size) != (entries[0].entry.author[0], 1)}
    assert b.questions.count(sync.HEADS) == sum(size // 2 + 1 for size in differing.values())


# -- hostile answers --------------------------------------------------------------------------------------------------


def honest_of(question: list[Any]) -> Value:
    return ledger(small()).answer(question)


def change(kind: int, make: Callable[[list[Any]], Value]) -> Reply:
    """A lie to one kind of question, made from the honest answer."""

    def lie(question: list[Any]) -> Value | None:
        honest = honest_of(question)
        assert isinstance(honest, list)
        return make(honest) if question[0] == kind else None

    return lie


def _entry() -> bytes:
    return small().entries[0].to_bytes()


def _foreign() -> bytes:
    return (
        World(77).take(Author(World(77).charters.network, AccountKey(bytes(32))).write(0, OpenAccount(ZERO))).to_bytes()
    )


HOSTILE: dict[str, Reply] = {
    "no list": change(sync.HELLO, lambda honest: 7),
    "empty": change(sync.HELLO, lambda honest: []),
    "another kind": change(sync.HELLO, lambda honest: [sync.HEADS, *honest[1:]]),
    "a field too few": change(sync.HELLO, lambda honest: honest[:-1]),
    "a huge size": change(sync.HELLO, lambda honest: [*honest[:-1], 2**63]),
    "255 digests": change(sync.HELLO, lambda honest: [*honest[:4], honest[4][1:], honest[5]]),
    "257 digests": change(sync.HELLO, lambda honest: [*honest[:4], [*honest[4], bytes(32)], honest[5]]),
    "short digests": change(sync.HELLO, lambda honest: [*honest[:4], [b"x"] * 256, honest[5]]),
    "too many proofs": change(sync.HELLO, lambda honest: [*honest[:3], [bytes(32)] * 4097, *honest[4:]]),
    "too many charters": change(sync.HELLO, lambda honest: [*honest[:2], [bytes(32)] * 1025, *honest[3:]]),
    "proofs of another kind": change(sync.PROOFS, lambda honest: [sync.IDS, honest[1]]),
    "more proofs than asked": change(sync.PROOFS, lambda honest: [sync.PROOFS, honest[1] * 2]),
    "heads of another bucket": change(sync.HEADS, lambda honest: [sync.HEADS, [[bytes(32), []]]]),
    "heads twice": change(sync.HEADS, lambda honest: [sync.HEADS, honest[1] * 2]),
    "heads without place": change(sync.HEADS, lambda honest: [sync.HEADS, [[honest[1][0][0], [[0]]]]]),
    "a huge number": change(sync.HEADS, lambda honest: [sync.HEADS, [[honest[1][0][0], [[2**32, bytes(32)]]]]]),
    "an author without heads": change(sync.HEADS, lambda honest: [sync.HEADS, [[honest[1][0][0], []]]]),
    "65 heads": change(sync.HEADS, lambda honest: [sync.HEADS, [[honest[1][0][0], [[1, bytes(32)]] * 65]]]),
    "ranges of another kind": change(sync.RANGES, lambda honest: [sync.IDS, honest[1]]),
    "ranges of nothing asked": change(sync.RANGES, lambda honest: [sync.RANGES, [_entry(), *honest[1]]]),
    "ranges backwards": change(sync.RANGES, lambda honest: [sync.RANGES, honest[1][::-1]]),
    "513 entries": change(sync.RANGES, lambda honest: [sync.RANGES, [_entry()] * 513]),
    "no entries": change(sync.RANGES, lambda honest: [sync.RANGES, [b"junk"]]),
    "entries of no bytes": change(sync.RANGES, lambda honest: [sync.RANGES, [7]]),
    "another community's": change(sync.RANGES, lambda honest: [sync.RANGES, [_foreign()]]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_answer_that_does_not_fit_is_held_against_the_peer(name: str) -> None:
    with pytest.raises(MalformedMessage):
        drive(ledger(small(), 4), ledger(small()), HOSTILE[name])


@pytest.mark.parametrize("reply", [[], [sync.IDS], [sync.RANGES, []], [sync.IDS, [b"junk"]], [sync.IDS, [7]]])
def test_answers_to_ids_are_checked_too(reply: list[Any]) -> None:
    a = MemoryLedger(small().charters.versions, small().entries[5:])
    assert a.missing()
    with pytest.raises(MalformedMessage):
        drive(a, a, lambda question: reply if question[0] == sync.IDS else None)


def test_ids_that_were_not_asked_for() -> None:
    a = MemoryLedger(small().charters.versions, small().entries[5:])
    with pytest.raises(MalformedMessage, match="not asked for"):
        drive(a, a, lambda question: [sync.IDS, [small().entries[-1].to_bytes()]] if question[0] == sync.IDS else None)


def test_another_community_is_nobodys_fault() -> None:
    with pytest.raises(OtherNetwork):
        ledger(small()).pull(ledger(World(77)))


def test_heads_of_nothing_cost_one_question_each() -> None:
    """Invented heads, whose entries never come."""
    a, b = ledger(small(), 4), ledger(small())

    def lie(question: list[Any]) -> Value | None:
        return [sync.RANGES, []] if question[0] == sync.RANGES else None

    drive(a, b, lie)
    assert b.questions.count(sync.HEADS) == len({head.author[0] for head in b.heads()} - _same(a, b))
    assert drive(a, b) > 0
    assert a.roots() == b.roots()


def _same(a: MemoryLedger, b: MemoryLedger) -> set[int]:
    pairs = zip(a.heads().digests(), b.heads().digests(), strict=True)
    return {bucket for bucket, (one, other) in enumerate(pairs) if one == other}


def test_authors_without_end_end() -> None:
    names: Iterator[int] = iter(range(1, 2**200))

    def lie(question: list[Any]) -> Value | None:
        if question[0] == sync.HELLO:
            honest = honest_of(question)
            assert isinstance(honest, list)
            return [*honest[:4], [b"\7" * 32] * 256, 2**53 - 1]
        if question[0] == sync.LOG:
            return [sync.LOG, question[1], []]
        if question[0] == sync.HEADS:
            heads: Value = [[0, bytes(32)]]
            rows = [[bytes([question[1]]) + next(names).to_bytes(31, "big"), heads] for _ in range(sync.AUTHORS_MAX)]
            return [sync.HEADS, rows]  # type: ignore[list-item]
        if question[0] == sync.RANGES:
            return [sync.RANGES, []]
        return None

    asked = []
    with pytest.raises(MalformedMessage, match="without end"):
        drive(ledger(small()), ledger(small()), lambda question: asked.append(1) or lie(question))  # type: ignore[func-returns-value]
    assert len(asked) <= PATIENCE + 4


def test_a_log_without_end_ends() -> None:
    asked = []

    def lie(question: list[Any]) -> Value | None:
        asked.append(question[0])
        if question[0] == sync.HELLO:
            honest = honest_of(question)
            assert isinstance(honest, list)
            return [*honest[:-1], 2**53 - 1]
        return [sync.LOG, question[1] + 1, [_entry()]] if question[0] == sync.LOG else None

    with pytest.raises(MalformedMessage, match="without end"):
        drive(ledger(small()), ledger(small()), lie)
    assert len(asked) <= PATIENCE + 4


def test_a_log_that_stands_still_is_refused() -> None:
    def lie(question: list[Any]) -> Value | None:
        if question[0] == sync.HELLO:
            honest = honest_of(question)
            assert isinstance(honest, list)
            return [*honest[:-1], 100_000]
        return [sync.LOG, question[1], [_entry()]] if question[0] == sync.LOG else None

    with pytest.raises(MalformedMessage, match="does not go on"):
        drive(ledger(small()), ledger(small()), lie)


# -- answering --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "question",
    [
        7, b"", [], [b"x"], [8], [99], [0], [0, bytes(32)], [0, b"short", 1], [0, bytes(32), 2**63], [1, [2000]],
        [1, list(range(65))], [1, b"x"], [2, [b"short"]], [2, [bytes(32)] * 65], [3, 256, bytes(32)], [3, 0, b""],
        [4, [[bytes(32), 0, 2**32]]], [4, [[bytes(32), 0]]], [4, [[bytes(32), 0, 0]] * 257], [5, [bytes(32)] * 257],
        [5, [1]], [6], [6, b"short"], [7], [7, 2**53], [7, b"x"],
    ],
)  # fmt: skip
def test_a_question_that_is_none_is_refused(question: Any) -> None:
    with pytest.raises(MalformedMessage):
        sync.answer(question, ledger(small()))


@pytest.mark.slow
def test_every_answer_fits_into_a_frame() -> None:
    full = ledger(large())
    every: list[Value] = [[author, 0, 2**32 - 1] for author in sorted(full.ledger.chains)]
    questions: list[Value] = [
        [sync.HELLO, full.network, 1], [sync.CHARTERS, [0, 1, 2, 1024]], [sync.PROOFS, [bytes(32)]],
        [sync.RANGES, every * 20], [sync.LOG, 0], [sync.LOG, 2**53 - 1],
        [sync.IDS, [s.entry.id for s in full.order[:256]]], [sync.BLOB, bytes(32)],
    ]  # fmt: skip
    questions += [[sync.HEADS, bucket, bytes(32)] for bucket in range(256)]
    for question in questions:
        assert len(encode(sync.answer(question, full))) <= sync.FRAME_BYTES_MAX
    ranges: Any = sync.answer(questions[3], full)
    assert len(ranges[1]) == sync.ENTRIES_MAX


def test_an_answer_stops_at_its_bytes_and_reads_no_further() -> None:
    read = []

    class Big(MemoryLedger):
        def range(self, author: bytes, first: int, last: int) -> Iterator[bytes]:
            for number in range(first, last):
                read.append(number)
                yield bytes(20_000)

    answer: Any = sync.answer([sync.RANGES, [[bytes(32), 0, 2**32 - 1]]], Big(small().charters.versions))
    assert answer[0] == sync.RANGES
    assert sum(len(row) for row in answer[1]) <= sync.ANSWER_BYTES_MAX
    assert len(read) == len(answer[1]) + 1


def test_take_steps_never_hold_what_is_known() -> None:
    a, b = ledger(small(), 7), ledger(small())
    steps, reply = pull(a), None
    try:
        while True:
            step = steps.send(reply)
            reply = b.answer(step.question) if isinstance(step, Ask) else None
            if isinstance(step, Take):
                assert not any(a.contains(s.entry.author, s.entry.seq, s.entry.id) for s in step.entries)
                a.take(step)
    except StopIteration:
        pass
    assert a.roots() == b.roots()


def test_a_hello_names_all_forks_in_time_when_there_are_too_many() -> None:
    class Many(MemoryLedger):
        def proof_ids(self) -> list[bytes]:
            return [number.to_bytes(32, "big") for number in range(total)]

    total, world = sync.PROOFS_MAX + 1000, busy(1)
    many = Many(world.charters.versions)
    told: set[bytes] = set()
    for place in (0, 1, total - 1, 3000, 2**32 - 1):
        answer = sync.answer([sync.HELLO, many.network, 1], many, place)
        assert isinstance(answer, list)
        hello = Hello.of(answer, many.network)
        assert len(hello.proof_ids) == sync.PROOFS_MAX
        assert list(hello.proof_ids) == sorted(set(hello.proof_ids))
        told.update(hello.proof_ids)
    assert told == set(many.proof_ids())
    total = sync.PROOFS_MAX
    for place in (0, 7):
        assert Hello.of(sync.answer([sync.HELLO, many.network, 1], many, place), many.network).proof_ids == tuple(
            many.proof_ids()
        )
