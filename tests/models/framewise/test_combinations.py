"""Sparse combinations against the published formulas in NumPy, and on drawn videos."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from xelvad.models.framewise import combinations
from xelvad.models.framewise.combinations import (
    SparseCombinations,
    blurred,
    learn_combinations,
    patches,
    principal_components,
    reconstruction_errors,
    span,
)

from ...helpers.drawings import draw_video, frame_auc

Array = NDArray[np.float64]

ODD = (40, 65)


def random_video(frames: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Noise, still in the left half for some frames, so that some cubes move and some do not."""
    video = np.random.default_rng(seed).integers(0, 256, size=(frames, *size), dtype=np.uint8)
    video[1:9, :, : size[1] // 2] = video[0, :, : size[1] // 2]
    return torch.from_numpy(video)


def random_bases(rng: np.random.Generator, count: int, size: int, dimensions: int) -> Array:
    """Orthonormal rows: ``(count, size, dimensions)``."""
    return np.stack([np.linalg.qr(rng.normal(size=(dimensions, size)))[0].T for _ in range(count)])


def random_detector(seed: int = 0) -> SparseCombinations:
    """As if learned: orthonormal components, 7 combinations."""
    rng = np.random.default_rng(seed)
    detector = SparseCombinations().double()
    detector.components.copy_(torch.from_numpy(random_bases(rng, 1, 100, 500)[0]))
    detector.combinations[:7] = torch.from_numpy(random_bases(rng, 7, 20, 100))
    return detector


def unit_rows(values: Array) -> Array:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


# The method once more, as it is published.


def reference_resize(picture: Array, height: int, width: int) -> Array:
    """Each pixel is the mean of all that it covers, whole or in part."""

    def covered(index: int, small: int, large: int) -> slice:
        return slice(index * large // small, -(-(index + 1) * large // small))

    rows = [covered(y, height, len(picture)) for y in range(height)]
    columns = [covered(x, width, picture.shape[1]) for x in range(width)]
    return np.array([[picture[row, column].mean() for column in columns] for row in rows])


def reference_blur(picture: Array) -> Array:
    """Matlab's ``conv2(picture, fspecial('gaussian', [3, 3], 1), 'same')`` divided by that of ones."""
    kernel = np.array([[np.exp(-(y**2 + x**2) / 2) for x in (-1, 0, 1)] for y in (-1, 0, 1)])
    kernel /= kernel.sum()

    def conv(values: Array) -> Array:
        padded = np.pad(values, 1)
        height, width = values.shape
        return sum(kernel[y, x] * padded[y : y + height, x : x + width] for y in range(3) for x in range(3))

    return conv(picture) / conv(np.ones_like(picture))


def reference_changes(frames: Tensor, height: int, width: int) -> Array:
    pictures = [reference_blur(reference_resize(frame.numpy() / 255, height, width)) for frame in frames]
    return np.array([np.abs(a - b) for a, b in itertools.pairwise(pictures)])


def reference_error(cube: Array, detector: SparseCombinations) -> float:
    """Of a cube ``(5, 10, 10)``: least error over the combinations, with the R of Eq. 13."""
    if cube.sum() <= 5:
        return 0.0
    feature = unit_rows(detector.components.numpy() @ unit_rows(cube.reshape(-1)))
    errors = []
    for basis in detector.combinations.numpy():
        if basis.any():
            s = basis.T @ np.random.default_rng(1).normal(size=(20, 20))  # any vectors that span the same
            r = s @ np.linalg.inv(s.T @ s) @ s.T - np.eye(100)
            errors.append(float(np.sum((r @ feature) ** 2)))
    return min(errors)


def reference_map(frames: Tensor, detector: SparseCombinations, height: int, width: int) -> Array:
    """Smoothed errors ``(n, rows, columns)`` of one picture size."""
    changes = reference_changes(frames, height, width)
    rows, columns = height // 10, width // 10
    errors = np.zeros((len(frames) - 5, rows, columns))
    for t, y, x in np.ndindex(*errors.shape):
        errors[t, y, x] = reference_error(changes[t : t + 5, 10 * y : 10 * y + 10, 10 * x : 10 * x + 10], detector)
    around = np.arange(-2, 3)
    smoothed = np.zeros((len(frames), rows, columns))
    for t, y, x in np.ndindex(*smoothed.shape):  # a frame's own cube begins two changes before it
        times = np.clip(t - 2 + around, 0, len(errors) - 1)
        box = np.ix_(times, np.clip(y + around, 0, rows - 1), np.clip(x + around, 0, columns - 1))
        smoothed[t, y, x] = errors[box].mean()
    return smoothed


def reference_frame_errors(frames: Tensor, detector: SparseCombinations) -> Array:
    maps = [reference_map(frames, detector, *scale).reshape(len(frames), -1) for scale in detector.scales]
    return np.concatenate(maps, axis=1).max(axis=1)


def reference_learning(features: Array, threshold: float, size: int, most: int) -> list[Array]:
    """Greedy learning by singular value decompositions: projections ``(D, D)`` of the combinations."""
    left, learned = list(features), []
    while left and len(learned) < most:
        chosen = list(left)
        for _ in range(20):
            directions = np.linalg.svd(np.array(chosen), full_matrices=False)[2][:size]
            projection = directions.T @ directions
            errors = [float(np.sum((x - projection @ x) ** 2)) for x in left]
            bound = max(threshold, sorted(errors)[:size][-1])
            before, chosen = chosen, [x for x, error in zip(left, errors, strict=True) if error <= bound]
            if len(before) == len(chosen) and all(a is b for a, b in zip(before, chosen, strict=True)):
                break
        learned.append(projection)
        left = [x for x in left if not any(x is y for y in chosen)]
    return learned


# Layers and learning.


@pytest.mark.parametrize("size", [(20, 20), (3, 7), (1, 1)])
def test_blurring_is_the_gaussian_normalised_within_the_picture(size: tuple[int, int]) -> None:
    pictures = np.random.default_rng(0).random((3, *size))
    found = blurred(torch.from_numpy(pictures)[:, None])
    np.testing.assert_allclose(found[:, 0], [reference_blur(each) for each in pictures], atol=1e-14)


@pytest.mark.parametrize(("size", "step"), [((20, 30), 10), ((25, 40), 5), ((10, 10), 10)])
def test_patches_are_cut_row_by_row(size: tuple[int, int], step: int) -> None:
    pictures = np.random.default_rng(0).random((2, *size))
    expected = [
        [each[y : y + 10, x : x + 10].ravel() for y in range(0, size[0] - 9, step) for x in range(0, size[1] - 9, step)]
        for each in pictures
    ]
    np.testing.assert_array_equal(patches(torch.from_numpy(pictures)[:, None], step), expected)


@pytest.mark.parametrize(("rows", "count"), [(50, 3), (8, 12), (1, 2)])
def test_principal_components_are_those_of_the_singular_value_decomposition(rows: int, count: int) -> None:
    values = np.random.default_rng(0).normal(size=(rows, 12)) * np.arange(1, 13) + 5
    found = principal_components(torch.from_numpy(values), count).numpy()
    np.testing.assert_allclose(found @ found.T, np.eye(count), atol=1e-12)
    centred = values - values.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=True)[2]
    for found_one, expected in zip(found[: rows - 1], directions, strict=False):
        assert abs(found_one @ expected) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("rows", "size"), [(40, 4), (3, 4), (1, 2), (4, 4)])
def test_the_span_leaves_the_least_error_and_nothing_of_directions_nobody_has(rows: int, size: int) -> None:
    features = np.random.default_rng(0).normal(size=(rows, 9))
    basis = span(torch.from_numpy(features), size).numpy()
    assert basis.shape == (size, 9)
    _, lengths, directions = np.linalg.svd(features, full_matrices=False)
    rank = min(rows, size)
    np.testing.assert_allclose(basis.T @ basis, directions[:rank].T @ directions[:rank], atol=1e-9)
    assert np.sum((features - features @ basis.T @ basis) ** 2) == pytest.approx(np.sum(lengths[size:] ** 2), abs=1e-9)


def test_errors_are_the_least_over_combinations_by_the_published_matrices() -> None:
    rng = np.random.default_rng(0)
    features, bases = unit_rows(rng.normal(size=(30, 12))), random_bases(rng, 5, 3, 12)
    expected = []
    for feature in features:
        vectors = [basis.T @ rng.normal(size=(3, 3)) for basis in bases]
        matrices = [s @ np.linalg.inv(s.T @ s) @ s.T - np.eye(12) for s in vectors]
        expected.append(min(np.sum((r @ feature) ** 2) for r in matrices))
    padded = torch.cat([torch.from_numpy(bases), torch.zeros(2, 3, 12, dtype=torch.float64)])
    np.testing.assert_allclose(reconstruction_errors(torch.from_numpy(features), padded), expected, atol=1e-12)
    assert bool((reconstruction_errors(torch.from_numpy(features), padded[-2:]) == 1).all()), "zeros rebuild nothing"


@pytest.mark.parametrize("most", [2, 50])
@pytest.mark.parametrize(("rows", "threshold"), [(60, 0.3), (60, 1e-3), (7, 0.1), (2, 0.1), (1, 0.1)])
def test_combinations_are_learned_greedily(rows: int, threshold: float, most: int) -> None:
    features = unit_rows(np.random.default_rng(0).normal(size=(rows, 8)) * np.linspace(3, 0.5, 8))
    found = learn_combinations(torch.from_numpy(features), threshold, basis=3, most=most).numpy()
    expected = reference_learning(features, threshold, 3, most)
    assert len(found) == len(expected) <= most
    for basis, projection in zip(found, expected, strict=True):
        np.testing.assert_allclose(basis.T @ basis, projection, atol=1e-8)


def test_planted_subspaces_are_found_the_greatest_first() -> None:
    rng = np.random.default_rng(0)
    planted = random_bases(rng, 3, 3, 20)
    features = [rng.normal(size=(count, 3)) @ basis for count, basis in zip((400, 60, 15), planted, strict=True)]
    found = learn_combinations(torch.from_numpy(unit_rows(np.concatenate(features))), 1e-6, basis=3).numpy()
    assert len(found) == 3
    for basis, expected in zip(found, planted, strict=True):
        np.testing.assert_allclose(basis.T @ basis, expected.T @ expected, atol=1e-6)


def test_without_a_limit_every_feature_ends_up_within_the_threshold() -> None:
    features = torch.from_numpy(unit_rows(np.random.default_rng(1).normal(size=(200, 12))))
    learned = learn_combinations(features, 0.2, basis=4, most=1000)
    assert reconstruction_errors(features, learned).max() <= 0.2
    assert len(learned) < 200 / 4, "and some combinations represent more than they are made of"


# The detector.


@pytest.mark.parametrize(("frames", "size"), [(6, (24, 32)), (7, (120, 160)), (10, (125, 161)), (14, (40, 44))])
def test_frame_errors_are_the_published_ones(frames: int, size: tuple[int, int]) -> None:
    detector, video = random_detector(), random_video(frames, size)
    np.testing.assert_allclose(detector.frame_errors(video), reference_frame_errors(video, detector), atol=1e-9)


def test_the_published_code_looks_at_one_size_alone() -> None:
    detector, video = random_detector(), random_video(7, (120, 160))
    detector.scales = ((120, 160),)
    np.testing.assert_allclose(detector.frame_errors(video), reference_frame_errors(video, detector), atol=1e-9)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_video_too_short_for_a_cube_has_no_error(frames: int) -> None:
    errors = random_detector().frame_errors(random_video(frames, (24, 32)))
    assert errors.shape == (frames,)
    assert not errors.any()


def test_what_does_not_move_enough_has_no_error() -> None:
    detector = random_detector()
    video = random_video(12, (120, 160))
    assert detector.frame_errors(video).min() > 0
    detector.motion_threshold = 500.0
    assert not detector.frame_errors(video).any()


def test_all_whole_cubes_that_move_are_learned_from() -> None:
    detector, video = SparseCombinations().double(), random_video(15, (40, 50))
    expected = []
    for scale in detector.scales:
        changes = reference_changes(video, *scale)
        for t, y, x in np.ndindex(len(changes) - 4, (scale[0] - 10) // 5 + 1, (scale[1] - 10) // 5 + 1):
            cube = changes[t : t + 5, 5 * y : 5 * y + 10, 5 * x : 5 * x + 10]
            if cube.sum() > 5:
                expected.append(unit_rows(cube.reshape(-1)))
    found = torch.cat(list(detector.cubes(video))).numpy()
    assert len(found) == len(expected) > 0
    order, expected_order = (np.lexsort(np.round(rows, 9).T) for rows in (found, np.array(expected)))
    np.testing.assert_allclose(found[order], np.array(expected)[expected_order], atol=1e-9)


@pytest.mark.parametrize("frames", [5, 6, 30])
@pytest.mark.parametrize("block", [1, 8, 25])
def test_a_video_in_blocks_has_the_errors_of_the_whole_to_the_bit(frames: int, block: int) -> None:
    detector, video = random_detector().float(), random_video(frames, (60, 80))
    assert torch.equal(torch.cat(list(detector.errors_in_blocks(video.split(block)))), detector.frame_errors(video))


def test_a_frame_depends_on_as_many_others_as_it_says() -> None:
    detector, video = random_detector(), random_video(30, (60, 80))
    error, first, last = detector.frame_errors(video)[16], 16 - detector.before, 16 + detector.behind
    changed = video.clone()
    changed[:first], changed[last + 1 :] = 0, 0
    assert detector.frame_errors(changed)[16] == error
    for place in (first, last):
        changed = video.clone()
        changed[place] = 255 - changed[place]
        assert detector.frame_errors(changed)[16] != error


def test_nothing_is_learned_where_nothing_moves() -> None:
    detector = SparseCombinations()
    cubes = torch.cat(list(detector.cubes(torch.zeros(20, 60, 80, dtype=torch.uint8))))
    assert cubes.shape == (0, 500)
    with pytest.raises(ValueError, match="nothing moves"):
        detector.fit(cubes)


@pytest.fixture(scope="module")
def learned() -> SparseCombinations:
    torch.manual_seed(0)
    detector = SparseCombinations()
    cubes = torch.cat([cubes for seed in range(5) for cubes in detector.cubes(draw_video(seed, 80))])
    detector.fit(cubes[torch.randperm(len(cubes))[:12000]])
    return detector


def test_learned_components_and_combinations_are_orthonormal_and_finite(learned: SparseCombinations) -> None:
    torch.testing.assert_close(learned.components @ learned.components.T, torch.eye(100), atol=1e-5, rtol=0)
    used = learned.combinations[learned.combinations.any(dim=2).all(dim=1)]
    assert 10 < len(used) <= combinations.MOST_COMBINATIONS
    torch.testing.assert_close(used @ used.mT, torch.eye(20).expand(len(used), -1, -1), atol=1e-5, rtol=0)
    assert all(buffer.isfinite().all() for buffer in learned.state_dict().values())


def test_learning_again_forgets_what_was_learned_before(learned: SparseCombinations) -> None:
    again, fresh = SparseCombinations(), SparseCombinations()
    again.load_state_dict(learned.state_dict())
    cubes = torch.cat(list(fresh.cubes(draw_video(9, 12))))
    again.fit(cubes)
    fresh.fit(cubes)
    assert torch.equal(again.combinations, fresh.combinations)


def test_what_was_learned_is_loaded_into_a_new_detector(learned: SparseCombinations) -> None:
    loaded, video = SparseCombinations(), draw_video(50, 30)
    loaded.load_state_dict(learned.state_dict(), strict=True)
    assert torch.equal(loaded.frame_errors(video), learned.frame_errors(video))
    assert learned.frame_errors(video).any()


def test_something_fast_is_found_among_slow_squares(learned: SparseCombinations) -> None:
    videos = [draw_video(seed, 100, ODD) for seed in range(100, 104)]
    assert frame_auc([learned.frame_errors(video) for video in videos], ODD) > 0.9
    assert frame_auc([SparseCombinations().frame_errors(video) for video in videos], ODD) < 0.9, "unlearned it is not"


def test_of_the_frames_of_other_normal_videos_few_score_above_a_half(learned: SparseCombinations) -> None:
    learned.calibrate(torch.cat([learned.frame_errors(draw_video(seed, 100)) for seed in range(20, 24)]))
    scores = torch.cat([learned.scores_of(learned.frame_errors(draw_video(seed, 100))) for seed in range(30, 34)])
    assert (scores > 0.5).float().mean() < 0.05
    assert scores.median().item() == pytest.approx(0.25, abs=0.02)
