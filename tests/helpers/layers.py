"""Layers of networks over time in NumPy, for tests against independent references."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from .numeric import Array, Videos

Norm = Callable[[Videos, str], Videos]
"""Normalises the clips of videos as the batch norm of this name does."""


def convolved(video: Array, weight: Array, bias: Array | None = None, dilation: int = 1) -> Array:
    """``(T, C) -> (T, O)`` by a kernel ``(O, C, K)``, of zeros beyond both ends."""
    reach = dilation * (weight.shape[2] // 2)
    padded = np.pad(video, ((reach, reach), (0, 0)))
    taps = [padded[k * dilation :][: len(video)] @ weight[:, :, k].T for k in range(weight.shape[2])]
    return sum(taps) if bias is None else sum(taps) + bias


def layer_normed(clips: Array, weight: Array, bias: Array) -> Array:
    """Of the channels of each clip, ``(T, C) -> (T, C)``."""
    centred = clips - clips.mean(axis=1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + 1e-5) * weight + bias


def batch_norms(network: nn.Module, parameters: dict[str, Array]) -> Norm:
    """The batch norms of a network: by its running statistics, or in training by those of all clips of all videos."""
    buffers = {name: buffer.numpy().copy() for name, buffer in network.named_buffers()}

    def normalise(videos: Videos, name: str) -> Videos:
        clips = np.concatenate(videos)
        mean, variance = buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]
        if network.training:
            mean, variance = clips.mean(axis=0), clips.var(axis=0)
        scale = parameters[f"{name}.weight"] / np.sqrt(variance + 1e-5)
        return [(video - mean) * scale + parameters[f"{name}.bias"] for video in videos]

    return normalise


def disturb(network: nn.Module) -> nn.Module:
    """Nothing at the value where it begins: what multiplies by one or adds zero could be missing unnoticed."""
    with torch.no_grad():
        for vector in (parameter for parameter in network.parameters() if parameter.ndim == 1):
            vector.add_(torch.randn_like(vector), alpha=0.3)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(torch.randn_like(buffer), alpha=0.3)
            elif name.endswith("running_var"):
                buffer.mul_(0.5 + torch.rand_like(buffer))
    return network
