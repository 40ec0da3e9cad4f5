"""Tables: the results of an evaluation as rows of text, the same on the terminal and on the page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.evaluation import Comparison, Evaluation, ThresholdName, last_weights, summarise
from ..evaluation.metrics import METRICS
from ..evaluation.resampling import RESAMPLED, over_seeds
from ..scoring.events import IOUS, EventMetrics
from ..scoring.runs import in_words

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
    last = last_weights(evaluations)
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
        cells = [per_cent(row.figure(name)) for name in METRICS]
        if row.interval is not None:
            cells[0] += f" ({100 * row.interval.low:.1f} to {100 * row.interval.high:.1f})"
        seeds = f", {row.seeds} seeds" if row.seeds > 1 else ""
        if row.learned_nothing:
            seeds += " (learned nothing)" if row.seeds == 1 else f" ({row.learned_nothing} learned nothing)"
        rows.append((row.run + seeds, in_words(row.weights), *cells))
    protocol = evaluations[0].protocol
    return ResultTable(
        f"Frames, protocol {protocol.name}",
        ("run", "weights", *METRICS.values()),
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
            used = sorted({f"{each.threshold:.4g}" for each in rates}, key=float)
            threshold = used[0] if len(used) == 1 else f"{used[0]} to {used[-1]}"
            columns = ("far_normal", "far_all", "far_abnormal", "tpr")
            figures = [_over_seeds([getattr(each, column) for each in rates]) for column in columns]
            rows.append((run, f"{name}, {threshold}", *figures))
    return ResultTable(
        "Thresholds",
        ("run", "threshold", "FAR normal videos %", "FAR all normal frames %", "FAR abnormal videos %", "TPR %"),
        tuple(rows),
        (
            "FAR: alarms among the frames of normal videos; among all normal frames; among the normal frames of "
            "abnormal videos only. TPR: alarms among the anomalous frames",
            *_notes(runs),
        ),
    )


def event_table(runs: dict[str, list[Evaluation]]) -> ResultTable:
    """Events at each threshold; the seeds of each run by its name."""
    rows = []
    for run, seeds in runs.items():
        for name in _thresholds(seeds):
            events = [found for each in seeds if (found := each.operations[name].events) is not None]
            if len(events) < len(seeds):
                rows.append((run, name, *[NONE] * 5))
                continue
            rows.append(
                (
                    run,
                    name,
                    f"{round(statistics.fmean(each.found for each in events), 1):g} of {events[0].annotated}",
                    *(_at_ious(events, column) for column in ("precision", "recall", "ap")),
                    _over_seeds([each.mean_ap for each in events]),
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
        cells = [category.undefined or _over_seeds([each.auc for each in seeds]) for seeds in of_runs]
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
            f"{points(found.value)} ({points(found.low, 1)} to {points(found.high, 1)}), p = {found.p_value:.3f}"
            if (found := each.differences.get(name))
            else NONE
            for name in RESAMPLED
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


def per_cent(figure: tuple[float | None, float | None], form: str = ".2f") -> str:
    """Mean ± standard deviation over the seeds in per cent, with a real minus sign; the mean alone of a single seed.

    A dash where there is no such figure.
    """
    mean, spread = figure
    if mean is None:
        return NONE
    text = f"{100 * mean:{form}}" + ("" if spread is None else f" ± {100 * spread:{form.removeprefix('+')}}")
    return text.replace("-", "−")


def points(difference: float | None, decimals: int = 2) -> str:
    """A difference of two rates in percentage points, with its sign; a dash where there is none."""
    return per_cent((difference, None), f"+.{decimals}f")


def _thresholds(seeds: Sequence[Evaluation]) -> list[ThresholdName]:
    """The thresholds that all seeds of a run have."""
    return [name for name in seeds[0].operations if all(name in evaluation.operations for evaluation in seeds)]


def _notes(runs: dict[str, list[Evaluation]]) -> list[str]:
    """What must be known about single trainings; what holds for several is said once, of all of them."""
    holds: dict[str, dict[str, list[str]]] = {}  # note, run, labels of its seeds
    for run, seeds in runs.items():
        for each in seeds:
            for note in each.notes:
                holds.setdefault(note, {}).setdefault(run, []).append(each.label)
    notes = []
    for note, by_run in holds.items():
        subjects = [run if len(labels) == len(runs[run]) else ", ".join(labels) for run, labels in by_run.items()]
        notes.append(f"{', '.join(subjects)}: {note}")
    return notes


def _at_ious(events: Sequence[EventMetrics], column: str) -> str:
    """A column of `EventMetrics` at the shown IoUs, over the seeds."""
    cells = []
    for iou in SHOWN_IOUS:
        values = [getattr(each, column) for each in events]
        place = events[0].ious.index(iou)
        cells.append(_over_seeds([None if value is None else value[place] for value in values], ".1f"))
    return " / ".join(cells)


def _over_seeds(values: Sequence[float | None], form: str = ".2f") -> str:
    """A figure of all seeds in per cent; a dash where a seed has none."""
    return per_cent(over_seeds(values), form)
