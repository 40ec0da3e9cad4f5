"""What an ablation found: a file of plain numbers, a table, and a page with a figure in which every seed is a dot."""

from __future__ import annotations

import csv
import io
import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ....files import write_bytes, write_text
from ...evaluation.metrics import METRICS
from ...evaluation.resampling import over_seeds
from ...reports.page import Data, asset, filled, shared_parts
from ...reports.tables import ResultTable, per_cent
from ...scoring.runs import title_of
from ..trainings import ALL_FOLDS
from .ablate import Ablation, Configuration, Result
from .config import AblationConfig

PAGE = "ablation.html"
MEAN_FOLD_AUC = "mean_fold_auc"
COLUMNS = METRICS | {MEAN_FOLD_AUC: "mean fold AUC %"}
NOTES = (
    "Weights of the last iteration only: nothing was chosen on test videos.",
    "Frame level, every decoded frame counts, all test videos together; FAR over the frames of normal videos, FAR and "
    "TPR at threshold 0.5.",
    "L_v is XEL's validation loss, L_m its dynamic margin loss; epoch and batch say when the bank is refreshed.",
)


@dataclass(frozen=True)
class Row:
    """One row of the table: a configuration over its seeds.

    Attributes:
        configuration: which.
        figures: mean and sample standard deviation over the seeds of each metric, by its name in `FrameMetrics`, and of
            ``mean_fold_auc`` where there are folds; fractions of 1. The deviation of a single seed is None,
            and both are where the test set does not define the metric.
        gain: the same of the differences in AUC to "off" of the same detector and seed; None for off itself.
    """

    configuration: Configuration
    figures: dict[str, tuple[float | None, float | None]]
    gain: tuple[float | None, float | None] | None


def write_ablation(ablation: Ablation) -> Path:
    """Write ``ablation.csv``, ``ablation.md`` and ``ablation.html`` beside the runs; returns the path of the page."""
    out = ablation.out
    write_text(out / "ablation.csv", _csv(ablation.results))
    write_text(out / "ablation.md", _markdown(ablation))
    shown = result_table(ablation)
    data: Data = {
        "settings": list(_settings(ablation).items()),
        "command": command(ablation),
        "head": shown.columns,
        "body": shown.rows,
        "notes": shown.notes,
        "folds": len(ablation.results[0].outcomes[0].fold_aucs) or 1,  # trainings for each point
        "points": [
            _points(row, result) for row, result in zip(summarise(ablation.results), ablation.results, strict=True)
        ],
    }
    parts = shared_parts(shown.title, data) | {"extra_style": asset("ablation.css"), "script": asset("ablation.js")}
    write_bytes(out / PAGE, filled(asset("ablation.html"), parts))
    return out / PAGE


def summarise(results: Sequence[Result]) -> list[Row]:
    """One row for each configuration, over its seeds; gains are differences of the same seed."""
    off = {
        (result.configuration.detector, outcome.seed): outcome.metrics.auc
        for result in results
        if result.configuration.variant.mode == "off"
        for outcome in result.outcomes
    }
    rows = []
    for result in results:
        figures = {
            name: over_seeds([getattr(outcome.metrics, name) for outcome in result.outcomes]) for name in METRICS
        }
        fold_means = [outcome.mean_fold_auc for outcome in result.outcomes if outcome.mean_fold_auc is not None]
        if fold_means:
            figures[MEAN_FOLD_AUC] = over_seeds(fold_means)
        detector = result.configuration.detector
        pairs = [(outcome.metrics.auc, off[detector, outcome.seed]) for outcome in result.outcomes]
        gains = [None if one is None or other is None else one - other for one, other in pairs]
        gain = over_seeds(gains) if result.configuration.variant.mode != "off" else None
        rows.append(Row(result.configuration, figures, gain))
    return rows


def result_table(ablation: Ablation) -> ResultTable:
    """Mean ± standard deviation over the seeds in per cent, and the gain over off in points of AUC."""
    rows = summarise(ablation.results)
    names = [name for name in COLUMNS if name in rows[0].figures]
    head = ["detector", "XEL", "refresh", *(COLUMNS[name] for name in names), "gain, AUC points"]
    body = []
    for row in rows:
        variant = row.configuration.variant
        mode = "" if variant.mode == "off" else variant.mode
        figures = [per_cent(row.figures[name]) for name in names]
        gain = "" if row.gain is None else per_cent(row.gain, "+.2f")
        body.append((_detector(row.configuration), variant.terms, mode, *figures, gain))
    return ResultTable(f"Ablation of XEL on {ablation.dataset}", tuple(head), tuple(body), notes(ablation))


def notes(ablation: Ablation) -> tuple[str, ...]:
    """What a reader of the table must know."""
    seeds = [str(outcome.seed) for outcome in ablation.results[0].outcomes]
    over = [f"A single seed ({seeds[0]}): gain and chance cannot be told apart."]
    if len(seeds) > 1:
        over = [
            f"Mean ± standard deviation over the seeds {', '.join(seeds)}.",
            "Gains are differences to off of the same detector with the same seed.",
        ]
    folds = []
    if ablation.results[0].outcomes[0].fold_aucs:
        folds = ["Every fold was the test set once; figures are over the frames of all folds together."]
    return (*over, *NOTES, *folds)


def _detector(configuration: Configuration) -> str:
    return title_of(configuration.detector)


def _csv(results: Sequence[Result]) -> str:
    """One row for each configuration and seed; every figure as it is, a fraction of 1."""
    rows = []
    for result in results:
        configuration = result.configuration
        for outcome in result.outcomes:
            row = {
                "detector": configuration.detector,
                "variant": configuration.variant.terms,
                "mode": configuration.variant.mode,
                "seed": outcome.seed,
            } | asdict(outcome.metrics)
            if outcome.fold_aucs:
                row |= {MEAN_FOLD_AUC: outcome.mean_fold_auc}
                row |= {f"auc of {fold}": auc for fold, auc in outcome.fold_aucs.items()}
            rows.append(row)
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _markdown(ablation: Ablation) -> str:
    shown = result_table(ablation)
    lines = [shown.columns, ["---"] * 3 + ["--:"] * (len(shown.columns) - 3), *shown.rows]
    return "\n".join(
        [
            f"# {shown.title}",
            "",
            *(f"| {' | '.join(cells)} |" for cells in lines),
            "",
            *(f"- {note}" for note in shown.notes),
            *(f"- {name}: {value}" for name, value in _settings(ablation).items()),
            "",
            f"`{command(ablation)}`",
            "",
        ]
    )


def _settings(ablation: Ablation) -> dict[str, str]:
    """How the figures were made."""
    config, fold = ablation.config, ablation.config.test_fold
    first = ablation.results[0].outcomes[0].metrics
    tested = {None: "", ALL_FOLDS: ", every fold in turn"}.get(fold, f" of {fold}")
    trainings = {_detector(result.configuration): result.configuration.training for result in ablation.results}
    return {
        "Data set": f"{ablation.dataset}, {first.videos} test videos{tested}, {first.frames:,} frames",
        "Recipes": f"{config.recipes}/ ("
        + ", ".join(f"{name} {training.iterations:,} iterations" for name, training in trainings.items())
        + ")",
        "Features": ", ".join(dict.fromkeys(training.extractor for training in trainings.values())),
        "Trained by": "; ".join(ablation.versions),
        "Machine": _machine(),
    }


def _machine() -> str:
    """What this is computed on."""
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores{gpu}"


def command(ablation: Ablation) -> str:
    """The command line that makes this ablation."""
    words = ["xelvad", "ablate", *ablation.labels.options, "--features", str(ablation.features)]
    words += ["--out", str(ablation.out)]
    for field in fields(AblationConfig):
        value = getattr(ablation.config, field.name)
        if field.name in ("detectors", "seeds") or _words(value) != _words(field.default):
            words += [f"--{field.name.replace('_', '-')}", *_words(value)]
    return shlex.join(words)


def _words(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]


def _points(row: Row, result: Result) -> Data:
    """What the figure shows of a configuration, in per cent."""
    outcomes = result.outcomes
    return {
        "detector": _detector(row.configuration),
        "terms": row.configuration.variant.terms,
        "mode": row.configuration.variant.mode,
        "seeds": [outcome.seed for outcome in outcomes],
        "auc": [_in_per_cent(outcome.metrics.auc) for outcome in outcomes],
        "far": [_in_per_cent(outcome.metrics.far_normal) for outcome in outcomes],
        "means": {"auc": _in_per_cent(row.figures["auc"][0]), "far": _in_per_cent(row.figures["far_normal"][0])},
    }


def _in_per_cent(figure: float | None) -> float | None:
    return None if figure is None else 100 * figure
