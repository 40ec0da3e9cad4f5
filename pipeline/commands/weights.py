"""`xelvad weights`: known pretrained weights: list, fetch NAME, or add NAME PATH by hand."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from ...errors import UserError
from .command import DONE, Command, output


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=["list", "fetch", "add"], help="list, fetch NAME, or add NAME PATH")
    parser.add_argument("name", nargs="?", help="name of the weights, as in the list")
    parser.add_argument("path", nargs="?", type=Path, help="checkpoint file in any of the public layouts")


def run(arguments: Namespace) -> int:
    from ...extractors import weights

    if arguments.action == "list":
        table = Table("name", "extractor", "here", "what, from where, licence")
        for known in weights.CATALOGUE.values():
            here = "yes" if weights.cached_file(known.name).exists() else "no"
            table.add_row(
                known.name,
                ", ".join(known.extractors),
                here,
                f"{known.description}\n{known.origin.place}\n{known.licence}",
            )
        table.columns[0].no_wrap = True
        output.print(table)
        return DONE
    if arguments.name is None or (arguments.action == "add") != (arguments.path is not None):
        raise UserError("usage: xelvad weights list | fetch NAME | add NAME PATH")
    if arguments.action == "fetch":
        path = weights.fetch(arguments.name)
        output.print(f"{arguments.name}: {path}")
    else:
        path, digest = weights.add(arguments.name, arguments.path)
        same = digest == weights.known(arguments.name).digest
        output.print(f"{arguments.name}: {path}, sha256 {digest} ({'as' if same else 'NOT as'} published)")
    return DONE


COMMAND = Command("Known pretrained weights: list, fetch NAME, or add NAME PATH by hand.", add_arguments, run)
