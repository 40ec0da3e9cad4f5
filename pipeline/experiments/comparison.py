"""The comparison: several runs on the same test videos, as the figures, the tables and the tests that papers want."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from sklearn.metrics import roc_auc_score

from ...errors import UserError
from ...files import write_text
from ..datasets import Dataset
from ..evaluation.config import EvaluationConfig
from ..evaluation.evaluation import Comparison, Evaluation, compare, evaluate_all, last_weights, summarise
from ..evaluation.metrics import ScoredVideo
from ..evaluation.resampling import mean_and_spread
from ..features.remote.address import FeaturesFolder
from ..reports.paper_tables import latex_table, markdown_table
from ..reports.plots import Runs, draw_roc, draw_scores, draw_trade_off, figure_files, require_figures

SHOWN = 4  # videos, where none are named
RULE = (
    f"the {SHOWN} abnormal test videos in which the runs' AUCs within the video lie furthest apart; "
    "of equals, and with a single run, those with the lowest"
)


@dataclass(frozen=True)
class Compared:
    """What was compared, and what was written.

    Attributes:
        evaluations: of all runs, all their seeds and all the weights they have kept.
        comparisons: of each run to the first, seed by seed.
        shown: the videos whose scores were drawn.
        figures: the PNG files; the SVG files lie beside them.
        out: the folder.
    """

    evaluations: tuple[Evaluation, ...]
    comparisons: tuple[Comparison, ...]
    shown: tuple[str, ...]
    figures: tuple[Path, ...]
    out: Path


def compare_runs(
    folders: Sequence[Path],
    dataset: Dataset,
    features: FeaturesFolder,
    out: Path,
    videos_shown: Sequence[str] = (),
    config: EvaluationConfig | None = None,
) -> Compared:
    """Evaluate runs on the same test videos and write figures, tables and ``comparison.json``.

    Figures, differences and the choice of videos are of the last iteration's weights; tables have all kept ones.

    Args:
        folders: run folders, or folders that hold the seeds of a training; the first is what others are compared with.
        dataset: its test videos.
        features: the features folder.
        out: gets ``roc``, ``far_tpr`` and ``scores_<video>`` as PNG and SVG, ``table.md``, ``table.tex`` and
            ``comparison.json``; of the figures those that the test set defines.
        videos_shown: test videos whose scores are drawn; by default those of `RULE`.
        config: how to evaluate; by default every frame counts.

    Raises:
        UserError: matplotlib is missing, there is no such test video, or as `evaluate_all`.
    """
    require_figures()
    known = [video.name for video in dataset.of("test")]
    for name in videos_shown:
        if name not in known:
            raise UserError(f"{dataset.name}: has no test video {name!r}; it has {', '.join(known[:5])}, …")
    evaluations = evaluate_all(folders, dataset, features, config)
    runs = last_weights(evaluations)
    shown = list(dict.fromkeys(videos_shown)) or most_telling(runs)
    scores = [out / f"scores_{stem}" for stem in file_stems(shown)]
    stems, defined = list(scores), evaluations[0].metrics  # by the test set, which all runs share
    if defined.far_normal is not None and defined.tpr is not None:
        stems.insert(0, out / "far_tpr")
        draw_trade_off(stems[0], runs)
    if defined.auc is not None:
        stems.insert(0, out / "roc")
        draw_roc(stems[0], runs)
    for stem, video in zip(scores, shown, strict=True):
        draw_scores(stem, video, runs)
    rows = summarise(evaluations)
    write_text(out / "table.md", markdown_table(rows))
    write_text(out / "table.tex", latex_table(rows))
    comparisons = compare(evaluations)
    data = {
        "dataset": dataset.name,
        "labels": dataset.digest,
        "summary": [asdict(row) for row in rows],
        "protocol": evaluations[0].protocol.name,
        "comparisons": [asdict(each) for each in comparisons],
        "videos_shown": dict(zip(shown, (stem.name for stem in scores), strict=True)),
        "chosen": "by name" if videos_shown else RULE,
    }
    write_text(out / "comparison.json", json.dumps(data, indent=2))
    figures = tuple(figure_files(stem)[0] for stem in stems)
    return Compared(tuple(evaluations), tuple(comparisons), tuple(shown), figures, out)


def most_telling(runs: Runs, count: int = SHOWN) -> list[str]:
    """The abnormal test videos that `RULE` chooses, the most telling first.

    A video's AUC within it, the mean over the seeds, does not depend on the scale of the scores. Videos without both
    normal and anomalous frames have none and are left out.
    """
    ranked = []
    for number, video in enumerate(next(iter(runs.values()))[0].videos):
        if video.abnormal and video.truth.any() and not video.truth.all():
            aucs = [mean_and_spread([_auc(each.videos[number]) for each in seeds])[0] for seeds in runs.values()]
            ranked.append((min(aucs) - max(aucs), min(aucs), video.name))
    return [name for _, _, name in sorted(ranked)[:count]]


def file_stems(names: Sequence[str]) -> list[str]:
    """Names of files for videos: without folders, suffix and odd characters; the second of a name gets a number."""
    stems: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.+-]+", "_", str(PurePosixPath(name).with_suffix("")))
        candidates = (plain, *(f"{plain}-{number}" for number in range(2, len(names) + 2)))
        stems.append(next(stem for stem in candidates if stem not in stems))
    return stems


def _auc(video: ScoredVideo) -> float:
    return float(roc_auc_score(video.truth, video.scores))
