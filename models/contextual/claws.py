"""CLAWS: clustering assisted weakly supervised learning with normalcy suppression.

Zaheer, Mahmood, Astrid & Lee, "CLAWS: Clustering Assisted Weakly Supervised Learning with Normalcy Suppression for
Anomalous Event Detection", ECCV 2020 (arXiv 2011.12077). Every clip is regressed to its video's label. A network is
shown a run of consecutive clips at a time, and attention over the run suppresses, unit by unit, what is found in clips
that are normal beside the others; what the layers see of a whole video is drawn into two clusters where it is abnormal,
and into one where it is normal.

There is no published code, and the paper's equations were not at hand. The layers, their sizes, their order and where
attention comes in are the authors' figure; batches of consecutive clips, suppression and a clustering distance loss are
the abstract's; temporal consistency, sparsity and their weight are a public re-implementation's. The form and weight of
the clustering loss are those of the same authors' SRF. That both layers are clustered could not be checked, nor the 64
clips of a run. What is marked so is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clipwise.clustering import centre_distance, two_means
from ..clipwise.srf import cluster_loss
from ..context import ContextDetector, in_groups
from ..detector import Bags, DetectorLoss

RUN = 64  # clips that are looked at together: a batch of the paper
UNITS = (512, 32)  # of the two layers


def runs_of(video: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """A video's clips in runs of `RUN`; ours: of nearly equal length instead of a remainder, so that none is alone."""
    return video.tensor_split(-(-video.shape[dim] // RUN), dim)


class Suppression(nn.Module):
    """Normalcy suppression: attention over the clips of a run, for every unit of a layer on its own.

    A layer, then the softmax over the clips (NSM of the authors' figure), which the activations are multiplied by.

    Args:
        inputs: width of what comes into the layer that is suppressed.
        units: of that layer.
        unit_mean: ours: multiply by the number of clips, so that the weights average 1 in runs of any length. By the
            softmax alone they average 1/64 in a run of 64 and 1 in a run of one: a short run would count for more, and
            two layers shrink by 4096 at the start. In runs of 64 the next layer's weights can undo the factor.
    """

    def __init__(self, inputs: int, units: int, unit_mean: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, units, bias=False)  # one would be the same for all clips: softmax drops it
        self.unit_mean = unit_mean

    def forward(self, clips: Tensor) -> Tensor:
        """``(B, T, inputs) -> (B, T, units)``, above 0."""
        weights: Tensor = self.layer(clips).softmax(dim=1)
        return weights * clips.shape[1] if self.unit_mean else weights


def regression_loss(runs: Sequence[Tensor], label: float) -> Tensor:
    """The squared difference of scores ``(t,)`` from the video's label, mean over a run's clips, then over runs."""
    return torch.stack([(run - label).square().mean() for run in runs]).mean()


def temporal_consistency(runs: Sequence[Tensor]) -> Tensor:
    """Neighbours score alike: the squared steps within a run ``(t,)``, their mean, then over runs; 0 of one clip."""
    return torch.stack([run.diff().square().sum() / max(1, len(run) - 1) for run in runs]).mean()


def sparsity(runs: Sequence[Tensor]) -> Tensor:
    """Anomalies are rare: the mean score ``(t,)`` of a run, mean over runs."""
    return torch.stack([run.mean() for run in runs]).mean()


def drawn_runs(scores: Sequence[Tensor]) -> list[Tensor]:
    """Random batch selection: as many runs as there are videos, from all of theirs, none twice.

    The paper shuffles the runs of all videos, so that a step's runs have little to do with each other, nor with those
    of the step before. Here a step has a few videos drawn at random, whose runs are drawn in turn; a long video has
    more of them.

    Args:
        scores: of each video, ``(T,)``.

    Returns:
        Scores of the runs drawn, ``(t,)`` each.
    """
    runs = [run for video in scores for run in runs_of(video)]
    return [runs[number] for number in torch.randperm(len(runs))[: len(scores)].tolist()]


class CLAWS(ContextDetector):
    """Two layers that are suppressed and clustered, and an output layer.

    Videos are scored by the runs that they are learned in. A loss has as many runs of a kind as videos of it.

    Args:
        feature_dim: F, 4096 for C3D.
        dropout: behind both layers.
        cluster_weight: of the clustering distance loss; ours, SRF's.
        regular_weight: of temporal consistency and of sparsity.
        limit: a normal video's cluster distance counts no further; ours, SRF's.
        unit_mean: see `Suppression`; False is the published softmax.

    Example:
        >>> detector = CLAWS(feature_dim=1024).eval()
        >>> detector.score(torch.rand(100, 1024)).shape  # a video of a hundred clips, in two runs
        torch.Size([100])
    """

    name, title = "claws", "CLAWS"

    def __init__(
        self,
        feature_dim: int,
        dropout: float = 0.6,
        cluster_weight: float = 0.05,
        regular_weight: float = 8e-5,
        limit: float = 1.0,
        unit_mean: bool = True,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.cluster_weight, self.regular_weight, self.limit = cluster_weight, regular_weight, limit
        widths = list(pairwise((feature_dim, *UNITS)))
        self.layers = nn.ModuleList(nn.Linear(inputs, units) for inputs, units in widths)
        self.suppressions = nn.ModuleList(Suppression(inputs, units, unit_mean) for inputs, units in widths)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(UNITS[-1], 1)

    def score_videos(self, videos: Tensor) -> Tensor:
        """``(B, T, F) -> (B, T)`` in [0, 1]."""
        return self.activations(videos)[-1]

    def activations(self, videos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, T, F)`` to what both layers give, ``(B, T, 512)`` and ``(B, T, 32)``, and the scores ``(B, T)``.

        The layers' activations are those before suppression (ours), which depend on a clip's run least.
        """
        runs = [self._run(run) for run in runs_of(videos, dim=1)]
        first, second, scores = (torch.cat(each, dim=1) for each in zip(*runs, strict=True))
        return first, second, scores

    def _run(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`activations` of a run: ``(B, t, F)``."""
        seen = []
        for layer, suppression in zip(self.layers, self.suppressions, strict=True):
            seen.append(layer(clips))  # (B, t, units)
            clips = self.dropout(F.relu(seen[-1] * suppression(clips)))
        return seen[0], seen[1], self.output(clips).squeeze(-1).sigmoid()

    def loss(self, bags: Bags) -> DetectorLoss:
        """Regression, regularisers and clustering distances, of abnormal videos plus of normal ones, each a mean."""
        *layers, scores = in_groups(self.activations, bags.clips, bags.abnormal + bags.normal)
        abnormal, normal = bags.split(scores)
        runs = (drawn_runs(abnormal), drawn_runs(normal))
        terms = {
            "regression": regression_loss(runs[0], 1.0) + regression_loss(runs[1], 0.0),
            "temporal": self.regular_weight * sum(map(temporal_consistency, runs), scores.new_zeros(())),
            "sparsity": self.regular_weight * sum(map(sparsity, runs), scores.new_zeros(())),
            "cluster": self.cluster_weight * torch.stack([self._cluster_loss(bags, layer) for layer in layers]).sum(),
        }
        return DetectorLoss.of(terms, abnormal, normal)

    def _cluster_loss(self, bags: Bags, activations: Tensor) -> Tensor:
        """Of the clips of whole videos, in one layer, ``(ΣT, units)``."""
        abnormal, normal = (
            [centre_distance(video, two_means(video), otherwise) for video in videos]
            for videos, otherwise in zip(bags.split(activations), (torch.inf, 0.0), strict=True)
        )
        return cluster_loss(abnormal, normal, self.limit)
