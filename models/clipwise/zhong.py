"""Zhong et al.: a clip classifier whose labels a graph network cleans.

Zhong et al., "Graph Convolutional Label Noise Cleaner: Train a Plug-and-play Action Classifier for Anomaly Detection",
CVPR 2019. If every clip of an abnormal video is called abnormal, most of these labels are noise. A graph network learns
from the clips that the classifier is sure of, and carries their labels to the clips that look alike or lie beside them;
the classifier then learns from what it says. Only the classifier scores.

The published classifier is C3D or TSN, trained end to end; on features, `three_layer_scorer` stands for it, as in MIL
and SRF, so that it is the labels that make the difference. Five more things are not as published:

- The two are trained *at once*, each with targets of the other that have no gradient, and not in turns of thousands of
  steps; only the first turn, with the labels of the videos, is left. In the cleaner's turns XEL would train the
  classifier without its own loss, and how many turns a training has room for is not known to a detector.
- A classifier is sure of a clip if its score hardly varies. Published is the variance over ten crops; features have no
  crops, so here it is that over dropout (Gal & Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016), for which
  there is a formula (Wang & Manning, "Fast dropout training", ICML 2013). It is that of scores, which is what
  the cleaner is then told; the published code has that of logits.
- What the cleaner has said of a clip over the epochs is remembered as the mean of its weights, not of its outputs
  (Tarvainen & Valpola, "Mean teachers are better role models", NIPS 2017): a loss does not know which videos it sees.
- A graph holds all clips of a video, not only those near a clip that is certain.
- The cleaner is told that all clips of a normal video are normal. In the published code it is told what the classifier
  says of them, and, where the graph holds a part of the video, of other clips than those.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..detector import Bags, DetectorLoss, LearningDetector
from .graph import LabelCleaner
from .network import three_layer_scorer


def entropy(scores: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Cross-entropy of scores ``(T,)`` with labels ``(T,)``, both in [0, 1]; mean over clips, then over videos."""
    losses = [F.binary_cross_entropy(video, truth) for video, truth in zip(scores, labels, strict=True)]
    return torch.stack(losses).mean()


def indirect_loss(scores: Sequence[Tensor], ensemble: Sequence[Tensor]) -> Tensor:
    """L_I: the distances between scores ``(T,)`` and their mean over the training, mean over clips, then videos.

    Source: Zhong et al., CVPR 2019, indirect supervision, after Laine & Aila, "Temporal Ensembling", ICLR 2017.
    """
    return torch.stack([F.l1_loss(video, mean) for video, mean in zip(scores, ensemble, strict=True)]).mean()


def certain(variance: Tensor, share: float = 0.3) -> Tensor:
    """Which clips of a video have the lowest variance, ``(T,)`` to ``(T,)`` bool: ``floor(share · T) + 1`` and equals.

    Source: the published code; in the paper, the set H of clips of high confidence.
    """
    return variance <= variance.sort().values[int(share * len(variance))]


def cleaned(outputs: Tensor) -> Tensor:
    """A cleaner's outputs for an abnormal video, ``(T,)``, stretched to [0, 1]; 1 where all are equal.

    Some clip of an abnormal video is abnormal. Source: the published code.
    """
    low, high = outputs.aminmax()
    return torch.where(high > low, (outputs - low) / (high - low).clamp(min=torch.finfo(outputs.dtype).tiny), 1.0)


def dropout_variance(scorer: nn.Sequential, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The score of clips, and its variance over all draws of a `three_layer_scorer`'s dropout.

    Behind the hidden activations the scorer is linear up to its sigmoid. With h these activations, W, b and v, c its
    last two layers, keep probability 1 - p and ρ = p / (1 - p), the logit has the mean ``v·μ + c``, ``μ = W·h + b``,
    and the variance ``ρ·Σⱼ (Wᵀv)ⱼ²·hⱼ² + ρ·Σₖ vₖ²·(μₖ² + ρ·Σⱼ Wₖⱼ²·hⱼ²)``. That of the score is, to first order, that
    of the logit times the square of the sigmoid's slope.

    Args:
        scorer: of the classifier.
        hidden: ``(n, 512)``, what its first layer gives.

    Returns:
        Scores in [0, 1] and their variance, ``(n,)`` each.
    """
    dropout, middle, last = scorer[2], scorer[3], scorer[5]
    assert isinstance(dropout, nn.Dropout)
    assert isinstance(middle, nn.Linear)
    assert isinstance(last, nn.Linear)
    odds, weights = dropout.p / (1 - dropout.p), last.weight[0]  # (32,)
    mean, squares = middle(hidden), hidden.square()  # (n, 32), (n, 512)
    first = squares @ (weights @ middle.weight).square()  # (n,)
    second = (mean.square() + odds * squares @ middle.weight.square().T) @ weights.square()  # (n,)
    scores = last(mean).squeeze(-1).sigmoid()
    return scores, odds * (first + second) * (scores * (1 - scores)).square()


class GCNCleaner(LearningDetector):
    """Classifies clips by labels that a graph network has cleaned.

    Args:
        feature_dim: F, 4096 for C3D, 1024 for TSN-RGB.
        dropout: of both networks, behind their first and second layer.
        warmup: steps for which the classifier is told that all clips of an abnormal video are abnormal. The published
            code first trains for 4500 (C3D) or 5000 (TSN-RGB).
        certain_share: of an abnormal video's clips that the cleaner learns from directly.
        decay: of the mean over the cleaner's weights, at each step. By default it is halved in 50 steps, an epoch of
            UCF-Crime's 1610 videos, 32 at a time: the published mean is halved once an epoch.

    Attributes:
        steps: ``()`` int64, how many steps were made.
        average: ``(W,)``, the mean over the training of the cleaner's weights, one behind the other.

    Example:
        >>> detector = GCNCleaner(feature_dim=8)
        >>> bags = Bags.pack(abnormal=[torch.rand(7, 8)], normal=[torch.rand(4, 8)])
        >>> sorted(detector.loss(bags).terms)
        ['classification', 'direct', 'indirect']
    """

    name, title = "gcn-cleaner", "Zhong et al."
    steps: Tensor
    average: Tensor

    def __init__(
        self,
        feature_dim: int,
        dropout: float = 0.6,
        warmup: int = 4500,
        certain_share: float = 0.3,
        decay: float = 0.986,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1 or not 0 <= certain_share < 1:
            raise ValueError(f"dropout and certain_share are shares in [0, 1), not {dropout} and {certain_share}")
        self.feature_dim = feature_dim
        self.warmup, self.certain_share, self.decay = warmup, certain_share, decay
        self.scorer = three_layer_scorer(feature_dim, dropout)
        self.cleaner = LabelCleaner(feature_dim, dropout)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", self._weights())

    def score(self, features: Tensor) -> Tensor:
        """``(…, F) -> (…)`` in [0, 1], by the classifier alone."""
        scores: Tensor = self.scorer(features).squeeze(-1)
        return scores

    def loss(self, bags: Bags) -> DetectorLoss:
        """The classifier's loss by cleaned labels, and ``L_D + L_I`` of the cleaner; videos of each kind are half.

        A normal video's clips are all normal for certain, and labelled 0 in both.
        """
        hidden = self.scorer[:2](bags.clips)  # (ΣT, 512)
        abnormal, normal = bags.split(self.scorer[2:](hidden).squeeze(-1))
        zeros = [torch.zeros_like(video) for video in normal]
        if self.training:
            self.average.lerp_(self._weights(), 1 - self.decay)
        ensemble = self.clean(bags)
        labels = [torch.where(self.steps < self.warmup, 1.0, cleaned(video)) for video in ensemble]
        self.steps += int(self.training)

        abnormal_outputs, normal_outputs = bags.split(self.cleaner(bags.clips, bags.abnormal + bags.normal).sigmoid())
        sure, targets = self._certain_clips(hidden, bags.abnormal)
        of_sure = [outputs[which] for outputs, which in zip(abnormal_outputs, sure, strict=True)]
        terms = {
            "classification": (entropy(abnormal, labels) + entropy(normal, zeros)) / 2,
            "direct": (entropy(of_sure, targets) + entropy(normal_outputs, zeros)) / 2,
            "indirect": indirect_loss(abnormal_outputs, ensemble) / 2,
        }
        return DetectorLoss.of(terms, abnormal, normal)

    @torch.no_grad()
    def clean(self, bags: Bags) -> tuple[Tensor, ...]:
        """What the mean of the cleaner over the training says of the clips of each abnormal video: ``(T,)`` in [0, 1].

        Without dropout, and before it is stretched by `cleaned`.
        """
        named = dict(self.cleaner.named_parameters())
        parts = self.average.split([weight.numel() for weight in named.values()])
        mean = {name: part.view_as(named[name]) for name, part in zip(named, parts, strict=True)}
        training = self.cleaner.training
        self.cleaner.eval()
        outputs = functional_call(self.cleaner, mean, (bags.clips[: sum(bags.abnormal)], bags.abnormal)).sigmoid()
        self.cleaner.train(training)
        return tuple(outputs.split(list(bags.abnormal)))

    @torch.no_grad()
    def _certain_clips(self, hidden: Tensor, lengths: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """Which clips of each abnormal video the classifier is sure of, ``(T,)`` bool, and what it says of these."""
        scores, variances = dropout_variance(self.scorer, hidden[: sum(lengths)])
        sure = [certain(video, self.certain_share) for video in variances.split(list(lengths))]
        return sure, [video[which] for video, which in zip(scores.split(list(lengths)), sure, strict=True)]

    @torch.no_grad()
    def _weights(self) -> Tensor:
        """The cleaner's weights, one behind the other."""
        return nn.utils.parameters_to_vector(self.cleaner.parameters())
