"""RTFM: robust temporal feature magnitude learning.

Tian et al., "Weakly-supervised Video Anomaly Detection with Robust Temporal Feature Magnitude Learning", ICCV 2021. A
network that sees near and far clips gives every clip a new feature, long where something is abnormal. The clips of a
video with the longest features stand for it: their mean feature is to be long in abnormal videos and short in normal
ones, and the mean of their scores is regressed to the video's label.

Where paper and published code differ, this follows the code, but for two slips: its smoothness also joins the last
score of a video to the first of the next, and it compares the i-th abnormal with the i-th normal video of a batch,
while the paper's sum, and ours, is over all pairs, which may be of unequal numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clipwise.mil import smoothness
from ..context import ContextDetector, in_groups
from ..detector import Bags, DetectorLoss
from .temporal import TemporalConv

PUBLISHED_DIM = 2048  # of the features: I3D-ResNet50
NARROWEST = 128  # channels of a branch of the temporal network


def longest_clips(magnitudes: Sequence[Tensor], share: float = 0.1) -> list[Tensor]:
    """Which clips of each video have the longest features: the highest tenth, at least one (eq. 4, Ω_k).

    Args:
        magnitudes: of each video, ``(T,)``.
        share: of a video's clips; 0.1 of 32 are the published k = 3.

    Returns:
        Of each video the places ``(k,)``, k = ⌊share · T⌋ or 1.
    """
    return [video.topk(max(1, int(share * len(video)))).indices for video in magnitudes]


def magnitude_loss(abnormal: Tensor, normal: Tensor, margin: float) -> Tensor:
    """Abnormal features are to be as long as the margin, normal ones as short as can be.

    Args:
        abnormal: magnitude of the mean feature of the longest clips of each of A abnormal videos, ``(A,)``.
        normal: of each of N normal videos, ``(N,)``.
        margin: m of eq. 3.

    Returns:
        Scalar, ``(|m - abnormal| + normal)²``, mean over the ``A × N`` pairs.

    Source: `RTFM_loss` of the published code. Eq. 3 has a hinge on the difference of two means of magnitudes; with its
    weight of 0.0001 that would hardly move anything.
    """
    return ((margin - abnormal).abs()[:, None] + normal[None, :]).square().mean()  # (A, N) -> ()


class NonLocal(nn.Module):
    """Every clip sees every other, by the product of their embeddings (sec. 3.2, the global branch).

    Not a softmax but a division by T weights the clips, so that the time it takes is linear in T. The batch norm begins
    at zero: at first the block changes nothing. The bias of the layer before it is left out, it would cancel.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(channels, channels // 2) for _ in range(3))
        self.out = nn.Linear(channels // 2, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, clips: Tensor, lengths: Sequence[int]) -> Tensor:
        """``(ΣT, channels) -> (ΣT, channels)``, of videos of these lengths."""
        embedded = torch.cat([self.query(clips), self.key(clips), self.value(clips)], dim=1)
        (seen,) = in_groups(self._look, embedded, lengths)
        changed: Tensor = self.norm(self.out(seen))
        return clips + changed

    @staticmethod
    def _look(videos: Tensor) -> tuple[Tensor]:
        query, key, value = videos.chunk(3, dim=-1)  # (B, T, 3C) -> (B, T, C) each
        return (query @ (key.mT @ value / videos.shape[1]),)  # (QKᵀ)V = Q(KᵀV)


class MultiScaleTemporalNetwork(nn.Module):
    """Features that know their neighbours, near and far (sec. 3.2).

    Three dilated convolutions see near clips, a non-local block sees all, a last convolution joins these four branches,
    and what comes of it is added to the features. A branch has a quarter of the features' channels, 512 of the
    published 2048, but never fewer than `NARROWEST`.

    The batch norms' statistics in training are over all clips of the batch, of however long videos.

    Args:
        feature_dim: F.
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        branch = max(feature_dim // 4, NARROWEST)
        self.near = nn.ModuleList(TemporalConv(feature_dim, branch, dilation=dilation) for dilation in (1, 2, 4))
        self.near_norms = nn.ModuleList(nn.BatchNorm1d(branch) for _ in self.near)
        self.reduce = nn.Linear(feature_dim, branch, bias=False)
        self.far = NonLocal(branch)
        self.join = TemporalConv(4 * branch, feature_dim, bias=False)
        self.join_norm = nn.BatchNorm1d(feature_dim)

    def forward(self, clips: Tensor, lengths: Sequence[int]) -> Tensor:
        """``(ΣT, F) -> (ΣT, F)``, of videos of these lengths."""
        near = [
            norm(F.relu(conv(clips, lengths))) for conv, norm in zip(self.near, self.near_norms, strict=True)
        ]  # (ΣT, branch) each
        far = self.far(F.relu(self.reduce(clips)), lengths)
        joined: Tensor = self.join_norm(F.relu(self.join(torch.cat([*near, far], dim=1), lengths)))
        return clips + joined


class RTFM(ContextDetector):
    """Learns features that are long where something is abnormal.

    The margin is of features of the published 2048 dimensions. That of F dimensions is measured by the length that
    features of 2048 would have if their dimensions were alike, √(2048 / F) times their own.

    Args:
        feature_dim: F, 2048 for I3D-ResNet50.
        dropout: of the temporal features, behind both hidden layers, and of the clips that can be chosen as longest.
        margin: m, of the magnitude of abnormal features.
        magnitude_weight: α, of the magnitude loss.
        sparsity_weight: λ, of the length of the vector of all abnormal scores of a batch.
        smoothness_weight: λ, of the squared steps of all abnormal scores of a batch.

    Example:
        >>> detector = RTFM(feature_dim=16).eval()
        >>> detector.score(torch.rand(2, 9, 16)).shape  # two videos of nine clips
        torch.Size([2, 9])
    """

    name, title = "rtfm", "RTFM"

    def __init__(
        self,
        feature_dim: int,
        dropout: float = 0.7,
        margin: float = 100.0,
        magnitude_weight: float = 1e-4,
        sparsity_weight: float = 8e-3,
        smoothness_weight: float = 8e-4,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.margin, self.magnitude_weight = margin, magnitude_weight
        self.sparsity_weight, self.smoothness_weight = sparsity_weight, smoothness_weight
        self.dropout = nn.Dropout(dropout)
        self.temporal = MultiScaleTemporalNetwork(feature_dim)
        self.scorer = nn.Sequential(
            nn.Linear(feature_dim, 512), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(512, 128), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(128, 1), nn.Sigmoid(),
        )  # fmt: skip
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, clips: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The temporal features ``(ΣT, F)`` and scores ``(ΣT,)`` of packed clips ``(ΣT, F)``."""
        features: Tensor = self.dropout(self.temporal(clips, lengths))
        return features, self.scorer(features).squeeze(-1)

    def score_videos(self, videos: Tensor) -> Tensor:
        """``(B, T, F) -> (B, T)`` in [0, 1]."""
        _, scores = self(videos.flatten(0, 1), [videos.shape[1]] * len(videos))
        return scores.reshape(videos.shape[:-1])

    def magnitudes(self, features: Tensor) -> Tensor:
        """Lengths of features as if they had the published dimensions, ``(…, F) -> (…)``."""
        return features.norm(dim=-1) * (PUBLISHED_DIM / self.feature_dim) ** 0.5

    def loss(self, bags: Bags) -> DetectorLoss:
        """Magnitude loss, and cross-entropy of the scores of the longest clips (eq. 7), sparsity and smoothness."""
        lengths = bags.abnormal + bags.normal
        features, scores = self(bags.clips, lengths)
        longest = longest_clips(self.dropout(self.magnitudes(features)).split(lengths))  # in training, of a random few
        chosen = [video[best].mean(0) for video, best in zip(features.split(lengths), longest, strict=True)]
        verdicts = [video[best].mean() for video, best in zip(scores.split(lengths), longest, strict=True)]
        long, short = self.magnitudes(torch.stack(chosen)).split([len(bags.abnormal), len(bags.normal)])
        labels = torch.cat([torch.ones_like(long), torch.zeros_like(short)])
        abnormal, normal = bags.split(scores)
        terms = {
            "entropy": F.binary_cross_entropy(torch.stack(verdicts), labels),
            "magnitude": self.magnitude_weight * magnitude_loss(long, short, self.margin),
            "sparsity": self.sparsity_weight * torch.cat(abnormal).norm(),
            "smoothness": self.smoothness_weight * len(abnormal) * smoothness(abnormal),
        }
        return DetectorLoss.of(terms, abnormal, normal)
