"""The context encoder that UR-DMU and BN-WVAD share, without dropout, in NumPy: one video, one head at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .numeric import Array

HEADS = 4
_erf = np.vectorize(math.erf, otypes=[float])


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def local_average(clips: int) -> Array:
    """``(T, T)``: e to the power of minus the distance over e, divided by the sum of each row."""
    weights = np.array([[math.exp(-abs(s - t) / math.e) for t in range(clips)] for s in range(clips)])
    return weights / weights.sum(axis=1, keepdims=True)


def convolution(weight: Array, bias: Array, video: Array) -> Array:
    """Of three clips each, with zeros before the first and behind the last: ``(T, F) -> (T, D)``."""
    padded = np.pad(video, ((1, 1), (0, 0)))
    return np.stack([bias + sum(weight[:, :, k] @ padded[t + k] for k in range(3)) for t in range(len(video))])


def layer_norm(scale: Array, shift: Array, clips: Array) -> Array:
    centred = clips - clips.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * scale + shift


def attention(project: Array, merge: Array, merge_bias: Array, clips: Array) -> Array:
    """Global attention of every head beside the local average: ``(T, D) -> (T, D)``."""
    queries, keys, values, local = np.split(clips @ project.T, 4, axis=1)
    heads = zip(*(np.split(each, HEADS, axis=1) for each in (queries, keys, values)), strict=True)
    attended = [softmax(q @ k.T / math.sqrt(q.shape[1])) @ v for q, k, v in heads]
    return np.concatenate([*attended, local_average(len(clips)) @ local], axis=1) @ merge.T + merge_bias


def encode(parameters: Iterator[Array], video: Array) -> Array:
    """``(T, F) -> (T, D)``; takes as many parameters as the encoder has."""

    def take(count: int) -> list[Array]:
        return [next(parameters) for _ in range(count)]

    clips = np.maximum(convolution(*take(2), video), 0)
    for _ in range(2):
        clips = clips + attention(*(norm := take(2), take(3))[1], layer_norm(*norm, clips))
        normalised = layer_norm(*take(2), clips)
        first, first_bias, second, second_bias = take(4)
        hidden = normalised @ first.T + first_bias
        hidden = hidden * 0.5 * (1 + _erf(hidden / math.sqrt(2)))  # GELU
        clips = clips + hidden @ second.T + second_bias
    return clips
