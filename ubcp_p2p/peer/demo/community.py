"""The demo's community: its charter, the stewards who vouch for its people, and the entries by which each comes in.

All keys are made anew for each demo. The stewards' stay in this process; an account's is in its profile, as always.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Final

from ubcp_p2p.charter import draft
from ubcp_p2p.charter.document import to_toml
from ubcp_p2p.charter.values import Charter, Charters, SignedCharter
from ubcp_p2p.files import atomic_write
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, Enrol, OpenAccount, OpenNode
from ubcp_p2p.ledger.leases import SETTLE_S
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.peer.profile import Profile

DAY_S: Final = 86_400
GRACE_S: Final = 600  # a day in earnest
ALLOWANCE: Final = 4_000  # µcredits a day: the run takes half of it; the usual 10,000 credits would hide what it costs
STEWARDS: Final = 3
THRESHOLD: Final = 2
BEGUN_SLICES: Final = 3  # ago: no node that starts with the demo finds its community unborn
ENROLLED_PERIODS: Final = 7
ASKING_S: Final = 2.0  # `ubcp submit` takes 0.6 s on an idle machine
PURPOSE: Final = "education"
DEVICE_CLASS: Final = "cpu"
# The charter's tariff and prices are those of the example in ledger/charter.toml.
CURRENCY: Final = "EUR"
TARIFF: Final = 300_000
CARBON_G: Final = 300


def charter_of(stewards: list[bytes], now_s: float, slice_s: int) -> Charter:
    """The example's rules, with days for weeks and slices that one can wait for. now_s: Unix time."""
    answers = draft.Answers(
        name="ubcp demo", languages=("en",), stewards=stewards, threshold=THRESHOLD, member=ALLOWANCE,
        currency=CURRENCY, tariff=TARIFF, carbon_g=CARBON_G,
    )  # fmt: skip
    day = DAY_S // slice_s
    return replace(
        draft.first(answers, epoch=int(now_s) - BEGUN_SLICES * slice_s),
        slice_s=slice_s, period_slices=day, half_life_slices=day, ageing_slices=day, grace_slices=GRACE_S // slice_s,
    )  # fmt: skip


class Community:
    """A charter in force, and its stewards' keys."""

    def __init__(self, now_s: float, slice_s: int) -> None:
        """now_s: Unix time, some slices before which it has begun."""
        self._stewards = [AccountKey.generate() for _ in range(STEWARDS)]
        charter = charter_of([key.public for key in self._stewards], now_s, slice_s)
        signatures = [(key.public, key.sign("charter", charter.id)) for key in self._stewards]
        self.signed = SignedCharter(charter).signed(signatures)
        self.network = Charters(self.signed).network  # its signatures are checked here
        self.charter = charter

    def publish(self, folder: Path) -> Path:
        """Write the charter, as stewards give it out. Raises LocalIOError."""
        path = folder / "charter.toml"
        atomic_write(path, to_toml(self.signed).encode(), mode=0o644)
        return path

    def welcome(self, profile: Profile, now_s: float) -> list[Signed]:
        """The entries that open the chains of a profile's account and node, and enrol the account.

        As its owner signs them, and the stewards, who would have met the person. Raises ConfigError, LocalIOError.
        """
        slice_ = self.charter.slice_at(now_s)
        account = Author(self.network, AccountKey.load(profile.account_key))
        node = Author(self.network, NodeKey.load(profile.node_key))
        opened = account.write(slice_, OpenAccount(ZERO))
        enrolled = account.write(slice_, self._enrolment(slice_), self._stewards[:THRESHOLD])
        assert account.head is not None
        return [opened, enrolled, node.write(slice_, OpenNode(account.head), [account.key])]

    def decides(self, now_s: float) -> bool:
        """Whether a slice's decisions are being made, or will be before what is asked for now is known to all.

        Some peers would see the request in their turn, and others not before the next slice.
        """
        charter = self.charter
        into_s = (now_s - charter.epoch) % charter.slice_s
        return not min(SETTLE_S, charter.slice_s / 4) < into_s < charter.slice_s - ASKING_S

    def _enrolment(self, slice_: int) -> Enrol:
        """Of one person more: a nullifier that nobody has, since the stewards have never seen anybody twice here."""
        first = self.charter.period(slice_)
        nullifier = hashlib.sha256(b"ubcp demo: a person\0" + secrets.token_bytes(32)).digest()
        return Enrol(False, self.charter.units[0].name, first, first + ENROLLED_PERIODS, nullifier)
