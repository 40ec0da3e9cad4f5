"""The plots of a leaderboard: AUC against speed, and ranks over data sets with their critical difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...evaluation.resampling import over_seeds
from ...reports.plots import COLUMN, ERROR_BAR, GUIDE, PAGE, PALETTE, drawing
from ...scoring.runs import title_of
from .records import Board, Standing
from .statistics import Ranks, indistinguishable

MARGIN = 0.3  # of the scale of ranks, on either side of it
ROW = 0.16  # inches: of a name in the diagram of ranks


def draw_speed(stem: Path, board: Board) -> None:
    """The AUC of every detector against the clips that one core scores; an arrow goes to it with XEL.

    Args:
        stem: path without a suffix.
        board: its standings have an AUC.
    """
    with drawing(stem, PAGE, 3.6) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        for detector in dict.fromkeys(standing.detector for standing in board.standings):
            found = {standing.xel: standing for standing in board.standings if standing.detector == detector}
            for xel, standing in found.items():
                mean, spread = _auc(standing)
                axes.errorbar(standing.clips_per_second, mean, spread, **_dot(xel), **ERROR_BAR)
            places = [(found[xel].clips_per_second, _auc(found[xel])[0]) for xel in sorted(found)]
            if len(places) == 2:
                axes.annotate("", places[1], places[0], arrowprops={"arrowstyle": "->", "color": "#8A8A8A", "lw": 0.8})
            axes.annotate(title_of(detector), places[0], (5, 3), textcoords="offset points", fontsize=8)
        axes.set_xlabel("Clips scored per second, one core")
        axes.set_ylabel("AUC (%)")
        handles = [axes.errorbar([], [], **_dot(xel)) for xel in (False, True)]
        axes.legend(handles, ["no XEL", "XEL"], loc="lower left")
        axes.axhline(50, **GUIDE)
        lowest = min(_auc(standing)[0] for standing in board.standings)
        axes.set_ylim(bottom=min(49.0, lowest - 2) if lowest < 55 else lowest - 5)


def draw_ranks(stem: Path, ranks: Ranks) -> None:
    """The critical-difference diagram of Demšar, JMLR 2006: names at their mean ranks, bars over those alike.

    Args:
        stem: path without a suffix.
        ranks: of at least two contestants.
    """
    groups = indistinguishable(ranks)
    count = len(ranks.names)
    half = (count + 1) // 2
    height = 0.7 + ROW * (half + len(groups))
    with drawing(stem, PAGE if count > 8 else 2 * COLUMN, height) as figure:
        axes = figure.subplots()
        axes.set_axis_off()
        margin = MARGIN * (count - 1)  # for the names, beside the scale
        axes.set_xlim(count + margin, 1 - margin)  # the best on the right
        depth = 1.5 + len(groups)
        axes.set_ylim(-(depth + half), 2.0)
        axes.plot([1, count], [0, 0], color="black", linewidth=0.8)
        for tick in range(1, count + 1):
            axes.plot([tick, tick], [0, 0.25], color="black", linewidth=0.8)
            axes.text(tick, 0.4, str(tick), ha="center", va="bottom", fontsize=8)
        reach = min(ranks.critical_difference, count - 1.0)
        axes.plot([1, 1 + reach], [1.7, 1.7], color="black", linewidth=1.2)
        axes.text(
            1 + reach / 2,
            1.75,
            f"critical difference {ranks.critical_difference:.1f}",
            ha="center",
            va="bottom",
            fontsize=8,
        )
        for level, (first, last) in enumerate(groups):
            ends = [ranks.ranks[first] - 0.05, ranks.ranks[last] + 0.05]
            axes.plot(ends, [-(level + 0.8)] * 2, color=PALETTE[1], linewidth=2.2, solid_capstyle="round")
        for place, (name, value) in enumerate(zip(ranks.names, ranks.ranks, strict=True)):
            right = place < half
            row = place if right else count - 1 - place
            y = -(depth + row)
            edge = 1 - margin / 8 if right else count + margin / 8
            axes.plot([value, value, edge], [0, y, y], color="#8A8A8A", linewidth=0.6)
            text = f" {name} ({value:.1f}) "
            axes.text(edge, y, text, ha="left" if right else "right", va="center", fontsize=8)


def _dot(xel: bool) -> dict[str, Any]:
    blue = PALETTE[0]
    fill = blue if xel else "white"
    return {"fmt": "o", "markersize": 4, "color": blue, "markeredgecolor": blue, "markerfacecolor": fill}


def _auc(standing: Standing) -> tuple[float, float | None]:
    mean, spread = over_seeds(standing.of_seeds("auc"))
    assert mean is not None
    return 100 * mean, None if spread is None else 100 * spread
