"""MGFN: the magnitude-contrastive glance-and-focus network.

Chen et al., "MGFN: Magnitude-Contrastive Glance-and-Focus Network for Weakly-Supervised Video Anomaly Detection", AAAI
2023. The length of a clip's feature is given to the network beside the feature. The network first glances at a video as
a whole, by self-attention, then focuses on each clip's neighbours, by convolutions. The clips with the longest new
features stand for their video: their lengths are drawn together in videos of a kind and apart between the kinds, and
the mean of their scores is regressed to the video's label.

Where paper and published code differ, this follows the code as its authors first published it, but for one slip: it
draws together what are two crops of the same video. The paper's sum, and ours, is over pairs of videos.
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

PUBLISHED_WIDTH = 1024  # of the last stage, at the published 2048 features
HEAD = 64  # channels of a head


def longest_clips(magnitudes: Sequence[Tensor], count: int) -> Tensor:
    """Which clips of each video have the longest features.

    Args:
        magnitudes: of each video, ``(T,)``.
        count: k; of a video that has fewer clips some stand several times.

    Returns:
        Places within the video, ``(B, count)``, longest first.
    """
    order = [video.topk(min(count, len(video))).indices for video in magnitudes]
    return torch.stack([best[torch.arange(count, device=best.device) * len(best) // count] for best in order])


def attraction(magnitudes: Tensor) -> Tensor:
    """Videos of a kind are to have features of the same length: squared distances (eq. 9, l = 0).

    Args:
        magnitudes: of the longest clips of each of B videos, ``(B, k)``.

    Returns:
        Scalar, mean over the pairs of videos; 0 of a single one.
    """
    one, other = torch.triu_indices(len(magnitudes), len(magnitudes), offset=1, device=magnitudes.device)
    squares = (magnitudes[one] - magnitudes[other]).square().sum(dim=1)  # (pairs,)
    return squares.sum() / max(1, len(squares))


def separation(abnormal: Tensor, normal: Tensor, margin: float) -> Tensor:
    """Videos of different kinds are to have features whose lengths are a margin apart (eq. 9, l = 1).

    Args:
        abnormal: magnitudes of the longest clips of each of A videos, ``(A, k)``.
        normal: of each of N videos, ``(N, k)``.
        margin: of their distance.

    Returns:
        Scalar, ``max(0, margin - distance)²``, mean over the ``A × N`` pairs.
    """
    return F.relu(margin - (abnormal[:, None] - normal[None, :]).norm(dim=2)).square().mean()  # (A, N, k) -> ()


class Glance(nn.Module):
    """Every clip looks at all of its video: self-attention (sec. 3.2, the video clip-level transformer)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.embed = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, clips: Tensor, lengths: Sequence[int]) -> Tensor:
        """``(ΣT, channels) -> (ΣT, channels)``, of videos of these lengths."""
        (seen,) = in_groups(self._look, self.embed(self.norm(clips)), lengths)
        out: Tensor = self.out(seen)
        return out

    @staticmethod
    def _look(videos: Tensor) -> tuple[Tensor]:
        heads = videos.unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # (B, T, 3C) -> (3, B, heads, T, HEAD)
        seen = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        return (seen.transpose(1, 2).flatten(2),)  # (B, heads, T, HEAD) -> (B, T, C)


class Focus(nn.Module):
    """Every clip looks at two on each side: a convolution, a kernel per head (sec. 3.2, self-attentional convolution).

    The batch norm's statistics in training are over all clips of the batch, of however long videos.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.value = nn.Linear(channels, channels, bias=False)
        self.relate = TemporalConv(channels // HEAD, channels // HEAD, kernel=5, groups=channels // HEAD)
        self.out = nn.Linear(channels, channels)

    def forward(self, clips: Tensor, lengths: Sequence[int]) -> Tensor:
        """``(ΣT, channels) -> (ΣT, channels)``, of videos of these lengths."""
        out: Tensor = self.out(self.relate(self.value(self.norm(clips)), lengths))
        return out


class Block(nn.Module):
    """A short-cut convolution, a look at other clips, and a feed-forward network, each added to what goes in.

    Args:
        channels: in and out.
        look: `Glance` or `Focus`.
    """

    def __init__(self, channels: int, look: type[Glance | Focus]) -> None:
        super().__init__()
        self.shortcut = TemporalConv(channels, channels)
        self.look = look(channels)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, clips: Tensor, lengths: Sequence[int]) -> Tensor:
        """``(ΣT, channels) -> (ΣT, channels)``, of videos of these lengths."""
        clips = clips + self.shortcut(clips, lengths)
        clips = clips + self.look(clips, lengths)
        forward: Tensor = self.feed_forward(clips)
        return clips + forward


class GlanceFocusNetwork(nn.Module):
    """Feature amplification, three glance blocks and five focus blocks in three stages (sec. 3.1 and 3.2).

    The first two stages have the published 64 and 128 channels for features of any dimension: they are a small part of
    the network. The third has half the channels of the features, the published 1024 of 2048, in whole heads of 64:
    never fewer than the second has, and never more than published.

    Args:
        feature_dim: F.
        amplification: α, how much of the features' length is added.
    """

    def __init__(self, feature_dim: int, amplification: float) -> None:
        super().__init__()
        self.amplification = amplification
        self.width = HEAD * min(max(feature_dim // 2 // HEAD, 2), PUBLISHED_WIDTH // HEAD)
        self.tokens = TemporalConv(feature_dim, 64)
        self.amplify = TemporalConv(1, 64)
        self.glance = nn.ModuleList(Block(64, Glance) for _ in range(3))
        self.widen = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 128))
        self.focus = nn.ModuleList(Block(128, Focus) for _ in range(3))
        self.widen_again = nn.Sequential(nn.LayerNorm(128), nn.Linear(128, self.width))
        self.focus_again = nn.ModuleList(Block(self.width, Focus) for _ in range(2))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, clips: Tensor, lengths: Sequence[int]) -> Tensor:
        """``(ΣT, F) -> (ΣT, width)``, of videos of these lengths."""
        amplified = self.amplify(clips.norm(dim=1, keepdim=True), lengths)
        x = self.tokens(clips, lengths) + self.amplification * amplified  # (ΣT, 64), eq. 1 and 2
        for block in self.glance:
            x = block(x, lengths)
        x = self.widen(x)  # (ΣT, 64) -> (ΣT, 128)
        for block in self.focus:
            x = block(x, lengths)
        x = self.widen_again(x)  # (ΣT, 128) -> (ΣT, width)
        for block in self.focus_again:
            x = block(x, lengths)
        normed: Tensor = self.norm(x)
        return normed


class MGFN(ContextDetector):
    """Learns features whose lengths tell abnormal from normal videos.

    The margin is of lengths in the published 1024 dimensions, the sum of absolute values. Those of a narrower network
    are as if it had so many: 1024 times the mean of the absolute values.

    Args:
        feature_dim: F, 2048 for I3D-ResNet50.
        dropout: of the clips that can be chosen as longest.
        longest: k, clips that stand for a video.
        margin: of the lengths in abnormal from those in normal videos.
        amplification: α, of the features' length beside the features.
        attraction_weight: λ, of the distances between videos of a kind.
        separation_weight: λ, of the hinge between the kinds. That of the published code, a thousandth of the other; in
            the paper they are one loss.
        sparsity_weight: λ, of the length of the vector of all abnormal scores of a batch.
        smoothness_weight: λ, of the squared steps of all abnormal scores of a batch.

    Example:
        >>> detector = MGFN(feature_dim=16).eval()
        >>> detector.score(torch.rand(2, 9, 16)).shape  # two videos of nine clips
        torch.Size([2, 9])
    """

    name, title = "mgfn", "MGFN"

    def __init__(
        self,
        feature_dim: int,
        dropout: float = 0.7,
        longest: int = 3,
        margin: float = 200.0,
        amplification: float = 0.1,
        attraction_weight: float = 1e-3,
        separation_weight: float = 1e-6,
        sparsity_weight: float = 8e-3,
        smoothness_weight: float = 8e-4,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.longest, self.margin = longest, margin
        self.attraction_weight, self.separation_weight = attraction_weight, separation_weight
        self.sparsity_weight, self.smoothness_weight = sparsity_weight, smoothness_weight
        self.dropout = nn.Dropout(dropout)
        self.network = GlanceFocusNetwork(feature_dim, amplification)
        self.scorer = nn.Sequential(nn.Linear(self.network.width, 1), nn.Sigmoid())

    def forward(self, clips: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The new features ``(ΣT, width)`` and scores ``(ΣT,)`` of packed clips ``(ΣT, F)``."""
        features: Tensor = self.network(clips, lengths)
        return features, self.scorer(features).squeeze(-1)

    def score_videos(self, videos: Tensor) -> Tensor:
        """``(B, T, F) -> (B, T)`` in [0, 1]."""
        _, scores = self(videos.flatten(0, 1), [videos.shape[1]] * len(videos))
        return scores.reshape(videos.shape[:-1])

    def loss(self, bags: Bags) -> DetectorLoss:
        """Cross-entropy of the scores of the longest clips, magnitude-contrastive loss, sparsity and smoothness."""
        lengths = bags.abnormal + bags.normal
        features, scores = self(bags.clips, lengths)
        candidates = self.dropout(features.norm(dim=1)).split(lengths)  # in training a random few
        firsts = torch.tensor((0, *lengths[:-1]), device=scores.device).cumsum(0)
        best = firsts[:, None] + longest_clips(candidates, self.longest)  # (B, k), places among all clips
        magnitudes = PUBLISHED_WIDTH * features[best].abs().mean(dim=2)  # (B, k, width) -> (B, k)
        long, short = magnitudes.split([len(bags.abnormal), len(bags.normal)])
        labels = torch.cat([torch.ones_like(long[:, 0]), torch.zeros_like(short[:, 0])])
        abnormal, normal = bags.split(scores)
        terms = {
            "entropy": F.binary_cross_entropy(scores[best].mean(dim=1), labels),
            "attraction": self.attraction_weight * (attraction(long) + attraction(short)),
            "separation": self.separation_weight * separation(long, short, self.margin),
            "sparsity": self.sparsity_weight * torch.cat(abnormal).norm(),
            "smoothness": self.smoothness_weight * len(abnormal) * smoothness(abnormal),
        }
        return DetectorLoss.of(terms, abnormal, normal)
