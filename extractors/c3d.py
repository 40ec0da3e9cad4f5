"""C3D: eight 3 × 3 × 3 convolutions and fc6, the features of most papers on weakly supervised anomaly detection.

Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", ICCV 2015; weights of Sports-1M. The
features are fc6 behind its ReLU, 4096 numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from .base import ExtractorSpec
from .networks import state_of

# Layer by layer: name and channels of a convolution, or kernel (and stride) of a max-pooling.
LAYERS: tuple[tuple[str, int] | tuple[int, int, int], ...] = (
    *(("conv1a", 64), (1, 2, 2)),
    *(("conv2a", 128), (2, 2, 2)),
    *(("conv3a", 256), ("conv3b", 256), (2, 2, 2)),
    *(("conv4a", 512), ("conv4b", 512), (2, 2, 2)),
    *(("conv5a", 512), ("conv5b", 512), (2, 2, 2)),
)


class C3D(nn.Module):
    """``(B, 3, 16, 112, 112) -> (B, 4096)``."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential()
        channels = 3
        for number, layer in enumerate(LAYERS, start=1):
            if isinstance(layer[0], str):
                name, width = layer
                self.features.add_module(name, nn.Conv3d(channels, width, 3, padding=1))
                self.features.add_module(f"{name}_relu", nn.ReLU(inplace=True))
                channels = width
            else:
                padding = (0, 1, 1) if number == len(LAYERS) else 0  # pool5: 7 × 7 becomes 4 × 4
                self.features.append(nn.MaxPool3d(layer, layer, padding))
        self.fc6 = nn.Linear(512 * 4 * 4, 4096)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        # The weights of fc6 expect channels first: (B, 512, 1, 4, 4) -> (B, 8192)
        return self.fc6(self.features(x).flatten(1)).relu()


def build(spec: ExtractorSpec) -> nn.Module:
    """The network, with random weights."""
    return C3D()


def convert_layout(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """The state of `C3D` from both public layouts of its weights, or from its own.

    Layouts: ``conv1.weight``, ``conv3a.weight`` (c3d.pickle) and ``conv1a.conv.weight`` (MMAction2). fc7 and the head
    are left out.
    """
    state = state_of(arrays, "fc7", "fc8", "out_layer", "cls_head")
    return {_own_name(name): tensor for name, tensor in state.items()}


def _own_name(name: str) -> str:
    name = re.sub(r"^conv([12])\.", r"conv\1a.", name.removeprefix("features.")).replace(".conv.", ".")
    return f"features.{name}" if name.startswith("conv") else name
