"""Options of a leaderboard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ....errors import UserError
from ...training.recipes import detector_recipe


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class LeaderboardConfig:
    """What is compared, and how.

    Attributes:
        detectors: names; all that there are by default. Each is trained by recipes/general.
        seeds: trainings of each configuration on each fold, from 0 on.
        test_fold: the fold to test on; every one in turn by default, where the data set has folds.
        weights: which are measured: those of the last iteration, or the best on validation videos. None are chosen by
            test videos. The SVM, which is fitted in one go, has only the one.
        validation: share of the training videos that are put aside for that, and to calibrate the threshold on.
        iterations: of each training, at most; by default the recipe's.
        extractor: whose features to learn from; by default the recipe's.
        workers: trainings at a time, each in a process of one thread; by default one for each core.
        beside: folders of finished leaderboards of other data sets, which enter the ranks over all of them.
        across: also test the trainings on the videos of those beside, where features are of the same extractor, and
            those beside on the videos of this one: how much is lost by going to another place.
    """

    detectors: Sequence[str] = ()
    seeds: int = 5
    test_fold: str | None = None
    weights: Literal["last", "best_on_validation"] = "last"
    validation: float = 0.1
    iterations: int | None = None
    extractor: str | None = None
    workers: int = field(default_factory=_cores)
    beside: Sequence[Path] = ()
    across: bool = False

    def __post_init__(self) -> None:
        for name in ("seeds", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
        if self.weights == "best_on_validation" and not self.validation:
            raise UserError("--weights best_on_validation needs videos to choose by: --validation above 0")
        if self.across and not self.beside:
            raise UserError("--across needs another data set: name the folder of its leaderboard by --beside")
        for detector in self.detectors:
            detector_recipe(detector)  # refuses one that there is not
