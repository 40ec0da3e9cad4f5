"""I3D on ResNet-50, pytorchvideo's network: the 2048-d features of RTFM and the papers after it.

Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017; Fan et al., "PyTorchVideo", ACM MM 2021. The
weights were trained on 8 frames, every eighth taken; being fully convolutional, it takes 16 consecutive frames as well.
Features are the plain mean over time and space, as RTFM's; the library's own head, made for 8 frames, averages windows
that overlap at 16 and differs from it by up to 2 % of the largest feature.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pytorchvideo.models.hub import i3d_r50
from torch import Tensor, nn

from .base import ExtractorSpec
from .networks import GlobalAverage, state_of

HEAD = "blocks.6."  # behind the stem, a pooling and four stages


def build(spec: ExtractorSpec) -> nn.Module:
    """The network of pytorchvideo, whose head is a mean over time and space, with random weights."""
    network = i3d_r50(pretrained=False)
    network.blocks[-1] = GlobalAverage()
    built: nn.Module = network
    return built


def convert_layout(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """The library's own names, without the head."""
    return state_of(arrays, HEAD)
