"""TSN's spatial stream: BN-Inception on single frames, the TSN-RGB features of Zhong et al., CVPR 2019.

Wang et al., "Temporal Segment Networks: Towards Good Practices for Deep Action Recognition", ECCV 2016; Ioffe &
Szegedy, "Batch Normalization", ICML 2015. Features are what the last pooling gives, 1024 numbers, and of a clip the
mean over all of its frames, as in the code of Zhong et al., whose snippets have five. They fine-tuned the network on
the videos at hand; here it is that of Kinetics.

Frames go through 3-D convolutions that are one frame deep: the same arithmetic, in the layout of all other networks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .base import ExtractorSpec
from .networks import state_of

# Block by block, channels of: 1x1; 3x3 and what reduces for it; double 3x3 and what reduces for it; behind the pooling.
# Blocks without a 1x1 halve the picture; a pooling with nothing behind it, and the last, takes the maximum.
BLOCKS = {
    "3a": (64, (64, 64), (64, 96), 32),
    "3b": (64, (64, 96), (64, 96), 64),
    "3c": (0, (128, 160), (64, 96), 0),
    "4a": (224, (64, 96), (96, 128), 128),
    "4b": (192, (96, 128), (96, 128), 128),
    "4c": (160, (128, 160), (128, 160), 128),
    "4d": (96, (128, 192), (160, 192), 128),
    "4e": (0, (128, 192), (192, 256), 0),
    "5a": (352, (192, 320), (160, 224), 128),
    "5b": (352, (192, 320), (192, 224), 128),
}


class BNInception(nn.Module):
    """``(B, 3, T, 224, 224) -> (B, 1024)``, the mean over frames; layers have the names of the published ones."""

    def __init__(self) -> None:
        super().__init__()
        self._add("conv1_7x7_s2", 3, 64, 7, stride=2)
        self._add("conv2_3x3_reduce", 64, 64)
        self._add("conv2_3x3", 64, 192, 3)
        channels = 192
        for block, (single, triple, double, projected) in BLOCKS.items():
            name, stride = f"inception_{block}", 1 if single else 2
            if single:
                self._add(f"{name}_1x1", channels, single)
            self._add(f"{name}_3x3_reduce", channels, triple[0])
            self._add(f"{name}_3x3", *triple, 3, stride)
            self._add(f"{name}_double_3x3_reduce", channels, double[0])
            self._add(f"{name}_double_3x3_1", *double, 3)
            self._add(f"{name}_double_3x3_2", double[1], double[1], 3, stride)
            if projected:
                self._add(f"{name}_pool_proj", channels, projected)
            channels = single + triple[1] + double[1] + (projected or channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = _max_pool(self._layer("conv1_7x7_s2", x))
        x = _max_pool(self._layer("conv2_3x3", self._layer("conv2_3x3_reduce", x)))
        for block in BLOCKS:
            x = self._block(block, x)
        return x.mean(dim=(2, 3, 4))  # (B, 1024, T, 7, 7) -> (B, 1024)

    def _block(self, block: str, x: Tensor) -> Tensor:
        name, (single, _, _, projected) = f"inception_{block}", BLOCKS[block]
        branches = [self._layer(f"{name}_1x1", x)] if single else []
        branches.append(self._layer(f"{name}_3x3", self._layer(f"{name}_3x3_reduce", x)))
        double = self._layer(f"{name}_double_3x3_1", self._layer(f"{name}_double_3x3_reduce", x))
        branches.append(self._layer(f"{name}_double_3x3_2", double))
        if not projected:
            branches.append(_max_pool(x))
        elif block == "5b":
            branches.append(self._layer(f"{name}_pool_proj", F.max_pool3d(x, (1, 3, 3), 1, (0, 1, 1))))
        else:
            branches.append(self._layer(f"{name}_pool_proj", F.avg_pool3d(x, (1, 3, 3), 1, (0, 1, 1))))
        return torch.cat(branches, dim=1)

    def _add(self, name: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        """A convolution of frames, and its batch norm."""
        border = (0, kernel // 2, kernel // 2)
        self.add_module(name, nn.Conv3d(inputs, outputs, (1, kernel, kernel), (1, stride, stride), border))
        self.add_module(f"{name}_bn", nn.BatchNorm3d(outputs))

    def _layer(self, name: str, x: Tensor) -> Tensor:
        normed: Tensor = self.get_submodule(f"{name}_bn")(self.get_submodule(name)(x))
        return normed.relu()


def _max_pool(x: Tensor) -> Tensor:
    """Halve the picture; what hangs over its edge counts, as in Caffe."""
    return F.max_pool3d(x, (1, 3, 3), (1, 2, 2), ceil_mode=True)


def build(spec: ExtractorSpec) -> nn.Module:
    """The network, with random weights."""
    return BNInception()


def convert_layout(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """The state of `BNInception` from the public layouts of its weights, or from its own.

    Layouts: the published names alone (Xiong's models of Kinetics, pretrainedmodels), or behind ``base_model.`` (those
    that tsn-pytorch writes). Filters are of frames, ``(F, C, h, w)``; batch norms of some are ``(1, F)``.
    """
    names = {name: name.removeprefix("module.").removeprefix("base_model.") for name in arrays}
    state = state_of({own: arrays[name] for name, own in names.items()}, "fc.", "new_fc.", "last_linear.")
    return {name: _own_shape(name, tensor) for name, tensor in state.items()}


def _own_shape(name: str, tensor: Tensor) -> Tensor:
    if "_bn." in name:
        return tensor.flatten()
    return tensor.unsqueeze(2) if tensor.ndim == 4 else tensor  # (F, C, h, w) -> (F, C, 1, h, w)
