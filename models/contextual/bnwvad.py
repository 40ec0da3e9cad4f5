"""BN-WVAD: anomalies are outliers to BatchNorm.

Zhou et al., "BatchNorm-based Weakly Supervised Video Anomaly Detection", arXiv 2311.15367, 2023; code:
cool-xuan/BN-WVAD. BatchNorm keeps the mean and the variance of what nearly all clips look like; how far a clip is from
that mean (Divergence of Feature from Mean, DFM) says how abnormal it is, and which clips of an abnormal video to push
away. The classifier learns from normal videos alone, whose labels are certain; a score is its product with the DFM.

The loss is the code's, with three differences: variances get BatchNorm's ε, without which a channel that stops varying
divides by zero; every abnormal video has at least one clip selected; and where normal videos have fewer clips than are
selected, these are taken again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..context import ContextDetector
from ..detector import Bags, DetectorLoss, side_by_side
from .attention import ContextEncoder

CHANNELS = (32, 16)  # of the two normalised layers, whatever the width of the encoder
TYPICAL = sum(channels**0.5 for channels in CHANNELS)  # the summed DFM of a clip of one deviation in every channel


def divergence_from_mean(features: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """DFM: the Mahalanobis distance to the running mean, by the running variance of each channel.

    Args:
        features: ``(n, C)``, as they enter the layer.
        norm: whose statistics; they are constants here. Its ε keeps a channel that never varies from dividing by zero.

    Returns:
        ``(n,)``, about √C for a clip like all others.
    """
    assert norm.running_mean is not None  # for mypy: there are
    assert norm.running_var is not None
    mean, deviation = norm.running_mean.clone(), (norm.running_var + norm.eps).sqrt()  # the next step overwrites them
    return torch.linalg.vector_norm((features - mean) / deviation, dim=-1)


def bounded(products: Tensor) -> Tensor:
    """Classifier times summed DFM, from [0, ∞) to [0, 1): ``x / (x + typical)``.

    It keeps the order, so that no curve over thresholds changes. A clip of which the classifier is certain and whose
    divergence is that of a typical clip gets a half; unlike an exponential it still tells apart what is ten times that.
    """
    return products / (products + TYPICAL)


def normal_loss(scores: Sequence[Tensor]) -> Tensor:
    """The Euclidean length of the classifier's scores ``(T,)`` of a normal video, mean over videos (L_nor)."""
    return torch.stack([torch.linalg.vector_norm(video) for video in scores]).mean()


def select_abnormal(divergences: Sequence[Tensor], sample_share: float, batch_share: float) -> Tensor:
    """Sample-batch selection (SBS): which clips of abnormal videos are taken for abnormal.

    Args:
        divergences: of each abnormal video, ``(T,)``.
        sample_share: of the clips of every video, rounded down but at least one: each holds an anomaly.
        batch_share: of the clips of all videos together, rounded down: some hold more than others.

    Returns:
        The divergences of the clips that are among the highest of either, in order, ``(M,)``.
    """
    joined = torch.cat(list(divergences))
    chosen = torch.zeros_like(joined, dtype=torch.bool)
    chosen[joined.topk(int(batch_share * len(joined))).indices] = True
    for video, of_video in zip(divergences, chosen.split([len(video) for video in divergences]), strict=True):
        of_video[video.topk(max(int(sample_share * len(video)), 1)).indices] = True
    return joined[chosen]


def select_normal(divergences: Sequence[Tensor], count: int) -> Tensor:
    """The hardest clips of normal videos: the highest of each video, then the second of each, until there are enough.

    Args:
        divergences: of each normal video, ``(T,)``.
        count: how many; all clips if there are fewer.

    Returns:
        Their divergences, at most ``(count,)``.
    """
    ranks = side_by_side(divergences, -torch.inf).sort(dim=1, descending=True).values.T.flatten()  # (N, T) -> (T · N,)
    return ranks[ranks > -torch.inf][:count]


def pull_push_loss(
    abnormal: Sequence[Tensor], normal: Sequence[Tensor], sample_share: float, batch_share: float, margin: float = 1.0
) -> Tensor:
    """Mean-based pull-push (MPP): normal clips are drawn to the mean, what is selected as abnormal is pushed off it.

    Args:
        abnormal: divergences of each abnormal video, ``(T,)``.
        normal: of each normal video.
        sample_share: see `select_abnormal`.
        batch_share: see `select_abnormal`.
        margin: by how much the one should be farther than the other.

    Returns:
        Scalar: the hinge, mean over the selected clips, abnormal and normal ones in pairs as they come. Where normal
        videos have fewer clips, these are taken again.
    """
    pushed = select_abnormal(abnormal, sample_share, batch_share)
    pulled = select_normal(normal, len(pushed))
    pairs = torch.arange(len(pushed), device=pushed.device) % len(pulled)
    return F.relu(margin + pulled[pairs] - pushed).mean()


class BNWVAD(ContextDetector):
    """Scores by how far BatchNorm finds a clip from the mean, times a classifier that knows the normal.

    BatchNorm takes the statistics of the batch in training, those it has gathered in use. The published code also clips
    gradients to a length of 1, which is the training loop's matter.

    Args:
        feature_dim: F, 1024 for I3D; the encoder's width follows from it.
        sample_share: of the clips of every abnormal video that are taken for abnormal; on XD-Violence 0.2.
        batch_share: of the clips of all abnormal videos of a batch; on XD-Violence 0.4.
        first_weight: of the pull-push loss of the first normalised layer, beside the normal loss.
        second_weight: of that of the second.

    Example:
        >>> detector = BNWVAD(feature_dim=16).eval()
        >>> bool((detector.score(torch.rand(7, 16)) < 1).all())  # a video of seven clips
        True
    """

    name, title = "bn-wvad", "BN-WVAD"

    def __init__(
        self,
        feature_dim: int,
        sample_share: float = 0.1,
        batch_share: float = 0.2,
        first_weight: float = 5.0,
        second_weight: float = 20.0,
    ) -> None:
        super().__init__()
        if not (0 <= sample_share <= 1 and 0 <= batch_share <= 1):
            raise ValueError(f"shares of clips are in [0, 1], not {sample_share} and {batch_share}")
        self.feature_dim = feature_dim
        self.sample_share, self.batch_share = sample_share, batch_share
        self.weights = (first_weight, second_weight)
        self.encoder = ContextEncoder(feature_dim, dropout=0.0)
        widths = (self.encoder.width, *CHANNELS)
        self.reduce = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, CHANNELS, strict=False))
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for channels in CHANNELS)
        self.classify = nn.Linear(CHANNELS[-1], 1)

    def score_videos(self, videos: Tensor) -> Tensor:
        """``(B, T, F) -> (B, T)`` in [0, 1)."""
        probabilities, divergences = self._judge(self.encoder(videos).flatten(0, 1))
        return bounded(probabilities * divergences.sum(dim=0)).unflatten(0, videos.shape[:2])

    def loss(self, bags: Bags) -> DetectorLoss:
        """``L_nor + 5·L_mpp(first layer) + 20·L_mpp(second layer)``."""
        probabilities, divergences = self._judge(self.encoder.packed(bags))
        terms = {"normal": normal_loss(bags.split(probabilities)[1])}
        for name, weight, of_layer in zip(("first", "second"), self.weights, divergences, strict=True):
            mpp = pull_push_loss(*bags.split(of_layer), self.sample_share, self.batch_share)
            terms[f"pull_push_{name}"] = weight * mpp
        return DetectorLoss.of(terms, *bags.split(bounded(probabilities * divergences.sum(dim=0))))

    def _judge(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """The classifier's scores ``(n,)`` in [0, 1] and the divergences ``(2, n)`` of clips ``(n, D)``."""
        divergences = []
        for reduce, norm in zip(self.reduce, self.norms, strict=True):
            features = reduce(clips)  # (n, C)
            clips = norm(features).relu()
            assert isinstance(norm, nn.BatchNorm1d)
            divergences.append(divergence_from_mean(features, norm))  # by statistics that know this batch
        return self.classify(clips).squeeze(-1).sigmoid(), torch.stack(divergences)
