"""The context encoder that UR-DMU and BN-WVAD share: what a clip shows, told with its neighbours and its whole video.

Zhou, Yu & Yang, "Dual Memory Units with Uncertainty Regulation for Weakly Supervised Video Anomaly Detection", AAAI
2023, "Global and Local Feature Learning"; BN-WVAD takes it over as its feature enhancer. Attention over the whole video
says what is usual in this scene; a fixed average of the nearest clips says what lasts. There is no encoding of
positions: the order enters by the convolution and by the local average alone.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..context import in_groups
from ..detector import Bags

HEADS = 4
REACH = math.e  # clips over which the weight of a neighbour falls by a factor of e, as published


def encoder_width(feature_dim: int) -> int:
    """D, half the feature dimension, but 128 to 512, and a multiple of the heads: 512 for I3D's 1024, as published."""
    return min(max(feature_dim // (2 * HEADS) * HEADS, 128), 512)


def local_weights(clips: int, like: Tensor) -> Tensor:
    """How much each clip looks at each by their distance alone: ``softmax(-|s - t| / e)`` over t, ``(T, T)``.

    The published code divides by the sums of the other dimension, so that the first and the last clips of a video get
    averages whose weights sum to as little as 0.8; here all sum to 1, as in the paper.

    Args:
        clips: T of the video.
        like: a tensor of the wanted type and device.
    """
    steps = torch.arange(clips, dtype=like.dtype, device=like.device)
    return (-(steps[:, None] - steps).abs() / REACH).softmax(dim=1)


class GlobalLocalAttention(nn.Module):
    """Multi-head attention over the whole video beside the local average (GL-MHSA), ``(B, T, D) -> (B, T, D)``.

    The local weights are the same for all videos and heads, so that they are one matrix, and attention is computed in
    blocks: two thousand clips need some tens of megabytes.

    Args:
        width: D; each head has D / 4.
        dropout: of what comes out.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(width, 4 * width, bias=False)  # queries, keys, values, and values of the local average
        self.merge = nn.Sequential(nn.Linear(2 * width, width), nn.Dropout(dropout))

    def forward(self, clips: Tensor) -> Tensor:
        """Each clip told by all clips of its video, and by its neighbours."""
        *heads, local = self.project(clips).chunk(4, dim=-1)  # (B, T, D) each
        heads = [each.unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in heads]  # (B, HEADS, T, D / HEADS)
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)  # (B, T, D)
        nearby = torch.einsum("st,btd->bsd", local_weights(clips.shape[1], clips), local)
        merged: Tensor = self.merge(torch.cat([attended, nearby], dim=-1))
        return merged


class _Layer(nn.Module):
    """Attention and a feed-forward network, each normalised before and added to what went in."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), GlobalLocalAttention(width, dropout))
        self.forward_network = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.Dropout(dropout),
        )

    def forward(self, clips: Tensor) -> Tensor:
        """``(B, T, D) -> (B, T, D)``."""
        clips = clips + self.attention(clips)
        out: Tensor = clips + self.forward_network(clips)
        return out


class ContextEncoder(nn.Module):
    """Temporal convolution, then two layers of global and local attention: ``(B, T, F) -> (B, T, D)``.

    Args:
        feature_dim: F; D follows from it, see `encoder_width`.
        dropout: behind every attention and every linear layer of the feed-forward networks.
    """

    def __init__(self, feature_dim: int, dropout: float) -> None:
        super().__init__()
        self.width = encoder_width(feature_dim)
        self.embed = nn.Conv1d(feature_dim, self.width, kernel_size=3, padding=1)
        self.layers = nn.Sequential(_Layer(self.width, dropout), _Layer(self.width, dropout))

    def forward(self, videos: Tensor) -> Tensor:
        """Videos of equal length; none looks at another."""
        embedded = self.embed(videos.transpose(1, 2)).relu().transpose(1, 2)  # (B, T, F) -> (B, T, D)
        out: Tensor = self.layers(embedded)
        return out

    def packed(self, bags: Bags) -> Tensor:
        """The clips of a batch, ``(ΣT, F) -> (ΣT, D)``, each within its video."""
        return in_groups(lambda videos: (self(videos),), bags.clips, bags.abnormal + bags.normal)[0]
