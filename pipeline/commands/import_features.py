"""`xelvad import`: feature files that others made to a features folder."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from .command import DONE, SOME_SET_ASIDE, Command, config_of, features_arguments, features_of, output


def add_arguments(parser: ArgumentParser) -> None:
    from ..datasets import DatasetChoice
    from ..features.config import ImportConfig

    source = "folders with a .npy or .txt file for every video, named like it, in them or below"
    parser.add_argument("--source", type=Path, nargs="+", required=True, help=source)
    parser.add_class_arguments(DatasetChoice)
    features_arguments(parser, "folder for the feature files")
    segments = "rows of .npy files are segments, each an equal share of its video; those of .txt files always are"
    parser.add_argument("--segments", action="store_true", help=segments)
    parser.add_class_arguments(ImportConfig, skip={"segments"})


def run(arguments: Namespace) -> int:
    from ..datasets import DatasetChoice
    from ..features.config import ImportConfig
    from ..features.importing import import_features, videos_of
    from ..support.progress import CONSOLE

    videos, config = videos_of(config_of(DatasetChoice, arguments)), config_of(ImportConfig, arguments)
    result = import_features(videos, arguments.source, features_of(arguments), config, CONSOLE)
    output.print(f"{len(result.imported)} imported, {len(result.current)} were there")
    for note in result.notes:
        output.print(note, markup=False)
    return SOME_SET_ASIDE if result.unread else DONE


COMMAND = Command("Feature files that others made to a features folder.", add_arguments, run)
