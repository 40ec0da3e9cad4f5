"""MIL: the deep multiple instance ranking detector.

Sultani, Chen & Shah, "Real-World Anomaly Detection in Surveillance Videos", CVPR 2018. A video is a bag of segments;
the highest score of an abnormal bag should exceed the highest score of a normal bag by a margin of 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .detector import Bags, Detector, DetectorLoss


def ranking_loss(abnormal_scores: Tensor, normal_scores: Tensor) -> Tensor:
    """Hinge between the highest scores of every abnormal and every normal bag (eq. 4).

    Args:
        abnormal_scores: ``(A, T)`` in [0, 1].
        normal_scores: ``(N, T')`` in [0, 1].

    Returns:
        Scalar, the mean over the ``A × N`` pairs of bags.
    """
    highest_abnormal = abnormal_scores.amax(dim=1)  # (A,)
    highest_normal = normal_scores.amax(dim=1)  # (N,)
    return F.relu(1 - highest_abnormal[:, None] + highest_normal[None, :]).mean()  # (A, N) -> ()


def sparsity(scores: Tensor) -> Tensor:
    """Anomalies are rare: the sum of a bag's scores, ``(A, T) -> ()``, mean over bags (eq. 5, term 2)."""
    return scores.sum(dim=1).mean()


def smoothness(scores: Tensor) -> Tensor:
    """Anomalies last: the squared steps between neighbours, ``(A, T) -> ()``, mean over bags (eq. 5, term 1)."""
    return scores.diff(dim=1).square().sum(dim=1).mean()


class MIL(Detector):
    """Three linear layers ending in a sigmoid; only the first has a ReLU, as in the published network.

    Args:
        feature_dim: F, 4096 for C3D, 1024 for I3D.
        dropout: behind the first and the second layer.
        sparsity_weight: λ of eq. 5, per unit of summed score of an abnormal bag.
        smoothness_weight: λ of eq. 5, per squared step of an abnormal bag.
    """

    def __init__(
        self,
        feature_dim: int,
        dropout: float = 0.6,
        sparsity_weight: float = 8e-5,
        smoothness_weight: float = 8e-5,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.sparsity_weight, self.smoothness_weight = sparsity_weight, smoothness_weight
        self.scorer = nn.Sequential(
            nn.Linear(feature_dim, 512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, 32),
            nn.Dropout(dropout),
            nn.Linear(32, 1),
            nn.Sigmoid(),
        )
        for layer in self.scorer:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def score(self, features: Tensor) -> Tensor:
        """``(…, F) -> (…)`` in [0, 1]."""
        scores: Tensor = self.scorer(features).squeeze(-1)
        return scores

    def loss(self, bags: Bags) -> DetectorLoss:
        """Ranking loss with sparsity and smoothness on the abnormal bags (eq. 6; weight decay is the optimiser's)."""
        # One pass for both, so that batch and device are used well: (A, T, F), (N, T', F) -> (A·T + N·T',)
        sizes = [bags.abnormal.shape[:2], bags.normal.shape[:2]]
        scores = self.score(torch.cat([bags.abnormal.flatten(0, 1), bags.normal.flatten(0, 1)]))
        abnormal, normal = (
            part.view(size) for part, size in zip(scores.split([size.numel() for size in sizes]), sizes, strict=True)
        )
        terms = {
            "ranking": ranking_loss(abnormal, normal),
            "sparsity": self.sparsity_weight * sparsity(abnormal),
            "smoothness": self.smoothness_weight * smoothness(abnormal),
        }
        return DetectorLoss(torch.stack(list(terms.values())).sum(), abnormal, normal, terms)
