"""MIL's loss and network against the published formulas in NumPy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from xelvad.models import MIL, Bags
from xelvad.models.mil import ranking_loss, smoothness, sparsity

from .numeric import numeric_gradient

SHAPES = [(1, 1, 1, 1), (1, 32, 1, 32), (3, 5, 2, 7), (6, 32, 5, 32)]  # A, T, N, T'


def reference_ranking(abnormal: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    pairs = [max(0.0, 1 - a.max() + n.max()) for a in abnormal for n in normal]
    return float(sum(pairs) / len(pairs))


def reference_sparsity(scores: NDArray[np.float64]) -> float:
    return float(np.mean([sum(bag) for bag in scores]))


def reference_smoothness(scores: NDArray[np.float64]) -> float:
    return float(np.mean([sum((bag[i] - bag[i + 1]) ** 2 for i in range(len(bag) - 1)) for bag in scores]))


@pytest.mark.parametrize("shape", SHAPES)
def test_ranking_loss_and_its_gradient_are_the_formulas(shape: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    abnormal, normal = rng.random(shape[:2]), rng.random(shape[2:])
    a, n = (torch.tensor(array, requires_grad=True) for array in (abnormal, normal))
    loss = ranking_loss(a, n)
    loss.backward()
    assert loss.item() == pytest.approx(reference_ranking(abnormal, normal), abs=1e-12)
    expected = numeric_gradient(lambda x: reference_ranking(x, normal), abnormal)
    np.testing.assert_allclose(a.grad, expected, atol=1e-7)
    expected = numeric_gradient(lambda x: reference_ranking(abnormal, x), normal)
    np.testing.assert_allclose(n.grad, expected, atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 1), (1, 32), (4, 7)])
@pytest.mark.parametrize(("ours", "reference"), [(sparsity, reference_sparsity), (smoothness, reference_smoothness)])
def test_sparsity_and_smoothness_and_their_gradients_are_the_formulas(ours, reference, shape):
    scores = np.random.default_rng(1).random(shape)
    s = torch.tensor(scores, requires_grad=True)
    loss = ours(s)
    loss.backward()
    assert loss.item() == pytest.approx(reference(scores), abs=1e-12)
    np.testing.assert_allclose(s.grad, numeric_gradient(reference, scores), atol=1e-7)


@pytest.mark.parametrize("feature_dim", [1, 7, 1024])
def test_the_scorer_is_the_published_network(feature_dim: int) -> None:
    torch.manual_seed(0)
    mil = MIL(feature_dim).eval()
    x = np.random.default_rng(0).normal(size=(2, 3, feature_dim)).astype(np.float32)
    first, second, third = (layer for layer in mil.scorer if isinstance(layer, torch.nn.Linear))
    w = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (first, second, third)]
    hidden = np.maximum(x @ w[0][0].T + w[0][1], 0)  # ReLU behind the first layer only
    logit = (hidden @ w[1][0].T + w[1][1]) @ w[2][0].T + w[2][1]
    expected = 1 / (1 + np.exp(-logit[..., 0]))
    with torch.no_grad():
        scores = mil.score(torch.from_numpy(x))
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert [layer.out_features for layer in (first, second, third)] == [512, 32, 1]


def test_the_total_is_the_sum_of_its_terms_in_the_published_weights() -> None:
    mil = MIL(8).eval()  # without dropout, so that the scores can be computed again
    bags = Bags(torch.randn(3, 5, 8), torch.randn(2, 7, 8))
    loss = mil.loss(bags)
    abnormal, normal = mil.score(bags.abnormal), mil.score(bags.normal)
    torch.testing.assert_close(loss.abnormal_scores, abnormal)
    torch.testing.assert_close(loss.normal_scores, normal)
    expected = (
        reference_ranking(abnormal.detach().numpy(), normal.detach().numpy())
        + 8e-5 * reference_sparsity(abnormal.detach().numpy())
        + 8e-5 * reference_smoothness(abnormal.detach().numpy())
    )
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert sum(term.item() for term in loss.terms.values()) == pytest.approx(loss.total.item(), rel=1e-6)


def test_dropout_is_drawn_for_every_clip_while_training() -> None:
    mil = MIL(16).train()
    one = torch.randn(16)
    assert mil.score(one.expand(64, 16)).unique().numel() > 32
    mil.eval()
    assert mil.score(one.expand(64, 16)).unique().numel() == 1
