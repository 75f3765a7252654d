"""What the members of a round sign: offer cards, votes on the result, and the certificate that a majority makes (pure).

A round is a vote on its result. Every member gathers all offers, computes the next state on a copy and signs the
state's hash; a round is committed by the unanimous votes of its group, or at the deadline by more than half of it. The
signatures make the certificate: what a late joiner checks a downloaded state against, and what a member that missed
the end recognises it by. docs/rounds.md tells the whole protocol and what it cannot promise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ubcp_p2p.codec import MalformedMessage, Value, decode, encode, fields, hash_of, items, number, signature_of
from ubcp_p2p.keys import NodeKey, verify
from ubcp_p2p.swarm.admission import OPEN, Admission

MEMBERS_MAX = 64
CARD_BYTES_MAX = 512
CERTIFICATE_BYTES_MAX = 32 * 1024
ROUND_MAX = 10**6  # no run of ours is longer; a larger number is a lie
WEIGHT_MAX = 2**40
AWAITS_MAX = 2**16
NOBODY = bytes(32)  # who pays where nobody does

Place: TypeAlias = tuple[int, bytes]  # (round, state hash)


class Seat(NamedTuple):
    """A member of a group, as its card has it."""

    peer: bytes
    weight: int
    offer: bytes  # the offer's hash
    trail: bytes
    payer: bytes = NOBODY


@dataclass(frozen=True)
class Card:
    """One member's signed description of its offer in a round. Hashes are 32 bytes, `peer` a public key."""

    run_id: bytes
    round: int
    base_hash: bytes
    peer: bytes
    weight: int  # training samples behind the offer
    offer_hash: bytes
    offer_bytes: int
    trail: bytes  # what the local steps led through: commits the peer before anybody knows what is checked
    payer: bytes = NOBODY  # whom the round is billed to, by a name that no swarm reads: one a round
    awaits: int = 0  # how many are ready, as it sees them; 0 where it takes any group
    signature: bytes = b""

    def digest(self) -> bytes:
        body: list[Value] = [
            self.run_id, self.round, self.base_hash, self.peer, self.weight, self.offer_hash, self.offer_bytes,
            self.trail, self.payer, self.awaits,
        ]  # fmt: skip
        return hashlib.sha256(b"ubcp/card/3\0" + encode(body)).digest()

    def signed(self, key: NodeKey) -> Card:
        return Card(
            self.run_id, self.round, self.base_hash, self.peer, self.weight, self.offer_hash, self.offer_bytes,
            self.trail, self.payer, self.awaits, key.sign("card", self.digest()),
        )  # fmt: skip

    def earns(self, seat: Seat) -> bool:
        """Whether it can have given this seat to its peer, whatever the weight: a group may clamp that."""
        return (self.peer, self.offer_hash, self.trail, self.payer) == (seat.peer, seat.offer, seat.trail, seat.payer)

    def to_bytes(self) -> bytes:
        return encode(
            [
                self.run_id, self.round, self.base_hash, self.peer, self.weight, self.offer_hash, self.offer_bytes,
                self.trail, self.payer, self.awaits, self.signature,
            ]
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes) -> Card:
        """Parse and verify the signature. Raises MalformedMessage."""
        run_id, round_, base_hash, peer, weight, offer_hash, offer_bytes, trail, payer, awaits, signature = fields(
            decode(data, bytes_max=CARD_BYTES_MAX), 11
        )
        card = cls(
            hash_of(run_id), number(round_, ROUND_MAX), hash_of(base_hash), hash_of(peer),
            number(weight, WEIGHT_MAX), hash_of(offer_hash), number(offer_bytes), hash_of(trail),
            hash_of(payer), number(awaits, AWAITS_MAX), signature_of(signature),
        )  # fmt: skip
        if not verify(card.peer, "card", card.digest(), card.signature):
            raise MalformedMessage("the card's signature is wrong")
        return card


@dataclass(frozen=True)
class Group:
    """The members of one attempt at a round, in the one order that everyone uses: by public key."""

    run_id: bytes
    round: int
    base_hash: bytes
    members: tuple[Seat, ...]  # sorted

    @property
    def digest(self) -> bytes:
        """What makes two attempts the same: same run, round, base, members, weights, offers, trails and payers."""
        rows: list[Value] = [list(seat) for seat in self.members]
        return hashlib.sha256(b"ubcp/group/3\0" + encode([self.run_id, self.round, self.base_hash, rows])).digest()

    @property
    def place(self) -> Place:
        """The state that the round begins from."""
        return self.round, self.base_hash

    @property
    def peers(self) -> tuple[bytes, ...]:
        return tuple(seat.peer for seat in self.members)

    def seat_of(self, peer: bytes) -> Seat | None:
        """None for who is no member."""
        return next((seat for seat in self.members if seat.peer == peer), None)


def form_group(
    run_id: bytes,
    round_: int,
    base_hash: bytes,
    cards: Iterable[bytes],
    *,
    offer_bytes: int,
    weight_max: int,
    members_max: int = MEMBERS_MAX,
    admission: Admission = OPEN,
) -> tuple[Group, list[str]]:
    """The group that a leader's list of cards makes, and why cards were left out.

    Every member applies the same checks to the same bytes, in whatever order they came, and so leaves out the same
    cards; a leader that shows different lists to different members makes groups of different digests, whose votes
    never add up. Weights are clamped to [1, weight_max], and to what `admission` allows a peer; left out are who may
    not train, a second card of one peer, and who comes after `members_max` others: each member costs everybody the
    memory of one offer.
    """
    members: dict[bytes, Seat] = {}
    refused: list[str] = []
    for data in sorted(cards)[:MEMBERS_MAX]:
        try:
            card = Card.from_bytes(data)
        except MalformedMessage as error:
            refused.append(error.message)
            continue
        if (card.run_id, card.round, card.base_hash) != (run_id, round_, base_hash):
            refused.append(f"a card for round {card.round} or another state")
        elif card.offer_bytes != offer_bytes:
            refused.append(f"an offer of {card.offer_bytes} bytes where the model has {offer_bytes}")
        elif why := admission.trains(card.peer):
            refused.append(f"a card of {card.peer.hex()[:16]}…, which is not let in: {why}")
        elif card.peer in members:
            refused.append("a second card of one peer")
        elif len(members) >= members_max:
            refused.append(f"a card after the {members_max} that a group can have")
        else:
            weight = max(1, min(card.weight, weight_max, admission.weighs(card.peer)))
            members[card.peer] = Seat(card.peer, weight, card.offer_hash, card.trail, card.payer)
    return Group(run_id, round_, base_hash, tuple(sorted(members.values()))), refused


def leaves_room(group: Group, cards: Iterable[bytes]) -> bool:
    """Whether at least half of a group say, by their cards, that enough are left to make another one as large.

    A round could then be made twice. All members say the same of the same cards.
    """
    awaits: dict[bytes, int] = {}
    for data in sorted(cards)[:MEMBERS_MAX]:
        with suppress(MalformedMessage):
            card = Card.from_bytes(data)
            awaits.setdefault(card.peer, card.awaits)
    doubts = sum(2 * len(group.members) <= awaits.get(peer, 0) for peer in group.peers)
    return 0 < 2 * doubts >= len(group.members)


def vote_digest(group_digest: bytes, state_hash: bytes) -> bytes:
    """What a vote signs: this group's round leads to this state."""
    return hashlib.sha256(b"ubcp/vote/1\0" + group_digest + state_hash).digest()


@dataclass(frozen=True)
class Certificate:
    """A committed round: its group, the state it led to (at round group.round + 1), and a majority's signatures."""

    group: Group
    state_hash: bytes
    signatures: tuple[tuple[bytes, bytes], ...]  # (public key, signature), sorted by key

    @property
    def round(self) -> int:
        """The round that the certified state starts."""
        return self.group.round + 1

    @property
    def place(self) -> Place:
        """The certified state: its round and its hash."""
        return self.round, self.state_hash

    @property
    def base(self) -> Place:
        """The state that the round began from."""
        return self.group.place

    @property
    def signers(self) -> tuple[bytes, ...]:
        """Public keys of those who signed, as they are listed."""
        return tuple(peer for peer, _ in self.signatures)

    def check(self, run_id: bytes) -> None:
        """Raises MalformedMessage unless more than half of the group signed exactly this state of `run_id`."""
        if self.group.run_id != run_id:
            raise MalformedMessage("a certificate of another run")
        peers = self.group.peers
        signers = self.signers
        if sorted(set(peers)) != list(peers) or sorted(set(signers)) != list(signers) or not set(signers) <= set(peers):
            raise MalformedMessage("a certificate with doubled or foreign members")
        if not is_majority(len(signers), len(peers)):
            raise MalformedMessage(f"a certificate with {len(signers)} of {len(peers)} signatures is no majority")
        digest = vote_digest(self.group.digest, self.state_hash)
        for peer, signature in self.signatures:
            if not verify(peer, "vote", digest, signature):
                raise MalformedMessage("a certificate with a wrong signature")

    def to_bytes(self) -> bytes:
        group = self.group
        rows: list[Value] = [list(seat) for seat in group.members]
        signatures: list[Value] = [[peer, signature] for peer, signature in self.signatures]
        return encode([group.run_id, group.round, group.base_hash, rows, self.state_hash, signatures])

    @classmethod
    def from_bytes(cls, data: bytes, run_id: bytes, *, members_max: int = MEMBERS_MAX) -> Certificate:
        """Parse and `check`; a group of this run has at most `members_max` members. Raises MalformedMessage."""
        run, round_, base_hash, rows, state_hash, signatures = fields(decode(data, bytes_max=CERTIFICATE_BYTES_MAX), 6)
        members = []
        for row in items(rows, members_max):
            peer, weight, offer, trail, payer = fields(row, 5)
            seat = Seat(hash_of(peer), number(weight, WEIGHT_MAX), hash_of(offer), hash_of(trail), hash_of(payer))
            members.append(seat)
        signed = []
        for row in items(signatures, members_max):
            peer, signature = fields(row, 2)
            signed.append((hash_of(peer), signature_of(signature)))
        group = Group(hash_of(run), number(round_, ROUND_MAX), hash_of(base_hash), tuple(members))
        certificate = cls(group, hash_of(state_hash), tuple(signed))
        certificate.check(run_id)
        return certificate


def is_majority(votes: int, of: int) -> bool:
    """More than half; a group of one is its own majority."""
    return 2 * votes > of


@dataclass
class Ballot:
    """The votes of one group, as one member has heard them. Only the first vote of a member counts."""

    group: Group
    votes: dict[bytes, tuple[bytes, bytes]]  # peer → (state hash, signature)

    def add(self, peer: bytes, state_hash: bytes, signature: bytes) -> bool:
        """Count a vote; False when the peer is no member or the signature is wrong."""
        if peer not in self.group.peers:
            return False
        if peer in self.votes:
            return True
        if not verify(peer, "vote", vote_digest(self.group.digest, state_hash), signature):
            return False
        self.votes[peer] = (state_hash, signature)
        return True

    def unanimous(self) -> bool:
        return len(self.votes) == len(self.group.members) and len({state for state, _ in self.votes.values()}) == 1

    def winner(self) -> bytes | None:
        """The state hash that more than half of the group voted for, or None."""
        counts: dict[bytes, int] = {}
        for state_hash, _ in self.votes.values():
            counts[state_hash] = counts.get(state_hash, 0) + 1
        for state_hash, count in counts.items():
            if is_majority(count, len(self.group.members)):
                return state_hash
        return None

    def missing(self) -> list[bytes]:
        return [peer for peer in self.group.peers if peer not in self.votes]

    def certificate(self, state_hash: bytes) -> Certificate:
        signatures = sorted((peer, sig) for peer, (state, sig) in self.votes.items() if state == state_hash)
        return Certificate(self.group, state_hash, tuple(signatures))


@dataclass(frozen=True)
class Standing:
    """What a peer stands on: the hash of its state, and the certificate for it (None before its first round)."""

    state_hash: bytes
    certificate: Certificate | None

    @property
    def round(self) -> int:
        return self.certificate.round if self.certificate is not None else 0

    @property
    def place(self) -> Place:
        return self.round, self.state_hash

    @property
    def base(self) -> Place | None:
        return self.certificate.base if self.certificate is not None else None


def choose(
    mine: Standing, others: Mapping[bytes, Standing], *, me: bytes, known: Set[bytes], seats: int
) -> Certificate | None:
    """Which certificate to move to, or None to stay where I am (docs/rounds.md, "Branches").

    others: what each *live* other peer stands on, certificates verified. known: peers that I have made a round with.
    seats: the most members that a group of this run can have.

    Live peers decide, each with one voice; a round number has no weight of its own, so one liar with a certificate
    that it alone signed for round 10^6 stays one voice. Nor does the base that a certificate names: it speaks for
    those who still stand on that base only if it is *vouched for*, that is signed by me, or by more than half of the
    live peers that it would carry along (of a full group, where they are more than one group can seat).

    - The next round of my own line: I take it when it is vouched for, or when more live peers stand on it than with me
      or one round behind me (or as many, one of them known to me). One stranger cannot pull a group along by
      "extending" its state.
    - Another branch: I take it when more live peers are on its line than on mine. At equal numbers the higher round
      wins, then the lower hash, and only if somebody known to me stands on it: after a partition both halves decide
      alike, and a lone stranger never overrides a lone peer. Before my first round I do not count myself.
    """
    live = {me, *others}
    voices = dict(others)
    if mine.certificate is not None:
        voices[me] = mine
    tips: dict[Place, Certificate] = {}
    for _, standing in sorted(others.items()):
        tip = standing.certificate
        # A place is (round, hash): the hash alone would let a liar put another round on the majority's own state.
        if tip is not None and (tip.place not in tips or _signers(tip, live) > _signers(tips[tip.place], live)):
            tips[tip.place] = tip
    bases = {place: tip.base for place, tip in tips.items()} | {mine.place: mine.base}
    tips.pop(mine.place, None)

    def on(place: Place | None) -> set[bytes]:
        return {peer for peer, standing in voices.items() if standing.place == place}

    def vouched(tip: Certificate) -> bool:
        carried = len(on(tip.place) | on(tip.base) | on(bases.get(tip.base)))
        return me in tip.signers or is_majority(_signers(tip, live), min(seats, carried))

    def line(place: Place, base: Place | None) -> set[bytes]:
        """Those on a state, one round behind it, or one round ahead of it."""
        return on(place) | on(base) | {peer for peer, standing in voices.items() if standing.base == place}

    with_me = len(on(mine.place) | on(mine.base))
    for tip in sorted(tips.values(), key=lambda tip: (not vouched(tip), -len(on(tip.place)), tip.state_hash)):
        followers = on(tip.place)
        enough = len(followers) > with_me or (len(followers) == with_me and bool(followers & known))
        if tip.base == mine.place and (vouched(tip) or enough):
            return tip

    past: set[Place] = set()
    older = mine.base
    while older is not None:  # ends: each base is one round lower
        past.add(older)
        tip_there = tips.get(older)
        older = tip_there.base if tip_there is not None and vouched(tip_there) else None
    my_line = len(line(mine.place, mine.base))
    best: tuple[int, int, bytes] | None = None
    for tip in tips.values():
        if tip.place in past or tip.base == mine.place:
            continue  # my own past, or my own line's next round: decided above
        theirs = len(line(tip.place, tip.base if vouched(tip) else None))
        better_tie = (tip.round, mine.state_hash) > (mine.round, tip.state_hash) and bool(on(tip.place) & known)
        if theirs > my_line or (theirs == my_line and better_tie):
            rank = (-theirs, -tip.round, tip.state_hash)
            best = rank if best is None else min(best, rank)
    return tips[-best[1], best[2]] if best is not None else None


def _signers(certificate: Certificate, live: Set[bytes]) -> int:
    return sum(peer in live for peer in certificate.signers)
