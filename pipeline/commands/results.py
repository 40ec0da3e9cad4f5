"""`xelvad results`: what a paper has published, alone or beside runs of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.markup import escape
from rich.table import Table

from ...errors import UserError
from .command import DONE, Command, dataset_arguments, dataset_of, features_of, output, print_wide

if TYPE_CHECKING:
    from ..experiments.published import ComparedRow, Paper


def add_arguments(parser: ArgumentParser) -> None:
    runs = "run folders, or folders that hold the seeds of a training; none: what was published alone"
    parser.add_argument("run", type=Path, nargs="*", metavar="RUN", help=runs)
    parser.add_argument("--paper", type=str, default="xel", help="whose table: xel")
    dataset_arguments(parser, features_needed=False)


def run(arguments: Namespace) -> int:
    from ..experiments.published import data_set_of, read_paper, set_beside

    paper = read_paper(arguments.paper)
    if not arguments.run:
        print_published(paper)
        return DONE
    if arguments.features is None:
        raise UserError("a run is measured on the features of its test videos: name their folder by --features DIR")
    dataset = dataset_of(arguments)
    found = set_beside(paper, arguments.run, dataset, features_of(arguments))
    print_beside(paper, data_set_of(paper, dataset), found)
    return DONE


def print_published(paper: Paper) -> None:
    """The table of a paper: every figure as it was printed, a star where it is qualified."""
    from ..evaluation.metrics import METRICS
    from ..experiments.published import PUBLISHED_METRICS

    columns = [(key, rate) for key in paper.data_sets for rate in PUBLISHED_METRICS]
    columns = [(key, rate) for key, rate in columns if any(rate in row.figures.get(key, {}) for row in paper.rows)]
    table = Table("method", "features", *(f"{paper.data_sets[key].title} {METRICS[rate]}" for key, rate in columns))
    for row in paper.rows:
        cells = [row.figures.get(key, {}).get(rate, "–") + "*" * (key in row.notes) for key, rate in columns]
        table.add_row(row.method, row.features, *cells)
    print_wide(table)
    print_sources(paper, list(paper.data_sets))


def print_beside(paper: Paper, data_set: str, found: Sequence[ComparedRow]) -> None:
    """Published, measured here, and the difference in points, for every run; then what makes it unfair."""
    from ..evaluation.metrics import METRICS
    from ..experiments.published import PUBLISHED_METRICS
    from ..reports.tables import per_cent, points

    table = Table("run", "published as", paper.data_sets[data_set].title, "published", "here", "difference")
    for beside in found:
        table.add_section()
        labels = [
            run_label(beside) + "†" * beside.summary.chosen_on_test,
            f"{beside.row.method}, {beside.row.features}" if beside.row else "–",
        ]
        for rate in PUBLISHED_METRICS:
            published = beside.row.figures[data_set].get(rate) if beside.row else None
            star = "*" * bool(beside.row and data_set in beside.row.notes)
            here, difference = per_cent(beside.summary.figure(rate)), ""
            if published:
                mean = beside.summary.mean[rate]
                difference = points(None if mean is None else mean - float(published) / 100)
            cells = [published + star if published else "–", here, difference]
            table.add_row(*map(escape, labels), METRICS[rate], *cells)
            labels = ["", ""]
    print_wide(table)
    for run, beside in {beside.summary.run: beside for beside in found}.items():
        if beside.row is None:
            title = paper.data_sets[data_set].title
            output.print(f"{run}: nothing is published for {beside.name} on {title}", markup=False)
        elif beside.unfair:
            output.print(f"{run}: not a fair comparison with the published {beside.row.method}:", markup=False)
            for reason in beside.unfair:
                output.print(f"  - {reason}", markup=False)
    if any(beside.summary.chosen_on_test for beside in found):
        output.print("† chosen on the very videos it is measured on: an upper bound, not a result")
    output.print(f"here: protocol {found[0].protocol.name}, {found[0].protocol.description}", markup=False)
    print_sources(paper, [data_set])


def print_sources(paper: Paper, data_sets: Sequence[str]) -> None:
    """Where the figures are from, how they were measured, and what is not certain."""
    for row in paper.rows:
        for key in data_sets:
            if key in row.notes:
                title = paper.data_sets[key].title
                output.print(f"* {row.method} on {title}: {row.notes[key]}", markup=False)
    output.print(f"published: {paper.protocol}", markup=False)
    output.print(f"source: {paper.source}", markup=False)


def run_label(beside: ComparedRow) -> str:
    """The run, its weights, and how many seeds."""
    from ..scoring.runs import in_words

    seeds = f", {beside.summary.seeds} seeds" if beside.summary.seeds > 1 else ""
    return f"{beside.summary.run}, {in_words(beside.summary.weights)}{seeds}"


COMMAND = Command("What a paper has published, alone or beside runs of one's own.", add_arguments, run)
