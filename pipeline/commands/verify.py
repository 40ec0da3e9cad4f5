"""`xelvad verify`: whether all features in a folder are what was written, and of their videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from .command import DONE, SOME_SET_ASIDE, VIDEOS_HELP, Command, config_of, find_and_say, output

if TYPE_CHECKING:
    from ..upkeep.verify import Verification

FOLDER_HELP = "folder that `xelvad extract` or `xelvad import` filled"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("features", type=Path, metavar="FEATURES", help=FOLDER_HELP)
    extractor = "whose features; those of all that there are by default"
    parser.add_argument("--extractor", type=str, nargs="+", default=[], help=extractor)
    videos = f"what the features were made of, to be compared with them: {VIDEOS_HELP}"
    parser.add_argument("--videos", type=Path, nargs="+", default=[], help=videos)
    deep = "read every video and compare its digest, also where its size and time are those of when it was extracted"
    parser.add_argument("--deep", action="store_true", help=deep)


def run(arguments: Namespace) -> int:
    from ..support.progress import CONSOLE
    from ..upkeep.config import VerifyConfig
    from ..upkeep.verify import verify

    videos = find_and_say(arguments.videos).videos if arguments.videos else None
    found = verify(arguments.features, config_of(VerifyConfig, arguments), videos, CONSOLE)
    for result in found:
        _print(result)
        for trouble in result.troubles:
            output.print(f"trouble: {trouble}", markup=False)
    return SOME_SET_ASIDE if any(result.troubles for result in found) else DONE


def _print(result: Verification) -> None:
    """The counts, and what should be known without being wrong."""
    digests = f" ({result.undigested} from before there were digests)" if result.undigested else ""
    at_work = f", {len(result.at_work)} being worked on" if result.at_work else ""
    counts = f"{result.whole} whole{digests}, {len(result.troubles)} troubles{at_work}"
    output.print(f"{result.extractor}: {counts}", markup=False)
    if len(result.origins) > 1:
        origins = ", ".join(f"{number} by «{origin}»" for origin, number in result.origins.most_common())
        output.print(f"note: {result.extractor}: made in {len(result.origins)} ways: {origins}", markup=False)
    if result.videos is not None:
        of_them = result.videos
        imported = f", {of_them.imported} imported and not compared" if of_them.imported else ""
        without = f", {of_them.without} videos have no features" if of_them.without else ""
        output.print(f"{result.extractor}: {of_them.same} of unchanged videos{imported}{without}", markup=False)


COMMAND = Command(
    "Whether all features in a folder are whole, as they were written, and of their videos.", add_arguments, run
)
