"""Extractors that join others: every stream is shown its own channels, and the features stand one behind the other."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .base import ExtractorSpec

if TYPE_CHECKING:
    from torch import nn


def build(spec: ExtractorSpec) -> nn.Module:
    """The networks of all streams as one, with random weights."""
    from torch import nn

    from .networks import Joined
    from .specs import EXTRACTORS

    streams = [EXTRACTORS[name] for name in spec.streams]
    networks = [import_module(stream.module, __package__).build(stream) for stream in streams]
    layers = [stream.preprocessing.first_layer() for stream in streams]
    return Joined(
        [nn.Sequential(layer, network) for layer, network in zip(layers, networks, strict=True)],
        [stream.preprocessing.channels for stream in streams],
    )


def names_in(stream: int) -> str:
    """Prefix of the names of a stream's weights in the state of what `build` gives."""
    return f"streams.{stream}.1."
