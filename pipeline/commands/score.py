"""`xelvad score`: new videos to a score for every frame and a report."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from .command import DONE, RETRY_HELP, SOME_SET_ASIDE, VIDEOS_HELP, Command, config_of, find_and_say, output
from .extract import list_troubles


def add_arguments(parser: ArgumentParser) -> None:
    from ..features.config import ExtractionConfig

    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO", help=VIDEOS_HELP)
    parser.add_argument("--run", type=Path, required=True, help="run folder of the trained detector")
    parser.add_argument("--out", type=Path, required=True, help="folder for scores and the report")
    parser.add_argument("--features", type=Path, help="features folder, read and filled (default: OUT/features)")
    parser.add_argument("--weights", type=str, help="the extractor's weights, where they are not its own")
    parser.add_class_arguments(
        ExtractionConfig, skip={"extractor", "weights", "tail", "reuse_static", "retry", "shard"}
    )
    parser.add_argument("--retry", action="store_true", help=RETRY_HELP)


def run(arguments: Namespace) -> int:
    from ..features.config import ExtractionConfig
    from ..reports.report import report_scores
    from ..scoring.runs import load_run
    from ..scoring.scoring import score_videos
    from ..support.progress import CONSOLE

    run, found = load_run(arguments.run), find_and_say(arguments.videos)
    features = arguments.features or arguments.out / "features"
    config = config_of(ExtractionConfig, arguments)
    scores, extraction = score_videos(found.videos, run, arguments.out, features, config, CONSOLE)
    output.print(f"threshold {run.threshold_in_words}", markup=False)
    if scores:
        output.print(f"report: {report_scores(scores, found.videos, run, arguments.out)}")
    return max(list_troubles(extraction), SOME_SET_ASIDE if found.passed_over else DONE)


COMMAND = Command("New videos to a score for every frame and a report.", add_arguments, run)
