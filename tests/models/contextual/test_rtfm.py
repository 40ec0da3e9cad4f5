"""RTFM's losses and network against the published formulas in NumPy."""

import numpy as np
import pytest
import torch

from xelvad.models import RTFM, Bags
from xelvad.models.contextual.rtfm import longest_clips, magnitude_loss

from ...helpers.layers import batch_norms, convolved, disturb
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
from ...helpers.planted import assert_learns_planted

Lengths = tuple[tuple[int, ...], tuple[int, ...]]


def relu(values: Array) -> Array:
    return np.maximum(values, 0)


def reference_features(detector: RTFM, parameters: Videos, videos: Videos) -> tuple[Videos, Videos]:
    """The published network, video by video and clip by clip: features ``(T, F)`` and scores ``(T,)`` of each."""
    p = dict(zip((name for name, _ in detector.named_parameters()), parameters, strict=True))
    norm = batch_norms(detector, p)
    branches = []
    for number, dilation in enumerate((1, 2, 4)):
        weight, bias = (p[f"temporal.near.{number}.conv.{kind}"] for kind in ("weight", "bias"))
        near = [relu(convolved(video, weight, bias, dilation)) for video in videos]
        branches.append(norm(near, f"temporal.near_norms.{number}"))
    reduced = [relu(video @ p["temporal.reduce.weight"].T) for video in videos]
    seen = []
    for video in reduced:
        query, key, value = (
            video @ p[f"temporal.far.{kind}.weight"].T + p[f"temporal.far.{kind}.bias"]
            for kind in ("query", "key", "value")
        )
        seen.append((query @ key.T / len(video)) @ value @ p["temporal.far.out.weight"].T)
    normed = norm(seen, "temporal.far.norm")
    branches.append([video + change for video, change in zip(reduced, normed, strict=True)])
    joined = [
        relu(convolved(np.concatenate(parts, axis=1), p["temporal.join.conv.weight"]))
        for parts in zip(*branches, strict=True)
    ]
    joined = norm(joined, "temporal.join_norm")
    features = [video + change for video, change in zip(videos, joined, strict=True)]
    hidden = [relu(video @ p["scorer.0.weight"].T + p["scorer.0.bias"]) for video in features]
    hidden = [relu(video @ p["scorer.3.weight"].T + p["scorer.3.bias"]) for video in hidden]
    return features, [sigmoid(video @ p["scorer.6.weight"].T + p["scorer.6.bias"])[:, 0] for video in hidden]


def reference_magnitude(abnormal: Array, normal: Array, margin: float) -> float:
    return float(np.mean([(abs(margin - a) + n) ** 2 for a in abnormal for n in normal]))


def reference_loss(detector: RTFM, parameters: Videos, clips: Array, bags: Bags) -> float:
    videos = [video for kind in split(clips, bags) for video in kind]
    features, scores = reference_features(detector, parameters, videos)
    entropy, magnitudes = [], []
    for number, (video, of_clips) in enumerate(zip(features, scores, strict=True)):
        best = np.argsort(-np.linalg.norm(video, axis=1))[: max(1, len(video) // 10)]
        magnitudes.append(np.sqrt(2048 / video.shape[1]) * np.linalg.norm(video[best].mean(axis=0)))
        verdict = of_clips[best].mean()
        entropy.append(-np.log(verdict if number < len(bags.abnormal) else 1 - verdict))
    count = len(bags.abnormal)
    abnormal = scores[:count]
    steps = sum(np.sum(np.diff(video) ** 2) for video in abnormal)
    length = np.sqrt(sum(np.sum(video**2) for video in abnormal))
    magnitude = reference_magnitude(np.array(magnitudes[:count]), np.array(magnitudes[count:]), 100.0)
    return float(np.mean(entropy) + 1e-4 * magnitude + 8e-3 * length + 8e-4 * steps)


@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("training", [False, True])
def test_the_total_and_its_gradients_are_the_weighted_formulas_of_the_network(lengths: Lengths, training: bool) -> None:
    """In training, batch norms take the statistics of all clips of the batch."""
    torch.manual_seed(1)  # no ReLU is so near its kink that the numeric slope goes over it
    detector = disturb(RTFM(6, dropout=0.0).double()).train(training)
    bags = draw_bags(lengths, 6)
    assert_network_loss_is(lambda p, clips: reference_loss(detector, p, clips, bags), detector, bags)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 5), (2, 32)])
@pytest.mark.parametrize("feature_dim", [1, 7, 600])
def test_the_scores_are_those_of_the_published_network(shape: tuple[int, int], feature_dim: int) -> None:
    torch.manual_seed(0)
    detector = disturb(RTFM(feature_dim).double()).eval()
    videos = torch.randn(*shape, feature_dim).double()
    _, expected = reference_features(detector, parameters_of(detector), list(videos.numpy()))
    np.testing.assert_allclose(detector.score(videos).detach(), expected, atol=1e-8)


def test_the_layers_have_the_published_sizes_at_2048_features() -> None:
    with torch.device("meta"):
        detector, small = RTFM(2048), RTFM(16)
    sizes = {name: tuple(parameter.shape) for name, parameter in detector.named_parameters()}
    assert [sizes[f"temporal.near.{number}.conv.weight"] for number in range(3)] == [(512, 2048, 3)] * 3
    assert sizes["temporal.reduce.weight"] == (512, 2048)
    assert sizes["temporal.far.query.weight"] == sizes["temporal.far.value.weight"] == (256, 512)
    assert sizes["temporal.join.conv.weight"] == (2048, 2048, 3)
    assert small.temporal.join.conv.weight.shape == (16, 4 * 128, 3), "never narrower"
    scorer = "Linear 512, ReLU, Dropout 0.7, Linear 128, ReLU, Dropout 0.7, Linear 1, Sigmoid"
    assert describe_layers(detector.scorer) == describe_layers(small.scorer) == scorer


def test_weights_begin_xavier_uniform_biases_at_zero_and_the_non_local_block_does_nothing() -> None:
    torch.manual_seed(0)
    detector = RTFM(64)
    for name, parameter in detector.named_parameters():
        if parameter.ndim > 1:
            fan = (parameter.shape[0] + parameter.shape[1]) * (parameter.shape[2] if parameter.ndim == 3 else 1)
            bound = (6 / fan) ** 0.5
            assert 0.95 * bound < parameter.abs().max() <= bound, name
        else:
            begins = 1.0 if "norm" in name and name.endswith("weight") and "far" not in name else 0.0
            assert (parameter == begins).all(), name
    clips = torch.randn(9, 128)
    assert torch.equal(detector.temporal.far(clips, (4, 5)), clips)


@pytest.mark.parametrize("length", [1, 2, 9, 10, 19, 32, 300])
def test_the_longest_tenth_of_the_clips_is_chosen_and_at_least_one(length: int) -> None:
    (values,) = draw_scores((length,), 0)
    (chosen,) = longest_clips([torch.from_numpy(values)])
    assert set(chosen.tolist()) == set(np.argsort(-values)[: max(1, length // 10)])


@pytest.mark.parametrize("counts", [(1, 1), (4, 2), (3, 5)])
def test_the_magnitude_loss_and_its_gradients_are_the_formula(counts: tuple[int, int]) -> None:
    abnormal, normal = draw_scores(counts, 0)
    assert_loss_is(
        lambda a, n: reference_magnitude(a[0], n[0], 0.5),
        lambda a, n: magnitude_loss(a[0], n[0], 0.5),
        [abnormal],
        [normal],
    )


def test_magnitudes_are_as_of_2048_dimensions() -> None:
    for feature_dim in (16, 2048):
        assert RTFM(feature_dim).magnitudes(torch.ones(2, feature_dim)).tolist() == pytest.approx([2048**0.5] * 2)


def test_in_training_a_random_few_clips_can_be_chosen() -> None:
    """The loss of a step then is another at each draw, and without dropout it is not."""
    for dropout, draws in ((0.7, 8), (0.0, 1)):
        torch.manual_seed(0)
        detector, bags = RTFM(8, dropout=dropout).train(), draw_bags(((40,), (40,)), 8)
        detector.scorer.eval()
        detector.temporal.eval()
        bags = Bags(bags.clips.float(), bags.abnormal, bags.normal)
        assert len({detector.loss(bags).total.item() for _ in range(8)}) == draws


def test_weights_of_the_terms_are_options() -> None:
    torch.manual_seed(0)
    detector, bags = RTFM(8).double().eval(), draw_bags(((5, 3), (7,)), 8)
    terms = detector.loss(bags).terms
    twice = RTFM(8, magnitude_weight=2e-4, sparsity_weight=0.0, smoothness_weight=1.6e-3).double().eval()
    twice.load_state_dict(detector.state_dict())
    other = twice.loss(bags).terms
    assert other["entropy"] == terms["entropy"]
    assert other["magnitude"].item() == pytest.approx(2 * terms["magnitude"].item())
    assert other["sparsity"] == 0 < terms["sparsity"]
    assert other["smoothness"].item() == pytest.approx(2 * terms["smoothness"].item())


@pytest.mark.parametrize("with_xel", [False, True])
def test_planted_anomalies_are_found(with_xel: bool) -> None:
    torch.manual_seed(0)
    assert_learns_planted(RTFM(16), steps=80, with_xel=with_xel)
