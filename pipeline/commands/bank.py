"""`xelvad bank`: what a detector finds hardest to call normal, as a list and as pictures."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.markup import escape
from rich.table import Table

from .command import Command, list_set_aside, output


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder of a detector that was trained with XEL")
    videos = "its normal training videos (files or folders): makes a contact sheet of the clips"
    parser.add_argument("--videos", type=Path, nargs="+", default=[], help=videos)
    parser.add_argument("--out", type=Path, help="folder for bank.csv and the sheet (default: RUN/bank if --videos)")
    parser.add_argument("--rows", type=int, default=40, help="how many are shown, those of the highest scores first")


def run(arguments: Namespace) -> int:
    from ..reports.contact_sheet import COLUMN_NAMES, show_bank
    from ..support.progress import CONSOLE

    bank = show_bank(arguments.run, arguments.videos, arguments.out, arguments.rows, CONSOLE)
    table = Table(*COLUMN_NAMES)
    table.columns[1].overflow = "fold"
    for cells in bank.table:
        table.add_row(*map(escape, cells))
    output.print(table)
    for note in bank.notes:
        output.print(note, markup=False)
    return list_set_aside(bank.failed)


COMMAND = Command("What a detector finds hardest to call normal, as a list and as pictures.", add_arguments, run)
