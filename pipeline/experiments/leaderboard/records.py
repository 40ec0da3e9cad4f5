"""What a leaderboard holds: entries, their trials, and the file that keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ....errors import UserError
from ....files import write_text
from ....schema import parse, read_json
from ...datasets import DatasetChoice
from ...features.remote.address import FeaturesFolder
from ...scoring.runs import title_of

RESULTS = "results.json"
ADVICE = "make that leaderboard again; what it has trained is kept"


@dataclass(frozen=True)
class Entry:
    """A contestant: a detector with or without XEL."""

    detector: str
    xel: bool

    @property
    def title(self) -> str:
        """As papers call it."""
        return title_of(self.detector) + "+XEL" * self.xel

    @property
    def folder(self) -> str:
        """Where its runs lie."""
        return self.detector + "+xel" * self.xel


@dataclass(frozen=True)
class Trial:
    """What one training achieves on the test videos of its fold. Shares are fractions of 1, None where not defined.

    Attributes:
        seed: of the training.
        fold: that it is tested on; "" of a split.
        auc: over all frames.
        auc_abnormal: over the frames of abnormal videos.
        ap: average precision over all frames.
        far_fixed: false alarms among the frames of normal videos at 0.5.
        tpr_fixed: hits at 0.5.
        far: false alarms among the frames of normal videos at the threshold that validation videos say.
        tpr: hits at that threshold.
        alarms_per_hour: events found there in an hour of normal videos.
        learned: whether the training learned anything, by its own validation videos.
        seconds: of one core that the training took; None where it was made by another command.
        across: by data set, the AUC over all frames of its videos, mean of its folds.
    """

    seed: int
    fold: str
    auc: float | None
    auc_abnormal: float | None
    ap: float | None
    far_fixed: float | None
    tpr_fixed: float | None
    far: float | None
    tpr: float | None
    alarms_per_hour: float | None
    learned: str | None
    seconds: float | None
    across: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """An entry with its trials.

    Attributes:
        detector: its name.
        xel: whether with XEL.
        parameters: numbers that are learned.
        clips_per_second: that one core scores.
        trials: one for each seed and fold.
    """

    detector: str
    xel: bool
    parameters: int
    clips_per_second: float
    trials: tuple[Trial, ...]

    @property
    def entry(self) -> Entry:
        """Who."""
        return Entry(self.detector, self.xel)

    def of_seeds(self, figure: str) -> list[float | None]:
        """A figure of each seed, the mean of its folds."""
        seeds = dict.fromkeys(trial.seed for trial in self.trials)
        found = [[getattr(trial, figure) for trial in self.trials if trial.seed == seed] for seed in seeds]
        return [None if None in values else float(np.mean(values)) for values in found]

    def mean(self, figure: str) -> float | None:
        """A figure, mean of seeds and folds."""
        values = self.of_seeds(figure)
        return None if not values or None in values else float(np.mean([v for v in values if v is not None]))


@dataclass(frozen=True)
class Board:
    """A finished leaderboard.

    Attributes:
        dataset: name of the data set.
        labels: its options.
        features: the features folder.
        extractor: whose features.
        fingerprint: of the extractor.
        folds: names, in their order; empty of a split.
        test_share: test videos per training video, mean of the folds; 0 of a split.
        weights: which were measured.
        standings: best AUC first.
    """

    dataset: str
    labels: DatasetChoice
    features: FeaturesFolder
    extractor: str
    fingerprint: str
    folds: tuple[str, ...]
    test_share: float
    weights: str
    standings: tuple[Standing, ...]


def write_board(board: Board, out: Path) -> None:
    """Keep a leaderboard in ``results.json``, which `read_board` reads."""
    plain = asdict(board)
    write_text(out / RESULTS, json.dumps(plain, indent=2, default=lambda path: str(path.resolve())))


def read_board(out: Path) -> Board:
    """The finished leaderboard of a folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = out / RESULTS
    if not path.is_file():
        raise UserError(f"{out}: holds no finished leaderboard (there is no {RESULTS}); xelvad leaderboard makes one")
    return parse(Board, read_json(path, ADVICE), path, ADVICE)
