"""Stillness against the definition, block by block."""

import numpy as np
import pytest
from numpy.typing import NDArray

from xelvad.pipeline.videos.stillness import Stillness, block_means


def means_by_loops(clip: NDArray[np.uint8], block: int) -> NDArray[np.float64]:
    frames, height, width, channels = clip.shape
    result = np.empty((frames, -(-height // block), -(-width // block), channels))
    for t, i, j, c in np.ndindex(*result.shape):
        result[t, i, j, c] = clip[t, i * block : (i + 1) * block, j * block : (j + 1) * block, c].astype(float).mean()
    return result


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("block", [16, 5])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 65), (33, 16), (15, 17), (1, 40), (1, 1)])
def test_block_means_are_means_of_blocks(block: int, height: int, width: int) -> None:
    clip = noise(height, 3, height, width, 3)
    ours, expected = block_means(clip, block), means_by_loops(clip, block)
    assert ours.shape == expected.shape
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_the_brightest_picture_overflows_nothing() -> None:
    assert (block_means(np.full((2, 480, 854, 3), 255, np.uint8)) == 255).all()


@pytest.mark.parametrize("tolerance", [0.01, 1.0, 4.0])
def test_is_still_follows_the_definition(tolerance: float) -> None:
    """Clips that differ from the ones before by a few grey levels, in some blocks more."""
    rng = np.random.default_rng(1)
    clips = [noise(0, 4, 37, 50, 3) // 2 + 64]
    for _ in range(40):
        step = rng.integers(-3, 4) if rng.random() < 0.7 else 0
        clip = clips[-1].astype(int)
        y, x = rng.integers(0, 37), rng.integers(0, 50)
        clip[rng.integers(0, 4), y : y + 12, x : x + 12] += step
        clips.append(clip.clip(0, 255).astype(np.uint8))
    stillness, reference, found = Stillness(tolerance), None, []
    for clip in clips:
        means = means_by_loops(clip, 16)
        still = reference is not None and bool(np.abs(means - reference).max() <= tolerance)
        reference = reference if still else means
        found.append(stillness.is_still(clip))
        assert found[-1] == still
    assert not found[0]
    assert len(set(found)) == 2, "clips of one kind prove nothing"


def test_slow_change_adds_up() -> None:
    """A scene that grows lighter by one level a clip has moved every third clip, though no two neighbours differ."""
    stillness = Stillness(2.0)
    clips = [np.full((16, 32, 32, 3), 100 + level, np.uint8) for level in range(9)]
    assert [stillness.is_still(clip) for clip in clips] == [False, True, True] * 3


def test_what_moves_in_one_frame_of_one_block_of_one_channel_is_no_stillness() -> None:
    clip = np.full((16, 48, 48, 3), 100, np.uint8)
    stillness = Stillness(1.0)
    assert not stillness.is_still(clip)
    moved = clip.copy()
    moved[9, 32:48, 16:32, 2] = 102
    assert not stillness.is_still(moved)
    assert stillness.is_still(moved.copy())


def test_a_small_thing_that_passes_through_the_picture_is_seen() -> None:
    """Frame by frame, not by the clip's mean: the same frames in another order have moved."""
    clip = np.full((16, 48, 64, 3), 100, np.uint8)
    for t in range(16):
        clip[t, 16:32, 4 * t : 4 * t + 4] = 200
    stillness = Stillness(2.0)
    assert not stillness.is_still(clip)
    assert not stillness.is_still(clip[::-1])


@pytest.mark.parametrize(("sigma", "still"), [(4, True), (60, False)])
def test_noise_of_a_camera_is_below_a_tolerance_of_two_levels(sigma: float, still: bool) -> None:
    """Means of 256 pixels have a sixteenth of a pixel's noise; the difference of two has √2 of that."""
    rng = np.random.default_rng(0)
    scene = rng.integers(80, 176, (1, 96, 128, 3))
    noisy = [np.clip(scene + rng.normal(0, sigma, (16, 96, 128, 3)), 0, 255).astype(np.uint8) for _ in range(3)]
    stillness = Stillness(2.0)
    assert not stillness.is_still(noisy[0])
    assert stillness.is_still(noisy[1]) is still


def test_the_clip_may_be_overwritten_afterwards() -> None:
    clip = np.full((2, 16, 16, 3), 10, np.uint8)
    stillness = Stillness(1.0)
    stillness.is_still(clip)
    clip[:] = 200  # the decoder's memory holds the next clip
    assert not stillness.is_still(clip)
