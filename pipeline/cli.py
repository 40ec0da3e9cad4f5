"""The command line: `xelvad COMMAND`. It parses, runs one of `commands`, and turns what goes wrong into one line.

Exit codes: 0 done; 1 done, but some videos were set aside; 2 the request itself was wrong.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from .. import __version__
from ..errors import UserError
from .commands import COMMANDS
from .commands.command import INTERNAL_ERROR, INTERRUPTED, WRONG_REQUEST
from .training.recipes import recipe_in, recipe_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("xelvad").setLevel(logging.INFO)
    argv = spell_options(sys.argv[1:] if arguments is None else arguments)
    try:
        parser = build_parser(argv)
        parsed = parser.parse_args(argv)
        name = parsed.command
        return COMMANDS[name].run(parser.instantiate(parsed)[name])
    except UserError as error:
        return _fail(str(error), WRONG_REQUEST)
    except OSError as error:  # disk full, no permission, …
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", WRONG_REQUEST)
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished is kept, the same command goes on from there", INTERRUPTED)
    except Exception as error:
        if os.environ.get("XELVAD_DEBUG"):
            raise
        hint = "this is a bug in xelvad; XELVAD_DEBUG=1 shows where it happened"
        return _fail(f"{type(error).__name__}: {error} ({hint})", INTERNAL_ERROR)


def _fail(message: str, code: int) -> int:
    print(f"xelvad: {' '.join(message.split())}", file=sys.stderr)
    return code


def spell_options(arguments: Sequence[str]) -> list[str]:
    """Options as the parser spells them: dashes in a name are underscores, ``--xel epoch`` is ``--xel.mode epoch``."""
    spelt: list[str] = []
    for argument in arguments:
        option = re.match(r"--[\w.-]+", argument)
        if option is None:
            spelt.append(argument)
            continue
        name = "--" + option[0][2:].replace("-", "_")
        spelt.append(("--xel.mode" if name == "--xel" else name) + argument[option.end() :])
    return spelt


def build_parser(arguments: Sequence[str] = ()) -> ArgumentParser:
    """The parser of all commands; options come from the stages' typed configurations.

    Args:
        arguments: those to be parsed: the recipe that they name gives the defaults of training.

    Raises:
        UserError: there is no such recipe or detector.
    """
    parser = ArgumentParser(
        prog="xelvad",
        description="Weakly supervised video anomaly detection: raw surveillance video in, frame scores out.",
        epilog="Dashes and underscores in options are the same. Exit codes: 0 done; 1 some videos set aside; 2 wrong.",
        version=__version__,
        allow_abbrev=False,  # an abbreviated --recipe would be overlooked
    )
    commands = parser.add_subcommands(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        defaults: list[str | os.PathLike] = [recipe_path(recipe_in(arguments))] if command.takes_recipe else []
        subparser = ArgumentParser(description=command.description, default_config_files=defaults)
        subparser.add_argument("--config", action="config", help="YAML file with any of the options; flags override it")
        command.add_arguments(subparser)
        commands.add_subcommand(name, subparser, help=command.description)
    return parser


if __name__ == "__main__":
    sys.exit(main())
