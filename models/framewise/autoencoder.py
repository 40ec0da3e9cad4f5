"""Conv-AE: what an auto-encoder of normal videos cannot rebuild is irregular.

Hasan et al., "Learning Temporal Regularity in Video Sequences", CVPR 2016. A convolutional auto-encoder sees ten grey
frames as the channels of one picture and learns to give them back. Frames of normal videos come back well, others do
not; motion of various speeds is learned by leaving out frames.

The layers are the paper's. The published code has half as many filters, two groups in the second layer, normalisation
of local responses, and overlapping windows of three in pooling. An error is the code's, Euclidean (the paper adds up
absolute differences), but of each frame: the code gives one to ten frames.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .detector import FramewiseDetector

LENGTH = 10  # T, frames of a stack
STRIDES = (1, 2, 3)  # frames from one of a stack to the next, in training
POOL = (2, 2)


def draw_stacks(pictures: Tensor, count: int) -> Tensor:
    """Random stacks of a video's pictures ``(n, h, w)``, to learn from: ``(count, 10, h, w)``.

    Each takes every frame, every second or every third; of a video too short for a stride the smaller ones are left.

    Raises:
        ValueError: fewer than ten pictures.

    Source: Hasan et al., CVPR 2016, data augmentation in the temporal dimension.
    """
    strides = [stride for stride in STRIDES if (LENGTH - 1) * stride < len(pictures)]
    if not strides:
        raise ValueError(f"a stack has {LENGTH} frames, the video {len(pictures)}")
    places = []
    for _ in range(count):
        stride = strides[int(torch.randint(len(strides), ()))]
        start = torch.randint(len(pictures) - (LENGTH - 1) * stride, ())
        places.append(start + stride * torch.arange(LENGTH))
    return pictures[torch.stack(places).to(pictures.device)]


class ConvAutoencoder(FramewiseDetector):
    """The error with which an auto-encoder rebuilds a frame, as one of ten.

    A stack begins every ``step`` frames, and one ends with the last frame; a frame's error is the mean over the stacks
    that hold it. A video of fewer than ten frames stands still after its last.

    Learning: `observe` the frames of normal videos, then lower `loss` of `draw_stacks` of `prepare`d ones. Published:
    AdaGrad, learning rate 0.0001, weight decay 0.0005, batches of 64 stacks, 150 000 steps.

    Args:
        step: frames from one stack to the next in `frame_errors`, 1 to 10; 5 in the published code.

    Attributes:
        size: edge of the pictures, 227; any that is three more than a multiple of four.
        widths: filters of the three layers of the encoder, 512, 256, 128.
        mean: ``(size, size)`` in [0, 1], the mean of all frames observed.
        observed: how many these are.

    Example:
        >>> detector = ConvAutoencoder()
        >>> video = torch.randint(256, (30, 240, 320), dtype=torch.uint8)
        >>> detector.observe(video)
        >>> detector.loss(draw_stacks(detector.prepare(video), 2)).backward()
    """

    name, title = "conv-ae", "Hasan et al."
    before, behind = LENGTH - 1, LENGTH  # the stack that ends with the last frame is not to reach the frame
    size: ClassVar[int] = 227
    widths: ClassVar[tuple[int, int, int]] = (512, 256, 128)
    mean: Tensor
    observed: Tensor

    def __init__(self, step: int = 5) -> None:
        super().__init__()
        if not 1 <= step <= LENGTH:
            raise ValueError(f"a stack every {step} frames: with {LENGTH} frames each, 1 to {LENGTH} are possible")
        self.grid = step
        first, second, third = self.widths
        self.encoder = nn.ModuleList(
            [
                nn.Conv2d(LENGTH, first, 11, stride=4),
                nn.Conv2d(first, second, 5, padding=2),
                nn.Conv2d(second, third, 3, padding=1),
            ]
        )
        self.decoder = nn.ModuleList(
            [
                nn.ConvTranspose2d(third, second, 3, padding=1),
                nn.ConvTranspose2d(second, first, 5, padding=2),
                nn.ConvTranspose2d(first, LENGTH, 11, stride=4),
            ]
        )
        for layer in (*self.encoder, *self.decoder):  # Caffe's xavier, of what it takes for the inputs of a unit
            bound = (3 / layer.weight[0].numel()) ** 0.5
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
        self.register_buffer("mean", torch.zeros(self.size, self.size))
        self.register_buffer("observed", torch.zeros((), dtype=torch.int64))

    def forward(self, stacks: Tensor) -> Tensor:
        """Stacks ``(B, 10, size, size)`` to what is rebuilt of them, of the same shape, in (−1, 1)."""
        conv1, conv2, conv3 = self.encoder
        deconv3, deconv2, deconv1 = self.decoder
        wide = torch.tanh(conv1(stacks))  # (B, 512, 55, 55)
        x, wide_places = F.max_pool2d(wide, POOL, return_indices=True)
        narrow = torch.tanh(conv2(x))  # (B, 256, 27, 27)
        x, narrow_places = F.max_pool2d(narrow, POOL, return_indices=True)
        x = torch.tanh(deconv3(torch.tanh(conv3(x))))  # (B, 128, 13, 13) -> (B, 256, 13, 13)
        x = torch.tanh(deconv2(F.max_unpool2d(x, narrow_places, POOL, output_size=narrow.shape[2:])))
        rebuilt: Tensor = torch.tanh(deconv1(F.max_unpool2d(x, wide_places, POOL, output_size=wide.shape[2:])))
        return rebuilt

    def loss(self, stacks: Tensor) -> Tensor:
        """Half the squared error of a stack ``(B, 10, size, size)``, mean over stacks: scalar.

        Source: Hasan et al., CVPR 2016, the objective without its penalty, which is AdaGrad's weight decay.
        """
        return (self(stacks) - stacks).square().sum() / (2 * len(stacks))

    @torch.no_grad()
    def observe(self, frames: Tensor) -> None:
        """Takes frames of normal videos, uint8 ``(n, H, W)``, into the mean picture."""
        self.observed += len(frames)
        self.mean += self.prepare(frames).sum(dim=0) / self.observed  # less what the mean was

    @torch.no_grad()
    def prepare(self, frames: Tensor) -> Tensor:
        """Frames less the mean, as they are rebuilt: uint8 ``(n, H, W)`` to ``(n, size, size)`` in [−1, 1]."""
        single = frames[:, None, None].to(self.mean)  # n times (1, 1, H, W)
        shape = (self.size, self.size)
        pictures = [F.interpolate(frame, shape, mode="bilinear", antialias=True)[0, 0] for frame in single]
        return torch.stack(pictures) / 255 - self.mean

    @torch.no_grad()
    def frame_errors(self, frames: Tensor) -> Tensor:
        """Uint8 ``(n ≥ 1, H, W)`` to ``(n,)``, the Euclidean norm of the differences of a frame's pixels."""
        pictures = self.prepare(frames)
        still = pictures[-1:].expand(max(LENGTH - len(pictures), 0), -1, -1)
        pictures = torch.cat([pictures, still])
        last = len(pictures) - LENGTH
        sums, stacks = pictures.new_zeros(len(pictures)), pictures.new_zeros(len(pictures))
        for start in sorted({*range(0, last + 1, self.grid), last}):
            stack = pictures[start : start + LENGTH]
            sums[start : start + LENGTH] += (self(stack[None])[0] - stack).flatten(1).norm(dim=1)
            stacks[start : start + LENGTH] += 1
        return (sums / stacks)[: len(frames)]
