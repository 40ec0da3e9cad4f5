"""UR-DMU: dual memory units with uncertainty regulation.

Zhou, Yu & Yang, "Dual Memory Units with Uncertainty Regulation for Weakly Supervised Video Anomaly Detection", AAAI
2023; code: henrryzh1/UR-DMU. One memory learns what normal clips look like, another what abnormal ones do; a clip is
told by how much it resembles the entries of both. What the normal memory recalls is a Gaussian rather than a point, so
that harmless changes of the scene stay within it.

Sections are the paper's, what enters each loss is the code's, but for two slips of the code that are told at
`divergence` and at `attention.local_weights`. The code pairs the videos of a batch by chance; here a term of two videos
is the mean over all pairs, its expectation, which needs no equal numbers of both kinds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..context import ContextDetector
from ..detector import Bags, DetectorLoss
from .attention import ContextEncoder

ENTRIES = 60  # of each memory
HIDDEN = 128  # units of the classifier
SHARE = 16  # the highest one in sixteen of a video's clips, or of a memory's entries, and one more, are looked at


def highest_mean(values: Tensor) -> Tensor:
    """The mean of the ``⌊n / 16⌋ + 1`` highest: ``(…, n) -> (…)``."""
    return values.topk(values.shape[-1] // SHARE + 1).values.mean(dim=-1)


def top_entropy(scores: Sequence[Tensor], label: float) -> Tensor:
    """Cross-entropy of the mean of each video's highest scores against the video's label (Network Training).

    Args:
        scores: of each of B videos, ``(T,)`` in [0, 1].
        label: 1 or 0.

    Returns:
        ``(B,)``.
    """
    means = torch.stack([highest_mean(video) for video in scores])
    return F.binary_cross_entropy(means, torch.full_like(means, label), reduction="none")


def dual_memory_loss(
    abnormal_in_abnormal: Sequence[Tensor],
    abnormal_in_normal: Sequence[Tensor],
    normal_in_abnormal: Sequence[Tensor],
    normal_in_normal: Sequence[Tensor],
) -> Tensor:
    """Some of an abnormal video is in the abnormal memory, and some not in the normal one; all of a normal video is.

    Args:
        abnormal_in_abnormal: of each abnormal video, how like the abnormal memory its clips are, ``(T,)`` in [0, 1].
        abnormal_in_normal: how like the normal memory they are.
        normal_in_abnormal: of each normal video, how like the abnormal memory its clips are.
        normal_in_normal: how like the normal memory they are.

    Returns:
        Scalar, the sum of the four cross-entropies, each a mean over videos, or over all clips of the normal videos.

    Source: Dual Memory Units, L_dm.
    """
    some = top_entropy(abnormal_in_abnormal, 1.0) + top_entropy([1 - video for video in abnormal_in_normal], 1.0)
    none, every = (torch.cat(list(videos)) for videos in (normal_in_abnormal, normal_in_normal))
    return (
        some.mean()
        + F.binary_cross_entropy(none, torch.zeros_like(none))
        + F.binary_cross_entropy(every, torch.ones_like(every))
    )


def mean_of_top(clips: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """The mean of those clips of each video that have the highest values, without gradient to these.

    Args:
        clips: of each of B videos, ``(T, D)``.
        values: of each, ``(T,)``; the ``⌊T / 16⌋ + 1`` highest are taken.

    Returns:
        ``(B, D)``.
    """
    places = [video.topk(len(video) // SHARE + 1).indices for video in values]
    return torch.stack([video[place].mean(dim=0) for video, place in zip(clips, places, strict=True)])


def triplet_loss(anchors: Tensor, positives: Tensor, negatives: Tensor, margin: float = 1.0) -> Tensor:
    """What is normal in abnormal videos lies nearer to normal videos than what is abnormal (Dual Memory Units).

    Args:
        anchors: ``(N, D)``, of each normal video the clips most like the normal memory.
        positives: ``(A, D)``, of each abnormal video the clips most like the normal memory.
        negatives: ``(A, D)``, of each abnormal video the clips most like the abnormal memory.
        margin: by how much.

    Returns:
        Scalar: the hinge on distances between directions, mean over the ``A × N`` pairs.
    """
    anchors, positives, negatives = (F.normalize(each, dim=-1) for each in (anchors, positives, negatives))
    near, far = (torch.linalg.vector_norm(each[:, None] - anchors, dim=-1) for each in (positives, negatives))  # (A, N)
    return F.relu(margin + near - far).mean()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of Gaussians from the standard one (Normal Data Uncertainty Learning).

    The published code sums over the clips of a video where the sum should be over the latent dimensions, which at 200
    segments and 512 dimensions is the same but for a factor: a weight of 0.00039 there is 0.001 in the code.

    Args:
        mean: ``(n, D)``.
        log_variance: ``(n, D)``.

    Returns:
        Scalar: sum over dimensions, mean over clips.
    """
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=-1).mean()


def magnitude_loss(abnormal: Tensor, normal: Tensor, margin: float = 100.0) -> Tensor:
    """What abnormal videos recall is longer than what normal ones do (Normal Data Uncertainty Learning).

    Args:
        abnormal: ``(A, D)``.
        normal: ``(N, D)``.
        margin: by how much.

    Returns:
        Scalar: the hinge on lengths, mean over the ``A × N`` pairs.
    """
    longer, shorter = (torch.linalg.vector_norm(each, dim=-1) for each in (abnormal, normal))
    return F.relu(margin - longer[:, None] + shorter[None, :]).mean()  # (A, N) -> ()


class Memory(nn.Module):
    """Entries that clips are compared with, and told by (Dual Memory Units).

    Args:
        width: D of an entry.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.entries = nn.Parameter(torch.empty(ENTRIES, width).uniform_(-bound, bound))

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """How much clips ``(…, D)`` resemble the memory, ``(…)`` in [0, 1], and what it recalls, ``(…, D)``."""
        likeness = (clips @ self.entries.T * clips.shape[-1] ** -0.5).sigmoid()  # (…, ENTRIES)
        return highest_mean(likeness), likeness @ self.entries


class URDMU(ContextDetector):
    """Tells clips by a normal and an abnormal memory.

    Every layer is as wide as the encoder, 512 for features of 1024 numbers and more, as published, and never below 128.

    Args:
        feature_dim: F, 1024 for I3D.
        dropout: of the encoder.
        memory_weight: of the dual memory loss.
        triplet_weight: of the triplet loss.
        kl_weight: of the divergence of what normal videos recall.
        magnitude_weight: of the magnitude distance loss.

    Example:
        >>> detector = URDMU(feature_dim=16).eval()
        >>> detector.score(torch.rand(2, 7, 16)).shape  # two videos of seven clips
        torch.Size([2, 7])
    """

    name, title = "ur-dmu", "UR-DMU"

    def __init__(
        self,
        feature_dim: int,
        dropout: float = 0.5,
        memory_weight: float = 0.1,
        triplet_weight: float = 0.1,
        kl_weight: float = 0.001,
        magnitude_weight: float = 0.0001,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.memory_weight, self.triplet_weight = memory_weight, triplet_weight
        self.kl_weight, self.magnitude_weight = kl_weight, magnitude_weight
        self.encoder = ContextEncoder(feature_dim, dropout)
        width = self.encoder.width
        self.abnormal_memory, self.normal_memory = Memory(width), Memory(width)
        self.mean, self.log_variance = nn.Linear(width, width), nn.Linear(width, width)
        self.classifier = nn.Sequential(nn.Linear(2 * width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1), nn.Sigmoid())

    def score_videos(self, videos: Tensor) -> Tensor:
        """``(B, T, F) -> (B, T)`` in [0, 1]; what the memories recall is taken without noise."""
        clips = self.encoder(videos)
        return self._classify(clips, *(self.mean(memory(clips)[1]) for memory in self._memories))

    def loss(self, bags: Bags) -> DetectorLoss:
        """Cross-entropy of the videos, and the four regularisers (Network Training)."""
        clips = self.encoder.packed(bags)  # (ΣT, D)
        (in_abnormal, abnormal_recall), (in_normal, normal_recall) = (memory(clips) for memory in self._memories)
        abnormal_latent, normal_latent = self.mean(abnormal_recall), self.mean(normal_recall)
        first = sum(bags.abnormal)  # of the clips of normal videos, whose place in the latent space is uncertain
        log_variance = self.log_variance(normal_recall[first:])
        kl = divergence(normal_latent[first:], log_variance)
        if self.training:
            noise = (0.5 * log_variance).exp() * torch.randn_like(log_variance)
            normal_latent = torch.cat([normal_latent[:first], normal_latent[first:] + noise])

        abnormal, normal = bags.split(self._classify(clips, abnormal_latent, normal_latent))
        abnormal_in_abnormal, normal_in_abnormal = bags.split(in_abnormal)
        abnormal_in_normal, normal_in_normal = bags.split(in_normal)
        abnormal_clips, normal_clips = bags.split(clips)
        triplet = triplet_loss(
            mean_of_top(normal_clips, normal_in_normal),
            mean_of_top(abnormal_clips, abnormal_in_normal),
            mean_of_top(abnormal_clips, abnormal_in_abnormal),
        )
        magnitude = magnitude_loss(
            mean_of_top(bags.split(abnormal_latent)[0], abnormal_in_abnormal),
            mean_of_top(bags.split(normal_latent)[1], normal_in_normal),
        )
        terms = {
            "classification": torch.cat([top_entropy(abnormal, 1.0), top_entropy(normal, 0.0)]).mean(),
            "memory": self.memory_weight
            * dual_memory_loss(abnormal_in_abnormal, abnormal_in_normal, normal_in_abnormal, normal_in_normal),
            "triplet": self.triplet_weight * triplet,
            "divergence": self.kl_weight * kl,
            "magnitude": self.magnitude_weight * magnitude,
        }
        return DetectorLoss.of(terms, abnormal, normal)

    @property
    def _memories(self) -> tuple[Memory, Memory]:
        return self.abnormal_memory, self.normal_memory

    def _classify(self, clips: Tensor, abnormal_latent: Tensor, normal_latent: Tensor) -> Tensor:
        """``(…, D)`` each to scores ``(…)``."""
        scores: Tensor = self.classifier(torch.cat([clips, abnormal_latent + normal_latent], dim=-1)).squeeze(-1)
        return scores
