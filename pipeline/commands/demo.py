"""`xelvad demo`: the whole way on footage drawn on the spot, with real I3D weights, in minutes."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from .command import DONE, Command, output, print_tables


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything that the demo makes")
    parser.add_argument("--seed", type=int, default=0, help="of the footage and of the training")


def run(arguments: Namespace) -> int:
    from ..experiments.demo import run_demo
    from ..reports.tables import result_tables
    from ..support.progress import CONSOLE

    result = run_demo(arguments.out, arguments.seed, report=CONSOLE)
    print_tables(result_tables(result.evaluations))
    output.print(result.finding, markup=False)
    output.print(f"report: {result.report}")
    return DONE


COMMAND = Command("The whole way on footage drawn on the spot, with real I3D weights, in minutes.", add_arguments, run)
