"""What every command is made of: its description, its arguments, what it does, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...errors import UserError

if TYPE_CHECKING:
    from ..datasets import Dataset
    from ..features.remote.address import FeaturesFolder
    from ..reports.tables import ResultTable
    from ..videos.sources import Search

DONE, SOME_SET_ASIDE, WRONG_REQUEST, INTERNAL_ERROR, INTERRUPTED = 0, 1, 2, 3, 130

LOG_WIDTH = 200  # more than a table needs
RETRY_HELP = "try videos again that were set aside before and have not changed since"
VIDEOS_HELP = "video files, folders of frames, or folders of these"

Config = TypeVar("Config")
output = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Command:
    """A subcommand: its one-line description, its arguments, and what it does with them; returns the exit code."""

    description: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    takes_recipe: bool = False


def config_of(kind: type[Config], arguments: Namespace) -> Config:
    """The part of the parsed arguments that belongs to a stage's configuration."""
    return kind(**{field.name: arguments[field.name] for field in fields(kind) if field.name in arguments})  # type: ignore[arg-type]


def dataset_arguments(
    parser: ArgumentParser,
    fold: str = "the fold to test on; all others are for training",
    *,
    features_needed: bool = True,
) -> None:
    """The options that name a data set and the features of its videos."""
    from ..datasets import DatasetChoice

    parser.add_class_arguments(DatasetChoice)
    parser.add_argument("--test_fold", type=str, help=fold)
    features_arguments(parser, needed=features_needed)


def features_arguments(
    parser: ArgumentParser, what: str = "folder that `xelvad extract` filled", *, needed: bool = True
) -> None:
    """The options that name the features folder, and bound what is kept here of one at a URL."""
    from ..features.remote.address import CACHE_GB

    parser.add_argument(
        "--features", type=str, required=needed, help=f"{what}: a path, or a URL such as s3://BUCKET/DIR"
    )
    kept = "GB of features at URLs that are kept on this machine; the least recently used go first"
    parser.add_argument("--cache_gb", type=float, default=CACHE_GB, help=kept)


def features_of(arguments: Namespace) -> FeaturesFolder:
    """The features folder that the options of `features_arguments` name."""
    from ..features.remote.address import folder_of

    return folder_of(arguments.features, arguments.cache_gb)


def local_folder(text: str) -> Path:
    """A features folder that is walked through, and so must be one of this machine.

    Raises:
        UserError: it is a URL.
    """
    from ..features.remote.address import is_url

    if is_url(text):
        raise UserError(f"{text}: only a folder can be looked through; copy the features first, as by aws s3 sync")
    return Path(text)


def dataset_of(arguments: Namespace) -> Dataset:
    """The data set that the options of `dataset_arguments` name."""
    from ..datasets import DatasetChoice

    return config_of(DatasetChoice, arguments).read(arguments.test_fold)


def print_wide(table: Table) -> None:
    """Print a table; where no terminal says how wide it may be, as wide as it is."""
    wide = output if output.is_terminal else Console(file=output.file, highlight=False, width=LOG_WIDTH)
    wide.print(table)


def print_tables(tables: Sequence[ResultTable]) -> None:
    """Each table with its notes beneath; rows of one name stand together, with a line before the next."""
    for result in tables:
        table = Table(*result.columns, title=result.title, title_justify="left")
        names = [name for name, *_ in result.rows]
        for number, row in enumerate(result.rows):
            if len(set(names)) < len(names) and row[0] != names[number - 1]:
                table.add_section()
            table.add_row(*map(escape, row))
        print_wide(table)
        for note in result.notes:
            output.print(f"- {note}", markup=False)


def find_and_say(paths: Sequence[Path]) -> Search:
    """The videos at and below some paths; what is passed over is said, a line for each reason."""
    from ..videos.sources import search

    found = search(paths)
    for line in found.lines:
        print(line, file=sys.stderr)
    return found


def list_set_aside(failed: Mapping[str, str]) -> int:
    """Print why each video was set aside; returns the exit code."""
    for reason in failed.values():
        print(f"set aside: {reason}", file=sys.stderr)
    return SOME_SET_ASIDE if failed else DONE
