"""One branch: its ids, slices, keys and receipts."""

from __future__ import annotations

from ubcp_p2p.ledger.chain import AccountChain, Chain, Enrolment, Income, Powers
from ubcp_p2p.ledger.entry import ZERO, Entry, OpenAccount, Position
from ubcp_p2p.ledger.index import Index

A = b"A" * 32
IDS = [bytes([n]) * 32 for n in range(1, 5)]


def _entry(seq: int) -> Entry:
    prev = IDS[seq - 1] if seq else ZERO
    return Entry(ZERO, A, seq, prev, 10 * seq, 1, OpenAccount(ZERO), IDS[seq])


def _chain(length: int = 3) -> Chain:
    chain = Chain(A)
    for seq in range(length):
        chain.append(_entry(seq))
    return chain


def test_an_empty_chain() -> None:
    chain = Chain(A)
    assert (len(chain), chain.slice, chain.id_at(0), list(chain.own_ids())) == (0, 0, None, [])


def test_what_lies_where() -> None:
    chain = _chain()
    assert (len(chain), chain.opening, chain.head_id, chain.slice) == (3, IDS[0], IDS[2], 20)
    assert chain.head == Position(A, 2, IDS[2])
    assert list(chain.own_ids()) == IDS[:3]
    assert [chain.id_at(seq) for seq in (-1, 0, 2, 3)] == [None, IDS[0], IDS[2], None]
    assert [chain.slice_at(seq) for seq in range(3)] == [0, 10, 20]


def test_which_places_a_branch_passes() -> None:
    chain = _chain()
    assert chain.has(Position(A, 1, IDS[1]))
    assert not chain.has(Position(A, 1, IDS[2]))
    assert not chain.has(Position(A, 3, IDS[3]))
    assert not chain.has(Position(b"B" * 32, 1, IDS[1]))


def test_an_id_is_found_only_where_one_begins() -> None:
    chain = Chain(A)
    tricky = [bytes([1, 1]) * 16, bytes([1, 1]) * 15 + bytes([2, 2]), bytes([1, 1]) + bytes(30)]
    for seq, id_ in enumerate(tricky):
        chain.append(_entry(seq)._replace(id=id_))
    index = Index([chain])
    assert [index.holder(id_) for id_ in tricky] == [chain] * 3
    across = tricky[0][-28:] + bytes(4)  # what lies across the first cell's id and its number
    assert index.holder(across) is None
    assert index.holder(b"w" * 32) is None


def test_what_follows_the_head() -> None:
    chain = _chain()
    assert chain.is_before(_entry(3))
    assert not chain.is_before(_entry(3)._replace(seq=4))
    assert not chain.is_before(_entry(2))


def test_keys_in_force() -> None:
    chain = AccountChain(A, b"r" * 32)
    first, second, third = Powers(A, b"r" * 32), Powers(b"B" * 32, b"r" * 32), Powers(b"C" * 32, ZERO)
    chain.rotate(3, second)
    chain.rotate(5, third)
    assert [chain.powers_at(seq) for seq in (0, 2, 3, 4, 5, 9)] == [first, first, second, second, third, third]
    assert chain.powers == third


def test_a_node_signs_with_its_own_key() -> None:
    chain = _chain()
    assert chain.powers == chain.powers_at(2) == Powers(A, ZERO)


def test_the_newest_enrolment_of_a_period_counts() -> None:
    chain = AccountChain(A, ZERO)
    chain.enrolments = [Enrolment(False, "lab", 1, 3, 1), Enrolment(True, "lab", 3, 5, 3)]
    assert [getattr(chain.enrolled(period), "newcomer", None) for period in range(6)] == [
        None, False, False, True, True, None,
    ]  # fmt: skip


def test_receipts_between_two_places() -> None:
    income = Income()
    for seq in (2, 4, 7):
        income.append(seq, seq * 10, seq * 100, seq * 1000)
    assert [credits_ for _, _, credits_ in income.between(2, 7)] == [4000, 7000]
    assert list(income.between(-1, 2)) == [(20, 200, 2000)]
    assert list(income.between(4, 6)) == []
