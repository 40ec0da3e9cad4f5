"""`xelvad score`: new videos to a score for every frame and a report."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from .command import VIDEOS_HELP, Command, config_of, output
from .extract import list_troubles


def add_arguments(parser: ArgumentParser) -> None:
    from ..features.config import ExtractionConfig

    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO", help=VIDEOS_HELP)
    parser.add_argument("--run", type=Path, required=True, help="run folder of the trained detector")
    parser.add_argument("--out", type=Path, required=True, help="folder for scores and the report")
    parser.add_argument("--features", type=Path, help="features folder, read and filled (default: OUT/features)")
    parser.add_argument("--weights", type=str, help="the extractor's weights, where they are not its own")
    parser.add_class_arguments(ExtractionConfig, skip={"extractor", "weights", "tail", "reuse_static"})


def run(arguments: Namespace) -> int:
    from ..features.config import ExtractionConfig
    from ..reports.report import report_scores
    from ..scoring.runs import load_run
    from ..scoring.scoring import score_videos
    from ..support.progress import CONSOLE
    from ..videos.sources import find_videos

    run, sources = load_run(arguments.run), find_videos(arguments.videos)
    features = arguments.features or arguments.out / "features"
    config = config_of(ExtractionConfig, arguments)
    scores, extraction = score_videos(sources, run, arguments.out, features, config, CONSOLE)
    output.print(f"threshold {run.threshold_in_words}", markup=False)
    if scores:
        output.print(f"report: {report_scores(scores, sources, run, arguments.out)}")
    return list_troubles(extraction)


COMMAND = Command("New videos to a score for every frame and a report.", add_arguments, run)
