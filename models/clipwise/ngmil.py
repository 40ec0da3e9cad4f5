"""NG-MIL: normality guided multiple instance learning.

Park, Kim, Kim, Kim & Sohn, "Normality Guided Multiple Instance Learning for Weakly Supervised Video Anomaly
Detection", WACV 2023. Normal videos hold no noise, so what is typical of them is kept in prototypes, and a second
classifier scores a clip by how unlike it is to all of them. MIL ranks by the ensemble of both classifiers, the refined
score; normal clips are drawn to their prototypes, and within an abnormal video the most abnormal clip is pushed farther
from normality than the most normal one.

There is no published code, and the paper's equations were not at hand: which parts there are, and what each is for, is
the paper's (its abstract and the headings of section 3); **how each is computed, and every number, is ours**, and
stands in the docstring of the part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..detector import Bags, DetectorLoss, LearningDetector, side_by_side
from .mil import ranking_loss, smoothness, sparsity
from .network import HIDDEN_UNITS, three_layer_scorer

PROTOTYPES = 16


def abnormality(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    """Score of the similarity-based classifier: one minus the cosine with the most similar prototype.

    Args:
        embeddings: ``(…, D)``, none negative.
        prototypes: ``(P, D)``, of length 1, none negative.

    Returns:
        ``(…)`` in [0, 1].
    """
    return 1 - (F.normalize(embeddings, dim=-1) @ prototypes.T).amax(dim=-1).clamp(max=1)  # (…, D) -> (…, P) -> (…)


@torch.no_grad()
def spread_out(embeddings: Tensor, count: int) -> Tensor:
    """The first prototypes: normal clips that are unlike each other, ``(N, D) -> (count, D)`` of length 1.

    The first is the one most like their mean, then each is the one least like all before. Of fewer clips than
    prototypes some stand several times.
    """
    directions = F.normalize(embeddings, dim=-1)
    chosen = [directions[(directions @ directions.mean(dim=0)).argmax()]]
    nearest = directions @ chosen[0]  # (N,), the similarity to the most similar one chosen so far
    while len(chosen) < count:
        chosen.append(directions[nearest.argmin()])
        nearest = torch.maximum(nearest, directions @ chosen[-1])
    return torch.stack(chosen)


@torch.no_grad()
def moved_prototypes(prototypes: Tensor, embeddings: Tensor, momentum: float) -> Tensor:
    """Normality update: every prototype moves towards the mean of the normal clips that it is the most similar one to.

    One that is that to no clip moves towards the clip most similar to it, so that none is left behind while the
    embedding changes.

    Args:
        prototypes: ``(P, D)``, of length 1.
        embeddings: ``(N, D)`` of normal clips.
        momentum: what remains of a prototype, in [0, 1).

    Returns:
        ``(P, D)``, of length 1.
    """
    directions = F.normalize(embeddings, dim=-1)
    similarity = prototypes @ directions.T  # (P, N)
    own = F.one_hot(similarity.argmax(dim=0), len(prototypes)).T  # (P, N)
    closest = F.one_hot(similarity.argmax(dim=1), len(directions))  # (P, N)
    own = torch.where(own.any(dim=1, keepdim=True), own, closest).to(directions)
    return F.normalize(momentum * prototypes + (1 - momentum) * F.normalize(own @ directions, dim=-1), dim=-1)


def clustering_loss(abnormalities: Sequence[Tensor]) -> Tensor:
    """Normality clustering: normal clips lie close to their prototypes.

    Args:
        abnormalities: of each normal video's clips, ``(T,)``, as `abnormality` gives them.

    Returns:
        Scalar, mean over a video's clips, then over videos.
    """
    return torch.stack([video.mean() for video in abnormalities]).mean()


def triplet_loss(embeddings: Sequence[Tensor], scores: Sequence[Tensor], prototypes: Tensor, margin: float) -> Tensor:
    """Normality guided triplet loss: within an abnormal video, the two ends of its scores lie apart.

    Anchor is the prototype most similar to the clip with the lowest score, that clip the positive, the clip with the
    highest score the negative; the distance is one minus the cosine.

    Args:
        embeddings: of each abnormal video, ``(T, D)``.
        scores: of each abnormal video, ``(T,)``; refined ones, whose choice is steadier. No gradient passes.
        prototypes: ``(P, D)``, of length 1.
        margin: by which the negative should lie farther.

    Returns:
        Scalar, mean over videos. A video of one clip adds the margin, and no gradient.
    """
    ends = (side_by_side(scores, torch.inf).argmin(dim=1), side_by_side(scores, -torch.inf).argmax(dim=1))
    positive, negative = (
        F.normalize(torch.stack([video[clip] for video, clip in zip(embeddings, which.tolist(), strict=True)]), dim=1)
        for which in ends
    )  # (B, D) each
    anchor = prototypes[(positive.detach() @ prototypes.T).argmax(dim=1)]  # (B, D)
    return F.relu(margin + (anchor * negative).sum(dim=1) - (anchor * positive).sum(dim=1)).mean()


class NGMIL(LearningDetector):
    """MIL, guided by prototypes of normality.

    The embedding is the hidden layer of MIL's network, before its dropout, and the classifier is that network. Clips
    are scored one by one.

    Args:
        feature_dim: F, 2048 for I3D.
        dropout: behind the first and the second layer.
        ensemble: the refined score is the "product" of both classifiers' scores, so that either can veto, or their
            "mean", in which the similarity's spread among normal clips drowns the surer of the two.
        momentum: what remains of the prototypes at a step.
        clustering_weight: of the normality clustering loss.
        triplet_weight: of the normality guided triplet loss.
        margin: of the triplet loss.
        sparsity_weight: as in MIL.
        smoothness_weight: as in MIL.

    Attributes:
        prototypes: ``(16, 512)``, of length 1, at random until the first step.
        updates: ``()`` int64, how many steps have moved them.

    Raises:
        ValueError: there is no such ensemble.

    Example:
        >>> detector = NGMIL(feature_dim=1024).eval()
        >>> detector.score(torch.rand(5, 1024)).shape  # five clips
        torch.Size([5])
    """

    name, title = "ng-mil", "NG-MIL"
    prototypes: Tensor
    updates: Tensor

    def __init__(
        self,
        feature_dim: int,
        dropout: float = 0.6,
        ensemble: Literal["product", "mean"] = "product",
        momentum: float = 0.9,
        clustering_weight: float = 0.1,
        triplet_weight: float = 0.1,
        margin: float = 0.5,
        sparsity_weight: float = 8e-5,
        smoothness_weight: float = 8e-5,
    ) -> None:
        super().__init__()
        if ensemble not in ("product", "mean"):
            raise ValueError(f"ensemble is product or mean, not {ensemble}")
        self.feature_dim = feature_dim
        self.ensemble = ensemble
        self.momentum, self.margin = momentum, margin
        self.clustering_weight, self.triplet_weight = clustering_weight, triplet_weight
        self.sparsity_weight, self.smoothness_weight = sparsity_weight, smoothness_weight
        self.scorer = three_layer_scorer(feature_dim, dropout)
        self.register_buffer("prototypes", F.normalize(torch.rand(PROTOTYPES, HIDDEN_UNITS), dim=-1))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def score(self, features: Tensor) -> Tensor:
        """``(…, F) -> (…)`` in [0, 1]."""
        embeddings = self.scorer[:2](features)
        return self._refined(embeddings, abnormality(embeddings, self.prototypes))

    def loss(self, bags: Bags) -> DetectorLoss:
        """Ranking by refined scores, clustering of normal clips, triplets of abnormal videos, MIL's regularisers.

        While training, the batch's normal clips first move the prototypes.
        """
        embeddings = self.scorer[:2](bags.clips)  # (ΣT, F) -> (ΣT, 512)
        abnormal_embeddings, normal_embeddings = bags.split(embeddings)
        if self.training:
            self._update(torch.cat(normal_embeddings))
        unlike = abnormality(embeddings, self.prototypes)  # (ΣT,)
        abnormal, normal = bags.split(self._refined(embeddings, unlike))
        terms = {
            "ranking": ranking_loss(abnormal, normal),
            "clustering": self.clustering_weight * clustering_loss(bags.split(unlike)[1]),
            "triplet": self.triplet_weight * triplet_loss(abnormal_embeddings, abnormal, self.prototypes, self.margin),
            "sparsity": self.sparsity_weight * sparsity(abnormal),
            "smoothness": self.smoothness_weight * smoothness(abnormal),
        }
        return DetectorLoss.of(terms, abnormal, normal)

    def _refined(self, embeddings: Tensor, unlike: Tensor) -> Tensor:
        """Embeddings ``(…, D)`` and their abnormalities ``(…)`` to scores ``(…)``."""
        classified: Tensor = self.scorer[2:](embeddings).squeeze(-1)
        return classified * unlike if self.ensemble == "product" else (classified + unlike) / 2

    @torch.no_grad()
    def _update(self, normal: Tensor) -> None:
        """New tensors in place of the old: a loss not yet differentiated may hold those."""
        if not self.updates:
            self.prototypes = spread_out(normal, PROTOTYPES)
        else:
            self.prototypes = moved_prototypes(self.prototypes, normal, self.momentum)
        self.updates = self.updates + 1
