"""BN-WVAD's criterion, selection, losses and network against the published formulas in NumPy."""

import math

import numpy as np
import pytest
import torch

from xelvad.models import BNWVAD, Bags
from xelvad.models.contextual.bnwvad import (
    bounded,
    divergence_from_mean,
    normal_loss,
    pull_push_loss,
    select_abnormal,
    select_normal,
)

from ...helpers.encoder import encode
from ...helpers.numeric import (
    BATCHES,
    Array,
    Videos,
    assert_loss_is,
    assert_network_loss_is,
    draw_bags,
    draw_scores,
    parameters_of,
    sigmoid,
    split,
)
from ...helpers.planted import FEATURE_DIM, assert_learns_planted

Statistics = list[tuple[Array, Array]]  # running mean and variance of each layer
Lengths = tuple[tuple[int, ...], tuple[int, ...]]
WEIGHTS = {"normal": 1.0, "pull_push_first": 5.0, "pull_push_second": 20.0}
TYPICAL = math.sqrt(32) + math.sqrt(16)


def reference_abnormal(divergences: Videos, sample_share: float, batch_share: float) -> list[float]:
    clips = [(video, clip) for video, values in enumerate(divergences) for clip in range(len(values))]
    ordered = sorted(clips, key=lambda place: -divergences[place[0]][place[1]])
    chosen = set(ordered[: int(batch_share * len(clips))])
    for video, values in enumerate(divergences):
        of_video = [place for place in ordered if place[0] == video]
        chosen |= set(of_video[: max(1, int(sample_share * len(values)))])
    return [divergences[video][clip] for video, clip in clips if (video, clip) in chosen]


def reference_normal(divergences: Videos, count: int) -> list[float]:
    ordered = [sorted(values, reverse=True) for values in divergences]
    rounds = [values[rank] for rank in range(max(map(len, ordered))) for values in ordered if rank < len(values)]
    return rounds[:count]


def reference_pull_push(abnormal: Videos, normal: Videos, sample_share: float = 0.1, batch_share: float = 0.2) -> float:
    pushed = reference_abnormal(abnormal, sample_share, batch_share)
    pulled = reference_normal(normal, len(pushed))
    return float(np.mean([max(0.0, 1 + pulled[n % len(pulled)] - far) for n, far in enumerate(pushed)]))


def reference_normal_loss(scores: Videos) -> float:
    return float(np.mean([math.sqrt(sum(score**2 for score in video)) for video in scores]))


def batch_statistics(features: Array) -> tuple[Array, Array]:
    """What a first step leaves of mean 0 and variance 1: nine tenths, and a tenth of the batch's."""
    return 0.1 * features.mean(axis=0), 0.9 + 0.1 * features.var(axis=0, ddof=1)


def head(parameters: Videos, encoded: Array, statistics: Statistics | None, training: bool) -> dict:
    """Classifier's scores and divergences; without statistics they are those after a first step on this batch."""
    layers, norms, (last, last_bias) = parameters[:4], parameters[4:8], parameters[8:]
    clips, divergences, used = encoded, [], []
    for n in range(2):
        features = clips @ layers[2 * n].T + layers[2 * n + 1]
        mean, variance = batch_statistics(features) if statistics is None else statistics[n]
        used.append((mean, variance))
        divergences.append(np.sqrt(((features - mean) ** 2 / (variance + 1e-5)).sum(axis=1)))
        if training:
            mean, variance = features.mean(axis=0), features.var(axis=0)
        clips = (features - mean) / np.sqrt(variance + 1e-5) * norms[2 * n] + norms[2 * n + 1]
        clips = np.maximum(clips, 0)
    probabilities = sigmoid(clips @ last.T + last_bias)[:, 0]
    return {"probabilities": probabilities, "divergences": divergences, "statistics": used}


def network(
    parameters: Videos, clips: Array, bags: Bags, statistics: Statistics | None, training: bool = False
) -> dict:
    encoded = np.concatenate([encode(iter(parameters), video) for kind in split(clips, bags) for video in kind])
    return head(parameters[-10:], encoded, statistics, training)


def reference_terms(found: dict, bags: Bags) -> dict[str, float]:
    """The published terms, unweighted."""
    first, second = (reference_pull_push(*split(each, bags)) for each in found["divergences"])
    normal = reference_normal_loss(split(found["probabilities"], bags)[1])
    return {"normal": normal, "pull_push_first": first, "pull_push_second": second}


def scores_of(found: dict) -> Array:
    products = found["probabilities"] * sum(found["divergences"])
    return products / (products + TYPICAL)


def trained_a_little(feature_dim: int = 6) -> tuple[BNWVAD, Statistics]:
    """A detector in evaluation mode whose statistics are those of no batch, and these."""
    torch.manual_seed(0)
    detector = BNWVAD(feature_dim).double().eval()
    for norm in detector.norms:
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
        torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
        torch.nn.init.normal_(norm.bias)
    return detector, [(norm.running_mean.numpy(), norm.running_var.numpy()) for norm in detector.norms]


@pytest.mark.parametrize("clips", [1, 9])
def test_the_divergence_from_the_mean_and_its_gradient_are_mahalanobis(clips: int) -> None:
    rng = np.random.default_rng(0)
    norm = torch.nn.BatchNorm1d(5).double()
    norm.running_mean, norm.running_var = torch.from_numpy(rng.normal(size=5)), torch.from_numpy(rng.random(5))
    mean, covariance = norm.running_mean.numpy(), np.diag(norm.running_var.numpy() + norm.eps)
    weights = rng.normal(size=clips)

    def mahalanobis(features: Array) -> float:
        return math.sqrt((features - mean) @ np.linalg.inv(covariance) @ (features - mean))

    assert_loss_is(
        lambda groups: float(weights @ [mahalanobis(features) for features in groups]),
        lambda groups: divergence_from_mean(torch.stack(groups), norm) @ torch.from_numpy(weights),
        [rng.normal(size=5) for _ in range(clips)],
    )


def test_a_clip_like_all_others_diverges_by_the_root_of_the_channels() -> None:
    norm = torch.nn.BatchNorm1d(400)
    divergences = divergence_from_mean(torch.randn(50, 400), norm)
    assert divergences.mean().item() == pytest.approx(20, rel=0.02)


def test_a_channel_that_never_varies_and_a_clip_at_the_mean_are_harmless() -> None:
    norm = torch.nn.BatchNorm1d(2)
    torch.nn.init.zeros_(norm.running_var)
    features = torch.zeros(3, 2, requires_grad=True)
    divergences = divergence_from_mean(features, norm)
    divergences.sum().backward()
    assert not divergences.any()
    assert not features.grad.any()


def test_scores_keep_the_order_and_fill_the_unit_interval() -> None:
    products = torch.tensor([0.0, 1e-3, 1.0, TYPICAL, 50.0, 51.0, 1e4])
    scores = bounded(products)
    assert scores[0] == 0
    assert scores[3].item() == pytest.approx(0.5)
    assert (scores.diff() > 0).all()
    assert scores[-1] < 1


@pytest.mark.parametrize("lengths", [(1,), (32,), (1, 40, 7, 3), (20, 20, 20)])
@pytest.mark.parametrize("shares", [(0.1, 0.2), (0.2, 0.4), (0.0, 0.5), (1.0, 0.0), (0.1, 0.0)])
def test_the_clips_taken_for_abnormal_are_the_highest_of_each_video_and_of_all(
    lengths: tuple[int, ...], shares: tuple[float, float]
) -> None:
    divergences = draw_scores(lengths, 0)
    chosen = select_abnormal([torch.from_numpy(video) for video in divergences], *shares)
    np.testing.assert_array_equal(chosen, reference_abnormal(divergences, *shares))
    assert len(chosen) >= len(lengths), "every abnormal video has an anomaly"


def test_more_is_selected_from_videos_where_more_is_abnormal() -> None:
    much, little = torch.arange(10.0) + 100, torch.arange(10.0)
    assert select_abnormal([much, little], 0.1, 0.4).tolist() == [*range(102, 110), 9]


@pytest.mark.parametrize("lengths", [(1,), (32,), (1, 40, 7, 3)])
@pytest.mark.parametrize("count", [1, 6, 1000])
def test_the_hardest_normal_clips_are_taken_rank_by_rank(lengths: tuple[int, ...], count: int) -> None:
    divergences = draw_scores(lengths, 0)
    chosen = select_normal([torch.from_numpy(video) for video in divergences], count)
    np.testing.assert_array_equal(chosen, reference_normal(divergences, count))
    assert len(chosen) == min(count, sum(lengths))


@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("shares", [(0.1, 0.2), (0.5, 0.9)])
def test_the_pull_push_loss_and_its_gradients_are_the_formula(lengths: Lengths, shares: tuple[float, float]) -> None:
    assert_loss_is(
        lambda a, n: reference_pull_push(a, n, *shares),
        lambda a, n: pull_push_loss(a, n, *shares),
        *(draw_scores(kind, seed) for seed, kind in enumerate(lengths)),
    )


def test_normal_clips_are_pulled_and_abnormal_ones_pushed_to_a_margin() -> None:
    assert pull_push_loss([torch.tensor([3.0])], [torch.tensor([1.0])], 0.1, 0.2).item() == 0
    assert pull_push_loss([torch.tensor([1.5])], [torch.tensor([1.0])], 0.1, 0.2).item() == 0.5


@pytest.mark.parametrize("lengths", [(1,), (17, 1, 40)])
def test_the_normal_loss_is_the_length_of_the_scores(lengths: tuple[int, ...]) -> None:
    assert_loss_is(reference_normal_loss, normal_loss, draw_scores(lengths, 0))
    zeros = torch.zeros(5, requires_grad=True)
    normal_loss([zeros]).backward()
    assert zeros.grad.isfinite().all()


def test_the_layers_and_their_sizes_are_the_published_ones() -> None:
    detector = BNWVAD(1024)
    assert [tuple(layer.weight.shape) for layer in detector.reduce] == [(32, 512), (16, 32)]
    assert [norm.num_features for norm in detector.norms] == [32, 16]
    assert sum(parameter.numel() for parameter in detector.parameters()) == 5_791_905  # of the published code


@pytest.mark.parametrize("clips", [1, 6, 33])
def test_scores_are_those_of_the_published_network_in_the_unit_interval(clips: int) -> None:
    detector, statistics = trained_a_little()
    bags = draw_bags(((clips,), (clips,)), 6)
    with torch.no_grad():
        scores = detector.score(bags.clips.reshape(2, clips, 6))
    expected = scores_of(network(parameters_of(detector), bags.clips.numpy(), bags, statistics))
    np.testing.assert_allclose(scores.flatten(), expected, atol=1e-8)


@pytest.mark.parametrize("lengths", [BATCHES[0], BATCHES[3]])
def test_the_total_and_its_gradients_are_the_weighted_formulas_of_the_network(lengths: Lengths) -> None:
    detector, statistics = trained_a_little()
    bags = draw_bags(lengths, 6)

    def reference(parameters: Videos, clips: Array) -> float:
        terms = reference_terms(network(parameters, clips, bags, statistics), bags)
        return sum(WEIGHTS[name] * value for name, value in terms.items())

    assert_network_loss_is(reference, detector, bags)


@pytest.mark.parametrize("lengths", BATCHES[2:])
def test_in_training_layers_are_normalised_by_the_batch_and_divergence_is_from_what_was_gathered(
    lengths: Lengths,
) -> None:
    torch.manual_seed(0)
    detector, bags = BNWVAD(6).double().train(), draw_bags(lengths, 6)
    found = network(parameters_of(detector), bags.clips.numpy(), bags, None, training=True)

    def reference(parameters: Videos, clips: Array) -> float:  # statistics are constants
        terms = reference_terms(network(parameters, clips, bags, found["statistics"], training=True), bags)
        return sum(WEIGHTS[name] * value for name, value in terms.items())

    assert_network_loss_is(reference, detector, bags)
    for norm, (mean, variance) in zip(detector.norms, found["statistics"], strict=True):
        np.testing.assert_allclose(norm.running_mean, mean, atol=1e-12)
        np.testing.assert_allclose(norm.running_var, variance, atol=1e-12)
    fresh = BNWVAD(6).double().train()
    fresh.load_state_dict(detector.state_dict())
    for norm in fresh.norms:
        norm.reset_running_stats()
    loss = fresh.loss(bags)
    scores = np.concatenate([video.detach() for video in loss.abnormal_scores + loss.normal_scores])
    np.testing.assert_allclose(scores, scores_of(found), atol=1e-8)
    terms = reference_terms(found, bags)
    assert {name: term.item() for name, term in loss.terms.items()} == pytest.approx(
        {name: WEIGHTS[name] * value for name, value in terms.items()}, rel=1e-8
    )


def test_a_second_pass_in_training_does_not_spoil_the_gradients_of_the_first() -> None:
    """XEL may score its bank with the statistics still gathering, which BatchNorm overwrites in place."""
    detector, bags = BNWVAD(4).train(), Bags(torch.randn(15, 4), (5, 1), (7, 2))
    loss = detector.loss(bags)
    (loss.total + detector.score(torch.randn(3, 8, 4)).sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in detector.parameters())


def test_every_weight_and_share_is_an_option() -> None:
    bags, losses = draw_bags(((40, 30), (50,)), 6), []
    options = {"first_weight": 10.0, "second_weight": 60.0}
    for given in ({}, options, {"sample_share": 0.9}, {"batch_share": 0.9}):
        torch.manual_seed(0)
        losses.append(BNWVAD(6, **given).double().eval().loss(bags).terms)
    for name, factor in {"normal": 1, "pull_push_first": 2, "pull_push_second": 3}.items():
        torch.testing.assert_close(losses[1][name], factor * losses[0][name])
    for other in losses[2:]:
        assert other["pull_push_first"] != losses[0]["pull_push_first"]


@pytest.mark.parametrize("share", [-0.1, 1.1])
@pytest.mark.parametrize("name", ["sample_share", "batch_share"])
def test_shares_are_shares(name: str, share: float) -> None:
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        BNWVAD(4, **{name: share})


@pytest.mark.parametrize("with_xel", [False, True])
def test_planted_anomalies_are_found(with_xel: bool) -> None:
    torch.manual_seed(1)
    assert_learns_planted(BNWVAD(FEATURE_DIM), 40, with_xel)
