"""MIL's loss and network against the published formulas in NumPy."""

import numpy as np
import pytest
import torch

from xelvad.models import MIL, Bags
from xelvad.models.clipwise.mil import ranking_loss, smoothness, sparsity

from ...helpers.numeric import (
    BATCHES,
    Array,
    Videos,
    assert_loss_is,
    assert_network_loss_is,
    describe_layers,
    draw_bags,
    draw_scores,
    parameters_of,
    split,
    three_layers,
)

LENGTHS = [(1,), (32,), (1, 7, 2, 40)]


def reference_ranking(abnormal: Videos, normal: Videos) -> float:
    pairs = [max(0.0, 1 - a.max() + n.max()) for a in abnormal for n in normal]
    return float(sum(pairs) / len(pairs))


def reference_sparsity(scores: Videos) -> float:
    return float(np.mean([sum(bag) for bag in scores]))


def reference_smoothness(scores: Videos) -> float:
    return float(np.mean([sum((bag[i] - bag[i + 1]) ** 2 for i in range(len(bag) - 1)) for bag in scores]))


@pytest.mark.parametrize("lengths", BATCHES)
def test_ranking_loss_and_its_gradients_are_the_formula(lengths: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    assert_loss_is(reference_ranking, ranking_loss, draw_scores(lengths[0], 0), draw_scores(lengths[1], 1))


def test_ranking_loss_is_zero_for_a_pair_that_is_a_margin_of_one_apart() -> None:
    ones, zeros = [torch.tensor([0.2, 1.0])], [torch.zeros(3)]
    assert ranking_loss(ones, zeros).item() == 0
    assert ranking_loss(zeros, ones).item() == 2


@pytest.mark.parametrize("lengths", LENGTHS)
def test_sparsity_and_its_gradients_are_the_formula(lengths: tuple[int, ...]) -> None:
    assert_loss_is(reference_sparsity, sparsity, draw_scores(lengths, 2))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_smoothness_and_its_gradients_are_the_formula_within_each_video(lengths: tuple[int, ...]) -> None:
    assert_loss_is(reference_smoothness, smoothness, draw_scores(lengths, 3))


@pytest.mark.parametrize("feature_dim", [1, 7, 1024])
def test_the_scorer_is_the_published_network(feature_dim: int) -> None:
    torch.manual_seed(0)
    mil = MIL(feature_dim).double().eval()
    x = np.random.default_rng(0).normal(size=(2, 3, feature_dim))
    with torch.no_grad():
        scores = mil.score(torch.from_numpy(x))
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores, three_layers(parameters_of(mil), x)[1], atol=1e-12)


def test_the_layers_and_their_sizes_are_the_published_ones() -> None:
    expected = "Linear 512, ReLU, Dropout 0.6, Linear 32, Dropout 0.6, Linear 1, Sigmoid"
    assert describe_layers(MIL(7).scorer) == expected


def test_weights_begin_xavier_normal_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    for weight, bias in zip(*[iter(MIL(1024).parameters())] * 2, strict=True):
        assert not bias.any()
        if weight.numel() > 1000:
            expected = (2 / sum(weight.shape)) ** 0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.03)
            assert weight.abs().max() > 3 * expected, "normal, not uniform"


@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("weights", [{}, {"sparsity_weight": 0.3, "smoothness_weight": 0.7}])
def test_the_total_and_its_gradients_are_the_weighted_formulas_of_the_network(
    lengths: tuple[tuple[int, ...], tuple[int, ...]], weights: dict[str, float]
) -> None:
    torch.manual_seed(0)
    mil = MIL(5, **weights).double().eval()  # without dropout, so that the scores can be computed again
    bags = draw_bags(lengths, 5)

    def reference(parameters: Videos, clips: Array) -> float:
        abnormal, normal = split(three_layers(parameters, clips)[1], bags)
        return (
            reference_ranking(abnormal, normal)
            + weights.get("sparsity_weight", 8e-5) * reference_sparsity(abnormal)
            + weights.get("smoothness_weight", 8e-5) * reference_smoothness(abnormal)
        )

    assert_network_loss_is(reference, mil, bags)


def test_the_terms_have_names_and_add_up_to_the_total() -> None:
    loss = MIL(8).loss(Bags(torch.randn(29, 8), (5, 5, 5), (7, 7)))
    assert set(loss.terms) == {"ranking", "sparsity", "smoothness"}
    assert sum(term.item() for term in loss.terms.values()) == pytest.approx(loss.total.item(), rel=1e-6)


def test_dropout_is_drawn_for_every_clip_while_training() -> None:
    mil = MIL(16).train()
    one = torch.randn(16)
    assert mil.score(one.expand(64, 16)).unique().numel() > 32
    mil.eval()
    assert mil.score(one.expand(64, 16)).unique().numel() == 1
