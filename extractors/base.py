"""What every extractor declares and offers. Nothing here needs torch, so that the command line can ask quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


class Extractor(Protocol):
    """A clip network with its preprocessing and weights."""

    name: str
    clip_length: int  # frames per clip
    short_side: int  # the decoder is asked for frames whose shorter side has this many pixels
    feature_dim: int
    fingerprint: str  # features may be mixed if and only if their fingerprints are equal

    def preprocess(self, clips: NDArray[np.uint8]) -> Tensor:
        """Uint8 RGB clips ``(B, clip_length, H, W, 3)`` to the network's input."""

    def __call__(self, x: Tensor) -> Tensor:
        """The network's input to features ``(B, feature_dim)`` float32."""


@dataclass(frozen=True)
class ExtractorSpec:
    """What an extractor is, known without building it."""

    name: str
    description: str
    module: str  # the module of this package that holds `network`, `convert_layout` and `shape_of_state`
    network: str  # the class in it
    clip_length: int
    short_side: int
    crop: int
    feature_dim: int
    preprocessing: str  # part of the fingerprint: change it whenever the same frames give another network input
    default_weights: str

    def fingerprint(self, weights_digest: str) -> str:
        """Architecture, preprocessing and weights in one line."""
        return f"{self.name} | {self.preprocessing} | weights {weights_digest}"
