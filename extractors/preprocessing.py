"""Preprocessing: what a clip network is shown of the decoded frames.

Frames come from the decoder as they are; all resizing is done here, so that one decoded video serves any number of
networks and each sees the same pixels whether it runs alone or with others. The result stays uint8 until it is on the
device: a quarter of the bytes to keep and to carry. On the CPU a clip takes some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from .base import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Pictures:
    """Colour pictures: resize, crop, and ``(value - mean) / std`` on the device.

    Attributes:
        resize: the shorter side in pixels, or both sides ``(height, width)`` whatever the frame's shape.
        crop: pixels of both sides of the crop, taken from the centre.
        mean: per channel, of values 0 to 255, in the order of ``order``.
        std: likewise.
        order: of the colour channels.
        interpolation: of resizing.
        antialias: low-pass before shrinking, as Pillow does. Some networks were trained without.
        crops: None, or 10: the four corners and the centre, then those of the mirrored frame.
        rounding: where the longer side, or the margin of the centre crop, is no whole number of pixels: the side to the
            nearest and the margin down; or as torchvision does, the side down and the margin to the nearest even one.
    """

    resize: int | tuple[int, int]
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    order: Literal["RGB", "BGR"] = "RGB"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    crops: Literal[10] | None = None
    rounding: Literal["nearest", "torchvision"] = "nearest"
    channels = 3

    def __str__(self) -> str:
        size = f"short side {self.resize}" if isinstance(self.resize, int) else f"{self.resize[0]}x{self.resize[1]}"
        crops = "centre crop" if self.crops is None else f"{self.crops} crops of"
        antialias = "" if self.antialias else " without antialiasing"
        mean, std = (" ".join(f"{value:.9g}" for value in _once(values)) for values in (self.mean, self.std))
        rounding = "" if self.rounding == "nearest" else f" (rounded as {self.rounding})"
        crops = f"{crops} {self.crop}{rounding}"
        return f"{self.order}, {self.interpolation}{antialias} to {size}, {crops}, (x - {mean}) / {std}"

    def __call__(self, clips: NDArray[np.uint8]) -> Tensor:
        """RGB ``(B, T, H, W, 3)`` to uint8 ``(B, 3, T, crop, crop)``, or ``(B, 10, 3, T, crop, crop)``.

        The memory of a result runs channels last, as decoded frames come: the layout that CPUs convolve fastest.
        """
        import torch

        frames = self.resized(clips)  # (B, T, H', W', 3)
        height, width = frames.shape[2:4]
        bottom, right = height - self.crop, width - self.crop
        halved = round if self.rounding == "torchvision" else int
        corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)] if self.crops else []
        places = [*corners, (halved(bottom / 2), halved(right / 2))]
        views = [frames, frames.flip(3)] if self.crops else [frames]
        crops = [self._ordered(view[:, :, y : y + self.crop, x : x + self.crop]) for view in views for y, x in places]
        if self.crops is None:
            return crops[0].permute(0, 4, 1, 2, 3)
        return torch.stack(crops, dim=1).permute(0, 1, 5, 2, 3, 4)  # (B, 10, T, crop, crop, 3) -> (B, 10, 3, T, …)

    def resized(self, clips: NDArray[np.uint8]) -> Tensor:
        """All frames at the size that is cropped from, uint8 ``(B, T, H, W, 3) -> (B, T, H', W', 3)``."""
        import torch
        import torch.nn.functional as F

        batch, length, height, width, _ = clips.shape
        rounded = int if self.rounding == "torchvision" else round
        size = self.resize if isinstance(self.resize, tuple) else short_side_size(height, width, self.resize, rounded)
        frames = torch.from_numpy(clips)
        if (height, width) == size:
            return frames
        flat = frames.flatten(0, 1).permute(0, 3, 1, 2)  # (B·T, 3, H, W), a view whose memory stays channels last
        flat = F.interpolate(flat, size, mode=self.interpolation, antialias=self.antialias, align_corners=False)
        return flat.permute(0, 2, 3, 1).reshape(batch, length, *size, 3)

    def _ordered(self, crop: Tensor) -> Tensor:
        import torch

        # Always a copy: the frames may be overwritten before the clip is computed.
        return crop.flip(-1) if self.order == "BGR" else crop.clone(memory_format=torch.contiguous_format)

    def first_layer(self) -> nn.Module:
        """``(value - mean) / std`` of uint8 ``(B, 3, T, H, W)``, in the precision of the network."""
        from .networks import Normalise

        return Normalise(self.mean, self.std)


def _once(values: tuple[float, ...]) -> tuple[float, ...]:
    """One value, if all are the same."""
    return values[:1] if len(set(values)) == 1 else values


def short_side_size(
    height: int, width: int, short_side: int, rounded: Callable[[float], int] = round
) -> tuple[int, int]:
    """The size ``(height, width)`` after scaling so that the shorter side is ``short_side``, and the longer rounded."""
    shorter = min(height, width)
    return rounded(short_side * height / shorter), rounded(short_side * width / shorter)


@dataclass(frozen=True)
class SideBySide:
    """The inputs of several streams, side by side along the channels; all of one crop.

    Attributes:
        streams: what each stream is shown.
    """

    streams: tuple[Preprocessing, ...]
    crops = None

    def __str__(self) -> str:
        return " + ".join(map(str, self.streams))

    @property
    def crop(self) -> int:
        """Pixels of both sides of what the streams look at."""
        return self.streams[0].crop

    @property
    def channels(self) -> int:
        """Of all streams together."""
        return sum(stream.channels for stream in self.streams)

    def __call__(self, clips: NDArray[np.uint8]) -> Tensor:
        """RGB ``(B, T, H, W, 3)`` to float32 ``(B, channels, T, crop, crop)``."""
        import torch

        inputs = [stream(clips).float() for stream in self.streams]
        return torch.cat(inputs, dim=1).contiguous(memory_format=torch.channels_last_3d)

    def first_layer(self) -> nn.Module:
        """Nothing: every stream begins with its own."""
        from torch import nn

        return nn.Identity()
