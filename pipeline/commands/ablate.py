"""`xelvad ablate`: what each part of XEL is worth: many trainings, a table, a page."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from .command import DONE, Command, config_of, dataset_arguments, features_of, output, print_tables


def add_arguments(parser: ArgumentParser) -> None:
    from ..cluster.config import ClusterConfig
    from ..experiments.ablation.config import AblationConfig

    dataset_arguments(parser, "the fold to test on; all: each in turn, and the frames of all folds taken together")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, the table and the page")
    for name, known in {"detectors": "mil, srf, ar-net", "modes": "epoch, batch: when XEL's bank is renewed"}.items():
        parser.add_argument(f"--{name}", type=str, nargs="+", default=list(getattr(AblationConfig, name)), help=known)
    parser.add_class_arguments(AblationConfig, skip={"detectors", "modes", "test_fold"})
    parser.add_class_arguments(ClusterConfig)


def run(arguments: Namespace) -> int:
    from ..cluster.config import ClusterConfig
    from ..datasets import DatasetChoice
    from ..experiments.ablation.ablate import ablate
    from ..experiments.ablation.config import AblationConfig
    from ..experiments.ablation.page import result_table, summarise, write_ablation
    from ..experiments.ablation.plot import draw_ablation_if_possible
    from ..reports.plots import EXTRA
    from ..support.progress import CONSOLE

    settings, cluster = config_of(AblationConfig, arguments), config_of(ClusterConfig, arguments)
    labels, features = config_of(DatasetChoice, arguments), features_of(arguments)
    result = ablate(labels, features, arguments.out, settings, CONSOLE, cluster)
    page = write_ablation(result)
    print_tables([result_table(result)])
    output.print(f"report: {page}")
    drawn = draw_ablation_if_possible(result.out / "ablation", summarise(result.results))
    output.print(f"figure: {drawn}" if drawn else f"note: for a figure, {EXTRA} and run this again", markup=False)
    return DONE


COMMAND = Command("What each part of XEL is worth: many trainings, a table, a page.", add_arguments, run)
