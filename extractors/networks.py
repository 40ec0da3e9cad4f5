"""What stands between a clip network of any library and the pipeline: normalisation, crops, features out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .base import ExtractorSpec


class Normalise(nn.Module):
    """``(value - mean) / std`` per channel, in the precision that the network computes in."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        # Not persistent: they belong to the preprocessing, not to the weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T, H, W)``, any number type, to the same in floating point."""
        return (x.to(self.mean.dtype) - self.mean) / self.std


class ClipExtractor(nn.Module):
    """A clip network with its preprocessing and weights: uint8 RGB clips in, float32 features out.

    In evaluation mode, on the CPU until it is moved; `runtimes.Engine` runs it as fast as the machine allows.
    """

    def __init__(self, spec: ExtractorSpec, network: nn.Module, fingerprint: str) -> None:
        super().__init__()
        self.spec, self.fingerprint = spec, fingerprint
        self.network = nn.Sequential(spec.preprocessing.first_layer(), network)
        # Channels last is the layout that decoded frames come in, and a third faster on CPUs.
        self.network.to(memory_format=torch.channels_last_3d)
        self.eval().requires_grad_(False)

    def preprocess(self, clips: NDArray[np.uint8]) -> Tensor:
        """Uint8 RGB clips ``(B, clip_length, H, W, 3)`` to the network's input; see the specification."""
        return self.spec.preprocessing(clips)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        """Preprocessed clips to features ``(B, feature_dim)``, or ``(B, crops, feature_dim)``, float32."""
        return over_crops(self.network, x).float()


def over_crops(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run a network of clips over ``(B, C, T, H, W)``, or over every crop of ``(B, crops, C, T, H, W)``."""
    lead = x.shape[:-4]
    features = network(x.flatten(0, len(lead) - 1))
    return features.unflatten(0, lead)


class GlobalAverage(nn.Module):
    """In place of a network's head: the mean over time and space."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, F, T, H, W) -> (B, F)``."""
        return x.mean(dim=(2, 3, 4))


class Joined(nn.Module):
    """Several networks, each of which takes its share of the channels; their features stand one behind the other."""

    def __init__(self, streams: Sequence[nn.Module], channels: Sequence[int]) -> None:
        super().__init__()
        self.streams, self.channels = nn.ModuleList(streams), list(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T, H, W) -> (B, F)``."""
        parts = x.split(self.channels, dim=1)
        return torch.cat([stream(parts[number]) for number, stream in enumerate(self.streams)], dim=1)


def state_of(arrays: Mapping[str, NDArray[np.float32]], *heads: str) -> dict[str, Tensor]:
    """A checkpoint in the network's own names, without the prefixes of wrappers and without the classifying head.

    Args:
        arrays: names and arrays of the checkpoint.
        heads: prefixes of the names that belong to the head.
    """
    names = {name: name.removeprefix("module.").removeprefix("backbone.") for name in arrays}
    kept = {name: own for name, own in names.items() if not own.startswith(heads)}
    return {own: torch.from_numpy(np.array(arrays[name])) for name, own in kept.items()}
