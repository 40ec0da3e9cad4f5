"""SRF's loss and network against the published formulas in NumPy, its clusters against scikit-learn's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from xelvad.models import MIL, SRF, Bags, two_means
from xelvad.models.clipwise.srf import cluster_loss, farther_labels, pseudo_labels, regression_loss

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

Lengths = tuple[tuple[int, ...], tuple[int, ...]]


def reference_labels(clusters: Array, scores: Array) -> Array:
    """The clusters as they are, or the other way round if that agrees better with the scores."""

    def cosine(labels: Array) -> float:
        norms = np.linalg.norm(labels) * np.linalg.norm(scores)
        return float(labels @ scores / norms) if norms else 0.0

    return 1 - clusters if cosine(1 - clusters) > cosine(clusters) else clusters


def reference_regression(scores: Videos, labels: Videos) -> float:
    return float(np.mean([np.mean((s - y) ** 2) for s, y in zip(scores, labels, strict=True)]))


def reference_cluster(abnormal: list[float], normal: list[float]) -> float:
    return float(np.mean([1 / d for d in abnormal]) + np.mean([min(d, 1.0) for d in normal]))


def reference_distance(points: Array, clusters: Array, otherwise: float) -> float:
    if clusters.all() or not clusters.any():
        return otherwise
    return float(np.linalg.norm(points[clusters == 1].mean(axis=0) - points[clusters == 0].mean(axis=0)))


def clusters_of_sklearn(points: Array) -> Array:
    if len(points) == 1:
        return np.zeros(1)
    return KMeans(2, n_init=10, random_state=0).fit(points).labels_.astype(float)


@pytest.mark.parametrize("length", [1, 2, 5, 32])
def test_pseudo_labels_are_the_clusters_that_agree_better_with_the_scores(length: int) -> None:
    flipped = 0
    for seed in range(20):
        clusters = np.random.default_rng(seed).random(length) < 0.5
        (scores,) = draw_scores((length,), 100 + seed)
        expected = reference_labels(clusters.astype(float), scores)
        for given, truth in ((clusters, expected), (~clusters, reference_labels(1.0 - clusters, scores))):
            labels = pseudo_labels(torch.from_numpy(given), torch.from_numpy(scores))
            np.testing.assert_array_equal(labels, truth)
            flipped += labels.numpy().tolist() != given.tolist()
    assert flipped == 20, "of a cluster and its opposite one is flipped"


def test_labels_follow_the_direction_of_the_scores_not_their_mean() -> None:
    scores = torch.tensor([0.6, 0.5, 0.5, 0.5, 0.5])  # cosines 0.51 and 0.85
    assert pseudo_labels(torch.tensor([True, False, False, False, False]), scores).tolist() == [0, 1, 1, 1, 1]
    scores[0] = 1.5  # cosines 0.83 and 0.55
    assert pseudo_labels(torch.tensor([True, False, False, False, False]), scores).tolist() == [1, 0, 0, 0, 0]


def test_labels_are_never_flipped_where_the_published_script_does_not() -> None:
    clusters, scores = torch.tensor([True, False]), torch.tensor([0.1, 0.9])
    assert pseudo_labels(clusters, scores, flip=False).tolist() == [1, 0]
    assert pseudo_labels(clusters, scores).tolist() == [0, 1]


def test_labels_carry_no_gradient() -> None:
    assert not pseudo_labels(torch.tensor([True, False]), torch.tensor([0.1, 0.9], requires_grad=True)).requires_grad


@pytest.mark.parametrize("lengths", [(1,), (32,), (1, 7, 2, 40)])
def test_regression_loss_and_its_gradients_are_the_formula(lengths: tuple[int, ...]) -> None:
    labels = [np.round(video) for video in draw_scores(lengths, 0)]
    truth = [torch.from_numpy(video) for video in labels]
    assert_loss_is(
        lambda s: reference_regression(s, labels), lambda s: regression_loss(s, truth), draw_scores(lengths, 1)
    )


@pytest.mark.parametrize("distances", [((0.3,), (0.4,)), ((2.0, 0.1, 7.0), (0.2, 3.0)), ((1.5,), (1.2, 0.9, 5.0, 0.0))])
def test_cluster_loss_and_its_gradients_are_the_formula(distances: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    abnormal, normal = ([np.array(d) for d in kind if d] for kind in distances)
    assert_loss_is(reference_cluster, cluster_loss, abnormal, normal)


def test_a_video_in_one_piece_costs_nothing_in_the_cluster_loss() -> None:
    assert cluster_loss([torch.tensor(torch.inf)], [torch.tensor(0.0)]).item() == 0


@pytest.mark.parametrize("feature_dim", [1, 7, 1024])
def test_the_scorer_is_the_one_of_mil(feature_dim: int) -> None:
    torch.manual_seed(0)
    srf = SRF(feature_dim).double().eval()
    x = np.random.default_rng(0).normal(size=(2, 3, feature_dim))
    with torch.no_grad():
        scores = srf.score(torch.from_numpy(x))
    np.testing.assert_allclose(scores, three_layers(parameters_of(srf), x)[1], atol=1e-12)
    assert describe_layers(srf.scorer) == describe_layers(MIL(feature_dim).scorer)


def reference_total(
    bags: Bags, labels: Videos, clusters: tuple[Videos, Videos], cluster_weight: float = 0.05
) -> Callable[[Videos, Array], float]:
    """``L_r + λ·L_c`` of parameters and clips, with the clusters of the present ones."""

    def total(parameters: Videos, clips: Array) -> float:
        hidden, scores = three_layers(parameters, clips)
        (abnormal, normal), (abnormal_hidden, normal_hidden) = split(scores, bags), split(hidden, bags)
        regression = reference_regression(abnormal, labels)
        regression += reference_regression(normal, [np.zeros(len(video)) for video in normal])
        apart = [reference_distance(h, c, np.inf) for h, c in zip(abnormal_hidden, clusters[0], strict=True)]
        together = [reference_distance(h, c, 0.0) for h, c in zip(normal_hidden, clusters[1], strict=True)]
        return regression + cluster_weight * reference_cluster(apart, together)

    return total


@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("scale", [1.0, 0.1])  # clusters of normal videos farther apart than 1, and less
def test_the_total_and_its_gradients_are_the_formulas_of_the_network(lengths: Lengths, scale: float) -> None:
    torch.manual_seed(0)
    srf = SRF(4).double().eval()  # without dropout, so that the scores can be computed again
    bags = draw_bags(lengths, 4, seed=2)
    bags = Bags(bags.clips * scale, bags.abnormal, bags.normal)
    hidden, scores = three_layers(parameters_of(srf), bags.clips.numpy())
    clusters = tuple([clusters_of_sklearn(video) for video in kind] for kind in split(hidden, bags))
    labels = [reference_labels(*pair) for pair in zip(clusters[0], split(scores, bags)[0], strict=True)]
    assert_network_loss_is(reference_total(bags, labels, clusters), srf, bags, tolerance=1e-6)


def test_without_flipping_the_clusters_are_the_labels() -> None:
    torch.manual_seed(0)
    bags = draw_bags(((5, 4, 7, 6, 8, 3), (4,)), 4)
    flipping, rigid = SRF(4).double().eval(), SRF(4, flip=False).double().eval()
    rigid.load_state_dict(flipping.state_dict())
    with torch.no_grad():
        hidden, scores = (split(x.numpy(), bags) for x in (rigid.scorer[:2](bags.clips), rigid.score(bags.clips)))
        labels = [two_means(torch.from_numpy(video)).double().numpy() for video in hidden[0]]
        expected = reference_regression(scores[0], labels) + reference_regression(scores[1], [np.zeros(4)])
        assert rigid.loss(bags).terms["regression"].item() == pytest.approx(expected, abs=1e-12)
        flipped = flipping.loss(bags).terms["regression"].item()
        assert flipped != pytest.approx(expected, abs=1e-6), "some clusters had to be flipped"


def test_the_cluster_loss_reaches_the_first_layer() -> None:
    srf = SRF(4).double().train()
    term = srf.loss(draw_bags(((5,), (6,)), 4)).terms["cluster"]
    term.backward()
    assert srf.scorer[0].weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in srf.scorer[3:].parameters())


def test_detached_the_cluster_loss_reaches_nothing() -> None:
    torch.manual_seed(0)
    bags = draw_bags(((5, 8), (6,)), 4)
    srf, detached = SRF(4).double().eval(), SRF(4, detached=True).double().eval()
    detached.load_state_dict(srf.state_dict())
    term = detached.loss(bags).terms["cluster"]
    assert term.item() == pytest.approx(srf.loss(bags).terms["cluster"].item(), rel=1e-12)
    assert term.item() > 0
    assert not term.requires_grad
    loss = srf.loss(bags)
    loss.terms["regression"].backward()
    detached.loss(bags).total.backward()
    for ours, theirs in zip(srf.parameters(), detached.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_activations_are_clustered_before_the_dropout_and_detached_behind_it() -> None:
    bags = draw_bags(((5, 8), (6,)), 4)
    for detached in (False, True):
        torch.manual_seed(0)
        srf = SRF(4, detached=detached).double()
        without = srf.eval().loss(bags).terms["cluster"].item()
        drawn = {srf.train().loss(bags).terms["cluster"].item() for _ in range(3)}
        assert (drawn == {without}) != detached


def test_a_video_of_one_clip_has_the_label_of_its_video() -> None:
    srf = SRF(4).double().eval()
    loss = srf.loss(draw_bags(((1,), (1,)), 4))
    (abnormal,), (normal,) = loss.abnormal_scores, loss.normal_scores
    expected = ((1 - abnormal) ** 2 + normal**2).item()
    assert loss.terms["regression"].item() == pytest.approx(expected, abs=1e-12)
    assert loss.terms["cluster"].item() == 0
    loss.total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in srf.parameters())


def test_a_video_of_equal_clips_gives_finite_gradients() -> None:
    srf = SRF(4)
    bags = Bags.pack([torch.ones(6, 4), torch.randn(3, 4)], [torch.zeros(5, 4)])
    srf.loss(bags).total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in srf.parameters())


def test_the_terms_have_names_and_add_up_to_the_total() -> None:
    loss = SRF(8).loss(draw_float_bags())
    assert set(loss.terms) == {"regression", "cluster"}
    assert sum(term.item() for term in loss.terms.values()) == pytest.approx(loss.total.item(), rel=1e-6)


def test_the_cluster_weight_is_a_factor() -> None:
    bags = draw_float_bags()
    published, heavy = SRF(8).eval(), SRF(8, cluster_weight=0.5).eval()
    heavy.load_state_dict(published.state_dict())
    terms = [srf.loss(bags).terms for srf in (published, heavy)]
    assert terms[1]["cluster"].item() == pytest.approx(10 * terms[0]["cluster"].item(), rel=1e-5)
    assert terms[1]["regression"].item() == terms[0]["regression"].item()


def draw_float_bags() -> Bags:
    bags = draw_bags(((5, 3), (7, 2)), 8)
    return Bags(bags.clips.float(), bags.abnormal, bags.normal)


@pytest.mark.parametrize(("clips", "dimensions"), [(2, 1), (3, 4), (17, 32)])
def test_the_cluster_farther_from_normal_clips_is_abnormal(clips: int, dimensions: int) -> None:
    rng = np.random.default_rng(clips)
    for _ in range(20):
        points, normal = rng.normal(size=(clips, dimensions)), rng.normal(size=dimensions)
        clusters = rng.permutation(np.arange(clips) < rng.integers(1, clips))
        far = [np.sqrt(((points[which].mean(0) - normal) ** 2).sum()) for which in (clusters, ~clusters)]
        expected = clusters if far[0] > far[1] else ~clusters
        found = farther_labels(torch.tensor(points, requires_grad=True), torch.tensor(clusters), torch.tensor(normal))
        assert found.tolist() == expected.astype(float).tolist()
        assert not found.requires_grad


def test_guided_labels_are_right_where_those_by_scores_begin_upside_down() -> None:
    """Uniform scores agree with the larger cluster, whatever it holds."""
    torch.manual_seed(0)
    normal = [torch.randn(20, 8) * 0.1 for _ in range(2)]
    abnormal = torch.cat([torch.randn(15, 8) * 0.1, torch.randn(5, 8) * 0.1 + 3])
    truth = [0.0] * 15 + [1.0] * 5
    clusters = two_means(abnormal)
    assert pseudo_labels(clusters, torch.full((20,), 0.5)).tolist() == [1 - label for label in truth]
    assert farther_labels(abnormal, clusters, torch.cat(normal).mean(dim=0)).tolist() == truth


@pytest.mark.parametrize("spread", [1.0, 30.0])  # of the scores: with the larger one they decide
@pytest.mark.parametrize("lengths", [(1, 1), (1, 5), (9, 4)])
def test_a_loss_with_guided_labels_is_that_of_the_formula(lengths: tuple[int, int], spread: float) -> None:
    torch.manual_seed(1)
    detector = SRF(12, labels="guided").eval()
    with torch.no_grad():
        detector.scorer[-2].weight *= spread
    bags = Bags.pack(abnormal=[torch.randn(lengths[0], 12)], normal=[torch.randn(lengths[1], 12)])
    hidden = detector.scorer[:2](bags.clips)
    (points,), (others,) = bags.split(hidden)
    (scores,), (low,) = bags.split(detector.score(bags.clips))
    clusters = two_means(points)
    undecided = (
        clusters.any() and not clusters.all() and (scores[clusters].mean() - scores[~clusters].mean()).abs() < 0.1
    )
    labels = farther_labels(points, clusters, others.mean(dim=0)) if undecided else pseudo_labels(clusters, scores)
    loss = detector.loss(bags)
    expected = (scores - labels).square().mean() + low.square().mean()
    assert torch.allclose(loss.terms["regression"], expected)
    assert torch.isfinite(loss.total)
