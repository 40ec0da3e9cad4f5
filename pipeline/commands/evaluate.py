"""`xelvad evaluate`: runs and test features to frame-level metrics and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from .command import DONE, Command, dataset_arguments, dataset_of, output

if TYPE_CHECKING:
    from ..evaluation import Evaluation


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, nargs="+", required=True, help="one or more run folders, side by side")
    dataset_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics, scores and the report")


def run(arguments: Namespace) -> int:
    from ..evaluation import evaluate_all, write_evaluations
    from ..report import report_evaluations

    dataset = dataset_of(arguments)
    evaluations = evaluate_all(arguments.run, dataset, arguments.features)
    write_evaluations(evaluations, arguments.out)
    print_results(evaluations)
    output.print(f"report: {report_evaluations(evaluations, dataset, arguments.out)}")
    return DONE


def print_results(evaluations: Sequence[Evaluation]) -> None:
    """A table of frame-level metrics in per cent, one row for each run and choice of weights."""
    from ..evaluation import RATES, summarise

    table = Table("run", "weights", "AUC %", "AP %", "AUC abnormal %", "FAR normal %", "TPR %", title_justify="left")
    for row in summarise(evaluations):
        cells = [f"{100 * row.mean[name]:.2f}" for name in RATES]
        if row.spread is not None:
            cells = [f"{cell} ± {100 * row.spread[name]:.2f}" for cell, name in zip(cells, RATES, strict=True)]
        if row.interval is not None:
            cells[0] += f" ({100 * row.interval.low:.1f} to {100 * row.interval.high:.1f})"
        seeds = f", {row.seeds} seeds" if row.seeds > 1 else ""
        table.add_row(row.run + seeds, row.weights.replace("_", " "), *cells)
    output.print(table)
    output.print(
        "frame level, all test videos together; in brackets where 95 % of test sets drawn from these videos lie; "
        "± over seeds; FAR over the frames of normal videos, FAR and TPR at threshold 0.5; best on test was chosen on "
        "the test videos: an upper bound, not a result"
    )


COMMAND = Command("Runs and test features to frame-level metrics and a report.", add_arguments, run)
