"""Plots for papers: ROC, false alarms against hits, scores over a video; each as PNG and as SVG.

They have the width of one or two columns of a two-column paper, its font sizes, and colours that colour-blind readers
can tell apart (Okabe and Ito; Wong, "Points of view: color blindness", Nature Methods 2011). SVG keeps text as text.
Equal input gives equal bytes. matplotlib is an extra and is imported only where something is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...files import write_bytes
from ..datasets import spans_of
from ..evaluation.curves import mean_roc, mean_trade_off
from ..evaluation.evaluation import Evaluation
from ..evaluation.metrics import THRESHOLD, rates_at
from ..evaluation.resampling import mean_and_spread, over_seeds
from .tables import per_cent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXTRA = 'pip install "xelvad[figures]"'
COLUMN, PAGE = 3.5, 7.16  # inches: the widths of one and of two columns of IEEE's journals
LINE = 0.16  # inches: of a legend

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))  # the second and third round through the palette
TRUTH = "#E2E2E2"
GUIDE: dict[str, Any] = {"color": "#8A8A8A", "linewidth": 0.6, "linestyle": (0, (4, 3))}
ERROR_BAR: dict[str, Any] = {"elinewidth": 0.8, "capsize": 1.5, "capthick": 0.8}
MARK = ERROR_BAR | {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.6, "clip_on": False, "zorder": 5}

LOW = 0.5  # a figure in which no score reaches this would show nothing on an axis up to 1
STYLE = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],  # both come with matplotlib; the second has what the first lacks
    "mathtext.fontset": "stix",
    "text.parse_math": False,  # a $ in the name of a run is a $
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.7,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0.3,
    "lines.linewidth": 1.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "hatch.linewidth": 0.6,
    "savefig.dpi": 300,
    "svg.fonttype": "none",
    "svg.hashsalt": "xelvad",
}
METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}

Legend = list[tuple[Any, str]]
Runs = Mapping[str, Sequence[Evaluation]]  # by the name of the run, one for each of its seeds


def figures_available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def require_figures() -> None:
    """See before a long evaluation that its figures can be drawn.

    Raises:
        UserError: matplotlib is missing; says how to get it.
    """
    if not figures_available():
        raise UserError(f"figures need matplotlib, which is not installed: {EXTRA}")


def figure_files(stem: Path) -> list[Path]:
    """The files of a figure: ``stem.png`` and ``stem.svg``, whatever dots there are in its name."""
    return [stem.with_name(f"{stem.name}.{kind}") for kind in METADATA]


@contextmanager
def drawing(stem: Path, width: float, height: float) -> Iterator[Figure]:
    """A blank figure in the style of papers; what the block draws becomes the `figure_files` of ``stem``.

    Args:
        stem: path without a suffix.
        width: inches.
        height: inches.

    Raises:
        UserError: matplotlib is missing.
    """
    require_figures()
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):  # nobody's own matplotlibrc changes a figure
        figure = Figure((width, height), layout="constrained")
        yield figure
        for path, (kind, metadata) in zip(figure_files(stem), METADATA.items(), strict=True):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata)
            write_bytes(path, buffer.getvalue())


def draw_roc(stem: Path, runs: Runs) -> None:
    """The ROC curves over all frames, with each run's AUC; of several seeds their mean and one standard deviation.

    The test set has anomalous and normal frames.
    """
    with drawing(stem, COLUMN, 3.3) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], **GUIDE)
        legend: Legend = []
        for number, (name, seeds) in enumerate(runs.items()):
            grid, mean, spread = mean_roc([each.roc for each in seeds if each.roc is not None])
            (line,) = axes.plot(grid, mean, **line_style(number))
            legend.append((line, f"{name} ({per_cent(over_seeds([each.metrics.auc for each in seeds]))})"))
            if spread is not None:
                band = distinct(np.stack([grid, *np.clip([mean - spread, mean + spread], 0, 1)]))
                axes.fill_between(*band, **band_style(number))
        axes.set_aspect("equal")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="False positive rate", ylabel="True positive rate")
        add_legend(axes, legend, title="Run (AUC %)", loc="lower right", frameon=True)


def draw_trade_off(stem: Path, runs: Runs, threshold: float = THRESHOLD) -> None:
    """False alarm rate on normal videos against the true positive rate, with the point of one threshold marked.

    Seeds are averaged at the same threshold, so that the mark is the mean of their rates at it; its bars are a standard
    deviation. The axis of false alarms is logarithmic from 0.1 % on, and linear below, so that 0 has a place. The test
    set has normal videos and anomalous frames.
    """
    with drawing(stem, COLUMN, 2.7 + LINE * ((len(runs) + 1) // 2)) as figure:
        axes = figure.subplots()
        axes.set_xscale("symlog", linthresh=0.1, linscale=0.5)
        legend: Legend = []
        for number, (name, seeds) in enumerate(runs.items()):
            far, tpr = mean_trade_off([each.videos for each in seeds])
            (line,) = axes.plot(100 * far, 100 * tpr, **line_style(number))
            legend.append((line, name))
            rates = [rates_at(each.videos, threshold) for each in seeds]
            x, x_error = _mean_and_error([100 * each.far_normal for each in rates if each.far_normal is not None])
            y, y_error = _mean_and_error([100 * each.tpr for each in rates if each.tpr is not None])
            axes.errorbar([x], [y], y_error, x_error, fmt="o", color=colour_of(number), **MARK)
        axes.set(xlim=(-0.01, 100), ylim=(0, 100))  # a little room, lest curves hide the axis of 0
        axes.set(xlabel="False alarm rate on normal videos (%)", ylabel="True positive rate (%)")
        axes.set_xticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        axes.set_xticks([step * unit for unit in (0.1, 1, 10) for step in range(2, 10)], minor=True)
        add_legend(figure, legend, title=f"Run (● at threshold {threshold:g})", loc="outside upper left", ncols=2)


def draw_scores(stem: Path, video: str, runs: Runs, thresholds: Sequence[float] = (THRESHOLD,)) -> None:
    """The scores of one video over its frames, with the truth shaded; of seeds their mean and standard deviation.

    The axis reaches up to 1, or where all scores lie below one half, as they may on real CCTV, to the highest of them;
    thresholds above that are left out.
    """
    with drawing(stem, PAGE, max(1.7, 0.5 + LINE * (len(runs) + len(thresholds) + 1))) as figure:
        axes = figure.subplots()
        scored = [[next(found for found in each.videos if found.name == video) for each in runs[name]] for name in runs]
        truth = scored[0][0].truth
        legend: Legend = []
        for number, (name, seeds) in enumerate(zip(runs, scored, strict=True)):
            scores = np.stack([each.scores for each in seeds]).astype(np.float64)  # (seeds, frames)
            steps = steps_of(scores)
            mean = scores.mean(axis=0)[steps[:-1]]
            legend.append((axes.stairs(mean, steps, baseline=None, **line_style(number)), name))
            if len(seeds) > 1:
                spread = scores.std(axis=0, ddof=1)[steps[:-1]]
                low, high = np.clip([mean - spread, mean + spread], 0, 1)
                axes.stairs(high, steps, baseline=low, fill=True, **band_style(number))
        highest = max(float(each.scores.max()) for seeds in scored for each in seeds)
        top = 1.0 if highest >= LOW or not highest else highest
        for threshold in [threshold for threshold in thresholds if threshold <= top]:
            legend.append((axes.axhline(threshold, **GUIDE), f"threshold {threshold:g}"))
        shades = [axes.axvspan(*span, color=TRUTH, linewidth=0, zorder=0) for span in spans_of(truth)]
        legend += [(shade, "anomalous") for shade in shades[:1]]
        axes.set(xlim=(0, len(truth)), ylim=(0, 1.03 * top), xlabel="Frame", ylabel="Anomaly score")
        if top == 1:
            axes.set_yticks([0, 0.5, 1])
        axes.set_title(video, loc="left")
        add_legend(axes, legend, loc="upper left", bbox_to_anchor=(1, 1))


def _mean_and_error(values: Sequence[float]) -> tuple[float, NDArray[np.float64] | None]:
    """Mean and error bar ``(2, 1)``, a standard deviation down and up within 0 to 100 %; no bar of a single value."""
    mean, spread = mean_and_spread(values)
    return mean, None if spread is None else np.array([[min(spread, mean)], [min(spread, 100 - mean)]])


def steps_of(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Where any of several scores ``(seeds, frames)`` changes, with 0 and the end: a clip's frames share one."""
    changes = np.flatnonzero(np.any(np.diff(scores, axis=1) != 0, axis=0)) + 1
    return np.concatenate([[0], changes, [scores.shape[1]]])


def distinct(points: NDArray[np.float64], decimals: int = 3) -> NDArray[np.float64]:
    """Those of ``(coordinates, points)`` that an eye tells from the one before: matplotlib thins lines, not areas."""
    rounded = np.round(points, decimals)
    return rounded[:, np.append(True, np.any(np.diff(rounded, axis=1) != 0, axis=0))]


def colour_of(number: int) -> str:
    """The colour of the n-th run."""
    return PALETTE[number % len(PALETTE)]


def line_style(number: int) -> dict[str, Any]:
    """How the curve of the n-th run is drawn; when the colours run out, they come again dashed."""
    dashes = DASHES[number // len(PALETTE) % len(DASHES)]
    return {"color": colour_of(number), "linestyle": dashes, "gid": f"run-{number}"}


def band_style(number: int) -> dict[str, Any]:
    """How a standard deviation around the curve of the n-th run is drawn."""
    return {"color": colour_of(number), "alpha": 0.16, "linewidth": 0, "gid": f"band-{number}"}


def add_legend(place: Axes | Figure, entries: Legend, **options: Any) -> None:
    """A legend of exactly these entries: matplotlib's own leaves out what begins with an underscore."""
    place.legend([artist for artist, _ in entries], [text for _, text in entries], alignment="left", **options)
