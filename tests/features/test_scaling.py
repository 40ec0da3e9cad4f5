"""Scaling against NumPy's mean and deviation over everything at once, and the rule that chooses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xelvad.errors import UserError
from xelvad.pipeline.features.config import SCALES, check_scale
from xelvad.pipeline.features.scaling import Scaling, Statistics
from xelvad.pipeline.features.store import Features, FeatureStore

from ..helpers.features import write_features

Array = NDArray[np.float32]


def stored(folder: Path, *arrays: Array) -> list[Features]:
    for number, array in enumerate(arrays):
        write_features(folder, f"{number}.mp4", array, 16 * len(array))
    return [FeatureStore(folder, "i3d-rgb").read(f"{number}.mp4") for number in range(len(arrays))]


def draw(*shape: int, seed: int = 0) -> Array:
    """Features that measure different things: their means and deviations span six orders of magnitude."""
    scales = 10.0 ** np.linspace(-3, 3, shape[-1])
    rng = np.random.default_rng(seed)
    return (scales * (5 + rng.normal(size=shape))).astype(np.float32)


@pytest.mark.parametrize("crops", [(), (3,)])
@pytest.mark.parametrize("lengths", [(1,), (1, 1), (7, 1, 40), (2049, 3)])
def test_mean_and_deviation_are_those_of_all_clips_at_once(lengths: tuple[int, ...], crops: tuple[int, ...]) -> None:
    videos = [draw(length, *crops, 4, seed=number) for number, length in enumerate(lengths)]
    found = Statistics.of(videos)
    everything = np.concatenate([video.reshape(-1, 4) for video in videos]).astype(np.float64)
    assert found.count == len(everything)
    np.testing.assert_allclose(found.mean, everything.mean(axis=0), rtol=1e-12)
    expected = everything.std(axis=0) if len(everything) > 1 else np.ones(4)
    np.testing.assert_allclose(found.deviation, expected, rtol=1e-9)


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    """The sum of squares less the square of the sum would have none left."""
    far = (1e4 + np.random.default_rng(0).random((10_000, 1))).astype(np.float32)
    found = Statistics.of(np.array_split(far, 7))
    np.testing.assert_allclose(found.deviation, far.astype(np.float64).std(axis=0), rtol=1e-9)


def test_a_dimension_that_never_changes_becomes_zero_not_noise(tmp_path: Path) -> None:
    array = draw(50, 3)
    array[:, 1] = 0.1
    scaled = Scaling.fit("standard", stored(tmp_path, array))(array)
    np.testing.assert_allclose(scaled[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0)[[0, 2]], 1, rtol=1e-4)


@pytest.mark.parametrize("crops", [(), (2,)])
@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale != "auto"])
def test_features_are_scaled_as_the_name_says(tmp_path: Path, scale: str, crops: tuple[int, ...]) -> None:
    array = draw(60, *crops, 5)
    scaling = Scaling.fit(scale, stored(tmp_path, array[:13], array[13:]))
    expected = array.astype(np.float64)
    if "standard" in scale:
        rows = expected.reshape(-1, 5)
        expected = (expected - rows.mean(axis=0)) / rows.std(axis=0)
    if "l2" in scale:
        expected = expected / np.linalg.norm(expected, axis=-1, keepdims=True)
    scaled = scaling(array)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, expected, rtol=1e-3, atol=1e-5)


def test_a_row_of_zeros_stays_one() -> None:
    features = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(Scaling("l2")(features), [[0.6, 0.8], [0, 0]])


def features_like(kind: str) -> Array:
    rng = np.random.default_rng(0)
    if kind == "a network's":  # half of them at rest, as behind a ReLU; a few several times as large as others
        return (np.maximum(rng.normal(size=(300, 64)), 0) * rng.uniform(0.3, 2, 64)).astype(np.float32)
    return draw(300, 38)


@pytest.mark.parametrize(("kind", "chosen"), [("a network's", "l2"), ("measurements", "standard+l2")])
def test_auto_standardises_where_a_few_dimensions_would_drown_the_others(
    tmp_path: Path, kind: str, chosen: str
) -> None:
    assert Scaling.fit("auto", stored(tmp_path, features_like(kind))).scale == chosen


@pytest.mark.parametrize("dimensions", [1, 2, 16, 4096])
def test_auto_leaves_features_alone_that_are_alike_in_every_dimension(tmp_path: Path, dimensions: int) -> None:
    array = np.random.default_rng(0).normal(size=(50, dimensions)).astype(np.float32)
    assert Scaling.fit("auto", stored(tmp_path, array)).scale == "l2"
    assert Scaling.fit("auto", stored(tmp_path, np.ones((3, dimensions), np.float32))).scale == "l2"


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale != "auto"])
def test_what_a_run_keeps_gives_the_same_scaling(tmp_path: Path, scale: str) -> None:
    array = draw(20, 4)
    scaling = Scaling.fit(scale, stored(tmp_path, array))
    again = Scaling.restored(scale, scaling.arrays)
    np.testing.assert_array_equal(again(array), scaling(array))
    assert bool(scaling.arrays) == ("standard" in scale)


def test_nan_features_name_the_file(tmp_path: Path) -> None:
    (features,) = stored(tmp_path, draw(9, 5))
    array = np.load(features.path)
    array[8, 0] = np.nan
    np.save(features.path, array)
    with pytest.raises(UserError, match=r"0.mp4.npy: holds NaN"):
        Scaling.fit("standard", [features])


def test_what_is_no_scale_is_refused_with_all_that_are() -> None:
    with pytest.raises(UserError, match=r"bags.scale is one of auto, none, l2, standard, standard\+l2, not zscore"):
        check_scale("zscore")
    with pytest.raises(ValueError, match="no clips"):
        Statistics.of([])
