"""NG-MIL's parts against loops in NumPy, its prototypes from step to step, and that it learns."""

import numpy as np
import pytest
import torch

from xelvad.models import NGMIL, Bags
from xelvad.models.clipwise.ngmil import (
    abnormality,
    clustering_loss,
    moved_prototypes,
    spread_out,
    triplet_loss,
)

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
from ...helpers.planted import FEATURE_DIM, assert_learns_planted

LENGTHS = [(1,), (32,), (4, 5), (8, 1, 9, 3)]
Lengths = tuple[tuple[int, ...], tuple[int, ...]]


def unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def draw_directions(count: int, seed: int, dim: int = 6) -> Array:
    return unit(np.random.default_rng(seed).random((count, dim)))


def draw_embeddings(lengths: tuple[int, ...], seed: int) -> Videos:
    return [3 * draw_directions(length, seed + number) for number, length in enumerate(lengths)]


def reference_abnormality(embedding: Array, prototypes: Array) -> float:
    return 1 - max(float(embedding @ p) / float(np.linalg.norm(embedding) * np.linalg.norm(p)) for p in prototypes)


def reference_triplet(embeddings: Videos, scores: Videos, prototypes: Array, margin: float) -> float:
    losses = []
    for video, video_scores in zip(embeddings, scores, strict=True):
        positive, negative = unit(video[np.argmin(video_scores)]), unit(video[np.argmax(video_scores)])
        anchor = max(prototypes, key=lambda p: float(p @ positive))
        losses.append(max(0.0, (1 - anchor @ positive) - (1 - anchor @ negative) + margin))
    return float(np.mean(losses))


def reference_moved(prototypes: Array, embeddings: Array, momentum: float) -> Array:
    directions = unit(embeddings)
    owners = [int(np.argmax([d @ p for p in prototypes])) for d in directions]
    moved = []
    for number, prototype in enumerate(prototypes):
        own = [d for d, owner in zip(directions, owners, strict=True) if owner == number]
        if not own:
            own = [max(directions, key=lambda d: float(d @ prototype))]
        moved.append(unit(momentum * prototype + (1 - momentum) * unit(np.mean(own, axis=0))))
    return np.array(moved)


def reference_spread(embeddings: Array, count: int) -> Array:
    directions = unit(embeddings)
    chosen = [max(directions, key=lambda d: float(d @ directions.mean(axis=0)))]
    while len(chosen) < count:
        chosen.append(min(directions, key=lambda d: max(float(d @ c) for c in chosen)))
    return np.array(chosen)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("count", [1, 5])
def test_a_clip_is_as_abnormal_as_it_is_unlike_its_prototype(lengths: tuple[int, ...], count: int) -> None:
    prototypes = draw_directions(count, 50)
    weights = np.random.default_rng(0).random(sum(lengths))
    assert_loss_is(
        lambda e: float(weights @ [reference_abnormality(clip, prototypes) for video in e for clip in video]),
        lambda e: torch.from_numpy(weights) @ abnormality(torch.cat(e), torch.from_numpy(prototypes)),
        draw_embeddings(lengths, 1),
    )


def test_abnormality_is_a_score_even_where_the_cosine_is_rounded_above_one_or_there_is_none() -> None:
    directions = torch.nn.functional.normalize(torch.rand(1000, 512), dim=1)
    scores = abnormality(3 * directions, directions)
    assert ((scores >= 0) & (scores < 1e-5)).all()
    assert abnormality(torch.zeros(2, 512), directions).tolist() == [1, 1]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_clustering_loss_is_the_mean_over_clips_then_videos(lengths: tuple[int, ...]) -> None:
    assert_loss_is(lambda a: float(np.mean([v.mean() for v in a])), clustering_loss, draw_scores(lengths, 2))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("margin", [0.02, 0.5])
def test_the_triplet_loss_is_the_formula(lengths: tuple[int, ...], margin: float) -> None:
    scores, prototypes = draw_scores(lengths, 3), draw_directions(4, 60)
    given = [torch.from_numpy(video) for video in scores]
    assert_loss_is(
        lambda e: reference_triplet(e, scores, prototypes, margin),
        lambda e: triplet_loss(e, given, torch.from_numpy(prototypes), margin),
        draw_embeddings(lengths, 4),
    )


@pytest.mark.parametrize(("clips", "count"), [(1, 4), (3, 4), (40, 4), (40, 1), (12, 12)])
def test_prototypes_move_to_the_normal_clips_that_are_theirs(clips: int, count: int) -> None:
    prototypes, embeddings = draw_directions(count, 5), 2 * draw_directions(clips, 6)
    moved = moved_prototypes(torch.from_numpy(prototypes), torch.from_numpy(embeddings), 0.8)
    np.testing.assert_allclose(moved, reference_moved(prototypes, embeddings, 0.8), atol=1e-12)


@pytest.mark.parametrize(("clips", "count"), [(1, 3), (2, 4), (30, 1), (30, 7)])
def test_the_first_prototypes_are_normal_clips_that_lie_apart(clips: int, count: int) -> None:
    embeddings = 2 * draw_directions(clips, 7)
    chosen = spread_out(torch.from_numpy(embeddings), count)
    distinct = min(clips, count)  # of what is left when all clips are prototypes, any is as good
    np.testing.assert_allclose(chosen[:distinct], reference_spread(embeddings, distinct), atol=1e-12)
    np.testing.assert_allclose((chosen.numpy() @ unit(embeddings).T).max(axis=1), 1, atol=1e-12)


def reference_scores(detector: NGMIL, parameters: Videos, clips: Array) -> tuple[Array, Array, Array]:
    """Embeddings, abnormalities and refined scores of clips ``(…, F)``."""
    hidden, classified = three_layers(parameters, clips)
    unlike = 1 - (unit(hidden) @ detector.prototypes.numpy().T).max(axis=-1)
    return hidden, unlike, classified * unlike if detector.ensemble == "product" else (classified + unlike) / 2


@pytest.mark.parametrize("feature_dim", [1, 7, 256])
@pytest.mark.parametrize("ensemble", ["product", "mean"])
def test_the_score_is_the_ensemble_of_two_classifiers(feature_dim: int, ensemble: str) -> None:
    torch.manual_seed(0)
    detector = NGMIL(feature_dim, ensemble=ensemble).double().eval()
    x = np.random.default_rng(0).normal(size=(2, 3, feature_dim))
    with torch.no_grad():
        scores = detector.score(torch.from_numpy(x))
    np.testing.assert_allclose(scores, reference_scores(detector, parameters_of(detector), x)[2], atol=1e-12)


def test_an_unknown_ensemble_is_refused() -> None:
    with pytest.raises(ValueError, match="product or mean, not max"):
        NGMIL(4, ensemble="max")


def test_the_classifier_is_mils_network() -> None:
    layers = "Linear 512, ReLU, Dropout 0.6, Linear 32, Dropout 0.6, Linear 1, Sigmoid"
    assert describe_layers(NGMIL(7).scorer) == layers


@pytest.mark.parametrize("lengths", BATCHES)
def test_the_total_and_its_gradients_are_the_weighted_formulas_of_the_network(lengths: Lengths) -> None:
    torch.manual_seed(0)
    detector, bags = NGMIL(6).double().eval(), draw_bags(lengths, 6)

    def reference(parameters: Videos, clips: Array) -> float:
        hidden, unlike, scores = reference_scores(detector, parameters, clips)
        abnormal, normal = split(scores, bags)
        pairs = [max(0.0, 1 - a.max() + n.max()) for a in abnormal for n in normal]
        clustering = np.mean([video.mean() for video in split(unlike, bags)[1]])
        triplet = reference_triplet(split(hidden, bags)[0], abnormal, detector.prototypes.numpy(), 0.5)
        sparse = np.mean([video.sum() for video in abnormal])
        smooth = np.mean([(np.diff(video) ** 2).sum() for video in abnormal])
        return float(np.mean(pairs) + 0.1 * clustering + 0.1 * triplet + 8e-5 * sparse + 8e-5 * smooth)

    assert_network_loss_is(reference, detector, bags)


def float_bags(seed: int) -> Bags:
    bags = draw_bags(((7, 4), (9, 30)), 8, seed)
    return Bags(bags.clips.float(), bags.abnormal, bags.normal)


def test_normal_clips_alone_move_the_prototypes_and_only_in_training() -> None:
    torch.manual_seed(0)
    detector = NGMIL(8).eval()
    begun = detector.prototypes
    detector.loss(float_bags(0))
    assert detector.prototypes is begun
    assert detector.updates == 0

    first, second = float_bags(0), float_bags(1)
    hidden = [detector.scorer[:2](bags.clips)[11:] for bags in (first, second)]  # of the normal videos
    detector.train().loss(first)
    torch.testing.assert_close(detector.prototypes, spread_out(hidden[0], 16))
    earlier = detector.prototypes
    detector.loss(second)
    torch.testing.assert_close(detector.prototypes, moved_prototypes(earlier, hidden[1], 0.9))
    assert detector.updates == 2


def test_a_loss_can_be_differentiated_after_the_prototypes_have_moved_on() -> None:
    detector = NGMIL(8).train()
    loss = detector.loss(float_bags(0))
    detector.loss(float_bags(1))
    loss.total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in detector.parameters())


def test_prototypes_survive_a_checkpoint() -> None:
    detector = NGMIL(8).train()
    detector.loss(float_bags(0))
    other = NGMIL(8)
    other.load_state_dict(detector.state_dict())
    clips = torch.randn(5, 8)
    assert torch.equal(other.eval().score(clips), detector.eval().score(clips))
    assert other.updates == 1


def test_the_scores_of_a_training_step_are_those_of_its_dropout_and_moved_prototypes() -> None:
    detector, bags = NGMIL(8).train(), float_bags(0)
    torch.manual_seed(3)
    loss = detector.loss(bags)
    torch.manual_seed(3)
    torch.testing.assert_close(torch.cat([*loss.abnormal_scores, *loss.normal_scores]), detector.score(bags.clips))
    assert sum(loss.terms.values()).item() == pytest.approx(loss.total.item(), rel=1e-6)
    assert set(loss.terms) == {"ranking", "clustering", "triplet", "sparsity", "smoothness"}


@pytest.mark.parametrize("with_xel", [False, True])
def test_it_finds_a_planted_anomaly(with_xel: bool) -> None:
    torch.manual_seed(0)
    assert_learns_planted(NGMIL(FEATURE_DIM), 80, with_xel)
