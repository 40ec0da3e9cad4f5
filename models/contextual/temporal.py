"""Convolution over time for packed videos: the clips of all videos one after the other, as in `Bags`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TemporalConv(nn.Module):
    """A convolution over the clips of each video, with zeros beyond its ends.

    Videos of any length go through it together: they are laid end to end with as many zeros between them as the kernel
    reaches, so that no clip meets one of another video. Linear layers and batch norms take packed clips as they are;
    the statistics of a batch are then those of all its clips, as they are where videos are of equal length.

    Args:
        inputs: numbers per clip.
        outputs: numbers per clip.
        kernel: clips, odd.
        dilation: clips from one weight of the kernel to the next.
        bias: whether to add one.
        groups: of channels that are convolved apart, as in `torch.nn.Conv1d`.

    Example:
        >>> TemporalConv(8, 4)(torch.rand(7, 8), lengths=(5, 2)).shape  # two videos
        torch.Size([7, 4])
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, dilation: int = 1, bias: bool = True, groups: int = 1
    ) -> None:
        super().__init__()
        reach = dilation * (kernel // 2)
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=reach, dilation=dilation, bias=bias, groups=groups)
        self.reach = reach

    def forward(self, clips: Tensor, lengths: Sequence[int]) -> Tensor:
        """``(ΣT, n · inputs) -> (ΣT, n · outputs)``, of videos of these lengths; n parts by the same weights."""
        video = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))  # (ΣT,), which one a clip is of
        places = (torch.arange(len(clips)) + self.reach * video).to(clips.device)
        apart = clips.new_zeros(len(clips) + self.reach * (len(lengths) - 1), clips.shape[1])
        parts = apart.index_copy(0, places, clips).T.unflatten(0, (-1, self.conv.in_channels))  # (n, inputs, time)
        convolved: Tensor = self.conv(parts)
        return convolved.flatten(0, 1).T[places]
