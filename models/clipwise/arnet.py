"""AR-Net: anomaly regression.

Wan et al., "Weakly Supervised Video Anomaly Detection via Center-Guided Discriminative Learning", ICME 2020. The
highest quarter of a video's scores is regressed to the video's label; scores of normal videos are drawn together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..detector import Bags, DetectorLoss, LearningDetector, side_by_side

NARROWEST = 512  # units of the hidden layer
BLOCK = 2048  # clips that a training step takes through the network at once


def dynamic_mil_loss(scores: Sequence[Tensor], label: float, share: float = 0.25) -> Tensor:
    """Cross-entropy of a video's highest scores against the video's label.

    Args:
        scores: of each video, ``(T,)`` in [0, 1].
        label: 1 for abnormal videos, 0 for normal ones.
        share: of a video's clips that are looked at: the ``k = ceil(share · T)`` with the highest scores.

    Returns:
        Scalar, mean over those clips, then over videos.

    Source: Wan et al., ICME 2020, L_DMIL.
    """
    counts = torch.tensor([-int(-share * len(video) // 1) for video in scores])  # (B,), k of each video
    ordered = side_by_side(scores, -torch.inf).sort(dim=1, descending=True).values  # (B, T)
    looked_at = torch.arange(ordered.shape[1]) < counts[:, None]
    weights = (1 / (counts * len(counts)).to(ordered)).repeat_interleave(counts.to(ordered.device))  # (Σk,)
    top = ordered[looked_at.to(ordered.device)]  # (Σk,)
    return F.binary_cross_entropy(top, torch.full_like(top, label), weights, reduction="sum")


def centre_loss(scores: Sequence[Tensor]) -> Tensor:
    """The variance of the scores ``(T,)`` of a video around their mean, mean over videos.

    Source: Wan et al., ICME 2020, L_c, on normal videos.
    """
    rows = side_by_side(scores, 0.0)  # (B, T)
    lengths = torch.tensor([[len(video)] for video in scores])  # (B, 1)
    there = (torch.arange(rows.shape[1]) < lengths).to(rows)
    lengths = lengths.to(rows)
    deviations = (rows - rows.sum(dim=1, keepdim=True) / lengths) * there
    return (deviations.square().sum(dim=1, keepdim=True) / lengths).mean()


class ARNet(LearningDetector):
    """Regresses the highest scores of a video to its label.

    The hidden layer is as wide as the features, as in the paper, but never narrower than `NARROWEST`: the paper's
    features have a thousand dimensions and more, and a layer of forty learns little.

    Args:
        feature_dim: F, 1024 for I3D-RGB, 2048 for RGB with flow.
        dropout: behind the first layer.
        centre_weight: λ of the centre loss.

    Example:
        >>> detector = ARNet(feature_dim=16).eval()
        >>> bool((detector.score(torch.rand(3, 16)) <= 1).all())
        True
    """

    name, title = "ar-net", "AR-Net"

    def __init__(self, feature_dim: int, dropout: float = 0.7, centre_weight: float = 20.0) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.centre_weight = centre_weight
        hidden = max(feature_dim, NARROWEST)
        self.scorer = nn.Sequential(
            nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1), nn.Sigmoid()
        )
        for layer in self.scorer:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def score(self, features: Tensor) -> Tensor:
        """``(…, F) -> (…)`` in [0, 1]."""
        scores: Tensor = self.scorer(features).squeeze(-1)
        return scores

    def loss(self, bags: Bags) -> DetectorLoss:
        """Dynamic MIL loss of both kinds of videos, centre loss of the normal ones."""
        abnormal, normal = bags.split(torch.cat([self.score(block) for block in bags.clips.split(BLOCK)]))
        videos = len(abnormal) + len(normal)
        dynamic = len(abnormal) * dynamic_mil_loss(abnormal, 1.0) + len(normal) * dynamic_mil_loss(normal, 0.0)
        terms = {"dynamic_mil": dynamic / videos, "centre": self.centre_weight * centre_loss(normal)}
        return DetectorLoss.of(terms, abnormal, normal)
