"""What may be concluded: paired differences over folds and seeds, several at once, and ranks over data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALPHA = 0.05


@dataclass(frozen=True)
class PairedTest:
    """A mean difference, its 95 % interval and how surely it is none.

    Attributes:
        mean: of the differences.
        low: lower end of the interval; None of a single difference.
        high: upper end.
        p_value: two-sided; None of a single difference.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None


def paired_test(differences: Sequence[float], test_share: float = 0.0) -> PairedTest:
    """Student's t for differences of trainings that share most of their data, as those of folds do.

    Trainings on overlapping folds are not independent, and the ordinary test finds differences where there are none.
    The variance of their mean is taken as ``(1 / n + test / training videos) · s²``: Nadeau & Bengio, "Inference for
    the generalization error", Machine Learning 52, 2003; for repeated cross-validation Bouckaert & Frank, PAKDD 2004.

    Args:
        differences: one for each pair of trainings.
        test_share: number of test videos per training video of a fold; 0 where there is one split, whose trainings
            differ in nothing but their seed. What is concluded then holds for these test videos.
    """
    values = np.asarray(differences, np.float64)
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return PairedTest(mean, None, None, None)
    error = float(values.std(ddof=1)) * np.sqrt(1 / count + test_share)
    if error == 0:
        return PairedTest(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    reach = float(stats.t.ppf(1 - ALPHA / 2, count - 1)) * error
    return PairedTest(mean, mean - reach, mean + reach, float(2 * stats.t.sf(abs(mean) / error, count - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, adjusted so that all of them together err rarely enough.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(order), 0, -1)))
    return [float(value) for value in adjusted]


@dataclass(frozen=True)
class Ranks:
    """How several contestants rank over several data sets.

    Attributes:
        names: of the contestants, best first.
        ranks: the mean rank of each, 1 the best.
        data_sets: how many.
        p_value: of Friedman's test that all are the same.
        critical_difference: mean ranks that lie no further apart cannot be told apart, by Nemenyi's test at 5 %.
    """

    names: tuple[str, ...]
    ranks: tuple[float, ...]
    data_sets: int
    p_value: float
    critical_difference: float


def rank(figures: Mapping[str, Sequence[float]]) -> Ranks:
    """Rank contestants by a figure on each data set, where higher is better; equals share their ranks.

    Source: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006: Friedman's test in
    Iman and Davenport's version, and Nemenyi's.

    Args:
        figures: of at least two contestants on the same data sets, at least two, in the same order.
    """
    values = np.array(list(figures.values()), np.float64)  # (k, N)
    contestants, data_sets = values.shape
    mean: NDArray[np.float64] = stats.rankdata(-values, axis=0).mean(axis=1)
    spread = float(np.square(mean).sum()) - contestants * (contestants + 1) ** 2 / 4
    chi_square = 12 * data_sets / (contestants * (contestants + 1)) * spread
    left = data_sets * (contestants - 1) - chi_square
    freedom = contestants - 1, (contestants - 1) * (data_sets - 1)
    p_value = float(stats.f.sf((data_sets - 1) * chi_square / left, *freedom)) if left > 1e-9 else 0.0
    reach = stats.studentized_range.ppf(1 - ALPHA, contestants, np.inf) / np.sqrt(2)
    critical = float(reach * np.sqrt(contestants * (contestants + 1) / (6 * data_sets)))
    order = np.argsort(mean, kind="stable")
    names = list(figures)
    return Ranks(
        tuple(names[place] for place in order), tuple(float(mean[p]) for p in order), data_sets, p_value, critical
    )


def indistinguishable(ranks: Ranks) -> list[tuple[int, int]]:
    """The longest runs of neighbours, first and last place, that lie within the critical difference; none of one."""
    groups: list[tuple[int, int]] = []
    for first, low in enumerate(ranks.ranks):
        last = max(place for place, value in enumerate(ranks.ranks) if value - low <= ranks.critical_difference)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups
