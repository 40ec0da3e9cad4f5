"""AR-Net's losses and network against the published formulas in NumPy."""

import math

import numpy as np
import pytest
import torch

from xelvad.models import ARNet, Bags
from xelvad.models.clipwise import arnet
from xelvad.models.clipwise.arnet import centre_loss, dynamic_mil_loss

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
    sigmoid,
    split,
)

LENGTHS = [(1,), (32,), (4, 5), (8, 1, 9, 3)]  # T/4 whole and not


def reference_dynamic(scores: Videos, label: float, share: float = 0.25) -> float:
    losses = []
    for video in scores:
        top = sorted(video, reverse=True)[: math.ceil(share * len(video))]
        losses.append(np.mean([-math.log(score if label else 1 - score) for score in top]))
    return float(np.mean(losses))


def reference_centre(scores: Videos) -> float:
    return float(np.mean([np.mean([(score - np.mean(video)) ** 2 for score in video]) for video in scores]))


def two_layers(parameters: Videos, clips: Array) -> Array:
    """The published network without dropout: clips ``(…, F)`` to scores ``(…)``."""
    first, first_bias, second, second_bias = parameters
    return sigmoid(np.maximum(clips @ first.T + first_bias, 0) @ second.T + second_bias)[..., 0]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_the_regression_of_the_highest_quarter_is_the_formula(lengths: tuple[int, ...], label: float) -> None:
    scores = draw_scores(lengths, 0)
    assert_loss_is(lambda s: reference_dynamic(s, label), lambda s: dynamic_mil_loss(s, label), scores)


def test_another_share_of_the_clips_can_be_looked_at() -> None:
    scores = draw_scores((1, 4, 7), 1)
    for share in (0.5, 1.0):
        assert_loss_is(
            lambda s, share=share: reference_dynamic(s, 1.0, share),
            lambda s, share=share: dynamic_mil_loss(s, 1.0, share),
            scores,
        )


@pytest.mark.parametrize("lengths", LENGTHS)
def test_centre_loss_and_its_gradients_are_the_variance_of_each_video(lengths: tuple[int, ...]) -> None:
    assert_loss_is(reference_centre, centre_loss, draw_scores(lengths, 2))


@pytest.mark.parametrize("feature_dim", [1, 7, 256])
def test_the_scorer_is_the_published_network(feature_dim: int) -> None:
    torch.manual_seed(0)
    detector = ARNet(feature_dim).double().eval()
    x = np.random.default_rng(0).normal(size=(2, 3, feature_dim))
    with torch.no_grad():
        scores = detector.score(torch.from_numpy(x))
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores, two_layers(parameters_of(detector), x), atol=1e-12)


def test_the_layers_and_their_sizes_are_the_published_ones() -> None:
    assert describe_layers(ARNet(600).scorer) == "Linear 600, ReLU, Dropout 0.7, Linear 1, Sigmoid"
    assert describe_layers(ARNet(7).scorer) == "Linear 512, ReLU, Dropout 0.7, Linear 1, Sigmoid", "never narrower"


def test_weights_begin_xavier_uniform_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    first, first_bias, second, second_bias = ARNet(1024).parameters()
    for weight in (first, second):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.98 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not first_bias.any()
    assert not second_bias.any()


@pytest.mark.parametrize("lengths", BATCHES)
def test_the_total_and_its_gradients_are_the_weighted_formulas_of_the_network(
    lengths: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    torch.manual_seed(0)
    detector = ARNet(6).double().eval()
    bags = draw_bags(lengths, 6)

    def reference(parameters: Videos, clips: Array) -> float:
        abnormal, normal = split(two_layers(parameters, clips), bags)
        sums = len(abnormal) * reference_dynamic(abnormal, 1.0) + len(normal) * reference_dynamic(normal, 0.0)
        return sums / (len(abnormal) + len(normal)) + 20 * reference_centre(normal)  # mean over videos of both kinds

    assert_network_loss_is(reference, detector, bags)


def test_a_batch_of_many_blocks_gives_the_loss_and_gradients_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    detector, bags = ARNet(6).double(), draw_bags(((7, 4), (9, 3)), 6)
    losses, gradients = [], []
    for block in (len(bags.clips), 8, 1):
        monkeypatch.setattr(arnet, "BLOCK", block)
        detector.zero_grad()
        torch.manual_seed(0)
        loss = detector.eval().loss(bags).total
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in detector.parameters()]))
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-12)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-10, atol=1e-14)


def float_bags(feature_dim: int) -> Bags:
    bags = draw_bags(((7, 4), (9, 3)), feature_dim)
    return Bags(bags.clips.float(), bags.abnormal, bags.normal)


def test_in_training_hidden_activations_are_dropped() -> None:
    torch.manual_seed(0)
    detector, bags = ARNet(64).train(), float_bags(64)
    torch.manual_seed(1)
    loss = detector.loss(bags)
    scores = torch.cat([*loss.abnormal_scores, *loss.normal_scores])
    torch.manual_seed(1)
    torch.testing.assert_close(scores, detector.scorer(bags.clips).squeeze(-1))  # the same dice, layer by layer
    assert not torch.allclose(scores, detector.eval().score(bags.clips))


def test_the_terms_have_names_and_add_up_to_the_total() -> None:
    loss = ARNet(8).loss(Bags(torch.randn(15, 8), (5, 1), (7, 2)))
    assert set(loss.terms) == {"dynamic_mil", "centre"}
    assert sum(term.item() for term in loss.terms.values()) == pytest.approx(loss.total.item(), rel=1e-6)


def test_abnormal_videos_are_not_drawn_to_their_centre() -> None:
    detector = ARNet(8).double().eval()
    bags = draw_bags(((9,), (4,)), 8)
    other = Bags(torch.cat([bags.clips[:9] * 3, bags.clips[9:]]), (9,), (4,))
    first, second = (detector.loss(b).terms for b in (bags, other))
    assert first["centre"].item() == second["centre"].item() > 0
    assert first["dynamic_mil"].item() != second["dynamic_mil"].item()


def test_scores_at_the_ends_of_the_range_give_a_finite_loss() -> None:
    scores = [torch.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)]
    for label in (0.0, 1.0):
        loss = dynamic_mil_loss(scores, label, share=1.0)
        loss.backward()
        assert loss.isfinite()
        assert scores[0].grad.isfinite().all()
