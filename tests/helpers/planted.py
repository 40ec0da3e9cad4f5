"""Made-up videos with planted anomalies, and a short training on them, with and without XEL."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from xelvad.models import XEL, Bags, HardInstanceBank, LearningDetector, MarginSchedule, hardest
from xelvad.models.bank import hardest_clips
from xelvad.models.context import hardest_windows, scorer_of_rows

FEATURE_DIM = 16


class Planted:
    """Videos of 20 to 60 clips around one scene; in abnormal ones some clips in a row lie elsewhere.

    Both kinds have bursts of noise, so that being unusual is not enough.

    Args:
        seed: of the videos; where the anomalies lie in feature space is the same for all seeds.
        videos: of each kind.
    """

    def __init__(self, seed: int, videos: int = 12) -> None:
        shift, burst = np.random.default_rng(0).normal(size=(2, FEATURE_DIM))
        rng = np.random.default_rng([1, seed])
        self.abnormal: list[Tensor] = []
        self.normal: list[Tensor] = []
        self.truth: list[np.ndarray] = []
        for kind in (self.abnormal, self.normal):
            for _ in range(videos):
                clips = rng.normal(size=(int(rng.integers(20, 61)), FEATURE_DIM))
                start = int(rng.integers(len(clips) - 4))
                clips[start : start + 4] += 3 * burst / np.linalg.norm(burst) * FEATURE_DIM**0.5 / 2
                truth = np.zeros(len(clips), bool)
                if kind is self.abnormal:
                    start = int(rng.integers(len(clips) - 8))
                    clips[start : start + 8] += 3 * shift / np.linalg.norm(shift)
                    truth[start : start + 8] = True
                kind.append(torch.from_numpy(clips).float())
                self.truth.append(truth)

    def auc(self, detector: LearningDetector) -> float:
        """Of the clips of all videos, scored one by one in evaluation mode."""
        detector.eval()
        with torch.no_grad():
            scores = torch.cat([detector.score(video) for video in self.abnormal + self.normal])
        return float(roc_auc_score(np.concatenate(self.truth), scores.numpy()))


def train_on_planted(
    detector: LearningDetector, videos: Planted, steps: int, learning_rate: float = 1e-3, xel: XEL | None = None
) -> HardInstanceBank | None:
    """All videos at every step; with XEL the bank is refreshed at every tenth, once the warm-up is over."""
    optimiser = torch.optim.Adam(detector.parameters(), lr=learning_rate)
    find = (lambda _, found: hardest_windows(detector, found)) if detector.context else hardest_clips
    for step in range(steps):
        detector.train()
        loss = detector.loss(Bags.pack(videos.abnormal, videos.normal))
        total = loss.total
        if xel is not None:
            if xel.schedule(step) is not None and step % 10 == 0:
                xel.bank.refresh(detector, ([video] for video in videos.normal), find)
            rows = hardest(videos.abnormal, loss.abnormal_scores, detector.context)
            total = sum(xel.terms(scorer_of_rows(detector), rows, step).values(), total)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    return None if xel is None else xel.bank


def assert_learns_planted(detector: LearningDetector, steps: int, with_xel: bool, learning_rate: float = 1e-3) -> None:
    """A new detector cannot tell the planted clips of fresh videos; a trained one can."""
    fresh = Planted(seed=1)
    assert fresh.auc(detector) < 0.8
    xel = XEL(MarginSchedule(warmup=steps // 2 // 10 * 10, step=steps // 10), progressive=True) if with_xel else None
    bank = train_on_planted(detector, Planted(seed=0), steps, learning_rate, xel)
    assert bank is None or len(bank) == 12
    assert fresh.auc(detector) > 0.9
