"""Inference: every clip has the score that the detector gives it, crops averaged, however the video is read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from xelvad.errors import UserError
from xelvad.models import DETECTORS, Detector
from xelvad.pipeline.features.scaling import Scaling
from xelvad.pipeline.features.store import PIECE_ROWS, Features, FeatureStore
from xelvad.pipeline.scoring.inference import WHOLE, score_clips, windows

from ..helpers.detectors import Neighbours, sigmoid_less_mean
from ..helpers.features import write_features

Store = Callable[[NDArray[np.float32]], Features]
CLIP_BY_CLIP = [name for name, kind in DETECTORS.items() if not kind.context]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def stored(tmp_path: Path) -> Store:
    def store(features: NDArray[np.float32]) -> Features:
        write_features(tmp_path, "v.mp4", features, 16 * len(features))
        return FeatureStore(tmp_path, "i3d-rgb").read("v.mp4")

    return store


def draw(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def ready(kind: str, feature_dim: int) -> Detector:
    torch.manual_seed(0)
    return DETECTORS[kind](feature_dim).eval()


def one_by_one(detector: Detector, rows: NDArray[np.float32], l2_normalise: bool) -> NDArray[np.float32]:
    """Scores ``(n, F) -> (n,)``, each row for itself."""
    scores = []
    for row in rows.astype(np.float64):
        scaled = row / np.sqrt(np.sum(row**2)) if l2_normalise else row
        with torch.no_grad():
            scores.append(float(detector.score(torch.from_numpy(scaled).float())))
    return np.array(scores, np.float32)


@pytest.mark.parametrize("l2_normalise", [True, False])
@pytest.mark.parametrize("kind", CLIP_BY_CLIP)
def test_clips_are_scored_as_they_are_also_by_a_detector_of_segments(
    stored: Store, kind: str, l2_normalise: bool
) -> None:
    clips, detector = draw(37, 5), ready(kind, 5)
    scores = score_clips(detector, stored(clips), Scaling("l2" if l2_normalise else "none"))
    assert (scores.shape, scores.dtype) == ((37,), np.float32)
    np.testing.assert_allclose(scores, one_by_one(detector, clips, l2_normalise), atol=1e-6)


@pytest.mark.parametrize("crops", [1, 3])
def test_the_scores_of_crops_are_averaged_not_their_features(stored: Store, crops: int) -> None:
    clips, detector = 5 * draw(6, crops, 5), ready("mil", 5)
    scores = score_clips(detector, stored(clips), Scaling("none"))
    expected = one_by_one(detector, clips.reshape(-1, 5), False).reshape(6, crops).mean(axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    if crops > 1:
        assert np.abs(scores - one_by_one(detector, clips.mean(axis=1), False)).max() > 1e-3


@pytest.mark.parametrize("crops", [None, 4])
def test_a_video_that_is_read_in_pieces_has_every_score_once_and_in_order(stored: Store, crops: int | None) -> None:
    clips = PIECE_ROWS // (crops or 1) + 5
    places = np.linspace(-3, 3, clips, dtype=np.float32)  # scores rise with them
    features = places[:, None] if crops is None else np.repeat(places[:, None, None], crops, axis=1)
    detector = ready("svm", 1)
    with torch.no_grad():
        detector.plane.weight.fill_(1)
        detector.plane.bias.fill_(0)
    scores = score_clips(detector, stored(features), Scaling("none"))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-places)), atol=1e-6)


def test_scoring_leaves_no_gradient_behind(stored: Store) -> None:
    detector = ready("ar-net", 5)
    first, second = (score_clips(detector, stored(draw(9, 5)), Scaling("l2")) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in detector.parameters())


def test_nan_features_name_the_file(stored: Store) -> None:
    features = stored(draw(9, 5))
    array = np.load(features.path)
    array[8, 0] = np.nan
    np.save(features.path, array)
    with pytest.raises(UserError, match=r"v.mp4.npy: holds NaN"):
        score_clips(ready("mil", 5), features, Scaling("l2"))


@pytest.mark.parametrize("crops", [(), (3,)])
def test_a_detector_with_context_sees_a_video_whole_and_every_crop_as_a_video(
    stored: Store, crops: tuple[int, ...]
) -> None:
    clips = draw(37, *crops, 2)
    scores = score_clips(Neighbours().eval(), stored(clips), Scaling("none"))
    first = clips[..., 0].reshape(37, -1).T  # (crops, t)
    np.testing.assert_allclose(scores, sigmoid_less_mean(first).mean(axis=0), rtol=1e-5)


def test_a_long_video_is_seen_in_windows_that_overlap(stored: Store) -> None:
    clips = draw(WHOLE + 5, 2)
    scores = score_clips(Neighbours().eval(), stored(clips), Scaling("none"))
    expected = [
        sigmoid_less_mean(clips[max(0, start - WHOLE // 4) : start + 3 * WHOLE // 4, 0])[min(start, WHOLE // 4) :]
        for start in range(0, len(clips), WHOLE // 2)
    ]
    np.testing.assert_allclose(scores, np.concatenate([each[: WHOLE // 2] for each in expected]), rtol=1e-4)


@pytest.mark.parametrize("clips", [1, 7, 8, 9, 12, 13, 100])
def test_windows_score_every_clip_once_and_look_at_no_more_than_they_may(clips: int) -> None:
    found = list(windows(clips, whole=8))
    assert [clip for start, stop, _ in found for clip in range(start, stop)] == list(range(clips))
    for start, stop, seen in found:
        assert seen.start <= max(0, start - 2) or clips <= 8
        assert 0 <= seen.start <= start < stop <= seen.stop <= clips
        assert seen.stop - seen.start <= 8
        assert seen.stop >= min(clips, stop + 2)
