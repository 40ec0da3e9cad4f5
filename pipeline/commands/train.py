"""`xelvad train`: feature files and video-level labels to a run folder."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ..training.recipes import recipe_names
from .command import DONE, Command, config_of, dataset_arguments, dataset_of, features_of, output


def add_arguments(parser: ArgumentParser) -> None:
    from ..cluster.config import ClusterConfig
    from ..training.config import TrainingConfig

    dataset_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="the run folder to make")
    parser.add_argument(
        "--recipe", type=str, help=f"named defaults (default: general/DETECTOR): {', '.join(recipe_names())}"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training, bit for bit")
    parser.add_argument("--seeds", type=int, default=1, help="train so many times, from --seed on: OUT/seed-0, …")
    parser.add_class_arguments(TrainingConfig)
    parser.add_class_arguments(ClusterConfig)


def run(arguments: Namespace) -> int:
    from ..cluster.config import ClusterConfig
    from ..scoring.runs import read_learned, runs_in
    from ..support.progress import CONSOLE
    from ..training.config import TrainingConfig
    from ..training.train import train, train_seeds

    dataset = dataset_of(arguments)
    config, out, features = config_of(TrainingConfig, arguments), arguments.out, features_of(arguments)
    cluster = config_of(ClusterConfig, arguments)
    if arguments.seeds == 1:
        cluster.check_several("--seeds")
        manifest = train(dataset, features, out, config, resume=arguments.resume, report=CONSOLE)
    else:
        manifest = train_seeds(
            dataset,
            features,
            out,
            config,
            arguments.seeds,
            resume=arguments.resume,
            report=CONSOLE,
            cluster=cluster,
        )[0]
    of = f"{manifest.training_videos} videos" + (f", {arguments.seeds} seeds" if arguments.seeds > 1 else "")
    output.print(f"{manifest.name} trained on {of}: {out}")
    for folder in runs_in(out):
        learned = read_learned(folder)
        if learned is not None:
            name = f"{folder.name}: " if arguments.seeds > 1 else ""
            output.print(f"{name}{learned.sentence}", markup=False)
    return DONE


COMMAND = Command("Feature files and video-level labels to a run folder.", add_arguments, run, takes_recipe=True)
