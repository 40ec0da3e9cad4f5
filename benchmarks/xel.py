"""The proof: what XEL is worth to each detector, on real CCTV and on real person tracks, paired over seeds and folds.

    XELVAD_SHARED=/path/to/data python benchmarks/xel.py --data tracks montage --features DIR --runs DIR --seeds 5

Detectors {MIL, SRF, AR-Net} × XEL {off, validation loss, margin loss, both} × {epoch, batch}, by the settings of
``recipes/general`` and nothing else: one default for all. Every fold is the test set once, and trains nothing then. All
figures are of the last iteration's weights; no test video is looked at before.

``--both`` leaves out the losses alone, for more seeds; ``--detectors`` takes some only, in a section of their own.
``--quirks`` measures what each mistake of the published script changes in SRF+XEL.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from results import write_section
from scipy import stats

from xelvad import __version__
from xelvad.pipeline.datasets import frame_truth, read_manifest
from xelvad.pipeline.evaluation.metrics import ScoredVideo, frame_metrics
from xelvad.pipeline.experiments.trainings import at_once, folds_of
from xelvad.pipeline.features.config import ExtractionConfig, ImportConfig
from xelvad.pipeline.features.extraction import extract
from xelvad.pipeline.features.importing import import_features
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.scoring.runs import is_run, load_run, seed_folder
from xelvad.pipeline.scoring.scoring import score_features
from xelvad.pipeline.scoring.thresholds import threshold_for
from xelvad.pipeline.training.config import QUIRKS, TrainingConfig
from xelvad.pipeline.training.recipes import load_recipe
from xelvad.pipeline.training.train import train
from xelvad.pipeline.videos.sources import find_videos

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("XELVAD_SHARED", ROOT.parent / "shared" / "data"))
DETECTORS = {"mil": "MIL", "srf": "SRF", "ar-net": "AR-Net"}
WORKERS = 2  # processes of one thread each
DATA = {"tracks": "ShanghaiTech tracks", "montage": "CCTV montage"}
FOLDERS = {"tracks": "shanghaitech_tracks", "montage": "cctv_montage"}
EXTRACTORS = {"tracks": "tracks", "montage": "i3d-rgb"}
RARE = 0.01  # false alarms at which hits are compared

COLUMNS = {
    "auc": "AUC",
    "auc_abnormal": "AUC abnormal",
    "far_normal": "FAR",
    "tpr": "TPR",
    "tpr_at_rare": "TPR at 1 % FAR",
    "video_auc": "AUC of videos",
}


@dataclass(frozen=True)
class Task:
    """One configuration with one seed on one fold."""

    data: str
    label: str
    fold: str
    features: Path
    runs: Path
    config: TrainingConfig


def manifest_of(data: str) -> Path:
    return SHARED / FOLDERS[data] / "annotations.csv"


def configurations(detectors: Sequence[str], only_both: bool) -> dict[str, TrainingConfig]:
    """Detectors without XEL and with each of its losses and both, epoch-wise and batch-wise."""
    found = {}
    for detector in detectors:
        name = DETECTORS[detector]
        config = load_recipe(f"general/{detector}")
        found[f"{name}"] = config
        for mode in ("epoch", "batch"):
            full = replace(config.xel, mode=mode)
            found[f"{name}+XEL, {mode}"] = replace(config, xel=full)
            if not only_both:
                found[f"{name}, L_v, {mode}"] = replace(config, xel=replace(full, margin_weight=0.0))
                found[f"{name}, L_m, {mode}"] = replace(config, xel=replace(full, validation_weight=0.0))
    return found


def quirk_configurations() -> dict[str, TrainingConfig]:
    """SRF+XEL by the paper's labels, which one mistake is about, with each mistake of its script, and with all."""
    config = load_recipe("general/srf")
    config = replace(config, options=config.options | {"labels": "scores"}, xel=replace(config.xel, mode="epoch"))
    return {"SRF+XEL": config} | {quirk: replace(config, quirks=quirk) for quirk in (*QUIRKS, "official")}


def figures(videos: Sequence[ScoredVideo]) -> dict[str, float]:
    """The metrics of some test videos, hits at 1 % false alarms and the AUC of whole videos among them, in per cent."""
    found = {name: value for name, value in asdict(frame_metrics(videos)).items() if name in COLUMNS}
    threshold = threshold_for([video.scores for video in videos if not video.abnormal], RARE)
    hits = np.concatenate([video.scores[video.truth] >= threshold for video in videos])
    highest = [[video.scores.max() for video in videos if video.abnormal == kind] for kind in (True, False)]
    wins = np.subtract.outer(*highest)
    found |= {"tpr_at_rare": float(hits.mean()), "video_auc": float(((wins > 0) + 0.5 * (wins == 0)).mean())}
    return {name: 100 * found[name] for name in COLUMNS}


def run(task: Task) -> list[tuple[str, bool, np.ndarray, np.ndarray]]:
    """Train, if it is not there, and score the fold: of each test video name, label, scores and truth."""
    dataset = read_manifest(manifest_of(task.data), task.fold)
    folder = seed_folder(task.runs / task.data / task.label.replace(" ", "_") / task.fold, task.config.seed)
    config = replace(task.config, extractor=EXTRACTORS[task.data], follow_test=False)
    if not is_run(folder):
        train(dataset, task.features, folder, config, resume=True)
    trained, store = load_run(folder), FeatureStore(task.features, config.extractor)
    videos = dataset.of("test")
    found = store.read_all([video.name for video in videos])
    return [
        (
            video.name,
            video.abnormal,
            score_features(trained, video.name, each).scores,
            frame_truth(video, each.sidecar.frames),
        )
        for video, each in zip(videos, found, strict=True)
    ]


def prepare(data: str, features: Path) -> None:
    """Fill the features folder, where it is not filled yet."""
    if data == "montage":
        failed = extract(find_videos([SHARED / FOLDERS[data]]), features, ExtractionConfig()).failed
        if failed:
            raise SystemExit(f"cannot be read: {failed}")
    else:
        source = SHARED / FOLDERS[data] / "features"
        videos = read_manifest(manifest_of(data), folds_of(manifest_of(data))[0]).videos
        import_features(videos, [source], features, ImportConfig(extractor="tracks"))


@dataclass(frozen=True)
class Measured:
    """One configuration, all seeds and folds.

    Attributes:
        folds: by metric, ``(seeds, folds)``, in per cent.
        together: by metric, ``(seeds,)``: all folds' frames together, whose scores come from different trainings.
        averaged: of each fold, its videos with the mean of all seeds' scores.
    """

    folds: dict[str, np.ndarray]
    together: dict[str, np.ndarray]
    averaged: list[list[ScoredVideo]]


def measure(data: str, found: dict[str, TrainingConfig], options: argparse.Namespace) -> dict[str, Measured]:
    """Train and test everything, several trainings at a time."""
    folds = folds_of(manifest_of(data))
    measured = {}
    for label, config in found.items():
        tasks = [
            Task(data, label, fold, options.features, options.runs, replace(config, seed=seed))
            for seed in range(options.seeds)
            for fold in folds
        ]
        results = iter(at_once(run, tasks, WORKERS))
        scored = [[[ScoredVideo(*video) for video in next(results)] for _ in folds] for _ in range(options.seeds)]
        of_folds = [[figures(videos) for videos in fold] for fold in scored]
        together = [figures([video for videos in fold for video in videos]) for fold in scored]
        measured[label] = Measured(
            {name: np.array([[each[name] for each in row] for row in of_folds]) for name in COLUMNS},
            {name: np.array([each[name] for each in together]) for name in COLUMNS},
            [averaged(list(of_fold)) for of_fold in zip(*scored, strict=True)],
        )
        print(row_of(label, measured[label], measured), flush=True)
    return measured


def averaged(trainings: Sequence[Sequence[ScoredVideo]]) -> list[ScoredVideo]:
    """The same videos with the mean of several trainings' scores."""
    return [
        replace(videos[0], scores=np.mean([video.scores for video in videos], axis=0))
        for videos in zip(*trainings, strict=True)
    ]


def ensembles(measured: dict[str, Measured], seeds: int) -> list[str]:
    """What is gained by averaging the scores of all seeds, and of all detectors."""
    shown = {
        label: each.averaged for label, each in measured.items() if label in DETECTORS.values() or "+XEL, e" in label
    }
    for kind, name in (("", "all three"), ("+XEL, epoch", "all three, +XEL, epoch")):
        of_detectors = [measured[detector + kind].averaged for detector in DETECTORS.values()]
        shown[name] = [averaged(of_fold) for of_fold in zip(*of_detectors, strict=True)]
    rows = []
    for label, folds in shown.items():
        of_folds = [figures(videos) for videos in folds]
        cells = [f"{np.mean([each[name] for each in of_folds]):.2f}" for name in COLUMNS]
        together = figures([video for videos in folds for video in videos])["auc"]
        rows.append(f"| {label} | {' | '.join(cells)} | {together:.2f} |")
    head = f"| mean of the scores of {seeds} seeds | {' | '.join(COLUMNS.values())} | AUC, folds together |"
    return [head, "|---" * (len(COLUMNS) + 2) + "|", *rows]


def row_of(label: str, shown: Measured, measured: dict[str, Measured]) -> str:
    """One row of the table: means of the folds ± sd over the seeds, and what XEL gains over none."""
    cells = [spread(values.mean(axis=1)) for values in shown.folds.values()]
    cells.append(spread(shown.together["auc"]))
    plain = measured.get(label.partition("+")[0].partition(",")[0], next(iter(measured.values())))
    if shown is plain:
        return f"| {label} | {' | '.join(cells)} | | |"
    gains = [gain(shown.folds[name], plain.folds[name]) for name in ("auc", "tpr_at_rare")]
    return f"| {label} | {' | '.join(cells)} | {' | '.join(gains)} |"


def gain(with_xel: np.ndarray, without: np.ndarray) -> str:
    """Mean difference of all pairs of one seed and fold, 95 % interval, p by Student's t."""
    pairs = (with_xel - without).ravel()
    test = stats.ttest_1samp(pairs, 0)
    low, high = test.confidence_interval(0.95)
    return f"{pairs.mean():+.2f} ({low:+.2f} to {high:+.2f}), p {test.pvalue:.3f}".replace("-", "−")


def spread(values: np.ndarray) -> str:
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" if len(values) > 1 else f"{values.mean():.2f}"


def in_the_mean(measured: dict[str, Measured]) -> list[str]:
    """What each kind of XEL gains in the mean of the three detectors."""
    kinds = dict.fromkeys(
        label.removeprefix(name) for label in measured for name in DETECTORS.values() if label.startswith(name)
    )
    rows = []
    for kind in filter(None, kinds):
        cells = []
        for column in ("auc", "auc_abnormal", "tpr_at_rare", "video_auc"):
            pairs = [measured[name + kind].folds[column] - measured[name].folds[column] for name in DETECTORS.values()]
            cells.append(f"{np.mean(pairs):+.2f} ± {np.mean(pairs, axis=(0, 2)).std(ddof=1):.2f}".replace("-", "−"))
        pairs = [measured[name + kind].together["auc"] - measured[name].together["auc"] for name in DETECTORS.values()]
        cells.append(f"{np.mean(pairs):+.2f} ± {np.mean(pairs, axis=0).std(ddof=1):.2f}".replace("-", "−"))
        alarms = [measured[name + kind].folds["far_normal"].mean() for name in DETECTORS.values()]
        before = [measured[name].folds["far_normal"].mean() for name in DETECTORS.values()]
        cells.append(" / ".join(f"{after / max(b, 1e-9):.2f}" for after, b in zip(alarms, before, strict=True)))
        rows.append(f"| {kind.strip(', +')} | {' | '.join(cells)} |")
    return [
        "| XEL | AUC | AUC abnormal | TPR at 1 % FAR | AUC of videos | AUC, folds together | FAR, times that of none |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]


def summary(measured: dict[str, Measured], seeds: int) -> list[str]:
    """What stands below the table of all detectors."""
    return [
        *("", "Gain in the mean of the three detectors, ± sd over seeds:", "", *in_the_mean(measured)),
        *("", "Ensembles:", "", *ensembles(measured, seeds)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--features", type=Path, required=True, help="features folder, filled on the first run")
    parser.add_argument("--runs", type=Path, required=True, help="folder for runs; what is finished is not repeated")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--both", action="store_true", help="leave out the losses alone")
    kinds.add_argument("--quirks", action="store_true", help="SRF+XEL with the published script's mistakes instead")
    options = parser.parse_args()
    command = f"python benchmarks/xel.py --data DATA --features DIR --runs DIR --seeds {options.seeds}"
    command += " --both" * options.both + " --quirks" * options.quirks
    whole = options.detectors == list(DETECTORS)
    if not whole:
        command += f" --detectors {' '.join(options.detectors)}"
    for data in options.data:
        prepare(data, options.features)
        found = quirk_configurations() if options.quirks else configurations(options.detectors, options.both)
        title = f"XEL on {DATA[data]}" + (
            ", more seeds" if options.both else ": the published script's mistakes" * options.quirks
        )
        title += "" if whole else f", {' and '.join(DETECTORS[each] for each in options.detectors)}"
        measured = measure(data, found, options)
        (options.runs / f"{title}.json").write_text(
            json.dumps(
                {
                    label: {name: values.tolist() for name, values in each.folds.items()}
                    for label, each in measured.items()
                }
            )
        )
        write_section(
            title,
            [
                *(
                    ["SRF's labels are those of the paper (`options.labels: scores`); all else as follows.", ""]
                    * options.quirks
                ),
                "Settings of `recipes/general`; train on three folds, test on the fourth, weights of the last",
                "iteration, every frame counts. Means of the folds, in per cent, ± sd over seeds 0 to "
                f"{options.seeds - 1}; FAR and TPR",
                "at 0.5. Gain: mean difference of all pairs of a seed and a fold, 95 % interval, p by Student's t.",
                "",
                f"| | {' | '.join(COLUMNS.values())} | AUC, folds together | gain in AUC | gain in TPR at 1 % FAR |",
                "|---" * (len(COLUMNS) + 4) + "|",
                *(row_of(label, each, measured) for label, each in measured.items()),
                *(summary(measured, options.seeds) if whole and not options.quirks else []),
                "",
                f"`{command.replace('DATA', data)}`, {datetime.date.today()},",
                f"xelvad {__version__}, torch {torch.__version__}, CPU.",
            ],
        )


if __name__ == "__main__":
    main()
