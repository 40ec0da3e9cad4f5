"""Clip networks, their preprocessing and their weights. Clips in, features out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import UserError
from . import weights as _weights
from .base import Extractor, ExtractorSpec

if TYPE_CHECKING:
    from .i3d import I3D

__all__ = ["EXTRACTORS", "I3D", "Extractor", "ExtractorSpec", "create", "spec_of"]

EXTRACTORS: dict[str, ExtractorSpec] = {
    spec.name: spec
    for spec in [
        ExtractorSpec(
            name="i3d-rgb",
            description="Inception-I3D, RGB, Kinetics-400 (Carreira & Zisserman, CVPR 2017)",
            module=".i3d",
            network="I3D",
            clip_length=16,
            short_side=256,
            crop=224,
            feature_dim=1024,
            preprocessing="RGB, short side 256, centre crop 224, [-1, 1]",
            default_weights="i3d-rgb-kinetics400",
        ),
    ]
}


def spec_of(name: str) -> ExtractorSpec:
    """The specification of a known extractor.

    Raises:
        UserError: there is no extractor of this name.
    """
    if name not in EXTRACTORS:
        raise UserError(f"there is no extractor {name!r}; known: {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name]


def create(name: str, weights: str | None = None) -> Extractor:
    """Build an extractor with its weights, in evaluation mode, on the CPU.

    Args:
        name: one of `EXTRACTORS`.
        weights: a name of `weights.CATALOGUE` (None: the extractor's own), a checkpoint file, or "random".

    Raises:
        UserError: unknown extractor, or weights that are not at hand or belong to another network.
    """
    spec = spec_of(name)
    state, digest = _weights.load(spec, weights)
    extractor: Extractor = getattr(import_module(spec.module, __name__), spec.network)(spec, state, digest)
    return extractor


def __getattr__(name: str) -> object:
    """`I3D` is imported on first use: the specifications above must not wait for torch."""
    if name == "I3D":
        return import_module(".i3d", __name__).I3D
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
