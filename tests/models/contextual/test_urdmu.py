"""UR-DMU's losses, memories and network against the published formulas in NumPy."""

import math

import numpy as np
import pytest
import torch

from xelvad.models import URDMU, Bags
from xelvad.models.contextual.urdmu import (
    Memory,
    divergence,
    dual_memory_loss,
    highest_mean,
    magnitude_loss,
    mean_of_top,
    top_entropy,
    triplet_loss,
)

from ...helpers.encoder import encode
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
from ...helpers.planted import FEATURE_DIM, assert_learns_planted

LENGTHS = [(1,), (15, 16), (17, 1, 40, 3)]  # one clip is looked at, two, three
PAIRS = [(1, 1), (3, 3), (2, 5)]  # abnormal and normal videos


def entropy(score: float, label: float) -> float:
    return -math.log(score) if label else -math.log(1 - score)


def top(video: Array) -> list[int]:
    """Which clips have the highest values, one in sixteen and one more."""
    return np.argsort(-video)[: len(video) // 16 + 1].tolist()


def reference_top_entropy(scores: Videos, label: float) -> float:
    return float(np.mean([entropy(video[top(video)].mean(), label) for video in scores]))


def reference_memory(
    abnormal_abnormal: Videos, abnormal_normal: Videos, normal_abnormal: Videos, normal_normal: Videos
) -> float:
    return float(
        reference_top_entropy(abnormal_abnormal, 1.0)
        + reference_top_entropy([1 - video for video in abnormal_normal], 1.0)
        + np.mean([entropy(score, 0.0) for score in np.concatenate(normal_abnormal)])
        + np.mean([entropy(score, 1.0) for score in np.concatenate(normal_normal)])
    )


def reference_triplet(anchors: Videos, positives: Videos, negatives: Videos, margin: float = 1.0) -> float:
    a, p, n = ([vector / np.linalg.norm(vector) for vector in vectors] for vectors in (anchors, positives, negatives))
    pairs = [(anchor, *pair) for pair in zip(p, n, strict=True) for anchor in a]
    return float(np.mean([max(0.0, margin + np.linalg.norm(x - y) - np.linalg.norm(x - z)) for x, y, z in pairs]))


def reference_magnitude(abnormal: Videos, normal: Videos, margin: float = 100.0) -> float:
    return float(np.mean([max(0, margin - np.linalg.norm(a) + np.linalg.norm(n)) for a in abnormal for n in normal]))


def reference_divergence(mean: Array, log_variance: Array) -> float:
    of_dimensions = 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance)
    return float(of_dimensions.sum(axis=1).mean())


def recall(entries: Array, clips: Array) -> tuple[Array, Array]:
    likeness = sigmoid(clips @ entries.T / math.sqrt(entries.shape[1]))
    return np.sort(likeness, axis=1)[:, -4:].mean(axis=1), likeness @ entries  # 60 // 16 + 1


def network(parameters: Videos, clips: Array, bags: Bags, noise: Array | float = 0.0) -> dict[str, Array]:
    """All that the network computes of each clip of a batch, ``(ΣT, …)``; the noise is that of normal videos."""
    *encoder, abnormal, normal, mean, mean_bias, spread, spread_bias, first, first_bias, last, last_bias = parameters
    encoded = np.concatenate([encode(iter(encoder), video) for kind in split(clips, bags) for video in kind])
    in_abnormal, abnormal_recall = recall(abnormal, encoded)
    in_normal, normal_recall = recall(normal, encoded)
    of_abnormal, of_normal = (each @ mean.T + mean_bias for each in (abnormal_recall, normal_recall))
    log_variance = normal_recall @ spread.T + spread_bias
    noisy = of_normal.copy()
    noisy[sum(bags.abnormal) :] += np.exp(0.5 * log_variance[sum(bags.abnormal) :]) * noise
    hidden = np.maximum(np.concatenate([encoded, of_abnormal + noisy], axis=1) @ first.T + first_bias, 0)
    scores = sigmoid(hidden @ last.T + last_bias)[:, 0]
    return {
        "encoded": encoded,
        "in_abnormal": in_abnormal,
        "in_normal": in_normal,
        "of_abnormal": of_abnormal,
        "of_normal": of_normal,
        "noisy": noisy,
        "log_variance": log_variance,
        "scores": scores,
    }


def reference_terms(parameters: Videos, clips: Array, bags: Bags, noise: Array | float = 0.0) -> dict[str, float]:
    """The published terms, unweighted."""
    abnormal: dict[str, Videos] = {}
    normal: dict[str, Videos] = {}
    for name, values in network(parameters, clips, bags, noise).items():
        abnormal[name], normal[name] = split(values, bags)

    def tops(kind: dict[str, Videos], name: str, by: str) -> Videos:
        return [video[top(values)].mean(axis=0) for video, values in zip(kind[name], kind[by], strict=True)]

    count = len(abnormal["scores"]) + len(normal["scores"])
    entropies = len(abnormal["scores"]) * reference_top_entropy(abnormal["scores"], 1.0)
    entropies += len(normal["scores"]) * reference_top_entropy(normal["scores"], 0.0)
    return {
        "classification": entropies / count,
        "memory": reference_memory(
            abnormal["in_abnormal"], abnormal["in_normal"], normal["in_abnormal"], normal["in_normal"]
        ),
        "triplet": reference_triplet(
            tops(normal, "encoded", "in_normal"),
            tops(abnormal, "encoded", "in_normal"),
            tops(abnormal, "encoded", "in_abnormal"),
        ),
        "divergence": reference_divergence(np.concatenate(normal["of_normal"]), np.concatenate(normal["log_variance"])),
        "magnitude": reference_magnitude(
            tops(abnormal, "of_abnormal", "in_abnormal"), tops(normal, "noisy", "in_normal")
        ),
    }


WEIGHTS = {"classification": 1.0, "memory": 0.1, "triplet": 0.1, "divergence": 0.001, "magnitude": 0.0001}


@pytest.mark.parametrize("shape", [(1,), (15,), (16,), (3, 33), (2, 5, 60)])
def test_of_the_highest_values_one_in_sixteen_and_one_more_are_averaged(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random(shape)
    expected = np.sort(values, axis=-1)[..., -(shape[-1] // 16 + 1) :].mean(axis=-1)
    np.testing.assert_allclose(highest_mean(torch.from_numpy(values)), expected, atol=1e-15)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_the_entropy_of_the_highest_scores_is_the_formula(lengths: tuple[int, ...], label: float) -> None:
    assert_loss_is(
        lambda s: reference_top_entropy(s, label), lambda s: top_entropy(s, label).mean(), draw_scores(lengths, 0)
    )


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_dual_memory_loss_is_the_formula(lengths: tuple[int, ...]) -> None:
    groups = [draw_scores(lengths, seed) for seed in (0, 1)] + [draw_scores((2, 17), seed) for seed in (2, 3)]
    assert_loss_is(reference_memory, dual_memory_loss, *groups)


@pytest.mark.parametrize("numbers", PAIRS)
def test_triplet_and_magnitude_losses_are_the_formulas(numbers: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    positives, negatives = ([rng.normal(size=6) for _ in range(numbers[0])] for _ in range(2))
    anchors = [rng.normal(size=6) for _ in range(numbers[1])]
    assert_loss_is(
        reference_triplet, lambda *groups: triplet_loss(*map(torch.stack, groups)), anchors, positives, negatives
    )
    for margin in (1.0, 100.0):  # of some pairs, and of all
        assert_loss_is(
            lambda a, n, margin=margin: reference_magnitude(a, n, margin),
            lambda a, n, margin=margin: magnitude_loss(torch.stack(a), torch.stack(n), margin),
            [4 * vector for vector in positives],
            anchors,
        )
    assert magnitude_loss(torch.full((1, 4), 60.0), torch.ones(1, 4)) == 0


def test_with_as_many_videos_of_each_kind_the_mean_over_pairs_is_that_of_the_published_pairings() -> None:
    anchors, positives, negatives = torch.randn(3, 4, 6).double()
    published = torch.nn.TripletMarginLoss(margin=1, eps=0)
    turned = [
        published(*(torch.nn.functional.normalize(each, dim=-1) for each in (anchors.roll(n, 0), positives, negatives)))
        for n in range(4)
    ]
    torch.testing.assert_close(triplet_loss(anchors, positives, negatives), torch.stack(turned).mean())


@pytest.mark.parametrize("shape", [(1, 1), (7, 3)])
def test_the_divergence_is_that_of_torchs_gaussians(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=shape), rng.normal(size=shape)
    assert_loss_is(
        lambda m, v: reference_divergence(m[0], v[0]), lambda m, v: divergence(m[0], v[0]), [mean], [log_variance]
    )
    normal = torch.distributions.Normal
    gaussians = normal(torch.from_numpy(mean), torch.from_numpy(log_variance).mul(0.5).exp())
    exact = torch.distributions.kl_divergence(gaussians, normal(torch.zeros(()).double(), 1.0)).sum(dim=1).mean()
    torch.testing.assert_close(divergence(torch.from_numpy(mean), torch.from_numpy(log_variance)), exact)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_mean_of_the_highest_clips_and_its_gradients_are_numpys(lengths: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    clips, values = [rng.normal(size=(length, 3)) for length in lengths], draw_scores(lengths, 1)
    weights = rng.normal(size=(len(lengths), 3))
    assert_loss_is(
        lambda c: float(sum(w @ v[top(s)].mean(axis=0) for w, v, s in zip(weights, c, values, strict=True))),
        lambda c: (mean_of_top(c, [torch.from_numpy(each) for each in values]) * torch.from_numpy(weights)).sum(),
        clips,
        tolerance=1e-11,
    )


@pytest.mark.parametrize("shape", [(1, 8), (2, 5, 8)])
def test_a_memory_is_the_formula(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    memory, clips = Memory(8).double(), np.random.default_rng(0).normal(size=shape)
    with torch.no_grad():
        likeness, recalled = memory(torch.from_numpy(clips))
    expected = recall(memory.entries.detach().numpy(), clips.reshape(-1, 8))
    np.testing.assert_allclose(likeness, expected[0].reshape(shape[:-1]), atol=1e-12)
    np.testing.assert_allclose(recalled, expected[1].reshape(shape), atol=1e-12)
    entries = Memory(512).entries
    assert entries.shape == (60, 512)
    assert 0.98 < entries.abs().max() * 512**0.5 <= 1
    assert entries.std().item() == pytest.approx((3 * 512) ** -0.5, rel=0.02)


def test_the_layers_and_their_sizes_are_the_published_ones() -> None:
    detector = URDMU(1024)
    assert describe_layers(detector.classifier) == "Linear 128, ReLU, Linear 1, Sigmoid"
    assert detector.classifier[0].in_features == 1024
    assert [tuple(layer.weight.shape) for layer in (detector.mean, detector.log_variance)] == [(512, 512)] * 2
    assert (
        sum(parameter.numel() for parameter in detector.parameters()) == 6_492_929
    )  # as many as the published code has


@pytest.mark.parametrize("clips", [1, 6, 33])
def test_scores_are_those_of_the_published_network(clips: int) -> None:
    torch.manual_seed(0)
    detector = URDMU(6).double().eval()
    bags = draw_bags(((clips,), (clips,)), 6)
    with torch.no_grad():
        scores = detector.score(bags.clips.reshape(2, clips, 6))
    expected = network(parameters_of(detector), bags.clips.numpy(), bags)["scores"]
    np.testing.assert_allclose(scores.flatten(), expected, atol=1e-8)


@pytest.mark.parametrize("lengths", [BATCHES[0], BATCHES[3]])
def test_the_total_and_its_gradients_are_the_weighted_formulas_of_the_network(
    lengths: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    torch.manual_seed(0)
    detector, bags = URDMU(6).double().eval(), draw_bags(lengths, 6)

    def reference(parameters: Videos, clips: Array) -> float:
        return sum(WEIGHTS[name] * value for name, value in reference_terms(parameters, clips, bags).items())

    assert_network_loss_is(reference, detector, bags)


@pytest.mark.parametrize("lengths", BATCHES)
def test_in_training_what_normal_videos_recall_is_drawn_from_its_gaussian(
    lengths: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    torch.manual_seed(0)
    detector, bags = URDMU(6, dropout=0.0).double().train(), draw_bags(lengths, 6)
    torch.manual_seed(1)
    loss = detector.loss(bags)
    torch.manual_seed(1)
    noise = torch.randn(sum(bags.normal), 128, dtype=torch.float64).numpy()
    parameters, clips = parameters_of(detector), bags.clips.numpy()
    scores = np.concatenate([video.detach() for video in loss.abnormal_scores + loss.normal_scores])
    np.testing.assert_allclose(scores, network(parameters, clips, bags, noise)["scores"], atol=1e-8)
    terms = reference_terms(parameters, clips, bags, noise)
    assert {name: term.item() for name, term in loss.terms.items()} == pytest.approx(
        {name: WEIGHTS[name] * value for name, value in terms.items()}, rel=1e-8
    )
    assert loss.total.item() == pytest.approx(sum(WEIGHTS[name] * value for name, value in terms.items()), rel=1e-8)


def test_every_weight_is_an_option() -> None:
    bags = draw_bags(((4, 3), (5,)), 6)
    losses = []
    for weights in ({}, {"memory_weight": 0.2, "triplet_weight": 0.3, "kl_weight": 0.004, "magnitude_weight": 0.0005}):
        torch.manual_seed(0)
        losses.append(URDMU(6, **weights).double().eval().loss(bags).terms)
    for name, factor in {"classification": 1, "memory": 2, "triplet": 3, "divergence": 4, "magnitude": 5}.items():
        torch.testing.assert_close(losses[1][name], factor * losses[0][name])


def test_scores_at_the_ends_of_the_range_give_a_finite_loss() -> None:
    scores = [torch.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)]
    for label in (0.0, 1.0):
        loss = top_entropy(scores, label).sum() + dual_memory_loss(scores, scores, scores, scores)
        (gradient,) = torch.autograd.grad(loss, scores)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_clips_that_are_all_alike_give_finite_gradients() -> None:
    """Distances of zero, between anchors and positives, are no corner to fall into."""
    bags = Bags(torch.zeros(12, 4), (3, 3), (2, 4))
    detector = URDMU(4).eval()
    detector.loss(bags).total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in detector.parameters())


@pytest.mark.parametrize("with_xel", [False, True])
def test_planted_anomalies_are_found(with_xel: bool) -> None:
    torch.manual_seed(0)
    assert_learns_planted(URDMU(FEATURE_DIM), 40, with_xel, learning_rate=3e-4)
