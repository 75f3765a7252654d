"""Cards, groups, ballots and certificates hold for any input; nothing that was changed on the way is accepted."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS, OFFER_BYTES, OTHER_RUN, RUN, card, certificate, digest, group
from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.swarm.quorum import (
    CARD_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    MEMBERS_MAX,
    ROUND_MAX,
    WEIGHT_MAX,
    Ballot,
    Card,
    Certificate,
    Group,
    form_group,
    is_majority,
    leaves_room,
    vote_digest,
)

CARDS = [card(key, offer=f"offer {n}", weight=n) for n, key in enumerate(KEYS)]
CERTIFICATE = certificate(KEYS[:4], KEYS[:3])
hashes = st.binary(min_size=32, max_size=32)


def formed(cards: list[bytes], members_max: int = MEMBERS_MAX) -> tuple[bytes, int]:
    made, refused = form_group(
        RUN, 3, digest("base"), cards, offer_bytes=OFFER_BYTES, weight_max=8, members_max=members_max
    )
    return made.digest, len(refused)


# -- cards -------------------------------------------------------------------------------------------------------


@given(
    hashes, st.integers(0, ROUND_MAX), hashes, st.integers(0, WEIGHT_MAX), hashes, st.integers(0, 2**48), hashes, hashes
)
def test_a_card_survives_its_bytes(
    run_id: bytes, round_: int, base: bytes, weight: int, offer: bytes, size: int, trail: bytes, payer: bytes
) -> None:
    made = Card(run_id, round_, base, KEYS[0].public, weight, offer, size, trail, payer).signed(KEYS[0])
    data = made.to_bytes()
    assert Card.from_bytes(data) == made
    assert len(data) <= CARD_BYTES_MAX


@given(st.data())
def test_a_changed_byte_of_a_card_is_refused(data: st.DataObject) -> None:
    good = CARDS[1].to_bytes()
    place, flip = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    with pytest.raises(MalformedMessage):
        Card.from_bytes(good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :])


@given(st.binary(max_size=600))
def test_bytes_that_are_no_card_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Card.from_bytes(data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"run_id": b"short"}, {"base_hash": b"\0" * 33}, {"offer_hash": b""}, {"round": ROUND_MAX + 1},
        {"weight": WEIGHT_MAX + 1}, {"offer_bytes": 2**48 + 1}, {"round": b"3"}, {"run_id": "text" * 8}, {"weight": []},
        {"payer": b""},
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_kind_or_size_is_refused_though_signed(wrong: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage, match="expected"):
        Card.from_bytes(replace(CARDS[1], **wrong).signed(KEYS[1]).to_bytes())


@pytest.mark.parametrize("wrong", [{"peer": b"\0" * 31}, {"signature": b"\0" * 63}, {"signature": b"\0" * 65}])
def test_a_key_or_signature_of_another_length_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage, match="expected"):
        Card.from_bytes(replace(CARDS[1], **wrong).to_bytes())


def test_a_card_signed_by_another_or_in_another_role_is_refused() -> None:
    mine = CARDS[0]
    other = replace(mine, signature=KEYS[1].sign("card", mine.digest()))
    role = replace(mine, signature=KEYS[0].sign("vote", mine.digest()))
    for forged in (other, role, replace(mine, signature=b"\0" * 64)):
        with pytest.raises(MalformedMessage, match="signature"):
            Card.from_bytes(forged.to_bytes())


def test_a_longer_message_than_any_card_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedMessage, match="at most"):
        Card.from_bytes(b"\0" * (CARD_BYTES_MAX + 1))


# -- groups ------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(range(12)), max_size=20), st.lists(st.binary(max_size=40), max_size=4), st.randoms())
def test_a_group_does_not_depend_on_the_order_of_the_leaders_list(
    chosen: list[int], garbage: list[bytes], chance: random.Random
) -> None:
    again = [card(KEYS[n], offer="a second one").to_bytes() for n in chosen[:2]]
    cards = [*(CARDS[n].to_bytes() for n in chosen), *garbage, *again]
    shuffled = list(cards)
    chance.shuffle(shuffled)
    assert formed(cards) == formed(shuffled)
    assert formed(cards, members_max=3) == formed(shuffled, members_max=3)


@given(st.sets(st.sampled_from(range(12)), min_size=1))
def test_a_group_has_its_members_sorted_with_clamped_weights(chosen: set[int]) -> None:
    cards = [CARDS[n].to_bytes() for n in chosen]
    made, refused = form_group(RUN, 3, digest("base"), cards, offer_bytes=OFFER_BYTES, weight_max=5)
    assert not refused
    assert made.peers == tuple(sorted(KEYS[n].public for n in chosen))
    weights = {seat.peer: seat.weight for seat in made.members}
    assert weights == {KEYS[n].public: min(max(n, 1), 5) for n in chosen}


def test_cards_that_do_not_belong_are_left_out() -> None:
    foreign = replace(CARDS[1], run_id=OTHER_RUN).signed(KEYS[1])
    cards = [CARDS[0], foreign, card(KEYS[2], round_=4), card(KEYS[3], base=digest("elsewhere"))]
    short = replace(CARDS[4], offer_bytes=4).signed(KEYS[4])
    made, refused = form_group(
        RUN, 3, digest("base"), [c.to_bytes() for c in (*cards, short)], offer_bytes=OFFER_BYTES, weight_max=8
    )
    assert made.peers == (KEYS[0].public,)
    assert len(refused) == 4
    assert any("4 bytes where the model has 4096" in why for why in refused)


def test_a_second_card_of_one_peer_is_left_out() -> None:
    twice = [CARDS[0].to_bytes(), card(KEYS[0], offer="another").to_bytes()]
    made, refused = form_group(RUN, 3, digest("base"), twice, offer_bytes=OFFER_BYTES, weight_max=8)
    assert len(made.members) == 1
    assert refused == ["a second card of one peer"]


def test_a_leader_cannot_fill_a_group_beyond_its_seats() -> None:
    cards = [c.to_bytes() for c in CARDS]
    made, refused = form_group(RUN, 3, digest("base"), cards, offer_bytes=OFFER_BYTES, weight_max=8, members_max=8)
    assert len(made.members) == 8
    assert len(refused) == 4
    many = [*cards, *[b"garbage"] * 1000]
    _, refused = form_group(RUN, 3, digest("base"), many, offer_bytes=OFFER_BYTES, weight_max=8)
    assert len(refused) <= MEMBERS_MAX


@given(st.sampled_from(["run_id", "round", "base_hash", "peer", "weight", "offer", "trail", "payer"]))
def test_the_digest_of_a_group_covers_everything(field: str) -> None:
    made = group(k.public for k in KEYS[:3])
    first, *others = made.members

    def with_seat(**changes: Any) -> Group:
        return replace(made, members=(first._replace(**changes), *others))

    changed = {
        "run_id": replace(made, run_id=OTHER_RUN),
        "round": replace(made, round=4),
        "base_hash": replace(made, base_hash=digest("x")),
        "peer": with_seat(peer=KEYS[9].public),
        "weight": with_seat(weight=first.weight + 1),
        "offer": with_seat(offer=digest("x")),
        "trail": with_seat(trail=digest("x")),
        "payer": with_seat(payer=digest("x")),
    }
    assert changed[field].digest != made.digest


# -- ballots -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.lists(st.sampled_from(["a", "b", "c"]), max_size=12))
def test_who_wins_a_ballot(size: int, votes: list[str]) -> None:
    ballot = Ballot(group(k.public for k in KEYS[:size]), {})
    votes = votes[:size]
    for key, vote in zip(KEYS, votes, strict=False):
        assert ballot.add(key.public, digest(vote), key.sign("vote", vote_digest(ballot.group.digest, digest(vote))))
    expected = [digest(v) for v in set(votes) if 2 * votes.count(v) > size]
    assert ballot.winner() == (expected[0] if expected else None)
    assert ballot.unanimous() == (len(votes) == size and len(set(votes)) == 1)
    assert set(ballot.missing()) == {k.public for k in KEYS[len(votes) : size]}
    if expected:
        made = ballot.certificate(expected[0])
        assert Certificate.from_bytes(made.to_bytes(), RUN) == made


def test_only_the_first_vote_of_a_member_counts() -> None:
    ballot = Ballot(group(k.public for k in KEYS[:3]), {})

    def vote(state: str) -> bytes:
        return KEYS[0].sign("vote", vote_digest(ballot.group.digest, digest(state)))

    assert ballot.add(KEYS[0].public, digest("first"), vote("first"))
    assert ballot.add(KEYS[0].public, digest("second"), vote("second"))
    assert ballot.votes[KEYS[0].public][0] == digest("first")


def test_a_vote_of_a_stranger_or_with_a_wrong_signature_does_not_count() -> None:
    ballot = Ballot(group(k.public for k in KEYS[:3]), {})
    right = vote_digest(ballot.group.digest, digest("state"))
    elsewhere = vote_digest(group(k.public for k in KEYS[:4]).digest, digest("state"))
    assert not ballot.add(KEYS[5].public, digest("state"), KEYS[5].sign("vote", right))
    assert not ballot.add(KEYS[0].public, digest("state"), KEYS[1].sign("vote", right))
    assert not ballot.add(KEYS[0].public, digest("state"), KEYS[0].sign("vote", elsewhere))
    assert not ballot.add(KEYS[0].public, digest("state"), KEYS[0].sign("card", right))
    assert not ballot.add(KEYS[0].public, digest("other"), KEYS[0].sign("vote", right))
    assert ballot.votes == {}


@given(st.integers(0, 200), st.integers(0, 200))
def test_two_majorities_share_a_member(votes: int, of: int) -> None:
    assert is_majority(votes, of) == (votes > of - votes)
    assert not (is_majority(votes, of) and is_majority(of - votes, of))


# -- certificates ------------------------------------------------------------------------------------------------


@given(st.data())
def test_a_changed_byte_of_a_certificate_is_refused(data: st.DataObject) -> None:
    good = CERTIFICATE.to_bytes()
    place, flip = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    with pytest.raises(MalformedMessage):
        Certificate.from_bytes(good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :], RUN)


@given(st.integers(0, len(CERTIFICATE.to_bytes()) - 1))
def test_a_cut_certificate_is_refused(length: int) -> None:
    with pytest.raises(MalformedMessage):
        Certificate.from_bytes(CERTIFICATE.to_bytes()[:length], RUN)


@given(st.integers(1, 12), st.integers(0, 12))
def test_a_certificate_needs_more_than_half_of_its_group(members: int, signers: int) -> None:
    made = certificate(KEYS[:members], KEYS[: min(signers, members)])
    if 2 * min(signers, members) > members:
        assert Certificate.from_bytes(made.to_bytes(), RUN) == made
        assert made.round == 4
    else:
        with pytest.raises(MalformedMessage, match="no majority"):
            Certificate.from_bytes(made.to_bytes(), RUN)


def test_certificates_that_are_refused() -> None:
    good = CERTIFICATE
    (first, second, third) = good.signatures
    members = good.group.members
    with pytest.raises(MalformedMessage, match="another run"):
        Certificate.from_bytes(good.to_bytes(), OTHER_RUN)
    for bad in (
        replace(good, signatures=(first, first, first)),  # one signer three times
        replace(good, signatures=(third, second, first)),  # in another order: a second encoding of one fact
        replace(good, signatures=(*good.signatures, (KEYS[9].public, b"\0" * 64))),  # a foreign signer
        replace(good, group=replace(good.group, members=(members[0], *members))),  # one member twice
        replace(good, group=replace(good.group, members=members[::-1])),
    ):
        with pytest.raises(MalformedMessage, match="doubled or foreign"):
            Certificate.from_bytes(bad.to_bytes(), RUN)
    for bad in (
        replace(good, signatures=(first, second, (third[0], second[1]))),
        replace(good, state_hash=digest("another")),
        replace(good, group=replace(good.group, round=good.group.round + 1)),
        replace(good, group=replace(good.group, base_hash=digest("another"))),
    ):
        with pytest.raises(MalformedMessage, match="wrong signature"):
            Certificate.from_bytes(bad.to_bytes(), RUN)


def test_a_certificate_of_nobody_is_refused() -> None:
    nobody = replace(CERTIFICATE, group=replace(CERTIFICATE.group, members=()), signatures=())
    with pytest.raises(MalformedMessage, match="no majority"):
        Certificate.from_bytes(nobody.to_bytes(), RUN)


def test_the_largest_certificate_fits_and_a_larger_one_is_refused() -> None:
    from tests.unit.swarm.made import key

    keys = [key(n) for n in range(MEMBERS_MAX + 1)]
    largest = certificate(keys[:MEMBERS_MAX], keys[:MEMBERS_MAX])
    assert len(largest.to_bytes()) <= CERTIFICATE_BYTES_MAX
    assert Certificate.from_bytes(largest.to_bytes(), RUN) == largest
    with pytest.raises(MalformedMessage, match="at most 64"):
        Certificate.from_bytes(certificate(keys, keys).to_bytes(), RUN)
    with pytest.raises(MalformedMessage, match="at most 64"):
        Certificate.from_bytes(certificate(keys, keys[:MEMBERS_MAX]).to_bytes(), RUN)
    with pytest.raises(MalformedMessage, match="at most"):
        Certificate.from_bytes(b"\0" * (CERTIFICATE_BYTES_MAX + 1), RUN)


def awaiting(key: NodeKey, awaits: int) -> bytes:
    return replace(card(key), awaits=awaits).signed(key).to_bytes()


def of_cards(cards: list[bytes]) -> Group:
    return form_group(RUN, 3, digest("base"), cards, offer_bytes=OFFER_BYTES, weight_max=8)[0]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
def test_of_two_groups_that_share_nobody_one_waits_for_the_rest(one: int, other: int, away: int) -> None:
    groups = [KEYS[:one], KEYS[one : one + other]]
    found = []
    for keys in groups:
        cards = [awaiting(key, one + other + away) for key in keys]
        found.append(leaves_room(of_cards(cards), cards))
    assert any(found)


@pytest.mark.parametrize(
    ("awaits", "leaves"),
    [((1,), False), ((2, 2), False), ((4, 4), True), ((3, 4), True), ((0, 4), True), ((0, 0), False),
     ((4, 4, 4), False), ((6, 6, 5), True), ((6, 0, 0), False), ((65536, 2, 2), False)],
)  # fmt: skip
def test_half_of_a_group_can_wait_for_the_rest(awaits: tuple[int, ...], leaves: bool) -> None:
    cards = [awaiting(key, wanted) for key, wanted in zip(KEYS, awaits, strict=False)]
    made = of_cards(cards)
    assert len(made.members) == len(awaits)
    assert leaves_room(made, cards) == leaves
    assert leaves_room(made, [b"junk", *reversed(cards)]) == leaves
