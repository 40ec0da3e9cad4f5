"""Made-up videos with a planted anomaly: whether a detector that looks at neighbours learns to find it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xelvad.models import XEL, Bags, LearningDetector, MarginSchedule, hardest
from xelvad.models.bank import evaluating
from xelvad.models.context import hardest_windows, scorer_of_rows

RUN = 8  # clips that are shifted


@dataclass(frozen=True)
class Planted:
    """Videos of 20 to 60 clips, ``(T, F)`` each, and which clips of the abnormal ones are abnormal, ``(T,)`` bool.

    A run of clips is shifted by three deviations: in videos of both kinds in one direction, which is harmless, and in
    abnormal videos at another time in another direction, which is the anomaly.
    """

    abnormal: list[Tensor]
    normal: list[Tensor]
    truth: list[Tensor]

    @classmethod
    def draw(cls, videos: int, seed: int, features: int = 16) -> Planted:
        """So many videos of each kind; the directions are the same for every seed."""
        directions = np.random.default_rng(99).normal(size=(2, features))
        harmless, harmful = 3 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
        rng = np.random.default_rng(seed)
        kinds: tuple[list[Tensor], list[Tensor]] = ([], [])
        truth = []
        for number in range(2 * videos):
            length = int(rng.integers(20, 61))
            clips = rng.normal(size=(length, features))
            first, second = rng.integers(0, length - RUN, size=2)
            clips[first : first + RUN] += harmless
            if number < videos:
                clips[second : second + RUN] += harmful
                places = torch.arange(length)
                truth.append((places >= int(second)) & (places < int(second) + RUN))
            kinds[number >= videos].append(torch.from_numpy(clips).float())
        return cls(*kinds, truth)


def auc_of(detector: LearningDetector, videos: Planted) -> float:
    """Area under the ROC curve of the scores of all clips of all videos."""
    with evaluating(detector), torch.no_grad():
        scores = torch.cat([detector.score(clips) for clips in [*videos.abnormal, *videos.normal]]).numpy()
    truth = np.zeros(len(scores), dtype=bool)
    truth[: sum(map(len, videos.truth))] = torch.cat(videos.truth).numpy()
    above = scores[truth][:, None] - scores[~truth]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def train_on(detector: LearningDetector, videos: Planted, steps: int, rate: float, with_xel: bool = False) -> None:
    """Steps of Adam on batches of eight videos of each kind; with XEL, whose bank is refreshed every tenth step."""
    rng = np.random.default_rng(0)
    optimiser = torch.optim.Adam(detector.parameters(), lr=rate)
    xel = XEL(MarginSchedule.spread_over(steps, warmup_share=0.3), progressive=True)
    for iteration in range(steps):
        detector.train()
        abnormal, normal = (
            [kind[number] for number in rng.permutation(len(kind))[:8]] for kind in (videos.abnormal, videos.normal)
        )
        loss = detector.loss(Bags.pack(abnormal, normal))
        total = loss.total
        if with_xel and xel.schedule(iteration) is not None:
            if iteration % 10 == 0 or not len(xel.bank):
                xel.bank.refresh(
                    detector, [[video] for video in videos.normal], lambda _, v: hardest_windows(detector, v)
                )
            rows = hardest(abnormal, loss.abnormal_scores, detector.context)
            total = sum(xel.terms(scorer_of_rows(detector), rows, iteration).values(), total)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    if with_xel:
        assert len(xel.bank) == len(videos.normal)
