"""The graph network of Zhong et al. against the published formulas in NumPy, written out clip by clip."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from xelvad.models.clipwise.graph import LabelCleaner, normalised, similarity_graph, temporal_graph

from ...helpers.numeric import Array, Videos, describe_layers, numeric_gradient, parameters_of


def by_degrees(edges: Array) -> Array:
    """An edge divided by the square roots of both its clips' degrees."""
    degrees = [sum(row) for row in edges]
    found = [[edge / math.sqrt(degrees[i] * degrees[j]) for j, edge in enumerate(row)] for i, row in enumerate(edges)]
    return np.array(found)


def reference_similarity(clips: Array) -> Array:
    rows = [[float(x @ y) for y in clips] for x in clips]
    return by_degrees(np.array([[math.exp(product - max(row)) for product in row] for row in rows]))


def reference_temporal(clips: int) -> Array:
    return by_degrees(np.array([[math.exp(-abs(i - j)) for j in range(clips)] for i in range(clips)]))


def reference_cleaner(parameters: Videos, clips: Array) -> Array:
    """The published network without dropout: the clips of one video, ``(T, F)``, to logits ``(T,)``."""
    first, first_bias, second, second_bias, *convolutions = parameters
    x = np.maximum(np.maximum(clips @ first.T + first_bias, 0) @ second.T + second_bias, 0)
    branches = []
    for graph, (one, two) in zip(
        (reference_temporal(len(x)), reference_similarity(x)), (convolutions[:2], convolutions[2:]), strict=True
    ):
        branches.append(graph @ np.maximum(graph @ x @ one, 0) @ two)
    return np.asarray((branches[0] + branches[1])[:, 0] / 2)


@pytest.mark.parametrize("clips", [1, 2, 7])
def test_graphs_and_their_gradients_are_the_published_formulas(clips: int) -> None:
    rng = np.random.default_rng(clips)
    x, weights = rng.normal(size=(clips, 5)), rng.normal(size=(clips, clips))
    tensor = torch.tensor(x, requires_grad=True)
    graph = similarity_graph(tensor)
    np.testing.assert_allclose(graph.detach(), reference_similarity(x), atol=1e-12)
    (graph * torch.from_numpy(weights)).sum().backward()
    slope = numeric_gradient(lambda point: float((reference_similarity(point) * weights).sum()), x)
    np.testing.assert_allclose(tensor.grad, slope, atol=1e-7)
    np.testing.assert_allclose(temporal_graph(tensor), reference_temporal(clips), atol=1e-12)
    np.testing.assert_allclose(normalised(torch.ones(clips, clips)), np.full((clips, clips), 1 / clips), rtol=1e-6)


def test_features_of_any_size_give_a_finite_graph() -> None:
    assert similarity_graph(1e4 * torch.randn(9, 128)).isfinite().all()


def test_clips_that_look_alike_and_clips_side_by_side_have_the_heaviest_edges() -> None:
    clips = torch.tensor([[2.0, 0], [0, 2], [2, 0], [0, 2], [0, 2]])
    graph = similarity_graph(clips)
    assert graph[0].argsort(descending=True)[:2].sort().values.tolist() == [0, 2]
    assert graph[1].argsort(descending=True)[:3].sort().values.tolist() == [1, 3, 4]
    assert temporal_graph(clips)[2].argsort(descending=True)[0] == 2
    assert temporal_graph(clips)[2, 1] > temporal_graph(clips)[2, 0]


@pytest.mark.parametrize("lengths", [(1,), (6,), (5, 5), (3, 1, 8, 3)])
def test_the_network_is_the_published_one_video_by_video(lengths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    cleaner = LabelCleaner(6, 0.6).double().eval()
    clips = np.random.default_rng(0).normal(size=(sum(lengths), 6))
    with torch.no_grad():
        logits = cleaner(torch.from_numpy(clips), lengths)
    videos = np.split(clips, np.cumsum(lengths)[:-1])
    expected = np.concatenate([reference_cleaner(parameters_of(cleaner), video) for video in videos])
    assert expected.std() > 0 or len(expected) == 1
    np.testing.assert_allclose(logits, expected, atol=1e-8)


def test_the_layers_and_their_sizes_are_the_published_ones() -> None:
    cleaner = LabelCleaner(1024, 0.6)
    assert describe_layers(cleaner.compress) == "Linear 512, ReLU, Dropout 0.6, Linear 128, ReLU, Dropout 0.6"
    shapes = [tuple(layer.weight.shape) for branch in (cleaner.temporal, cleaner.similarity) for layer in branch]
    assert shapes == [(128, 32), (32, 1)] * 2, "and no bias"
    assert len(list(cleaner.parameters())) == 4 + 4
    for branch in (cleaner.temporal, cleaner.similarity):
        assert branch[0].weight.abs().max() <= 32**-0.5
        assert branch[0].weight.std().item() == pytest.approx((32 * 3) ** -0.5, rel=0.05)


def test_compressed_features_are_dropped_in_training() -> None:
    cleaner, clips = LabelCleaner(6, 0.6), torch.randn(9, 6)

    def twice() -> tuple[Tensor, Tensor]:
        return cleaner(clips, (9,)), cleaner(clips, (9,))

    assert not torch.equal(*twice())
    cleaner.eval()
    assert torch.equal(*twice())
