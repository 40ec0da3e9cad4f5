"""Bags of segments against the published procedure, spelt out."""

from itertools import pairwise

import numpy as np
import pytest
from xelvad.pipeline.bags import BagConfig, make_bag, normalise, segment_bounds


@pytest.mark.parametrize("clips", [1, 2, 31, 32, 33, 64, 100, 1001])
def test_segments_are_the_means_of_sultanis_borders(clips: int) -> None:
    features = np.random.default_rng(clips).normal(size=(clips, 5)).astype(np.float32)
    borders = np.round(np.linspace(0, clips, 33)).astype(int)
    expected = []
    for start, end in pairwise(borders):
        if start == end:  # fewer clips than segments: the clip at this place
            expected.append(features[min(start, clips - 1)])
        else:
            expected.append(features[start:end].mean(axis=0))
    bag = make_bag(features, BagConfig(segments=32, l2_normalise=False))
    assert bag.shape == (32, 5)
    assert bag.dtype == np.float32
    np.testing.assert_allclose(bag, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clips", [32, 33, 100, 61_031])
def test_every_clip_is_in_exactly_one_segment(clips: int) -> None:
    bounds = segment_bounds(clips, 32)
    assert (bounds[0], bounds[-1]) == (0, clips)
    assert (np.diff(bounds) >= 1).all()


def test_normalised_segments_have_length_one_and_zeros_stay_zeros() -> None:
    features = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(normalise(features, BagConfig(l2_normalise=True)), [[0.6, 0.8], [0, 0]])
    np.testing.assert_array_equal(normalise(features, BagConfig(l2_normalise=False)), features)
