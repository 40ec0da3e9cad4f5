"""Whether a training learned anything: do the videos' highest scores tell abnormal from normal ones, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Verdict = Literal["learned", "uncertain", "nothing"]

USEFUL = 0.65  # AUC of the least detector that is of any use
FLAT = 1e-3  # scores of videos that lie no further apart tell nothing, whatever their order
ADVICE = (
    "try --bags.scale standard+l2 if the features measure different things, a higher --learning-rate or more "
    "--iterations, and see with xelvad audit that labels and features belong together"
)


@dataclass(frozen=True)
class Separation:
    """How well the highest scores of videos tell the abnormal from the normal ones.

    Attributes:
        auc: the chance that an abnormal video scores higher than a normal one, in [0, 1].
        low: lower end of its 95 % interval.
        high: upper end.
        abnormal: how many abnormal videos.
        normal: how many normal ones.
        spread: highest less lowest score of all of them.
    """

    auc: float
    low: float
    high: float
    abnormal: int
    normal: int
    spread: float

    @classmethod
    def of(cls, abnormal: Sequence[float], normal: Sequence[float]) -> Separation:
        """Of the highest score of each abnormal and of each normal video, at least one of either."""
        from sklearn.metrics import roc_auc_score  # here: who scores a video need not wait for it

        scores, labels = [*abnormal, *normal], [1] * len(abnormal) + [0] * len(normal)
        auc = float(roc_auc_score(labels, scores))
        low, high = auc_interval(auc, len(abnormal), len(normal))
        return cls(auc, low, high, len(abnormal), len(normal), float(np.ptp(scores)))

    @property
    def text(self) -> str:
        """In words, such as ``AUC 81.2 %, 95 % interval 70.1 to 88.9 %, 6 abnormal and 17 normal``."""
        figures = f"AUC {100 * self.auc:.1f} %, 95 % interval {100 * self.low:.1f} to {100 * self.high:.1f} %"
        return f"{figures}, {self.abnormal} abnormal and {self.normal} normal"


@dataclass(frozen=True)
class Learned:
    """What a training came to, by the weights of its last iteration.

    Attributes:
        training: over the videos that it learned from.
        validation: over the videos that were put aside; None where there are none.
    """

    training: Separation
    validation: Separation | None

    @property
    def verdict(self) -> Verdict:
        """Whether the videos are told apart.

        "nothing" where not even the training videos are, or the validation videos no better than by chance, and not by
        the bad luck of having few; "learned" where the validation videos surely are; "uncertain" between.
        """
        validation = self.validation
        if self.training.spread < FLAT or self.training.low <= 0.5:
            return "nothing"
        if validation is None:
            return "uncertain"
        if validation.spread < FLAT or (validation.auc <= 0.5 and validation.high < USEFUL):
            return "nothing"
        return "learned" if validation.low > 0.5 else "uncertain"

    @property
    def sentence(self) -> str:
        """The verdict for people: what was seen, what it means, and what to try."""
        seen = f"on the videos it learned from {self.training.text}"
        if self.validation is not None:
            seen = f"on validation videos {self.validation.text}; {seen}"
        if self.verdict == "learned":
            return f"it tells abnormal from normal videos: {seen}"
        if self.verdict == "uncertain":
            why = "no video was put aside" if self.validation is None else "too few were put aside"
            told = f"it tells the videos apart that it learned from; whether others, cannot be said, {why}"
            return f"{told} (--validation puts more aside): {seen}"
        flat = any(each.spread < FLAT for each in (self.training, self.validation) if each is not None)
        what = "its scores are flat" if flat else "it tells abnormal from normal videos no better than chance"
        return f"IT LEARNED NOTHING: {what} ({seen}); {ADVICE}"

    @property
    def plain(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {"verdict": self.verdict, "sentence": self.sentence, **asdict(self)}

    @classmethod
    def restored(cls, plain: dict[str, Any]) -> Learned:
        """What `plain` gave.

        Raises:
            KeyError, TypeError: it did not.
        """
        validation = plain["validation"]
        return cls(Separation(**plain["training"]), None if validation is None else Separation(**validation))


def auc_interval(auc: float, abnormal: int, normal: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of an AUC of so many videos, also of few, and of an AUC of 0 or 1.

    Its ends are the values θ of which ``auc`` lies just ``z`` standard errors away, by the standard error that θ itself
    would have: Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2",
    Statistics in Medicine 25, 2006, method 5.

    Args:
        auc: in [0, 1].
        abnormal: how many videos, at least one.
        normal: how many, at least one.
        confidence: in (0, 1).
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + confidence / 2))
    mean = (abnormal + normal) / 2 - 1

    def beyond(theta: float) -> float:
        """Positive where θ lies further away than ``z`` standard errors."""
        spread = 1 + mean * (1 - theta) / (2 - theta) + mean * theta / (1 + theta)
        return (auc - theta) ** 2 - z**2 * theta * (1 - theta) * spread / (abnormal * normal)

    # An AUC of 0 or 1 is itself a root, which is not meant.
    low = 0.0 if auc <= 0 else float(brentq(beyond, 0, min(auc, 1 - 1e-9)))
    return low, 1.0 if auc >= 1 else float(brentq(beyond, max(auc, 1e-9), 1))
