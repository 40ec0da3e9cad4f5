"""SRF: the self-reasoning framework.

Zaheer et al., "A Self-Reasoning Framework for Anomaly Detection Using Video-Level Labels", IEEE SPL 2020. The clips of
an abnormal video are split in two by clustering what the network sees in them; the clusters are the labels that its
scores are regressed to. In normal videos all labels are 0, and the clusters are pushed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..detector import Bags, DetectorLoss, LearningDetector
from .clustering import centre_distance, two_means
from .network import three_layer_scorer

UNDECIDED = 0.1  # where the mean scores of two clusters lie less apart, they do not say which is abnormal


def pseudo_labels(clusters: Tensor, scores: Tensor, flip: bool = True) -> Tensor:
    """The labels of an abnormal video's clips: one cluster is 1, the one that agrees better with the scores.

    Args:
        clusters: ``(T,)`` bool.
        scores: ``(T,)`` in [0, 1].
        flip: whether clusters may change places; the published script, by mistake, never lets them.

    Returns:
        ``(T,)`` of 0 and 1, without gradient. Agreement is the cosine between labels and scores.
    """
    scores = scores.detach()
    labels = clusters.to(scores.dtype)
    if flip and F.cosine_similarity(1 - labels, scores, dim=0) > F.cosine_similarity(labels, scores, dim=0):
        return 1 - labels
    return labels


def farther_labels(points: Tensor, clusters: Tensor, normal: Tensor) -> Tensor:
    """The same, but that cluster is 1 whose centre lies farther from the mean of normal clips.

    Scores that tell nothing yet agree, by the cosine, with the larger cluster, which holds the normal clips; labels
    that follow scores that follow labels then stay upside down. Normal videos know better. Not in the paper.

    Args:
        points: ``(T, D)``, what was clustered.
        clusters: ``(T,)`` bool, of two clusters.
        normal: ``(D,)``, the mean of the batch's normal clips.

    Returns:
        ``(T,)`` of 0 and 1, without gradient.
    """
    points, normal = points.detach(), normal.detach()
    distances = [torch.linalg.vector_norm(points[which].mean(dim=0) - normal) for which in (clusters, ~clusters)]
    return (clusters if distances[0] > distances[1] else ~clusters).to(points.dtype)


def regression_loss(scores: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """L_r: the squared differences ``(T,)``, mean over a video's clips, then over videos."""
    return torch.stack([F.mse_loss(video, truth) for video, truth in zip(scores, labels, strict=True)]).mean()


def cluster_loss(
    abnormal_distances: Sequence[Tensor], normal_distances: Sequence[Tensor], limit: float = 1.0
) -> Tensor:
    """L_c: cluster centres lie far apart in abnormal videos, and close together in normal ones.

    Args:
        abnormal_distances: d between the two centres of each abnormal video, ``()``; infinite where there are not two.
        normal_distances: the same of each normal video; 0 where there are not two.
        limit: α of the paper: a normal video's distance counts no further.

    Returns:
        Scalar: the mean of ``1 / d`` over the abnormal videos plus that of ``min(d, α)`` over the normal ones.
    """
    return (1 / torch.stack(list(abnormal_distances))).mean() + torch.stack(list(normal_distances)).clamp(
        max=limit
    ).mean()


class SRF(LearningDetector):
    """Regresses scores to the clusters of its own hidden activations.

    The loss of a batch is that of its abnormal videos plus that of its normal ones, each a mean over videos.

    Args:
        feature_dim: F, 4096 for C3D, 1024 for I3D.
        dropout: behind the first and the second layer.
        cluster_weight: λ of L_c.
        flip: see `pseudo_labels`.
        labels: which cluster of an abnormal video is 1: "scores", the one that agrees with the scores, as in the paper;
            "guided", the one farther from the normal videos (see `farther_labels`) while scores do not tell them apart.
        detached: cluster the activations behind the dropout and let no gradient of the cluster loss through, as the
            published script does by mistake; by default the activations before it, with gradient.

    Raises:
        ValueError: there are no such labels.

    Example:
        >>> detector = SRF(feature_dim=1024)
        >>> bags = Bags.pack(abnormal=[torch.rand(7, 1024)], normal=[torch.rand(4, 1024), torch.rand(9, 1024)])
        >>> detector.loss(bags).total.backward()
    """

    name, title = "srf", "SRF"

    def __init__(
        self,
        feature_dim: int,
        dropout: float = 0.6,
        cluster_weight: float = 0.05,
        flip: bool = True,
        detached: bool = False,
        labels: Literal["scores", "guided"] = "scores",
    ) -> None:
        super().__init__()
        if labels not in ("scores", "guided"):
            raise ValueError(f"labels are scores or guided, not {labels}")
        self.feature_dim = feature_dim
        self.cluster_weight, self.flip, self.detached, self.labels = cluster_weight, flip, detached, labels
        self.scorer = three_layer_scorer(feature_dim, dropout)

    def score(self, features: Tensor) -> Tensor:
        """``(…, F) -> (…)`` in [0, 1]."""
        scores: Tensor = self.scorer(features).squeeze(-1)
        return scores

    def loss(self, bags: Bags) -> DetectorLoss:
        """``L_r + λ·L_c``."""
        hidden = self.scorer[:2](bags.clips)  # (ΣT, 512)
        dropped = self.scorer[2](hidden)
        abnormal, normal = bags.split(self.scorer[3:](dropped).squeeze(-1))
        abnormal_points, normal_points = bags.split(dropped.detach() if self.detached else hidden)
        abnormal_clusters, normal_clusters = (
            [two_means(video) for video in videos] for videos in (abnormal_points, normal_points)
        )
        labels = self._labels(abnormal_points, abnormal_clusters, abnormal, normal_points)
        apart = [centre_distance(p, c, torch.inf) for p, c in zip(abnormal_points, abnormal_clusters, strict=True)]
        together = [centre_distance(p, c, 0.0) for p, c in zip(normal_points, normal_clusters, strict=True)]
        terms = {
            "regression": regression_loss(abnormal, labels)
            + regression_loss(normal, [torch.zeros_like(video) for video in normal]),
            "cluster": self.cluster_weight * cluster_loss(apart, together),
        }
        return DetectorLoss.of(terms, abnormal, normal)

    def _labels(
        self,
        abnormal_points: Sequence[Tensor],
        abnormal_clusters: Sequence[Tensor],
        abnormal_scores: Sequence[Tensor],
        normal_points: Sequence[Tensor],
    ) -> list[Tensor]:
        if self.labels == "scores" or not self.flip:
            pairs = zip(abnormal_clusters, abnormal_scores, strict=True)
            return [pseudo_labels(clusters, scores, self.flip) for clusters, scores in pairs]
        normal = torch.cat(list(normal_points)).mean(dim=0)
        triples = zip(abnormal_points, abnormal_clusters, abnormal_scores, strict=True)
        return [
            farther_labels(points, clusters, normal)
            if 0 < clusters.sum() < len(clusters) and _gap(scores, clusters) < UNDECIDED
            else pseudo_labels(clusters, scores, self.flip)
            for points, clusters, scores in triples
        ]


def _gap(scores: Tensor, clusters: Tensor) -> Tensor:
    return (scores[clusters].mean() - scores[~clusters].mean()).abs()
