"""`xelvad weights`: known pretrained weights: list, fetch NAME, or add NAME SOURCE."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from ...errors import UserError
from .command import DONE, Command, output


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=["list", "fetch", "add"], help="list, fetch NAME, or add NAME SOURCE")
    parser.add_argument("name", nargs="?", help="name of the weights, as in the list")
    source = "checkpoint in any of the public layouts: a file, or an address with --sha256"
    parser.add_argument("source", nargs="?", type=str, help=source)
    parser.add_argument("--sha256", type=str, help="digest that the checkpoint must have")


def run(arguments: Namespace) -> int:
    from ...extractors import weights

    if arguments.action == "list":
        table = Table("name", "extractor", "here", "what, from where, licence")
        for known in weights.CATALOGUE.values():
            table.add_row(
                known.name,
                ", ".join(known.extractors),
                "yes" if known.is_here else "no",
                f"{known.description}\n{known.origin.place}\n{known.licence}",
            )
        table.columns[0].no_wrap = True
        output.print(table)
        return DONE
    if arguments.name is None or (arguments.action == "add") != (arguments.source is not None):
        raise UserError("usage: xelvad weights list | fetch NAME | add NAME SOURCE [--sha256 DIGEST]")
    if arguments.action == "fetch":
        path = weights.fetch(arguments.name)
        output.print(f"{arguments.name}: {path}")
    else:
        path, digest = weights.add(arguments.name, arguments.source, arguments.sha256)
        published = weights.known(arguments.name).digest
        same = "as" if digest == published else "NOT as"
        output.print(f"{arguments.name}: {path}, sha256 {digest}" + (f" ({same} published)" if published else ""))
    return DONE


COMMAND = Command("Known pretrained weights: list, fetch NAME, or add NAME SOURCE.", add_arguments, run)
