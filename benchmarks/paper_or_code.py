"""What the differences between a paper and its authors' code cost, measured: RTFM, UR-DMU and MGFN.

    XELVAD_SHARED=/path/to/data python benchmarks/paper_or_code.py --features DIR --runs DIR --seeds 3

Each detector by its `general` recipe, as it is and with one thing as the other side has it, on the person tracks of
ShanghaiTech: four folds, weights of the last iteration, every frame counts, paired over seeds and folds. What needs
several crops (MGFN's pairs), or is the same but for a factor (UR-DMU's divergence), is not among them.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from results import write_section
from torch import Tensor
from xel import EXTRACTORS, Task, figures, gain, manifest_of, prepare, run, spread

from xelvad import __version__
from xelvad.models.contextual import attention, rtfm
from xelvad.pipeline.evaluation.metrics import ScoredVideo
from xelvad.pipeline.experiments.trainings import at_once, folds_of
from xelvad.pipeline.support.progress import CONSOLE
from xelvad.pipeline.training.config import TrainingConfig
from xelvad.pipeline.training.recipes import load_recipe

DATA = "tracks"
METRICS = ("auc", "auc_abnormal", "tpr_at_rare")


def hinge(abnormal: Tensor, normal: Tensor, margin: float) -> Tensor:
    """RTFM, eq. 3 of the paper: magnitudes in abnormal videos a margin above those in normal ones, over all pairs."""
    return F.relu(margin - (abnormal[:, None] - normal[None, :])).mean()


def of_columns(clips: int, like: Tensor) -> Tensor:
    """UR-DMU's local weights as the code has them: divided by the sums of the other dimension."""
    steps = torch.arange(clips, dtype=like.dtype, device=like.device)
    nearness = (-(steps[:, None] - steps).abs() / attention.REACH).exp()
    return nearness / nearness.sum(dim=1)  # of a row by the sum of another


@dataclass(frozen=True)
class Variant:
    """One thing as the other side has it.

    Attributes:
        detector: whose.
        label: what it is.
        target: module, name and replacement of a function; None where it is a setting.
        config: changes the settings.
    """

    detector: str
    label: str
    target: tuple[object, str, Callable[..., Tensor]] | None = None
    config: Callable[[TrainingConfig], TrainingConfig] = lambda config: config

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The function replaced, for the length of a block."""
        if self.target is None:
            yield
        else:
            module, name, other = self.target
            with patch.object(module, name, other):
                yield


VARIANTS = (
    Variant("rtfm", "RTFM, as it is (the code's)"),
    Variant("rtfm", "RTFM, the paper's hinge of magnitudes", (rtfm, "magnitude_loss", hinge)),
    Variant(
        "rtfm",
        "RTFM, the paper's weight decay, a tenth",
        config=lambda config: replace(config, weight_decay=config.weight_decay / 10),
    ),
    Variant("ur-dmu", "UR-DMU, as it is (the paper's local weights)"),
    Variant("ur-dmu", "UR-DMU, the code's local weights", (attention, "local_weights", of_columns)),
    Variant("mgfn", "MGFN, as it is (the code's)"),
    Variant(
        "mgfn",
        "MGFN, the paper's equal weights of both parts",
        config=lambda config: replace(config, options={**config.options, "separation_weight": 0.001}),
    ),
)


def measured(job: tuple[int, Task]) -> dict[str, float]:
    """The metrics of one training of a variant, in per cent."""
    number, task = job
    with VARIANTS[number].applied():
        return figures([ScoredVideo(*video) for video in run(task)])


def rows(numbers: Sequence[int], options: argparse.Namespace) -> list[str]:
    """The lines of the table, a variant each; the first of a detector is what the others are compared with."""
    folds, found = folds_of(manifest_of(DATA)), []
    plain: dict[str, dict[str, np.ndarray]] = {}
    for number in numbers:
        variant = VARIANTS[number]
        config = variant.config(replace(load_recipe(f"general/{variant.detector}"), extractor=EXTRACTORS[DATA]))
        jobs = [
            (number, Task(DATA, variant.label, fold, options.features, options.runs, replace(config, seed=seed)))
            for seed in range(options.seeds)
            for fold in folds
        ]
        each = at_once(measured, jobs, options.workers, CONSOLE)
        values = {name: np.array([one[name] for one in each]).reshape(options.seeds, -1) for name in METRICS}
        cells = [spread(values[name].mean(axis=1)) for name in METRICS]
        first = plain.setdefault(variant.detector, values)
        cells.append("" if first is values else gain(values["auc"], first["auc"]))
        found.append(f"| {variant.label} | {' | '.join(cells)} |")
        print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True, help="features folder, filled on the first run")
    parser.add_argument("--runs", type=Path, required=True, help="folder for runs; what is finished is not repeated")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--detectors", nargs="+", default=["rtfm", "ur-dmu", "mgfn"])
    options = parser.parse_args()
    prepare(DATA, options.features)
    numbers = [number for number, variant in enumerate(VARIANTS) if variant.detector in options.detectors]
    write_section(
        "Paper or code",
        [
            "`recipes/general` on the person tracks, four folds, weights of the last iteration, seeds 0 to "
            f"{options.seeds - 1}; in per cent,",
            "mean of the folds ± sd over seeds. Difference in AUC: all pairs of a seed and a fold, 95 % interval, p by",
            "Student's t.",
            "",
            "| | AUC | AUC abnormal | TPR at 1 % FAR | difference in AUC |",
            "|---|---|---|---|---|",
            *rows(numbers, options),
            "",
            f"`python benchmarks/paper_or_code.py --features DIR --runs DIR --seeds {options.seeds} "
            f"--detectors {' '.join(options.detectors)}`,",
            f"{datetime.date.today()}, xelvad {__version__}, torch {torch.__version__}, CPU.",
        ],
    )


if __name__ == "__main__":
    main()
