"""The graph network of Zhong et al.: labels flow between the clips of a video that look alike, or lie side by side.

Zhong et al., "Graph Convolutional Label Noise Cleaner: Train a Plug-and-play Action Classifier for Anomaly Detection",
CVPR 2019; graph convolution after Kipf & Welling, "Semi-Supervised Classification with Graph Convolutional Networks",
ICLR 2017. A clip is a vertex; the graph of a video is complete, and what differs is the weight of its edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..context import in_groups

COMPRESSED = 128  # dimensions in which clips are compared
HIDDEN = (512, 32)  # units on the way there, and of the graph convolutions


def normalised(adjacency: Tensor) -> Tensor:
    """``D^-½ A D^-½``, with D the sums of the rows: ``(…, T, T)`` to the same (eq. 2 of Kipf & Welling)."""
    scale = adjacency.sum(dim=-1).rsqrt()
    return scale[..., :, None] * adjacency * scale[..., None, :]


def similarity_graph(clips: Tensor) -> Tensor:
    """Edges between clips that look alike: ``exp(xᵢ·xⱼ - maxⱼ xᵢ·xⱼ)``, normalised: ``(…, T, D) -> (…, T, T)``.

    The maximum keeps the exponential finite; every row has an edge of weight 1, so that no sum is 0.
    """
    products = clips @ clips.mT
    return normalised((products - products.amax(dim=-1, keepdim=True)).exp())


def temporal_graph(clips: Tensor) -> Tensor:
    """Edges between clips that lie side by side: ``exp(-|i - j|)``, normalised: ``(…, T, D) -> (T, T)``."""
    places = torch.arange(clips.shape[-2], dtype=clips.dtype, device=clips.device)
    return normalised((places[:, None] - places).abs().neg().exp())


class GraphConvolution(nn.Module):
    """``A·X·W``: what a clip's neighbours are, weighted by its edges, through one layer without bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        bound = outputs**-0.5  # as published
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, clips: Tensor, graph: Tensor) -> Tensor:
        """``(…, T, inputs)`` and ``(…, T, T)`` to ``(…, T, outputs)``."""
        return graph @ (clips @ self.weight)


class LabelCleaner(nn.Module):
    """The mean of two graph networks over compressed features, one for each graph.

    Args:
        feature_dim: F.
        dropout: behind both layers that compress.
    """

    def __init__(self, feature_dim: int, dropout: float) -> None:
        super().__init__()
        units, convolved = HIDDEN
        self.compress = nn.Sequential(
            nn.Linear(feature_dim, units),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(units, COMPRESSED),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.temporal = nn.ModuleList([GraphConvolution(COMPRESSED, convolved), GraphConvolution(convolved, 1)])
        self.similarity = nn.ModuleList([GraphConvolution(COMPRESSED, convolved), GraphConvolution(convolved, 1)])

    def forward(self, clips: Tensor, lengths: Sequence[int]) -> Tensor:
        """The clips of packed videos, ``(ΣT, F)``, to their logits, ``(ΣT,)``."""
        (logits,) = in_groups(self.convolve, self.compress(clips), lengths)
        return logits

    def convolve(self, videos: Tensor) -> tuple[Tensor]:
        """Compressed videos of equal length, ``(B, T, 128)``, to the logits of their clips, ``(B, T)``."""
        graphs = temporal_graph(videos), similarity_graph(videos)
        logits = [
            last(first(videos, graph).relu(), graph).squeeze(-1)
            for (first, last), graph in zip((self.temporal, self.similarity), graphs, strict=True)
        ]
        return ((logits[0] + logits[1]) / 2,)
