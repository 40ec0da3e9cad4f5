"""`xelvad gc`: what lies in a features folder and nobody needs; deletes it when asked to."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from .command import DONE, SOME_SET_ASIDE, VIDEOS_HELP, Command, config_of, find_and_say, output
from .verify import FOLDER_HELP

if TYPE_CHECKING:
    from ..upkeep.garbage import Disposal, Heap


def add_arguments(parser: ArgumentParser) -> None:
    from ..upkeep.config import GarbageConfig

    parser.add_argument("features", type=Path, metavar="FEATURES", help=FOLDER_HELP)
    extractor = "whose features; those of all that there are by default"
    parser.add_argument("--extractor", type=str, nargs="+", default=[], help=extractor)
    videos = f"the videos that there are ({VIDEOS_HELP}): features of any other go as well"
    parser.add_argument("--videos", type=Path, nargs="+", default=[], help=videos)
    others = "features that the extractor would make otherwise now go as well, with other weights for instance"
    parser.add_argument("--other_fingerprints", action="store_true", help=others)
    parser.add_class_arguments(GarbageConfig, skip={"extractor", "other_fingerprints"})
    parser.add_argument("--delete", action="store_true", help="delete what is listed; without it nothing is changed")


def run(arguments: Namespace) -> int:
    from ..upkeep.config import GarbageConfig
    from ..upkeep.garbage import delete, find_garbage

    videos = find_and_say(arguments.videos) if arguments.videos else None
    code = DONE
    for heap in find_garbage(arguments.features, config_of(GarbageConfig, arguments), videos):
        _print(heap)
        if not arguments.delete:
            output.print(f"{heap.store.extractor}: {_amount(heap)}", markup=False)
        else:
            code = max(code, _print_deleted(heap, delete(heap)))
    return code


def _print(heap: Heap) -> None:
    """What looks as if it might go and stays, then every file that may go."""
    name = heap.store.extractor
    for line in heap.kept:
        print(f"kept: {line}", file=sys.stderr)
    for garbage in heap.garbage:
        for file in garbage.files:
            output.print(f"{garbage.kind}: {file.path} ({_bytes(file.size)})", markup=False)
    if heap.present is not None:
        output.print(f"{name}: present fingerprint «{heap.present}»", markup=False)
        others = Counter(garbage.detail for garbage in heap.garbage if garbage.detail)
        for fingerprint, number in others.most_common():
            output.print(f"{name}: other fingerprint «{fingerprint}»: {number} videos", markup=False)


def _amount(heap: Heap) -> str:
    files, size = sum(len(garbage.files) for garbage in heap.garbage), sum(garbage.size for garbage in heap.garbage)
    return f"{files} files, {_bytes(size)}, would go: --delete deletes them" if files else "nothing to delete"


def _print_deleted(heap: Heap, done: Disposal) -> int:
    for line in done.kept:
        print(f"kept: {line}", file=sys.stderr)
    for line in done.failed:
        print(f"not deleted: {line}", file=sys.stderr)
    output.print(f"{heap.store.extractor}: {done.files} files, {_bytes(done.size)}, deleted", markup=False)
    return SOME_SET_ASIDE if done.failed else DONE


def _bytes(size: int) -> str:
    """Such as ``3.2 GB``."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"


COMMAND = Command("What lies in a features folder and nobody needs; --delete deletes it.", add_arguments, run)
