"""CLAWS's layers and losses against loops in NumPy, its runs, and that it learns."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from xelvad.models import CLAWS, Bags
from xelvad.models.contextual import claws
from xelvad.models.contextual.claws import (
    Suppression,
    drawn_runs,
    regression_loss,
    runs_of,
    sparsity,
    temporal_consistency,
)

from ...helpers.numeric import (
    BATCHES,
    Array,
    Videos,
    assert_loss_is,
    assert_network_loss_is,
    draw_bags,
    draw_scores,
    sigmoid,
    split,
)
from ...helpers.planted import FEATURE_DIM, assert_learns_planted

LENGTHS = [(1,), (32,), (4, 5), (8, 1, 9, 2)]
Lengths = tuple[tuple[int, ...], tuple[int, ...]]


def reference_weights(logits: Array, unit_mean: bool) -> Array:
    """Softmax over the clips of a run, ``(t, units)``, unit by unit."""
    weights = np.empty_like(logits)
    for unit in range(logits.shape[1]):
        raised = np.exp(logits[:, unit] - logits[:, unit].max())
        weights[:, unit] = raised / raised.sum() * (len(logits) if unit_mean else 1)
    return weights


def reference_network(parameters: Videos, video: Array, run: int, unit_mean: bool = True) -> tuple[Array, Array, Array]:
    """The authors' figure without dropout: ``(T, F)`` to both layers' activations and the scores ``(T,)``."""
    first, first_bias, second, second_bias, suppress_first, suppress_second, output, output_bias = parameters
    found = []
    for clips in np.array_split(video, -(-len(video) // run)):
        one = clips @ first.T + first_bias
        kept = np.maximum(one * reference_weights(clips @ suppress_first.T, unit_mean), 0)
        two = kept @ second.T + second_bias
        kept = np.maximum(two * reference_weights(kept @ suppress_second.T, unit_mean), 0)
        found.append((one, two, sigmoid(kept @ output.T + output_bias)[:, 0]))
    one, two, scores = (np.concatenate(each) for each in zip(*found, strict=True))
    return one, two, scores


def parameters_of(detector: CLAWS) -> Videos:
    assert [name for name, _ in detector.named_parameters()] == [
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.weight",
        "layers.1.bias",
        "suppressions.0.layer.weight",
        "suppressions.1.layer.weight",
        "output.weight",
        "output.bias",
    ]
    return [parameter.detach().numpy() for parameter in detector.parameters()]


def reference_distance(activations: Array) -> float | None:
    """Of the centres of the two groups that `draw_bags` draws by turns; a single clip has no two."""
    if len(activations) == 1:
        return None
    return float(np.linalg.norm(activations[::2].mean(axis=0) - activations[1::2].mean(axis=0)))


def reference_regression(runs: Videos, label: float) -> float:
    return float(np.mean([np.mean([(score - label) ** 2 for score in run]) for run in runs]))


def reference_temporal(runs: Videos) -> float:
    means = [np.mean([(b - a) ** 2 for a, b in pairwise(run)]) if len(run) > 1 else 0 for run in runs]
    return float(np.mean(means))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_regression_and_its_gradients_are_the_formula(lengths: tuple[int, ...], label: float) -> None:
    assert_loss_is(
        lambda s: reference_regression(s, label), lambda s: regression_loss(s, label), draw_scores(lengths, 0)
    )


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_regularisers_and_their_gradients_are_the_formulas(lengths: tuple[int, ...]) -> None:
    assert_loss_is(reference_temporal, temporal_consistency, draw_scores(lengths, 1))
    assert_loss_is(lambda s: float(np.mean([run.mean() for run in s])), sparsity, draw_scores(lengths, 2))


@pytest.mark.parametrize("clips", [1, 2, 7])
@pytest.mark.parametrize("unit_mean", [False, True])
def test_suppression_is_a_softmax_over_the_clips_of_each_unit(clips: int, unit_mean: bool) -> None:
    torch.manual_seed(0)
    suppression = Suppression(5, 3, unit_mean).double()
    weight = suppression.layer.weight.detach().numpy()
    videos = [np.random.default_rng(number).normal(size=(clips, 5)) for number in range(2)]
    direction = np.random.default_rng(9).normal(size=(2, clips, 3))
    assert_loss_is(
        lambda v: float(sum((direction[n] * reference_weights(v[n] @ weight.T, unit_mean)).sum() for n in range(2))),
        lambda v: (torch.from_numpy(direction) * suppression(torch.stack(v))).sum(),
        videos,
    )
    means = suppression(torch.from_numpy(np.stack(videos))).mean(dim=1)
    torch.testing.assert_close(means, torch.full_like(means, 1 if unit_mean else 1 / clips))


@pytest.mark.parametrize(
    ("clips", "lengths"), [(1, [1]), (64, [64]), (65, [33, 32]), (128, [64, 64]), (130, [44, 43, 43])]
)
def test_runs_are_consecutive_at_most_64_and_nearly_equal(clips: int, lengths: list[int]) -> None:
    video = torch.arange(clips)
    assert [len(run) for run in runs_of(video)] == lengths
    assert torch.equal(torch.cat(runs_of(video)), video)
    assert [run.shape[1] for run in runs_of(video[None, :, None], dim=1)] == lengths


def test_as_many_runs_as_videos_are_drawn_at_random_and_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claws, "RUN", 4)
    videos = [torch.arange(0.0, 12), torch.arange(100.0, 103), torch.arange(200.0, 206)]  # of 3, 1 and 2 runs
    torch.manual_seed(0)
    drawn: Counter[float] = Counter()
    for _ in range(600):
        runs = drawn_runs(videos)
        assert len({float(run[0]) for run in runs}) == 3
        drawn.update(float(run[0]) for run in runs)
        for run in runs:
            assert torch.equal(run, run[0] + torch.arange(len(run)))
    assert set(drawn) == {0, 4, 8, 100, 200, 203}
    assert all(0.43 < times / 600 < 0.57 for times in drawn.values()), "three of six runs, each as often"


def test_videos_of_one_run_are_all_drawn() -> None:
    videos = [torch.rand(length) for length in (5, 64, 1)]
    assert sorted(len(run) for run in drawn_runs(videos)) == [1, 5, 64]


@pytest.mark.parametrize("clips", [1, 2, 7, 24])
@pytest.mark.parametrize("run", [6, 64])
@pytest.mark.parametrize("unit_mean", [False, True])
def test_the_network_is_the_authors_figure(
    clips: int, run: int, unit_mean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claws, "RUN", run)
    torch.manual_seed(0)
    detector = CLAWS(5, unit_mean=unit_mean).double().eval()
    videos = np.random.default_rng(0).normal(size=(2, clips, 5))
    with torch.no_grad():
        ours = detector.activations(torch.from_numpy(videos))
        assert torch.equal(detector.score(torch.from_numpy(videos)), ours[2])
    for number, video in enumerate(videos):
        for mine, reference in zip(
            ours, reference_network(parameters_of(detector), video, run, unit_mean), strict=True
        ):
            np.testing.assert_allclose(mine[number], reference, atol=1e-12)


@pytest.mark.parametrize("lengths", BATCHES)
def test_the_total_and_its_gradients_are_the_weighted_formulas_of_the_network(lengths: Lengths) -> None:
    torch.manual_seed(0)
    detector, bags = CLAWS(6).double().eval(), draw_bags(lengths, 6)

    def reference(parameters: Videos, clips: Array) -> float:
        kinds = split(clips, bags)
        seen = [[reference_network(parameters, video, 64) for video in kind] for kind in kinds]
        abnormal, normal = ([scores for _, _, scores in kind] for kind in seen)
        regular = sum(reference_temporal(kind) + np.mean([run.mean() for run in kind]) for kind in (abnormal, normal))
        cluster = 0.0
        for layer in (0, 1):
            apart, together = ([reference_distance(video[layer]) for video in kind] for kind in seen)
            cluster += np.mean([1 / distance if distance else 0 for distance in apart])
            cluster += np.mean([min(distance or 0, 1) for distance in together])
        regression = reference_regression(abnormal, 1) + reference_regression(normal, 0)
        return float(regression + 8e-5 * regular + 0.05 * cluster)

    assert_network_loss_is(reference, detector, bags)


def test_a_run_in_a_long_video_is_suppressed_by_its_own_clips_alone() -> None:
    detector, video = CLAWS(5).eval(), torch.randn(128, 5)
    with torch.no_grad():
        scores = detector.score(video)
        video[100] *= 9
        changed = detector.score(video)
    assert torch.equal(scores[:64], changed[:64])
    assert (scores[64:] != changed[64:]).sum() > 32


def test_in_training_three_fifths_of_the_activations_are_dropped() -> None:
    torch.manual_seed(0)
    detector, video = CLAWS(5).train(), torch.randn(64, 5)
    assert detector.dropout.p == 0.6
    torch.manual_seed(1)
    scores = detector.score(video)
    torch.manual_seed(1)
    assert torch.equal(scores, detector.score(video))
    assert not torch.allclose(scores, detector.eval().score(video))


def test_the_terms_add_up_to_the_total_and_the_scores_are_those_of_the_draw() -> None:
    detector, bags = CLAWS(8).train(), Bags(torch.randn(90, 8), (70, 1), (7, 12))
    torch.manual_seed(2)
    loss = detector.loss(bags)
    assert set(loss.terms) == {"regression", "temporal", "sparsity", "cluster"}
    assert sum(loss.terms.values()).item() == pytest.approx(loss.total.item(), rel=1e-6)
    assert [len(scores) for scores in (*loss.abnormal_scores, *loss.normal_scores)] == [70, 1, 7, 12]


@pytest.mark.parametrize("with_xel", [False, True])
def test_it_finds_a_planted_anomaly(with_xel: bool) -> None:
    torch.manual_seed(0)
    assert_learns_planted(CLAWS(FEATURE_DIM), 90, with_xel, learning_rate=5e-4)
