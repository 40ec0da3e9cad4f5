"""Clip networks, their preprocessing and their weights. Clips in, features out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from . import weights as _weights
from .base import ExtractorSpec, Preprocessing
from .specs import EXTRACTORS, spec_of

if TYPE_CHECKING:
    from .networks import ClipExtractor

__all__ = ["EXTRACTORS", "ClipExtractor", "ExtractorSpec", "Preprocessing", "create_extractor", "spec_of"]


def create_extractor(name: str, weights: str | None = None) -> ClipExtractor:
    """Build an extractor with its weights, in evaluation mode, on the CPU.

    Args:
        name: one of `EXTRACTORS`.
        weights: a name of `weights.CATALOGUE` (None: the extractor's own), a checkpoint file, or "random".

    Raises:
        UserError: unknown extractor, or weights that are not at hand or belong to another network.

    Example:
        >>> import numpy as np
        >>> extractor = create_extractor("i3d-rgb", weights="random")
        >>> clips = np.zeros((1, 16, 240, 320, 3), np.uint8)  # RGB
        >>> extractor(extractor.preprocess(clips)).shape
        torch.Size([1, 1024])
    """
    import torch

    from .networks import ClipExtractor

    spec = spec_of(name)
    state, digest = _weights.load(spec, weights)
    with torch.random.fork_rng(devices=[]):  # random weights are the same every time, as their fingerprint says
        torch.manual_seed(_weights.RANDOM_SEED)
        network = import_module(spec.module, __name__).build(spec)
    if state is not None:
        network.load_state_dict(state, strict=True)
    return ClipExtractor(spec, network, spec.fingerprint(digest))


def __getattr__(name: str) -> object:
    """`ClipExtractor` is imported on first use: the specifications must not wait for torch."""
    if name == "ClipExtractor":
        return import_module(".networks", __name__).ClipExtractor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
