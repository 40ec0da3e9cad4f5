"""Helpers for tests against independent references: numeric gradients, networks in NumPy, batches of all shapes."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xelvad.models import Bags, LearningDetector

Array = NDArray[np.float64]
Videos = list[Array]

BATCHES = [((1,), (1,)), ((32,), (32,)), ((4, 2), (1, 9, 5)), ((1, 7, 40), (3, 2, 18, 5))]
"""Clips of the abnormal and of the normal videos: one clip, one video, even, odd and very different lengths."""


def draw_scores(lengths: Sequence[int], seed: int) -> Videos:
    """Scores ``(T,)`` in [0, 1) of videos of these lengths."""
    rng = np.random.default_rng(seed)
    return [rng.random(length) for length in lengths]


def numeric_gradient(function: Callable[[Array], float], point: Array, step: float = 1e-6) -> Array:
    """Central differences of a scalar function, of the shape of ``point``."""
    gradient = np.zeros_like(point)
    for index in np.ndindex(*point.shape):
        above, below = point.copy(), point.copy()
        above[index] += step
        below[index] -= step
        gradient[index] = (function(above) - function(below)) / (2 * step)
    return gradient


def assert_loss_is(
    reference: Callable[..., float], loss: Callable[..., Tensor], *groups: Videos, tolerance: float = 1e-12
) -> None:
    """A loss of one or more groups of videos, and its gradient to every video, are those of the reference."""
    tensors = [[torch.tensor(video, requires_grad=True) for video in group] for group in groups]
    value = loss(*tensors)
    value.backward()
    assert value.item() == pytest.approx(reference(*groups), abs=tolerance)
    for g, group in enumerate(groups):
        for v, video in enumerate(group):

            def moved(point: Array, g: int = g, v: int = v) -> float:
                changed = [list(other) for other in groups]
                changed[g][v] = point
                return reference(*changed)

            np.testing.assert_allclose(tensors[g][v].grad, numeric_gradient(moved, video), atol=1e-7)


def describe_layers(network: nn.Sequential) -> str:
    """The kinds of the layers, with their units or dropout probabilities."""
    details = (getattr(layer, "out_features", getattr(layer, "p", "")) for layer in network)
    return ", ".join(f"{type(layer).__name__} {detail}".strip() for layer, detail in zip(network, details, strict=True))


def parameters_of(detector: nn.Module) -> Videos:
    """Weight and bias of every layer, first layer first."""
    return [parameter.detach().numpy() for parameter in detector.parameters()]


def assert_network_loss_is(
    reference: Callable[[Videos, Array], float], detector: LearningDetector, bags: Bags, tolerance: float = 1e-8
) -> None:
    """A detector's total loss is the reference of its parameters and of the clips, and so are its gradients.

    The slopes along three random directions stand for the gradient to a parameter, or to the clips, of any size.
    """
    clips = bags.clips.clone().requires_grad_()
    total = detector.loss(Bags(clips, bags.abnormal, bags.normal)).total
    total.backward()
    points = [*parameters_of(detector), bags.clips.numpy()]
    gradients = [*(parameter.grad for parameter in detector.parameters()), clips.grad]
    assert total.item() == pytest.approx(reference(points[:-1], points[-1]), rel=tolerance)
    rng = np.random.default_rng(0)
    for p, gradient in enumerate(gradients):
        for _ in range(3):
            direction = rng.normal(size=points[p].shape)

            def along(distance: Array, p: int = p, direction: Array = direction) -> float:
                moved = [*points[:p], points[p] + distance * direction, *points[p + 1 :]]
                return reference(moved[:-1], moved[-1])

            slope = float(numeric_gradient(along, np.zeros(()), step=1e-7))  # short of the kinks of a ReLU
            ours = float((gradient.numpy() * direction).sum())
            assert ours == pytest.approx(slope, rel=1e-5, abs=1e-6)


def sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def three_layers(parameters: Videos, clips: Array) -> tuple[Array, Array]:
    """The network of MIL and SRF without dropout: hidden activations ``(…, 512)`` and scores ``(…)``."""
    first, first_bias, second, second_bias, third, third_bias = parameters
    hidden = np.maximum(clips @ first.T + first_bias, 0)  # the only ReLU
    return hidden, sigmoid((hidden @ second.T + second_bias) @ third.T + third_bias)[..., 0]


def split(values: Array, bags: Bags) -> tuple[Videos, Videos]:
    """What was computed for every clip, by video: of the abnormal, of the normal ones."""
    videos = np.split(values, np.cumsum([*bags.abnormal, *bags.normal])[:-1])
    return videos[: len(bags.abnormal)], videos[len(bags.abnormal) :]


def draw_bags(lengths: tuple[Sequence[int], Sequence[int]], feature_dim: int, seed: int = 0) -> Bags:
    """Videos of these lengths; their clips, float64, fall into two groups that lie well apart."""
    rng = np.random.default_rng(seed)
    groups = rng.normal(size=(2, feature_dim)) * 2

    def draw(length: int) -> Tensor:
        return torch.from_numpy(groups[np.arange(length) % 2] + 0.1 * rng.normal(size=(length, feature_dim)))

    return Bags.pack(*([draw(length) for length in kind] for kind in lengths))


class OneFeature(nn.Module):
    """A detector that nothing else knows: the score is one of the features, disturbed by dropout while training."""

    context = 0

    def __init__(self, feature: int = 0) -> None:
        super().__init__()
        self.feature = feature
        self.weight = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.5)

    def score(self, features: Tensor) -> Tensor:
        """``(…, F) -> (…)``."""
        return self.weight * self.dropout(features)[..., self.feature]
