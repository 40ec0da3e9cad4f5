"""Extractors that join others: every stream is shown its own channels, and the features stand one behind the other."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .base import ExtractorSpec, Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Side:
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


def build(spec: ExtractorSpec) -> nn.Module:
    """The networks of all streams as one, with random weights."""
    from torch import nn

    from . import spec_of
    from .networks import Joined

    streams = [spec_of(name) for name in spec.streams]
    networks = [import_module(stream.module, __package__).build(stream) for stream in streams]
    layers = [stream.preprocessing.first_layer() for stream in streams]
    return Joined(
        [nn.Sequential(layer, network) for layer, network in zip(layers, networks, strict=True)],
        [stream.preprocessing.channels for stream in streams],
    )


def names_in(stream: int) -> str:
    """Prefix of the names of a stream's weights in the state of what `build` gives."""
    return f"streams.{stream}.1."
