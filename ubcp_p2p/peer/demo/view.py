"""How the demo shows itself while it runs: a live table on a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ubcp_p2p.log import printable
from ubcp_p2p.peer.demo.board import Board, PeerRow

REFRESH_PER_S = 8
PLAIN_EVERY_ROUNDS = 4
STYLES = ("cyan", "magenta", "yellow", "blue")  # told apart by name as well: colour is never the only sign


class View(Protocol):
    """Where the story is told."""

    def say(self, text: str) -> None:
        """A line that stays: something happened."""

    def now(self, text: str) -> None:
        """What is being done at this moment, and why."""

    def round_done(self, round_: int) -> None:
        """A member has committed this round."""

    def refresh(self) -> None:
        """The board may have changed."""

    def close(self) -> None:
        """Leave the terminal as it should stay."""


def make_view(board: Board, began_s: float) -> View:
    """The live view when stderr is a terminal, else the plain one."""
    console = Console(stderr=True, highlight=False)
    return LiveView(console, board, began_s) if console.is_terminal else PlainView(console, board, began_s)


class PlainView:
    """A line for each thing that happens, and one every few rounds."""

    def __init__(self, console: Console, board: Board, began_s: float) -> None:
        self._console = console
        self._board = board
        self._began_s = began_s
        self._shown = -1
        self._alone_shown = 0

    def say(self, text: str) -> None:
        self._console.print(
            f"{time.monotonic() - self._began_s:6.1f} s  {printable(text)}", markup=False, soft_wrap=True
        )

    def now(self, text: str) -> None:
        self.say(f"({text})")

    def round_done(self, round_: int) -> None:
        if round_ <= self._shown or (round_ + 1) % PLAIN_EVERY_ROUNDS:
            return
        self._shown = round_
        self.say(f"round {round_}: {_committed(self._board, round_)}")

    def refresh(self) -> None:
        for way, steps in self._board.alone_steps.items():
            quarter = 4 * steps // (self._board.rounds * self._board.local_steps)
            if quarter > self._alone_shown:
                self._alone_shown = quarter
                self.say(f"alone ({way}): {steps} steps")

    def close(self) -> None:
        pass


class LiveView:
    """A table of the peers that is redrawn in place, below the lines that stay."""

    def __init__(self, console: Console, board: Board, began_s: float) -> None:
        self._console = console
        self._board = board
        self._began_s = began_s
        self._now = ""
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=REFRESH_PER_S, transient=True
        )
        self._live.start()

    def say(self, text: str) -> None:
        stamp = Text(f"{time.monotonic() - self._began_s:6.1f} s  ", style="dim")
        self._live.console.print(stamp + Text(printable(text)))

    def now(self, text: str) -> None:
        self._now = text

    def round_done(self, round_: int) -> None:
        pass

    def refresh(self) -> None:
        pass  # drawn anew several times a second anyway

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        board = self._board
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            f"{time.monotonic() - self._began_s:5.0f} s", f"round {board.round}/{board.rounds}",
            ProgressBar(total=board.rounds, completed=board.round, width=40),
        )  # fmt: skip
        parts: list[RenderableType] = [Text(), bar, _peers_table(board)]
        total = board.rounds * board.local_steps
        for way, steps in [*board.alone_steps.items()]:
            line = Table.grid(padding=(0, 1))
            line.add_row(f"alone, {way}: {steps}/{total} steps", ProgressBar(total=total, completed=steps, width=30))
            parts.append(line)
        parts.append(Text(f"now: {self._now}", style="bold"))
        return Group(*parts)


def _peers_table(board: Board) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title, justify in (("peer", "left"), ("doing", "left"), ("round", "right"), ("local steps", "left"),
                           ("training loss", "right"), ("rounds made", "right")):  # fmt: skip
        table.add_column(title, justify="right" if justify == "right" else "left")
    for style, row in zip(STYLES, [*board.peers.values()], strict=False):
        table.add_row(
            Text(row.name, style=style),
            Text(f"{row.phase:<17}", style="red bold" if row.killed_s is not None else ""),
            "" if row.round is None else str(min(row.round, board.rounds)),
            _steps(board, row),
            "" if row.loss is None else f"{row.loss:.3f}",
            str(len(row.taken)),
        )
    return table


def _steps(board: Board, row: PeerRow) -> RenderableType:
    if row.round is None or row.done or row.killed_s is not None:
        return ""
    return ProgressBar(total=board.local_steps, completed=row.step, width=14)


def _committed(board: Board, round_: int) -> str:
    losses = board.losses[round_]
    mean = sum(losses.values()) / len(losses)
    return f"committed by {', '.join(board.members[round_])}; training loss {mean:.3f}"
