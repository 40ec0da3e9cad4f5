"""`xelvad compare`: runs side by side, as figures and tables for a paper."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from .command import DONE, Command, config_of, dataset_arguments, dataset_of, features_of, output, print_tables


def add_arguments(parser: ArgumentParser) -> None:
    from ..evaluation.config import EvaluationConfig

    runs = "run folders, or folders that hold the seeds of a training; the first is what the others are compared with"
    parser.add_argument("run", type=Path, nargs="+", metavar="RUN", help=runs)
    dataset_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures, the tables and their numbers")
    shown = "test videos whose scores are drawn (default: the 4 abnormal ones in which the runs differ most)"
    parser.add_argument("--videos_shown", type=str, nargs="+", default=[], metavar="NAME", help=shown)
    parser.add_class_arguments(EvaluationConfig)


def run(arguments: Namespace) -> int:
    from ..evaluation.config import EvaluationConfig
    from ..experiments.comparison import compare_runs
    from ..reports.tables import result_tables

    dataset, settings = dataset_of(arguments), config_of(EvaluationConfig, arguments)
    result = compare_runs(
        arguments.run, dataset, features_of(arguments), arguments.out, arguments.videos_shown, settings
    )
    print_tables(result_tables(result.evaluations, result.comparisons))
    for path in (*result.figures, *(result.out / name for name in ("table.md", "table.tex", "comparison.json"))):
        output.print(f"written: {path}", markup=False)
    return DONE


COMMAND = Command("Runs side by side, as figures and tables for a paper.", add_arguments, run)
