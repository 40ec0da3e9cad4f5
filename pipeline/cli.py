"""The command line: `xelvad COMMAND`. It parses, calls one stage after the other, and prints; it holds no logic.

Exit codes: 0 done; 1 done, but some videos were set aside; 2 the request itself was wrong.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import __version__
from ..errors import UserError
from .recipes import recipe_in, recipe_names, recipe_path

if TYPE_CHECKING:
    from .evaluation import Evaluation
    from .extraction import ExtractionResult

DONE, SOME_SET_ASIDE, WRONG_REQUEST, INTERNAL_ERROR, INTERRUPTED = 0, 1, 2, 3, 130

VIDEOS_HELP = "video files, folders of frames, or folders of these"

Config = TypeVar("Config")
output = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Command:
    """A subcommand: its one-line description, its arguments, and what it does with them."""

    description: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    takes_recipe: bool = False


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


def _config(kind: type[Config], arguments: Namespace) -> Config:
    """The part of the parsed arguments that belongs to a stage's configuration."""
    return kind(**{field.name: arguments[field.name] for field in fields(kind) if field.name in arguments})  # type: ignore[arg-type]


# --- demo ------------------------------------------------------------------------------------------------------------


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything that the demo makes")
    parser.add_argument("--seed", type=int, default=0, help="of the footage and of the training")


def _demo(arguments: Namespace) -> int:
    from .demo import run_demo

    result = run_demo(arguments.out, arguments.seed)
    print_results(result.evaluations)
    output.print(f"report: {result.report}")
    return DONE


# --- weights ---------------------------------------------------------------------------------------------------------


def _weights_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=["list", "fetch", "add"], help="list, fetch NAME, or add NAME PATH")
    parser.add_argument("name", nargs="?", help="name of the weights, as in the list")
    parser.add_argument("path", nargs="?", type=Path, help="checkpoint file in any of the public layouts")


def _weights(arguments: Namespace) -> int:
    from ..extractors import weights

    if arguments.action == "list":
        table = Table("name", "extractor", "here", "what, from where, licence")
        for known in weights.CATALOGUE.values():
            here = "yes" if weights.cached_file(known.name).exists() else "no"
            table.add_row(known.name, known.extractor, here, f"{known.description}\n{known.source}\n{known.licence}")
        table.columns[0].no_wrap = True
        output.print(table)
        return DONE
    if arguments.name is None or (arguments.action == "add") != (arguments.path is not None):
        raise UserError("usage: xelvad weights list | fetch NAME | add NAME PATH")
    if arguments.action == "fetch":
        path = weights.fetch(arguments.name)
        output.print(f"{arguments.name}: {path}")
    else:
        path, digest = weights.add(arguments.name, arguments.path)
        same = digest == weights.known(arguments.name).digest
        output.print(f"{arguments.name}: {path}, sha256 {digest} ({'as' if same else 'NOT as'} published)")
    return DONE


# --- extract ---------------------------------------------------------------------------------------------------------


def _extract_arguments(parser: ArgumentParser) -> None:
    from .extraction import ExtractionConfig

    parser.add_argument("--videos", type=Path, nargs="+", required=True, help=VIDEOS_HELP)
    parser.add_argument("--features", type=Path, required=True, help="folder for the feature files")
    parser.add_class_arguments(ExtractionConfig)


def _extract(arguments: Namespace) -> int:
    from .extraction import ExtractionConfig, extract
    from .videos import find_videos

    result = extract(find_videos(arguments.videos), arguments.features, _config(ExtractionConfig, arguments))
    output.print(f"{len(result.extracted)} extracted, {len(result.current)} were there, {len(result.failed)} set aside")
    return _list_troubles(result)


def _list_troubles(result: ExtractionResult) -> int:
    for note in result.incomplete.values():
        print(f"note: {note}", file=sys.stderr)
    return _list_set_aside(result.failed)


def _list_set_aside(failed: Mapping[str, str]) -> int:
    for reason in failed.values():
        print(f"set aside: {reason}", file=sys.stderr)
    return SOME_SET_ASIDE if failed else DONE


# --- import ----------------------------------------------------------------------------------------------------------


def _import_arguments(parser: ArgumentParser) -> None:
    from .importing import ImportConfig

    source = "folders with a .npy or .txt file for every video, named like it"
    parser.add_argument("--source", type=Path, nargs="+", required=True, help=source)
    manifest = "CSV file that names the videos, as for training; frames it does not give are rows × clip length"
    parser.add_argument("--manifest", type=Path, required=True, help=manifest)
    parser.add_argument("--features", type=Path, required=True, help="folder for the feature files")
    segments = "rows of .npy files are segments, each an equal share of its video; those of .txt files always are"
    parser.add_argument("--segments", action="store_true", help=segments)
    parser.add_class_arguments(ImportConfig, skip={"segments"})


def _import(arguments: Namespace) -> int:
    from .importing import ImportConfig, import_features, videos_of

    videos, config = videos_of(arguments.manifest), _config(ImportConfig, arguments)
    result = import_features(videos, arguments.source, arguments.features, config)
    output.print(f"{len(result.imported)} imported, {len(result.current)} were there")
    return DONE


# --- train, evaluate -------------------------------------------------------------------------------------------------


def _dataset_arguments(parser: ArgumentParser, fold: str = "the fold to test on; all others are for training") -> None:
    parser.add_argument(
        "--manifest", type=Path, required=True, help="CSV file: video, split or fold, label, frames, spans"
    )
    parser.add_argument("--test_fold", type=str, help=fold)
    parser.add_argument("--features", type=Path, required=True, help="folder that `xelvad extract` filled")


def _train_arguments(parser: ArgumentParser) -> None:
    from .settings import TrainingConfig

    _dataset_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="the run folder to make")
    parser.add_argument(
        "--recipe", type=str, help=f"named defaults (default: general/DETECTOR): {', '.join(recipe_names())}"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training, bit for bit")
    parser.add_argument("--seeds", type=int, default=1, help="train so many times, from --seed on: OUT/seed-0, …")
    parser.add_class_arguments(TrainingConfig)


def _train(arguments: Namespace) -> int:
    from .datasets import read_manifest
    from .settings import TrainingConfig
    from .training import train, train_seeds

    dataset = read_manifest(arguments.manifest, arguments.test_fold)
    config, out = _config(TrainingConfig, arguments), arguments.out
    if arguments.seeds == 1:
        manifest = train(dataset, arguments.features, out, config, resume=arguments.resume)
    else:
        manifest = train_seeds(dataset, arguments.features, out, config, arguments.seeds, resume=arguments.resume)[0]
    of = f"{manifest.training_videos} videos" + (f", {arguments.seeds} seeds" if arguments.seeds > 1 else "")
    output.print(f"{manifest.name} trained on {of}: {out}")
    return DONE


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, nargs="+", required=True, help="one or more run folders, side by side")
    _dataset_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics, scores and the report")


def _evaluate(arguments: Namespace) -> int:
    from .datasets import read_manifest
    from .evaluation import evaluate_all, write_evaluations
    from .report import report_evaluations

    dataset = read_manifest(arguments.manifest, arguments.test_fold)
    evaluations = evaluate_all(arguments.run, dataset, arguments.features)
    write_evaluations(evaluations, arguments.out)
    print_results(evaluations)
    output.print(f"report: {report_evaluations(evaluations, dataset, arguments.out)}")
    return DONE


def print_results(evaluations: Sequence[Evaluation]) -> None:
    """A table of frame-level metrics in per cent, one row for each run and choice of weights."""
    from .evaluation import RATES, summarise

    table = Table("run", "weights", "AUC %", "AP %", "AUC abnormal %", "FAR normal %", "TPR %", title_justify="left")
    for row in summarise(evaluations):
        cells = [f"{100 * row.mean[name]:.2f}" for name in RATES]
        if row.spread is not None:
            cells = [f"{cell} ± {100 * row.spread[name]:.2f}" for cell, name in zip(cells, RATES, strict=True)]
        if row.interval is not None:
            cells[0] += f" ({100 * row.interval.low:.1f} to {100 * row.interval.high:.1f})"
        seeds = f", {row.seeds} seeds" if row.seeds > 1 else ""
        table.add_row(row.run + seeds, row.weights.replace("_", " "), *cells)
    output.print(table)
    output.print(
        "frame level, all test videos together; in brackets where 95 % of test sets drawn from these videos lie; "
        "± over seeds; FAR over the frames of normal videos, FAR and TPR at threshold 0.5; best on test was chosen on "
        "the test videos: an upper bound, not a result"
    )


# --- ablate ----------------------------------------------------------------------------------------------------------


def _ablate_arguments(parser: ArgumentParser) -> None:
    from .ablation import AblationConfig

    _dataset_arguments(parser, "the fold to test on; all: each in turn, and the frames of all folds taken together")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, the table and the page")
    for name, known in {"detectors": "mil, srf, ar-net", "modes": "epoch, batch: when XEL's bank is renewed"}.items():
        parser.add_argument(f"--{name}", type=str, nargs="+", default=list(getattr(AblationConfig, name)), help=known)
    parser.add_class_arguments(AblationConfig, skip={"detectors", "modes", "test_fold"})


def _ablate(arguments: Namespace) -> int:
    from . import ablation, ablation_page

    settings = _config(ablation.AblationConfig, arguments)
    result = ablation.ablate(arguments.manifest, arguments.features, arguments.out, settings)
    output.print(f"report: {ablation_page.write_ablation(result, output)}")
    return DONE


# --- bank ------------------------------------------------------------------------------------------------------------


def _bank_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder of a detector that was trained with XEL")
    videos = "its normal training videos (files or folders): makes a contact sheet of the clips"
    parser.add_argument("--videos", type=Path, nargs="+", default=[], help=videos)
    parser.add_argument("--out", type=Path, help="folder for bank.csv and the sheet (default: RUN/bank if --videos)")
    parser.add_argument("--rows", type=int, default=40, help="how many are shown, those of the highest scores first")


def _bank(arguments: Namespace) -> int:
    from .contact_sheet import COLUMN_NAMES, show_bank

    bank = show_bank(arguments.run, arguments.videos, arguments.out, arguments.rows)
    table = Table(*COLUMN_NAMES)
    table.columns[1].overflow = "fold"
    for cells in bank.table:
        table.add_row(*map(escape, cells))
    output.print(table)
    for note in bank.notes:
        output.print(note, markup=False)
    return _list_set_aside(bank.failed)


# --- score -----------------------------------------------------------------------------------------------------------


def _score_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO", help=VIDEOS_HELP)
    parser.add_argument("--run", type=Path, required=True, help="run folder of the trained detector")
    parser.add_argument("--out", type=Path, required=True, help="folder for scores and the report")
    parser.add_argument("--features", type=Path, help="features folder, read and filled (default: OUT/features)")
    parser.add_argument("--weights", type=str, help="the extractor's weights, where they are not its own")
    parser.add_argument("--batch", type=int, default=4, help="clips that go through the network at once")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, or auto")


def _score(arguments: Namespace) -> int:
    from .extraction import ExtractionConfig
    from .report import report_scores
    from .runs import load_run
    from .scoring import score_videos
    from .videos import find_videos

    run, sources = load_run(arguments.run), find_videos(arguments.videos)
    features = arguments.features or arguments.out / "features"
    config = _config(ExtractionConfig, arguments)
    scores, extraction = score_videos(sources, run, arguments.out, features, config)
    if scores:
        output.print(f"report: {report_scores(scores, sources, run, arguments.out)}")
    return _list_troubles(extraction)


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "The whole way on footage drawn on the spot, with real I3D weights, in minutes.", _demo_arguments, _demo
    ),
    "weights": Command(
        "Known pretrained weights: list, fetch NAME, or add NAME PATH by hand.", _weights_arguments, _weights
    ),
    "extract": Command("Videos to feature files; resumes where it stopped.", _extract_arguments, _extract),
    "import": Command("Feature files that others made to a features folder.", _import_arguments, _import),
    "train": Command("Feature files and video-level labels to a run folder.", _train_arguments, _train, True),
    "evaluate": Command("Runs and test features to frame-level metrics and a report.", _evaluate_arguments, _evaluate),
    "ablate": Command("What each part of XEL is worth: many trainings, a table, a page.", _ablate_arguments, _ablate),
    "bank": Command("What a detector finds hardest to call normal, as a list and as pictures.", _bank_arguments, _bank),
    "score": Command("New videos to a score for every frame and a report.", _score_arguments, _score),
}


if __name__ == "__main__":
    sys.exit(main())
