"""`xelvad import`: feature files that others made to a features folder."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from .command import DONE, Command, config_of, output


def add_arguments(parser: ArgumentParser) -> None:
    from ..importing import ImportConfig

    source = "folders with a .npy or .txt file for every video, named like it"
    parser.add_argument("--source", type=Path, nargs="+", required=True, help=source)
    manifest = "CSV file that names the videos, as for training; frames it does not give are rows × clip length"
    parser.add_argument("--manifest", type=Path, required=True, help=manifest)
    parser.add_argument("--features", type=Path, required=True, help="folder for the feature files")
    segments = "rows of .npy files are segments, each an equal share of its video; those of .txt files always are"
    parser.add_argument("--segments", action="store_true", help=segments)
    parser.add_class_arguments(ImportConfig, skip={"segments"})


def run(arguments: Namespace) -> int:
    from ..importing import ImportConfig, import_features, videos_of

    videos, config = videos_of(arguments.manifest), config_of(ImportConfig, arguments)
    result = import_features(videos, arguments.source, arguments.features, config)
    output.print(f"{len(result.imported)} imported, {len(result.current)} were there")
    return DONE


COMMAND = Command("Feature files that others made to a features folder.", add_arguments, run)
