"""Bags against the published procedure, spelt out: segments, clips, crops, and the frames that they stand for."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xelvad.errors import UserError
from xelvad.pipeline.features.bags import Sampling, TrainingVideos, clips_of_segment, make_bag
from xelvad.pipeline.features.config import BagConfig
from xelvad.pipeline.features.scaling import Scaling
from xelvad.pipeline.features.store import PIECE_ROWS, Features, FeatureStore, hold
from xelvad.pipeline.videos.clips import Clipping, Segments

from ..helpers.features import write_features

SEGMENTS = BagConfig(segments=32, scale="none")
CLIPS = BagConfig(segments=0, clips=6, scale="none")


def stored(folder: Path, shape: tuple[int, ...], frames: int | None = None, **changes: object) -> Features:
    """Random features of one video, on disk."""
    array = np.random.default_rng(shape[0]).normal(size=shape).astype(np.float32)
    write_features(folder, "v.mp4", array, frames or 16 * shape[0], **changes)
    return FeatureStore(folder, "i3d-rgb").read("v.mp4")


def one_video(features: Features, config: BagConfig, sampling: Sampling = "run") -> TrainingVideos:
    return TrainingVideos(["v.mp4"], [features], config, Scaling(config.scale), sampling)


def reference_bag(array: NDArray[np.float32], segments: int = 32) -> NDArray[np.float32]:
    """Sultani's borders; a segment that lies between two clips takes the clip at its place."""
    means = []
    for start, end in pairwise(np.round(np.linspace(0, len(array), segments + 1)).astype(int)):
        means.append(array[min(start, len(array) - 1)] if start == end else array[start:end].mean(axis=0))
    return np.stack(means)


@pytest.mark.parametrize("rows", [(5,), (3, 5)], ids=["clips", "crops"])
@pytest.mark.parametrize("clips", [1, 2, 31, 32, 33, 100, 1001])
def test_segments_are_the_means_of_sultanis_borders(tmp_path: Path, clips: int, rows: tuple[int, ...]) -> None:
    features = stored(tmp_path, (clips, *rows))
    bag = make_bag(features, 32, Scaling("none"))
    assert (bag.shape, bag.dtype) == ((32, *rows), np.float32)
    np.testing.assert_allclose(bag, reference_bag(features.array), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clips", [32, 33, 100, 61_031])
def test_every_clip_is_in_exactly_one_segment(clips: int) -> None:
    spans = [clips_of_segment(segment, clips, 32) for segment in range(32)]
    assert [clip for start, end in spans for clip in range(start, end)] == list(range(clips))


def test_it_is_the_mean_that_gets_length_one_not_the_clips_before(tmp_path: Path) -> None:
    features = stored(tmp_path, (100, 2, 5))
    expected = reference_bag(features.array)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(make_bag(features, 32, Scaling("l2")), expected, rtol=1e-4, atol=1e-6)


def draw(videos: TrainingVideos, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The bag of the only video for one step, and which rows it consists of."""
    bag = np.full((videos.length(0), videos.feature_dim), np.nan, np.float32)
    return bag, videos.draw(0, rng, bag)


@pytest.mark.parametrize("clips", [1, 5, 6])
def test_a_video_that_is_short_enough_is_taken_as_it_is(tmp_path: Path, clips: int) -> None:
    features = stored(tmp_path, (clips, 5))
    for sampling in ("run", "even"):
        bag, rows = draw(one_video(features, CLIPS, sampling), np.random.default_rng(0))
        np.testing.assert_array_equal(bag, features.array)
        assert rows.tolist() == list(range(clips))


def test_a_longer_normal_video_gives_runs_from_everywhere(tmp_path: Path) -> None:
    features = stored(tmp_path, (9, 5))
    videos, rng, starts = one_video(features, CLIPS), np.random.default_rng(0), set()
    for _ in range(60):
        bag, rows = draw(videos, rng)
        assert rows.tolist() == list(range(rows[0], rows[0] + 6))
        np.testing.assert_array_equal(bag, features.array[rows])
        starts.add(int(rows[0]))
    assert starts == {0, 1, 2, 3}


@pytest.mark.parametrize("clips", [7, 11, 12, 100])
def test_a_longer_abnormal_video_gives_evenly_spaced_clips(tmp_path: Path, clips: int) -> None:
    features = stored(tmp_path, (clips, 5))
    bag, rows = draw(one_video(features, CLIPS, "even"), np.random.default_rng(0))
    np.testing.assert_array_equal(bag, features.array[rows])
    assert (len(rows), rows[0], rows[-1]) == (6, 0, clips - 1)
    ideal = np.arange(6) * (clips - 1) / 5
    assert np.abs(rows - ideal).max() <= 0.5


@pytest.mark.parametrize("config", [SEGMENTS, CLIPS], ids=["segments", "clips"])
def test_a_draw_takes_one_crop_and_each_has_its_turn(tmp_path: Path, config: BagConfig) -> None:
    features = stored(tmp_path, (40, 3, 5))
    videos, rng = one_video(features, config), np.random.default_rng(0)
    crops: NDArray[np.float32] = reference_bag(features.array) if config.segments else features.array
    drawn = set()
    for _ in range(30):
        bag, rows = draw(videos, rng)
        same = [crop for crop in range(3) if np.allclose(bag, crops[rows, crop], rtol=1e-5, atol=1e-6)]
        assert len(same) == 1
        drawn |= set(same)
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize("crops", [None, 2])
@pytest.mark.parametrize("l2_normalise", [True, False])
def test_pieces_of_clips_make_the_whole_video_whatever_a_step_may_take(
    tmp_path: Path, crops: int | None, l2_normalise: bool
) -> None:
    clips = PIECE_ROWS // (crops or 1) + 3
    features = stored(tmp_path, (clips, 2) if crops is None else (clips, crops, 2))
    config = BagConfig(segments=0, clips=6, scale="l2" if l2_normalise else "none")
    pieces = list(one_video(features, config).pieces(0))
    expected = features.array / np.linalg.norm(features.array, axis=-1, keepdims=True)
    assert [len(piece) for piece in pieces] == [clips - 3, 3]
    np.testing.assert_allclose(np.concatenate(pieces), expected if l2_normalise else features.array, rtol=1e-5)


@pytest.mark.parametrize("crops", [None, 3])
@pytest.mark.parametrize("scale", ["none", "l2"])
@pytest.mark.parametrize("sampling", ["run", "even"])
def test_bags_of_features_in_memory_are_those_of_features_on_disk(
    tmp_path: Path, crops: int | None, scale: str, sampling: Sampling
) -> None:
    features = stored(tmp_path, (40, 5) if crops is None else (40, crops, 5))
    config = BagConfig(segments=0, clips=6, scale=scale)
    on_disk, in_memory = (one_video(video, config, sampling) for video in (features, *hold([features])))
    for seed in range(5):
        for one, other in zip(
            *(draw(videos, np.random.default_rng(seed)) for videos in (on_disk, in_memory)), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(*(np.concatenate(list(videos.pieces(0))) for videos in (on_disk, in_memory)))


def test_the_one_piece_of_segments_has_all_crops(tmp_path: Path) -> None:
    features = stored(tmp_path, (40, 3, 5))
    (piece,) = one_video(features, SEGMENTS).pieces(0)
    np.testing.assert_allclose(piece, reference_bag(features.array), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("frames", "clipping"),
    [(16 * 100 - 3, Clipping()), (16 * 33 + 5, Clipping(16, "drop")), (16 * 5 - 1, Clipping()), (700, Segments(32))],
)
def test_frames_of_a_row_are_those_that_its_clips_scores_are_spread_to(
    tmp_path: Path, frames: int, clipping: Clipping | Segments
) -> None:
    clips = clipping.count(frames)
    features = stored(tmp_path, (clips, 5), frames, clipping=clipping)
    clip_of_frame = clipping.spread(np.arange(clips, dtype=np.float32), frames)
    as_clips = one_video(features, CLIPS)
    for clip in range(clips):
        assert list(range(*as_clips.frames_of(0, clip))) == np.flatnonzero(clip_of_frame == clip).tolist()
    as_segments = one_video(features, SEGMENTS)
    borders = np.round(np.linspace(0, clips, 33)).astype(int)
    for segment, (start, end) in enumerate(pairwise(borders)):
        members = range(start, end) if start < end else [min(start, clips - 1)]
        expected = np.flatnonzero(np.isin(clip_of_frame, list(members)))
        assert list(range(*as_segments.frames_of(0, segment))) == expected.tolist()


@pytest.mark.parametrize("wrong", [{"segments": -1}, {"clips": 0}, {"scale": "zscore"}])
def test_impossible_bags_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"bags\.{next(iter(wrong))}"):
        BagConfig(**wrong)
