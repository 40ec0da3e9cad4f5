"""`xelvad compare`: runs side by side, as figures and tables for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.markup import escape
from rich.table import Table

from .command import DONE, Command, dataset_arguments, dataset_of, output, print_wide
from .evaluate import print_results

if TYPE_CHECKING:
    from ..comparison import Difference


def add_arguments(parser: ArgumentParser) -> None:
    runs = "run folders, or folders that hold the seeds of a training; the first is what the others are compared with"
    parser.add_argument("run", type=Path, nargs="+", metavar="RUN", help=runs)
    dataset_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures, the tables and their numbers")
    shown = "test videos whose scores are drawn (default: the 4 abnormal ones in which the runs differ most)"
    parser.add_argument("--videos_shown", type=str, nargs="+", default=[], metavar="NAME", help=shown)


def run(arguments: Namespace) -> int:
    from ..comparison import compare

    dataset = dataset_of(arguments)
    result = compare(arguments.run, dataset, arguments.features, arguments.out, arguments.videos_shown)
    print_results(result.evaluations)
    if result.differences:
        print_differences(result.differences)
    for path in (*result.figures, *(result.out / name for name in ("table.md", "table.tex", "comparison.json"))):
        output.print(f"written: {path}", markup=False)
    return DONE


def print_differences(differences: Sequence[Difference]) -> None:
    """The paired bootstrap of each run against the first, in points of AUC."""
    table = Table("run", "seed", f"AUC less that of {escape(differences[0].against)}", "95 % of test sets", "0 lies")
    for each in differences:
        low, high = 100 * each.interval.low, 100 * each.interval.high
        cells = [f"{100 * each.difference:+.2f}", f"{low:+.2f} to {high:+.2f}"]
        seed = "" if each.seed is None else str(each.seed)
        cells = [cell.replace("-", "−") for cell in cells]
        table.add_row(escape(each.run), seed, *cells, "outside" if each.zero_is_outside else "within")
    print_wide(table)
    output.print(
        "points of AUC, weights of the last iteration; paired bootstrap over the test videos: 0 outside speaks for a "
        "difference on videos like these, not for one with other seeds"
    )


COMMAND = Command("Runs side by side, as figures and tables for a paper.", add_arguments, run)
