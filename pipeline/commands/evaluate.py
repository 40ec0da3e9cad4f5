"""`xelvad evaluate`: runs and test features to frame-level metrics and a report."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from .command import DONE, Command, config_of, dataset_arguments, dataset_of, features_of, output, print_tables


def add_arguments(parser: ArgumentParser) -> None:
    from ..evaluation.config import EvaluationConfig

    parser.add_argument("--run", type=Path, nargs="+", required=True, help="one or more run folders, side by side")
    dataset_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics, scores and the report")
    parser.add_class_arguments(EvaluationConfig)


def run(arguments: Namespace) -> int:
    from ..evaluation.config import EvaluationConfig
    from ..evaluation.evaluation import compare, evaluate_all, write_evaluations
    from ..reports.report import report_evaluations
    from ..reports.tables import result_tables

    dataset = dataset_of(arguments)
    settings = config_of(EvaluationConfig, arguments)
    evaluations = evaluate_all(arguments.run, dataset, features_of(arguments), settings)
    comparisons = compare(evaluations)
    write_evaluations(evaluations, arguments.out, comparisons)
    print_tables(result_tables(evaluations, comparisons))
    output.print(f"report: {report_evaluations(evaluations, dataset, arguments.out, comparisons)}")
    return DONE


COMMAND = Command("Runs and test features to frame-level metrics and a report.", add_arguments, run)
