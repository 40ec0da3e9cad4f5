"""2-means against scikit-learn's KMeans, and the distance of its centres against NumPy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from xelvad.models import two_means
from xelvad.models.clipwise.clustering import centre_distance

from ...helpers.numeric import Array, assert_loss_is

SHAPES = [(points, dims) for points in (2, 3, 25, 450) for dims in (2, 3, 512)]


pytestmark = pytest.mark.usefixtures("one_thread")


def noise(points: int, dims: int, seed: int) -> Array:
    """No clusters at all: many splits are about equally good."""
    return np.random.default_rng(seed).normal(size=(points, dims))


def activations(points: int, dims: int, seed: int) -> Array:
    """As behind a ReLU: half of the values are 0."""
    return np.maximum(noise(points, dims, seed), 0)


def separated(points: int, dims: int, seed: int) -> Array:
    """Odd and even points lie far apart."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=dims)
    offset = 20 * direction / np.linalg.norm(direction)
    return rng.normal(size=(points, dims)) / dims**0.5 + (np.arange(points) % 2)[:, None] * offset


def inertia(points: Array, clusters: NDArray[np.bool_]) -> float:
    """The sum of squared distances to the cluster centres."""
    groups = [points[clusters == cluster] for cluster in (False, True)]
    return float(sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups if len(group)))


def inertia_of_sklearn(points: Array, starts: int, seed: int = 0) -> float:
    return inertia(points, KMeans(2, n_init=starts, random_state=seed).fit(points).labels_ == 1)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize(("points", "dims"), SHAPES)
@pytest.mark.parametrize("draw", [noise, activations])
def test_points_without_clusters_are_split_nearly_as_well_as_by_the_best_of_ten_random_starts(draw, points, dims):
    """In a plane or in space some splits are worse by more, but fewer than with one random start."""
    ours, one_start = [], []
    for seed in range(4 if points * dims > 20_000 else 20):
        x = draw(points, dims, seed)
        best = inertia_of_sklearn(x, 10) + 1e-9
        ours.append((inertia(x, two_means(torch.from_numpy(x)).numpy()) + 1e-9) / best)
        one_start.append((inertia_of_sklearn(x, 1, seed) + 1e-9) / best)
    assert np.mean(ours) <= min(1.04, np.mean(one_start) + 1e-6)
    if points <= 3:
        assert max(ours) <= 1 + 1e-6
    if dims == 512:
        assert max(ours) <= 1.02
        assert np.median(ours) <= 1.01


@pytest.mark.parametrize(("points", "dims"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_separated_points_are_split_as_by_scikit_learn(points: int, dims: int, dtype: torch.dtype) -> None:
    for seed in range(3):
        x = separated(points, dims, seed)
        clusters = two_means(torch.from_numpy(x).to(dtype)).numpy()
        theirs = KMeans(2, n_init=10, random_state=0).fit(x).labels_ == 1
        assert clusters.tolist() in (theirs.tolist(), (~theirs).tolist())
        assert set(map(bool, clusters[::2])) != set(map(bool, clusters[1::2])), "and as they were drawn"


@pytest.mark.parametrize("draw", [noise, activations, separated])
def test_every_point_ends_up_with_the_nearer_centre(draw) -> None:
    for seed in range(5):
        x = draw(25, 3, seed)
        clusters = two_means(torch.from_numpy(x)).numpy()
        centres = np.stack([x[clusters == cluster].mean(axis=0) for cluster in (False, True)])
        nearest = ((x[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        np.testing.assert_array_equal(clusters, nearest == 1)


def test_clusters_of_very_different_sizes_are_found() -> None:
    x = noise(50, 8, 0)
    x[17] += 100
    clusters = two_means(torch.from_numpy(x)).numpy()
    lonely = np.arange(50) == 17
    assert clusters.tolist() in (lonely.tolist(), (~lonely).tolist())


def test_clusters_do_not_depend_on_where_the_points_lie_or_how_large_they_are() -> None:
    x = torch.from_numpy(noise(40, 3, 0))
    clusters = two_means(x)
    for moved in (x + 1000, x * 2.0**10, x * 2.0**-10):
        assert torch.equal(two_means(moved), clusters)


def test_clusters_do_not_depend_on_the_state_of_the_random_numbers() -> None:
    x = torch.from_numpy(noise(25, 3, 0))
    torch.manual_seed(0)
    first = two_means(x)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(two_means(x.clone()), first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state), "and leave it alone"


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e8])
@pytest.mark.parametrize("points", [1, 2, 7, 450])
def test_equal_points_are_one_cluster(points: int, value: float) -> None:
    for dims in (1, 3, 512):
        clusters = two_means(torch.full((points, dims), value))
        assert clusters.dtype == torch.bool
        assert clusters.tolist() == [False] * points


def test_two_distinct_points_among_many_copies_are_two_clusters() -> None:
    x = torch.tensor([[0.1, 0.2]]).repeat(9, 1)
    x[4:6] = torch.tensor([0.3, 0.1])
    clusters = two_means(x).tolist()
    assert clusters[4:6] == [not clusters[0]] * 2
    assert clusters[:4] + clusters[6:] == [clusters[0]] * 7


def test_the_longest_video_is_split() -> None:
    points = torch.randn(61_031, 512)  # clips of the longest video of UCF-Crime
    points[::3] += 1
    clusters = two_means(points)
    assert clusters[::3].unique().tolist() == [not clusters[1]]
    assert clusters[1::3].unique().tolist() == clusters[2::3].unique().tolist() == [clusters[1]]


def test_no_gradient_is_followed_into_the_clusters() -> None:
    assert not two_means(torch.randn(5, 3, requires_grad=True)).requires_grad


@pytest.mark.parametrize(("points", "dims"), [(2, 1), (3, 2), (25, 7)])
def test_the_centre_distance_and_its_gradient_are_numpys(points: int, dims: int) -> None:
    x = noise(points, dims, 0)
    clusters = np.arange(points) % 3 == 1

    def reference(group: list[Array]) -> float:
        return float(np.linalg.norm(group[0][clusters].mean(axis=0) - group[0][~clusters].mean(axis=0)))

    def ours(group: list[torch.Tensor]) -> torch.Tensor:
        return centre_distance(group[0], torch.from_numpy(clusters), torch.inf)

    assert_loss_is(reference, ours, [x], tolerance=1e-7)


@pytest.mark.parametrize("otherwise", [0.0, torch.inf])
@pytest.mark.parametrize("one_cluster", [torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)])
def test_one_cluster_has_no_distance(one_cluster: torch.Tensor, otherwise: float) -> None:
    assert centre_distance(torch.randn(4, 3), one_cluster, otherwise).item() == otherwise
