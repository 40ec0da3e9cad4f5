"""The plot of an ablation: what each loss of XEL is worth to each detector, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...reports.plots import COLUMN, ERROR_BAR, GUIDE, PAGE, PALETTE, drawing, figure_files, figures_available
from ...scoring.runs import title_of
from .page import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHANCE = 50.0  # per cent, the AUC of a coin
TERMS = {"off": "no XEL", "L_v": r"$L_v$", "L_m": r"$L_m$", "both": "both"}
MODES = {"off": "no XEL", "epoch": "bank per epoch", "batch": "bank per batch"}
BARS: dict[str, dict[str, Any]] = {
    "off": {"color": "#BBBBBB"},
    "epoch": {"color": PALETTE[0]},
    "batch": {"color": "white", "edgecolor": PALETTE[1], "hatch": "/////", "linewidth": 0.6},
}


def draw_ablation(stem: Path, rows: Sequence[Row]) -> None:
    """What each loss of XEL is worth to each detector: the AUC, and the gain over no XEL, as bars.

    Bars are means over the seeds, their error bars standard deviations. Those of the AUC begin at chance, 50 %.

    Args:
        stem: path without a suffix.
        rows: as `ablation_page.summarise` gives them.
    """
    detectors = list(dict.fromkeys(row.configuration.detector for row in rows))
    with drawing(stem, COLUMN if len(detectors) == 1 else PAGE, 2.9) as figure:
        panels = figure.subplots(2, len(detectors), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2))
        legend: dict[str, Any] = {}
        for column, detector in zip(panels.T, detectors, strict=True):
            of_detector = [row for row in rows if row.configuration.detector == detector]
            legend |= _bars_of_detector(column[0], of_detector, "auc", CHANCE)
            _bars_of_detector(column[1], of_detector, "gain", 0.0)
            column[0].set_title(title_of(detector))
            off = of_detector[0].figures["auc"][0]
            if off is not None:
                column[0].axhline(100 * off, **GUIDE)
            column[1].axhline(0, color="black", linewidth=0.6)
            column[1].set_xticks(range(len(TERMS)), TERMS.values(), parse_math=True)
            for axes in column:
                axes.tick_params(axis="x", length=0)
        panels[0, 0].set_ylabel("AUC (%)")
        panels[1, 0].set_ylabel("Gain (points)")
        figure.align_ylabels(panels[:, 0])
        figure.legend(legend.values(), legend.keys(), loc="outside upper right", ncols=len(legend))


def draw_ablation_if_possible(stem: Path, rows: Sequence[Row]) -> Path | None:
    """`draw_ablation` where matplotlib is installed; returns the PNG file, None where it is not."""
    if not figures_available():
        return None
    draw_ablation(stem, rows)
    return figure_files(stem)[0]


def _bars_of_detector(axes: Axes, rows: Sequence[Row], figure: str, base: float) -> dict[str, Any]:
    """The bars of one panel; returns one of each kind for the legend. The bars of a loss stand side by side."""
    modes = list(dict.fromkeys(row.configuration.variant.mode for row in rows if row.gain is not None))
    width = 0.8 / max(len(modes), 1)
    kinds: dict[str, Any] = {}
    for row in rows:
        found = row.gain if figure == "gain" else row.figures[figure]
        mean, spread = found or (None, None)
        if mean is None:
            continue
        variant = row.configuration.variant
        place = float(list(TERMS).index(variant.terms))
        if row.gain is not None:
            place += width * (modes.index(variant.mode) - (len(modes) - 1) / 2)
        error = None if spread is None else 100 * spread
        bars = axes.bar(place, 100 * mean - base, width, base, yerr=error, error_kw=ERROR_BAR, **BARS[variant.mode])
        bars[0].set_gid(f"bar-{figure}-{bar_name(row)}")
        kinds[MODES[variant.mode]] = bars
    return kinds


def bar_name(row: Row) -> str:
    """The name of a configuration's bars within the SVG."""
    return f"{row.configuration.detector}-{row.configuration.variant.folder}"
