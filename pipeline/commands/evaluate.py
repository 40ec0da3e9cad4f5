"""`xelvad evaluate`: runs and test features to frame-level metrics and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from .command import DONE, Command, config_of, dataset_arguments, dataset_of, output

if TYPE_CHECKING:
    from ..tables import ResultTable


def add_arguments(parser: ArgumentParser) -> None:
    from ..settings import EvaluationConfig

    parser.add_argument("--run", type=Path, nargs="+", required=True, help="one or more run folders, side by side")
    dataset_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics, scores and the report")
    parser.add_class_arguments(EvaluationConfig)


def run(arguments: Namespace) -> int:
    from ..evaluation import compare, evaluate_all, write_evaluations
    from ..report import report_evaluations
    from ..settings import EvaluationConfig
    from ..tables import result_tables

    dataset = dataset_of(arguments)
    settings = config_of(EvaluationConfig, arguments)
    evaluations = evaluate_all(arguments.run, dataset, arguments.features, settings)
    comparisons = compare(evaluations)
    write_evaluations(evaluations, arguments.out, comparisons)
    print_results(result_tables(evaluations, comparisons))
    output.print(f"report: {report_evaluations(evaluations, dataset, arguments.out, comparisons)}")
    return DONE


def print_results(tables: Sequence[ResultTable]) -> None:
    """Each table with its notes beneath."""
    for result in tables:
        table = Table(*result.columns, title=result.title, title_justify="left")
        for row in result.rows:
            table.add_row(*row)
        output.print(table)
        for note in result.notes:
            output.print(f"- {note}", markup=False)


COMMAND = Command("Runs and test features to frame-level metrics and a report.", add_arguments, run)
