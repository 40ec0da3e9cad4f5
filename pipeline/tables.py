"""Tables: the results of an evaluation as rows of text, the same on the terminal and on the page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .evaluation import RATES, Comparison, Evaluation, ThresholdName, grouped, summarise
from .events import IOUS, EventMetrics
from .resampling import mean_and_spread
from .runs import LAST

SHOWN_IOUS = (0.1, 0.3, 0.5)
NONE = "–"


@dataclass(frozen=True)
class ResultTable:
    """One table; every cell is text, figures in per cent. The first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]  # what a reader must know about it


def result_tables(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison] = ()) -> list[ResultTable]:
    """The tables that there is something to fill with; all but the first are of the last iteration's weights."""
    last = {run: group for (run, weights), group in grouped(evaluations).items() if weights == LAST}
    tables = [
        frame_table(evaluations),
        threshold_table(last),
        event_table(last),
        category_table(last),
        comparison_table(comparisons),
    ]
    return [table for table in tables if table.rows]


def frame_table(evaluations: Sequence[Evaluation]) -> ResultTable:
    """Frame-level metrics, one row for each run and choice of weights."""
    rows = []
    for row in summarise(evaluations):
        cells = [f"{100 * row.mean[name]:.2f}" for name in RATES]
        if row.spread is not None:
            cells = [f"{cell} ± {100 * row.spread[name]:.2f}" for cell, name in zip(cells, RATES, strict=True)]
        if row.interval is not None:
            cells[0] += f" ({100 * row.interval.low:.1f} to {100 * row.interval.high:.1f})"
        seeds = f", {row.seeds} seeds" if row.seeds > 1 else ""
        rows.append((row.run + seeds, row.weights.replace("_", " "), *cells))
    protocol = evaluations[0].protocol
    return ResultTable(
        f"Frames, protocol {protocol.name}",
        ("run", "weights", "AUC %", "AP %", "AUC abnormal %", "FAR normal %", "TPR %"),
        tuple(rows),
        (
            f"{protocol.description}; all test videos together",
            "in brackets where 95 % of test sets drawn from these videos lie; ± over seeds",
            "FAR over the frames of normal videos, FAR and TPR at threshold 0.5",
            "best on test was chosen on the test videos: an upper bound, not a result",
        ),
    )


def threshold_table(runs: dict[str, list[Evaluation]]) -> ResultTable:
    """False and true alarms at each threshold; the seeds of each run by its name."""
    rows = []
    for run, seeds in runs.items():
        for name in _thresholds(seeds):
            rates = [evaluation.operations[name].rates for evaluation in seeds]
            threshold = statistics.fmean(each.threshold for each in rates)
            columns = ("far_normal", "far_all", "far_abnormal", "tpr")
            figures = [_per_cent([getattr(each, column) for each in rates]) for column in columns]
            rows.append((run, f"{name}, {threshold:.4g}", *figures))
    notes = [f"{each.label}: {note}" for seeds in runs.values() for each in seeds for note in each.notes]
    return ResultTable(
        "Thresholds",
        ("run", "threshold", "FAR normal videos %", "FAR all normal frames %", "FAR abnormal videos %", "TPR %"),
        tuple(rows),
        (
            "FAR: alarms among the frames of normal videos; among all normal frames; among the normal frames of "
            "abnormal videos only. TPR: alarms among the anomalous frames",
            *notes,
        ),
    )


def event_table(runs: dict[str, list[Evaluation]]) -> ResultTable:
    """Events at each threshold; the seeds of each run by its name."""
    rows = []
    for run, seeds in runs.items():
        for name in _thresholds(seeds):
            events = [evaluation.operations[name].events for evaluation in seeds]
            rows.append(
                (
                    run,
                    name,
                    f"{statistics.fmean(each.found for each in events):g} of {events[0].annotated}",
                    *(_at_ious(events, column) for column in ("precision", "recall", "ap")),
                    _per_cent([each.mean_ap for each in events]),
                )
            )
    at = " / ".join(f"{iou:g}" for iou in SHOWN_IOUS)
    return ResultTable(
        "Events",
        ("run", "threshold", "found, of annotated", "precision %", "recall %", "AP %", "mAP %"),
        tuple(rows),
        (
            f"precision, recall and AP at a temporal IoU of {at}, of the events that reach the threshold; "
            f"mAP: the mean AP over IoUs of {IOUS[0]:g} to {IOUS[-1]:g}",
        ),
    )


def category_table(runs: dict[str, list[Evaluation]]) -> ResultTable:
    """The AUC of each category, one column for each run; why it has none where it has none."""
    first = next(iter(runs.values()))[0]
    rows = []
    for number, category in enumerate(first.categories):
        of_runs = [[evaluation.categories[number] for evaluation in seeds] for seeds in runs.values()]
        cells = [category.undefined or _per_cent([each.auc for each in seeds]) for seeds in of_runs]
        rows.append((category.category, f"{category.videos}", *cells))
    return ResultTable(
        "Categories",
        ("category", "videos", *(f"{run}, AUC %" for run in runs)),
        tuple(rows),
        ("AUC over the frames of the category's own videos",),
    )


def comparison_table(comparisons: Sequence[Comparison]) -> ResultTable:
    """Differences between runs, with intervals and p-values."""
    rows = []
    for each in comparisons:
        cells = [
            f"{100 * found.value:+.2f} ({100 * found.low:+.1f} to {100 * found.high:+.1f}), p = {found.p_value:.3f}"
            for found in each.differences.values()
        ]
        seed = "" if each.seed is None else f", seed {each.seed}"
        rows.append((f"{each.run} less {each.other}{seed}", *cells))
    return ResultTable(
        "Differences",
        ("runs", "AUC, points", "AP, points", "AUC abnormal, points"),
        tuple(rows),
        (
            "in brackets where 95 % of test sets drawn from these videos lie, p: two-sided bootstrap test; of single "
            "trainings, so that the spread over seeds is not in it",
        ),
    )


def _thresholds(seeds: Sequence[Evaluation]) -> list[ThresholdName]:
    """The thresholds that all seeds of a run have."""
    return [name for name in seeds[0].operations if all(name in evaluation.operations for evaluation in seeds)]


def _at_ious(events: Sequence[EventMetrics], column: str) -> str:
    """A column of `EventMetrics` at the shown IoUs, over the seeds."""
    cells = []
    for iou in SHOWN_IOUS:
        values = [getattr(each, column) for each in events]
        place = events[0].ious.index(iou)
        cells.append(_per_cent([None if value is None else value[place] for value in values], decimals=1))
    return " / ".join(cells)


def _per_cent(values: Sequence[float | None], decimals: int = 2) -> str:
    """A figure in per cent, or its mean ± standard deviation over the seeds; a dash where a seed has none."""
    known = [100 * value for value in values if value is not None]
    if len(known) < len(values):
        return NONE
    mean, spread = mean_and_spread(known)
    return f"{mean:.{decimals}f}" + ("" if spread is None else f" ± {spread:.{decimals}f}")
