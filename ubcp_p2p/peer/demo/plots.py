"""The demo's loss plot, for the terminal (plotext) and as a PNG (matplotlib): together, alone, and who was there."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from ubcp_p2p.files import atomic_write
from ubcp_p2p.peer.demo.board import HeldOut
from ubcp_p2p.peer.demo.story import Outcome

# Okabe & Ito 2008: told apart with every common kind of colour blindness. Line style and marker differ as well.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
TERMINAL_ROWS = 17
TERMINAL_COLUMNS_MAX = 100


def terminal_plot(outcome: Outcome, columns: int, *, colour: bool) -> str:
    """Held-out loss by round, together and alone, with the late joiner and the killed peer marked."""
    import plotext
    from plotext import figure

    together, alone = _together(outcome), outcome.best_alone.curve
    figure.clear()
    figure.theme("simple" if colour else "colorless")
    figure.plot_size(min(columns, TERMINAL_COLUMNS_MAX), TERMINAL_ROWS)
    for curve, marker, colour_name, label in (
        (alone, "*", "orange", "one peer alone"),
        (together, "braille", "blue", "the swarm"),
    ):
        signal = figure.signal(
            [point.round for point in curve[1:]],
            [point.loss for point in curve[1:]],
            marker=plotext.marker(marker, pixel=colour_name) if colour else marker,
        )
        signal.lines(True)
        signal.label(label)
        figure.draw(signal)
    low, high = _range(together, alone)
    for row, (round_, words) in enumerate(
        ((outcome.late_round, "peer 3 joins"), (outcome.kill.round, "peer 4 is killed"))
    ):
        figure.line(round_, orientation="vertical", style="dotted")
        beyond = round_ > 0.75 * outcome.board.rounds  # no room to the right of the line
        height = high - (0.10 + 0.10 * row) * (high - low)  # two rows: the two rounds may be close together
        figure.draw(figure.text(round_, height, f" {words} ", alignment="right" if beyond else "left"))
    figure.legend(x=0.01 * outcome.board.rounds, y=low, ha="left", va="bottom", relative=True)  # below all curves
    figure.ruler("y").lim(low, high)
    figure.ruler("x").lim(0, outcome.board.rounds)
    figure.title(f"held-out loss (nats a byte); untrained {outcome.first.loss:.2f}, above the plot")
    figure.label("rounds made")
    text: str = figure.build().string()
    return text if colour else str(plotext.uncolorize(text))


def write_png(outcome: Outcome, path: Path) -> None:
    """The same with error bars, training losses, and a strip that shows which peers made each round.

    Raises LocalIOError when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    board, best = outcome.board, outcome.best_alone
    together = _together(outcome)
    low, high = _range(together, best.curve)
    figure = Figure(figsize=(9.6, 6.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    losses, strip = figure.subplots(2, 1, sharex=True, height_ratios=[4.2, 1.0])

    rounds = sorted(board.losses)
    training = [sum(board.losses[r].values()) / len(board.losses[r]) for r in rounds]
    losses.plot(
        [r + 0.5 for r in rounds], training, color=GREY, alpha=0.45, linewidth=1, label="the swarm, training loss"
    )
    for alone in outcome.alone:
        is_best = alone is best
        _curve(
            losses, alone.curve, ORANGE, f"one peer alone, {alone.way}",
            linestyle="--" if is_best else ":", marker="s" if is_best else "^", alpha=1.0 if is_best else 0.55,
        )  # fmt: skip
    _curve(losses, together, BLUE, "the swarm, held-out loss", linestyle="-", marker="o", alpha=1.0)
    for round_, words, colour in (
        (outcome.late_round, "peer 3 joins, late", GREEN),
        (outcome.kill.round, "peer 4: kill −9", RED),
    ):
        for axes in (losses, strip):
            axes.axvline(round_, color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
        late = words.endswith("late")  # on the left of its line, where the other's words are never
        losses.annotate(
            words, (round_, high), xytext=(-4 if late else 4, -18 if late else -4), textcoords="offset points",
            color=colour, ha="right" if late else "left", va="top", fontsize=10,
        )  # fmt: skip
    end, gain = board.rounds, best.last.loss - outcome.last.loss
    words = f"{abs(gain):.3f} nats\n{'better' if gain > 0 else 'worse'}"
    losses.annotate(
        "", (end * 1.015, outcome.last.loss), xytext=(end * 1.015, best.last.loss),
        arrowprops={"arrowstyle": "<->", "color": "black", "linewidth": 1.0}, annotation_clip=False,
    )  # fmt: skip
    losses.text(end * 1.025, (outcome.last.loss + best.last.loss) / 2, words, va="center", fontsize=10)
    losses.text(
        0.008, 0.985, f"↑ untrained: {outcome.first.loss:.2f}", transform=losses.transAxes, fontsize=9, va="top"
    )  # fmt: skip
    losses.set_ylim(min(low, min(training) - 0.02), high)
    losses.set_ylabel("loss (nats a byte)")
    losses.set_title(
        f"{len(board.peers)} peers train one model together: {board.rounds} rounds of {board.local_steps} local steps",
        loc="left", fontsize=12,
    )  # fmt: skip
    losses.legend(loc="upper right", bbox_to_anchor=(0.99, 0.86), framealpha=1.0, edgecolor="none", fontsize=9)
    losses.grid(alpha=0.2)

    names = list(board.peers)
    for y, name in enumerate(names):
        row = board.peers[name]
        strip.broken_barh([(r, 1.0) for r in row.taken], (y - 0.36, 0.72), facecolors=BLUE, alpha=0.8)
        if row.killed_s is not None:
            strip.plot([outcome.kill.round + 0.5], [y], marker="x", color=RED, markersize=9, markeredgewidth=2.2)
    strip.set_yticks(range(len(names)), names)
    strip.set_ylim(len(names) - 0.4, -0.6)
    strip.set_xlim(0, end * 1.13)
    strip.set_xticks(range(0, end + 1, max(1, end // 6)))
    strip.set_xlabel("round (filled: the peer's work is in it)")
    for axes in (losses, strip):
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    atomic_write(path, image.getvalue(), mode=0o644)


def _curve(axes, curve: Sequence[HeldOut], colour: str, label: str, **style: object) -> None:  # type: ignore[no-untyped-def]
    axes.errorbar(
        [point.round for point in curve], [point.loss for point in curve], yerr=[point.stderr for point in curve],
        color=colour, label=label, capsize=2.5, linewidth=1.8, markersize=5, **style,
    )  # fmt: skip


def _together(outcome: Outcome) -> tuple[HeldOut, ...]:
    measured = {**outcome.board.held_out, outcome.first.round: outcome.first}
    return tuple(measured[round_] for round_ in sorted(measured))


def _range(together: Sequence[HeldOut], alone: Sequence[HeldOut]) -> tuple[float, float]:
    """Bounds of the loss axis that leave the untrained model out: next to it, no difference could be seen."""
    trained = [point.loss for point in (*together[1:], *alone[1:])] or [0.0]
    span = max(max(trained) - min(trained), 0.05)
    return min(trained) - 0.08 * span, max(trained) + 0.15 * span
