"""Sets the demo up: which recipe, which view, and that every way out is an orderly one."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.peer.demo.board import Board
from ubcp_p2p.peer.demo.stage import Plan
from ubcp_p2p.peer.demo.story import Outcome, Story
from ubcp_p2p.peer.demo.view import make_view

RECIPE = "shakespeare-nano"
LATE_FROM = 2  # of 48 rounds: it decides in the next slice, and is in after about a third
KILL_FROM = 31  # about two thirds
SLICE_S = 8
QUICK_ROUNDS = 60
QUICK_LATE_FROM = 0  # rounds are so short that twenty or more pass before it is in
QUICK_KILL_FROM = 18
QUICK_SLICE_S = 5
QUICK_STEPS = 5
QUICK_WARMUP = 20
QUICK_SAMPLES = 256
QUICK_EVERY = 12
AGAIN_S = 0.02


def run_demo(*, quick: bool, device: str, keep: Path | None, began_s: float, villain: str | None = None) -> Outcome:
    """Tell the whole story; all processes are gone at the end, whatever the end is.

    villain: a kind of VILLAINS, that takes part; every round of every peer is checked then. began_s: time.monotonic()
    at the start of the command. Call from the main thread. Raises DemoFailed and other UbcpErrors, KeyboardInterrupt,
    and SystemExit on SIGTERM or SIGHUP.
    """
    recipe = load_recipe(RECIPE)
    if villain is not None:
        recipe = all_checked(recipe)
    plan = Plan(recipe, LATE_FROM, KILL_FROM, device, SLICE_S, villain)
    if quick:
        recipe = shortened(recipe)
        plan = Plan(recipe, QUICK_LATE_FROM, QUICK_KILL_FROM, device, QUICK_SLICE_S, villain)
    board = Board(recipe.rounds.total, recipe.rounds.local_steps, recipe.parameters())
    with _signals_raise():
        view = make_view(board, began_s)
        try:
            return Story(plan, view, board, began_s).tell(keep)
        finally:
            view.close()


def all_checked(recipe: Recipe) -> Recipe:
    """The recipe with every peer's work checked in every round, where else it is one in fifty."""
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-checked",
            "checks": recipe.checks.model_copy(update={"rate": 1.0}),
        }
    )


def shortened(recipe: Recipe) -> Recipe:
    """The recipe with fewer, shorter rounds; another recipe by its hash, as it must be."""
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-quick",
            "rounds": recipe.rounds.model_copy(update={"total": QUICK_ROUNDS, "local_steps": QUICK_STEPS}),
            "inner": recipe.inner.model_copy(update={"warmup_steps": QUICK_WARMUP}),
            "evaluation": recipe.evaluation.model_copy(update={"samples": QUICK_SAMPLES, "every": QUICK_EVERY}),
        }
    )


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind as Ctrl-C does: their default would leave the nodes and their files to the kernel."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    lost: list[BaseException] = []

    def keep(unraisable: sys.UnraisableHookArgs) -> None:
        """An exception of a signal that came inside a fork's hooks goes nowhere: raise it again a moment later."""
        if isinstance(unraisable.exc_value, KeyboardInterrupt | SystemExit):
            lost.append(unraisable.exc_value)
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        else:
            sys.__unraisablehook__(unraisable)

    def again(number: int, frame: FrameType | None) -> None:
        raise lost.pop() if lost else KeyboardInterrupt

    handlers = {signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGALRM: again}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    hook, sys.unraisablehook = sys.unraisablehook, keep
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, previous in before.items():
            signal.signal(number, previous)
