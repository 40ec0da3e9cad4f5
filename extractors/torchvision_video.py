"""torchvision's video networks, with the preprocessing published beside their weights. No network is written here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torchvision.models.video
from numpy.typing import NDArray
from torch import Tensor, nn

from .base import ExtractorSpec
from .networks import state_of

HEADS = ("fc", "classifier", "head")  # what torchvision calls the classifying layer of a network


def build(spec: ExtractorSpec) -> nn.Module:
    """The network ``spec.network``, whose head lets the features through, with random weights."""
    network: nn.Module = getattr(torchvision.models.video, spec.network)(weights=None)
    (head,) = (name for name in HEADS if hasattr(network, name))
    setattr(network, head, nn.Identity())
    return network


def convert_layout(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """The library's own names, without the head."""
    return state_of(arrays, *(f"{head}." for head in HEADS))
