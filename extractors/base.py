"""What every extractor declares and offers. Nothing here needs torch, so that the command line can ask quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn


class Preprocessing(Protocol):
    """From decoded frames to what a network takes. Its text is part of the fingerprint that keeps features apart."""

    @property
    def crop(self) -> int:
        """Pixels of both sides of what the network looks at."""

    @property
    def crops(self) -> int | None:
        """Crops per clip, each of which gets features of its own; None for a single one, without an axis for it."""

    @property
    def channels(self) -> int:
        """Channels of the network's input."""

    def __call__(self, clips: NDArray[np.uint8]) -> Tensor:
        """RGB clips ``(B, T, H, W, 3)`` to ``(B, channels, T, crop, crop)``, or ``(B, crops, channels, …)``."""

    def first_layer(self) -> nn.Module:
        """What is left to do on the device, in floating point: the layer in front of the network."""


@dataclass(frozen=True)
class ExtractorSpec:
    """What an extractor is, known without building it.

    Attributes:
        name: what users call it.
        description: network, what it was trained on, and the source.
        module: the module of this package that holds `build` and `convert_layout`.
        feature_dim: numbers per clip (and crop).
        preprocessing: what the network is shown; its text is part of the fingerprint.
        default_weights: their name in `weights.CATALOGUE`; unused where there are ``streams``.
        network: for a module that holds several networks, which of them.
        clip_length: frames per clip.
        streams: for an extractor that joins others, their names; its features are theirs, one behind the other.
        bfloat16: whether its features in bfloat16 were measured, with published weights, to be those in float32
            (cosine at least 0.9995; docs/results.md).
    """

    name: str
    description: str
    module: str
    feature_dim: int
    preprocessing: Preprocessing
    default_weights: str = ""
    network: str = ""
    clip_length: int = 16
    streams: tuple[str, ...] = ()
    bfloat16: bool = False

    @property
    def crops(self) -> int | None:
        """Crops per clip; None where the features have no axis for them."""
        return self.preprocessing.crops

    def fingerprint(self, weights_digest: str) -> str:
        """Architecture, preprocessing and weights in one line. Features may be mixed if and only if it is the same."""
        return f"{self.name} | {self.preprocessing} | weights {weights_digest}"
