"""What the owner's rules are made of: the rules, what was read, a pause, and the verdict. Times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, tzinfo
from enum import IntEnum, StrEnum
from typing import Final, TypeAlias

from ubcp_p2p.carbon.values import Intensity
from ubcp_p2p.owner.hours import Window

PERMILLE: Final = 1000
SHARE_MIN: Final = 50  # permille; with less a round would take more than twenty times as long as the others'


@dataclass(frozen=True)
class Unreadable:
    """Something that cannot be read on this machine, and why."""

    why: str


Flag: TypeAlias = bool | Unreadable
Number: TypeAlias = int | Unreadable

NOT_ASKED: Final = Unreadable("no rule asks for it")


@dataclass(frozen=True)
class Rules:
    """What the owner has tuned. A maximum of 0 is no maximum; `idle_s` 0: also while somebody uses the machine."""

    windows: tuple[Window, ...] = ()
    zone: tzinfo = UTC
    idle_s: int = 0
    others_permille_max: int = 250  # of all processors, for other programs, when only idle
    on_battery: bool = False
    power_w_max: int = 0
    temperature_c_max: int = 0
    share_permille: int = PERMILLE
    g_per_kwh_max: int = 0
    purposes_refused: frozenset[str] = frozenset()
    runs_refused: frozenset[str] = frozenset()  # names, or run ids in hex


@dataclass(frozen=True)
class Readings:
    """What the machine's sensors say; what no rule asks for is not read.

    idle_s: since somebody last touched keyboard, mouse or terminal. others_permille: of all processors, used by other
    programs lately. power_w, temperature_c: rounded up.
    """

    on_battery: Flag = NOT_ASKED
    idle_s: Number = NOT_ASKED
    others_permille: Number = NOT_ASKED
    power_w: Number = NOT_ASKED
    temperature_c: Number = NOT_ASKED
    carbon: Intensity | Unreadable = NOT_ASKED


@dataclass(frozen=True)
class Pause:
    """The owner's own stop. until: None is until `ubcp resume`. after_round: the present round is made first."""

    since: int
    until: int | None = None
    after_round: bool = False


@dataclass(frozen=True)
class Memory:
    """What one verdict leaves for the next, so that a value at its limit does not switch work on and off."""

    hot: bool = False
    busy_at: int | None = None  # when other programs last used more than they may
    power_permille: int = PERMILLE  # the share that keeps to the power cap
    power_at: int | None = None  # when that was last changed
    rest_until: int | None = None  # the power cap could not be kept with any share


class Cause(StrEnum):
    """Why nothing is done."""

    PAUSE = "pause"
    HOURS = "hours"
    BATTERY = "battery"
    HEAT = "heat"
    IDLE = "idle"
    POWER = "power"
    CARBON = "carbon"


class Manner(IntEnum):
    """How work stops; the larger is the more urgent."""

    ROUND = 0  # the present round is made to its end
    EARLY = 1  # the others get the steps that are done, and with them the round is made
    NOW = 2  # this round is made without this peer


@dataclass(frozen=True)
class Block:
    """One rule that says no. until: when that is expected to end, if it is known."""

    cause: Cause
    words: str
    manner: Manner
    until: int | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether this machine works now, with how much of itself, and why; `until` is when that is expected to change."""

    works: bool
    share_permille: int
    words: str
    until: int | None
    blocks: tuple[Block, ...] = ()
    memory: Memory = Memory()

    @property
    def manner(self) -> Manner:
        """How work that goes on now has to stop."""
        return max((block.manner for block in self.blocks), default=Manner.ROUND)


FREE: Final = Verdict(True, PERMILLE, "working", None)  # of a node without rules
