"""Optical flow: what the second stream of I3D is shown.

Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017; TV-L1: Zach et al., DAGM 2007.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .preprocessing import short_side_size

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Flow:
    """TV-L1 flow from each frame to the next, clamped and scaled to [-1, 1].

    A clip of T frames has T - 1 flow fields; the last one is repeated, so that clips are equally long in both streams.

    Attributes:
        resize: the shorter side in pixels, at which the flow is computed.
        crop: pixels of both sides of the centre crop.
        bound: displacements beyond so many pixels a frame are clamped.
    """

    resize: int = 256
    crop: int = 224
    bound: float = 20.0
    crops = None
    channels = 2

    def __str__(self) -> str:
        return f"TV-L1 flow at short side {self.resize}, centre crop {self.crop}, [-{self.bound:g}, {self.bound:g}]"

    def __call__(self, clips: NDArray[np.uint8]) -> Tensor:
        """RGB ``(B, T, H, W, 3)`` to float32 ``(B, 2, T, crop, crop)``: along the width, along the height.

        Raises:
            UserError: OpenCV's extra modules are not installed.
        """
        import torch

        flows = np.stack([self.of_clip(clip) for clip in clips])  # (B, T, crop, crop, 2)
        return torch.from_numpy(flows).permute(0, 4, 1, 2, 3)

    def of_clip(self, clip: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``(T, H, W, 3) -> (T, crop, crop, 2)`` in [-1, 1]."""
        cv2 = _opencv()
        height, width = short_side_size(clip.shape[1], clip.shape[2], self.resize)
        y, x = (height - self.crop) // 2, (width - self.crop) // 2
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
        grey = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in grey]
        method = cv2.optflow.DualTVL1OpticalFlow_create()
        fields = [method.calc(a, b, None)[y : y + self.crop, x : x + self.crop] for a, b in pairwise(grey)]
        fields = fields or [np.zeros((self.crop, self.crop, 2), np.float32)]  # a single frame does not move
        fields += fields[-1:] * (len(clip) - len(fields))
        return (np.clip(np.stack(fields), -self.bound, self.bound) / self.bound).astype(np.float32)

    def first_layer(self) -> nn.Module:
        """Nothing: flow is scaled already."""
        from torch import nn

        return nn.Identity()


def _opencv() -> Any:
    cv2 = import_module("cv2") if find_spec("cv2") else None
    if not hasattr(cv2, "optflow"):  # plain opencv-python has none
        raise UserError('optical flow needs OpenCV\'s extra modules: pip install "xelvad[flow]"')
    return cv2
