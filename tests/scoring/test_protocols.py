"""Protocols against loops written out by hand, over videos of every kind of length."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from xelvad.errors import UserError
from xelvad.pipeline.features.scaling import Scaling
from xelvad.pipeline.features.store import Features, FeatureStore
from xelvad.pipeline.scoring.config import ProtocolName
from xelvad.pipeline.scoring.protocols import PROTOCOLS
from xelvad.pipeline.videos.clips import Clipping, Segments

from ..helpers.features import write_features
from ..helpers.numeric import OneFeature

LENGTHS = [1, 15, 16, 17, 31, 32, 33, 511, 512, 1000]
SCALINGS = [
    Scaling("none"),
    Scaling("l2"),
    *(Scaling(scale, np.full(4, 0.5, np.float32), np.full(4, 2, np.float32)) for scale in ("standard", "standard+l2")),
]


def features_of(
    folder: Path, frames: int, clipping: Clipping | Segments, crops: int | None = None
) -> tuple[Features, NDArray[np.float32]]:
    rng = np.random.default_rng(frames)
    clips = clipping.count(frames)
    shape = (clips, 4) if crops is None else (clips, crops, 4)
    array = rng.random(shape).astype(np.float32)
    write_features(folder, "v.mp4", array, frames, clipping=clipping)
    return FeatureStore(folder, "i3d-rgb").read("v.mp4"), array


def score_by_hand(rows: NDArray[np.float32], scaling: Scaling) -> list[float]:
    """The first feature of each row, after scaling, as the mean over the crops if there are any."""
    scores = []
    for row in rows:
        crops = row if row.ndim == 2 else row[None]
        crops = (crops - 0.5) / 2 if "standard" in scaling.scale else crops
        found = [float(crop[0]) / (float(np.sqrt((crop**2).sum())) if "l2" in scaling.scale else 1.0) for crop in crops]
        scores.append(sum(found) / len(found))
    return scores


def segments_by_hand(clips: NDArray[np.float32]) -> NDArray[np.float32]:
    means = []
    for segment in range(32):
        first, end = round(segment * len(clips) / 32), round((segment + 1) * len(clips) / 32)
        first = min(first, len(clips) - 1)
        means.append(clips[first : max(end, first + 1)].mean(axis=0))
    return np.stack(means)


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling.scale)
@pytest.mark.parametrize("crops", [None, 3])
@pytest.mark.parametrize("tail", ["pad", "drop"])
@pytest.mark.parametrize("frames", LENGTHS)
def test_every_frame_takes_the_score_that_the_protocol_says(
    tmp_path: Path, frames: int, tail: str, crops: int | None, scaling: Scaling
) -> None:
    features, clips = features_of(tmp_path, frames, Clipping(tail=tail), crops)
    scores = {
        name: protocol.score("v", OneFeature().eval(), features, scaling)[: protocol.counted("v", features)]
        for name, protocol in PROTOCOLS.items()
    }

    of_clips = score_by_hand(clips, scaling)
    exact = [of_clips[min(frame // 16, len(clips) - 1)] for frame in range(frames)]
    np.testing.assert_allclose(scores["exact"], exact, rtol=1e-5, atol=1e-6)

    complete = []
    for clip in range(len(clips)):
        if 16 * (clip + 1) <= frames:
            complete += [of_clips[clip]] * 16
    assert len(complete) == 16 * (frames // 16)
    np.testing.assert_allclose(scores["xel"], complete, rtol=1e-5, atol=1e-6)

    of_segments = score_by_hand(segments_by_hand(clips), scaling)
    in_segments: list[float] = []
    if frames >= 32:
        for segment in range(32):
            in_segments += [of_segments[segment]] * (frames // 32)
        in_segments += [of_segments[31]] * (frames - len(in_segments))
    else:  # fewer frames than segments: shared out evenly
        in_segments = [of_segments[int(frame / frames * 32)] for frame in range(frames)]
    np.testing.assert_allclose(scores["mil"], in_segments, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 31, 32, 33, 1000])
def test_imported_segments_are_what_mil_scores(tmp_path: Path, frames: int) -> None:
    features, rows = features_of(tmp_path, frames, Segments(32))
    scaling = Scaling("l2")
    mil, exact = (PROTOCOLS[name].score("v", OneFeature().eval(), features, scaling) for name in ("mil", "exact"))
    np.testing.assert_allclose(mil, exact, rtol=1e-6)
    assert len(mil) == PROTOCOLS["mil"].counted("v", features) == frames
    assert mil[-1] == pytest.approx(score_by_hand(rows, scaling)[31], rel=1e-5) or frames < 32


def test_imported_segments_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    features, _ = features_of(tmp_path, 100, Segments(32))
    with pytest.raises(UserError, match=r"v.mp4: imported as 32 segments, which have no clips; .*--protocol mil"):
        PROTOCOLS["xel"].counted("v.mp4", features)
    features, _ = features_of(tmp_path, 100, Segments(16))
    with pytest.raises(UserError, match=r"v.mp4: imported as 16 segments, protocol mil needs 32"):
        PROTOCOLS["mil"].score("v.mp4", OneFeature().eval(), features, Scaling("l2"))


def test_the_length_of_clips_is_that_of_the_features(tmp_path: Path) -> None:
    features, _ = features_of(tmp_path, 100, Clipping(length=8))
    assert PROTOCOLS["xel"].counted("v", features) == 96


def test_every_protocol_has_the_name_that_is_asked_for() -> None:
    assert tuple(PROTOCOLS) == get_args(ProtocolName)
    assert [protocol.name for protocol in PROTOCOLS.values()] == list(PROTOCOLS)
