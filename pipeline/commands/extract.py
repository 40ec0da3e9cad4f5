"""`xelvad extract`: videos to feature files; resumes where it stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from ...errors import UserError
from .command import (
    DONE,
    RETRY_HELP,
    SOME_SET_ASIDE,
    VIDEOS_HELP,
    Command,
    config_of,
    features_arguments,
    features_of,
    find_and_say,
    list_set_aside,
    output,
)

if TYPE_CHECKING:
    from ..features.tasks import ExtractionResult


def add_arguments(parser: ArgumentParser) -> None:
    from ..cluster.config import ClusterConfig
    from ..features.config import ExtractionConfig

    parser.add_argument("videos", type=Path, nargs="*", metavar="VIDEO", help=VIDEOS_HELP)
    parser.add_argument("--videos", dest="more_videos", type=Path, nargs="+", default=[], help="the same")
    features_arguments(parser, "folder for the feature files")
    help_of_extractor = "the clip networks, all fed by one decoding; `xelvad extractors` lists them"
    parser.add_argument("--extractor", type=str, nargs="+", default=["i3d-rgb"], help=help_of_extractor)
    parser.add_class_arguments(ExtractionConfig, skip={"extractor", "retry"})
    parser.add_class_arguments(ClusterConfig)
    parser.add_argument("--retry", action="store_true", help=RETRY_HELP)


def run(arguments: Namespace) -> int:
    from ..cluster.config import ClusterConfig
    from ..cluster.extraction import extract
    from ..features.config import ExtractionConfig
    from ..support.progress import CONSOLE

    videos = [*arguments.videos, *arguments.more_videos]
    if not videos:
        raise UserError(f"which videos? xelvad extract VIDEO … --features {arguments.features}: {VIDEOS_HELP}")
    found = find_and_say(videos)
    config, cluster = config_of(ExtractionConfig, arguments), config_of(ClusterConfig, arguments)
    result = extract(found.videos, features_of(arguments), config, cluster, CONSOLE)
    counts = [len(result.extracted), len(result.current), len(result.failed)]
    shard = f" (shard {config.shard}: {sum(counts)} of {len(found.videos)} videos)" if config.shard else ""
    output.print(f"{counts[0]} extracted, {counts[1]} were there, {counts[2]} set aside{shard}")
    return max(list_troubles(result), SOME_SET_ASIDE if found.passed_over else DONE)


def list_troubles(result: ExtractionResult) -> int:
    """Print what was lost of videos, and which were set aside; returns the exit code."""
    for note in result.notes.values():
        print(f"note: {note}", file=sys.stderr)
    return list_set_aside(result.failed)


COMMAND = Command("Videos to feature files; resumes where it stopped.", add_arguments, run)
