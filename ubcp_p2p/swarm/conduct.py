"""How peers behave: who sends too much, or junk, and how long it is then ignored. Knows no clock: `now_s` is told."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

TRACKED_MAX: Final = 4096
STRIKES_MAX: Final = 3  # a damaged message or two can be bad luck
FORGIVEN_S: Final = 600.0  # strikes older than this are forgotten
BAN_S: Final = 30.0  # the first; each next one is twice as long
BAN_S_MAX: Final = 86_400.0


class Buckets(Generic[K]):
    """A token bucket for each key: `per_s` on average, `burst` at once. What is refused costs nothing."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens: dict[K, tuple[float, float]] = {}

    def allow(self, key: K, now_s: float) -> bool:
        if key not in self._tokens and len(self._tokens) >= TRACKED_MAX:
            self._forget(now_s)
        tokens = self._left(key, now_s)
        enough = tokens >= 1.0
        self._tokens[key] = (tokens - 1.0 if enough else tokens, now_s)
        return enough

    def has(self, key: K, now_s: float) -> bool:
        """Whether `allow` would; takes nothing."""
        return self._left(key, now_s) >= 1.0

    def delay_s(self, key: K, now_s: float) -> float:
        """Takes one in any case; returns how long to wait for it. For who has few at a time."""
        if not self.allow(key, now_s):
            self._tokens[key] = (self._left(key, now_s) - 1.0, now_s)
        return max(0.0, -self._left(key, now_s) / self._per_s)

    def _left(self, key: K, now_s: float) -> float:
        tokens, since_s = self._tokens.get(key, (self._burst, now_s))
        return min(self._burst, tokens + (now_s - since_s) * self._per_s)

    def _forget(self, now_s: float) -> None:
        """The half that was quiet for longest, which has most of its tokens back anyway."""
        oldest = sorted(self._tokens, key=lambda key: self._tokens[key][1])
        for key in oldest[: len(oldest) // 2]:
            del self._tokens[key]


@dataclass
class _Record:
    strikes: int = 0
    struck_s: float = 0.0
    bans: int = 0
    until_s: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Ban:
    """Seconds from now, and the last strike's reason."""

    peer: bytes
    left_s: float
    why: str


class Conduct:
    """Strikes and bans, of at most TRACKED_MAX peers (public keys)."""

    def __init__(self) -> None:
        self._records: dict[bytes, _Record] = {}

    def strike(self, peer: bytes, why: str, now_s: float, strikes: int = 1) -> float | None:
        """Note junk from a peer. Returns the seconds of the ban that this makes, if it does."""
        record = self._records.get(peer)
        if record is None:
            if len(self._records) >= TRACKED_MAX:
                self._forget(now_s)
            record = self._records[peer] = _Record()
        if now_s - record.struck_s > FORGIVEN_S:
            record.strikes = 0
        record.strikes, record.struck_s, record.why = record.strikes + strikes, now_s, why
        if record.strikes < STRIKES_MAX or record.until_s > now_s:
            return None
        seconds = min(BAN_S_MAX, BAN_S * float(1 << record.bans))
        record.strikes, record.bans, record.until_s = 0, min(record.bans + 1, 16), now_s + seconds
        return seconds

    def is_banned(self, peer: bytes, now_s: float) -> bool:
        record = self._records.get(peer)
        return record is not None and record.until_s > now_s

    def why_banned(self, peer: bytes, now_s: float) -> str:
        """The reason of a ban that is in force, or ""."""
        return self._records[peer].why if self.is_banned(peer, now_s) else ""

    def bans(self, now_s: float) -> list[Ban]:
        """Those in force, the longest first."""
        found = [
            Ban(peer, record.until_s - now_s, record.why)
            for peer, record in self._records.items()
            if record.until_s > now_s
        ]
        return sorted(found, key=lambda ban: (-ban.left_s, ban.peer))

    def _forget(self, now_s: float) -> None:
        """Half of them: first those who are not banned, the longest quiet first."""
        order = sorted(self._records, key=lambda p: (max(self._records[p].until_s, now_s), self._records[p].struck_s))
        for peer in order[: TRACKED_MAX // 2]:
            del self._records[peer]
