"""`xelvad leaderboard`: all detectors, with and without XEL, on one feature set and one protocol."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from .command import DONE, Command, config_of, features_arguments, features_of, output, print_tables


def add_arguments(parser: ArgumentParser) -> None:
    from ..cluster.config import ClusterConfig
    from ..datasets import DatasetChoice
    from ..experiments.leaderboard.config import LeaderboardConfig

    parser.add_class_arguments(DatasetChoice)
    features_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, the tables and the figures")
    parser.add_class_arguments(LeaderboardConfig, skip={"detectors", "beside", "across"})
    parser.add_class_arguments(ClusterConfig)
    parser.add_argument("--detectors", type=str, nargs="+", default=[], help="names (default: all that there are)")
    others = "folders of finished leaderboards of other data sets: ranks over all of them"
    parser.add_argument("--beside", type=Path, nargs="+", default=[], help=others)
    across = (
        "also test the trainings on the videos of those beside, and theirs on these: what is lost by going elsewhere"
    )
    parser.add_argument("--across", action="store_true", help=across)


def run(arguments: Namespace) -> int:
    from ..cluster.config import ClusterConfig
    from ..datasets import DatasetChoice
    from ..experiments.leaderboard.board import exchange, make_board
    from ..experiments.leaderboard.config import LeaderboardConfig
    from ..experiments.leaderboard.page import ranks_of, tables_of, write_tables
    from ..experiments.leaderboard.plot import draw_ranks, draw_speed
    from ..experiments.leaderboard.records import read_board
    from ..reports.plots import EXTRA, figures_available
    from ..support.progress import CONSOLE

    settings, out = config_of(LeaderboardConfig, arguments), arguments.out
    beside = [read_board(folder) for folder in settings.beside]
    labels, cluster = config_of(DatasetChoice, arguments), config_of(ClusterConfig, arguments)
    board = make_board(labels, features_of(arguments), out, settings, CONSOLE, cluster)
    if settings.across:
        board, beside = exchange(board, out, list(zip(settings.beside, beside, strict=True)), settings.workers, CONSOLE)
    tables = tables_of(board, beside)
    write_tables(board, tables, out)
    print_tables(tables)
    for name in ("leaderboard.md", "leaderboard.csv"):
        output.print(f"written: {out / name}", markup=False)
    if not figures_available():
        output.print(f"note: for figures, {EXTRA} and run this again", markup=False)
        return DONE
    draw_speed(out / "speed", board)
    output.print(f"figure: {out / 'speed.png'}", markup=False)
    ranks = ranks_of([board, *beside])
    if ranks is not None:
        draw_ranks(out / "ranks", ranks)
        output.print(f"figure: {out / 'ranks.png'}", markup=False)
    return DONE


COMMAND = Command("All detectors, with and without XEL, on one feature set and one protocol.", add_arguments, run)
