from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from xelvad.pipeline.videos.clips import Clipping, Segments
from xelvad.pipeline.videos.config import Tail

LENGTHS = [1, 15, 16, 17, 32, 421]


def film(frames: int) -> NDArray[np.uint8]:
    """Frames ``(frames, 2, 3, 3)``, all different."""
    return np.random.default_rng(frames).integers(0, 256, (frames, 2, 3, 3), np.uint8)


def in_blocks(frames: NDArray[np.uint8], length: int) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(frames), length):
        yield frames[start : start + length]


def reference_clips(frames: NDArray[np.uint8], length: int, tail: Tail) -> list[NDArray[np.uint8]]:
    """Clips as one would cut them by hand."""
    clips = []
    for start in range(0, len(frames), length):
        if tail == "drop" and start > 0 and start + length > len(frames):
            break
        clips.append(np.stack([frames[min(start + offset, len(frames) - 1)] for offset in range(length)]))
    return clips


@pytest.mark.parametrize("tail", ["pad", "drop"])
@pytest.mark.parametrize("length", [1, 7, 16])
@pytest.mark.parametrize("frames", LENGTHS)
def test_clips_are_those_cut_by_hand(frames: int, length: int, tail: Tail) -> None:
    clipping = Clipping(length, tail)
    clips = list(clipping.split(in_blocks(film(frames), length)))
    expected = reference_clips(film(frames), length, tail)
    assert len(clips) == len(expected) == clipping.count(frames)
    for clip, known in zip(clips, expected, strict=True):
        assert clip.dtype == np.uint8
        assert np.array_equal(clip, known)


@pytest.mark.parametrize(("frames", "padded", "dropped"), [(0, 0, 0), (1, 1, 1), (15, 1, 1), (16, 1, 1), (17, 2, 1),
                                                           (31, 2, 1), (32, 2, 2), (421, 27, 26)])  # fmt: skip
def test_the_number_of_clips(frames: int, padded: int, dropped: int) -> None:
    assert Clipping().count(frames) == padded
    assert Clipping(16, "drop").count(frames) == dropped


@pytest.mark.parametrize("tail", ["pad", "drop"])
@pytest.mark.parametrize("frames", LENGTHS)
def test_every_frame_gets_exactly_the_score_of_its_clip(frames: int, tail: Tail) -> None:
    clipping = Clipping(16, tail)
    scores = np.linspace(0, 1, clipping.count(frames), dtype=np.float32)
    spread = clipping.spread(scores, frames)
    assert spread.shape == (frames,)
    assert spread.dtype == np.float32
    for frame in range(frames):
        assert spread[frame] == scores[min(frame // 16, len(scores) - 1)]


@pytest.mark.parametrize("tail", ["pad", "drop"])
@pytest.mark.parametrize("frames", LENGTHS)
def test_cutting_and_spreading_are_inverse(frames: int, tail: Tail) -> None:
    # Mark every clip by its first frame, spread the marks: at each clip's first frame stands its own mark.
    clipping = Clipping(16, tail)
    marked = np.zeros((frames, 1, 1, 1), np.uint8)
    marked[:, 0, 0, 0] = np.arange(frames) // 16
    marks = np.array([clip[0, 0, 0, 0] for clip in clipping.split(in_blocks(marked, 16))], np.float32)
    spread = clipping.spread(marks, frames)
    covered = frames if tail == "pad" else min(frames, len(marks) * 16)
    assert np.array_equal(spread[:covered], marked[:covered, 0, 0, 0])
    assert np.array_equal(spread[::16][: len(marks)], marks)
    assert (spread[covered:] == marks[-1]).all()


@pytest.mark.parametrize(("clips", "frames"), [(1, 17), (3, 32), (0, 1), (27, 416), (26, 421)])
def test_scores_of_another_number_of_clips_are_refused(clips: int, frames: int) -> None:
    with pytest.raises(ValueError, match=f"{clips} clip scores for {frames} frames"):
        Clipping().spread(np.zeros(clips, np.float32), frames)


def test_a_whole_clip_is_not_copied() -> None:
    block = film(16)
    (clip,) = Clipping().split([block])
    assert np.shares_memory(clip, block)


# --- segments --------------------------------------------------------------------------------------------------------


def reference_segments(scores: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """The MIL protocol, segment by segment, for a video with at least as many frames as segments."""
    spread = np.empty(frames, np.float32)
    size = frames // len(scores)
    for segment, score in enumerate(scores):
        spread[segment * size : (segment + 1) * size] = score
    spread[len(scores) * size :] = scores[-1]
    return spread


@pytest.mark.parametrize("segments", [1, 5, 32])
@pytest.mark.parametrize("frames", [32, 33, 63, 64, 65, 421, 1000, 976_503])
def test_segments_have_equal_shares_and_the_last_one_the_tail(frames: int, segments: int) -> None:
    scores = np.random.default_rng(frames).random(segments, np.float32)
    spread = Segments(segments).spread(scores, frames)
    assert spread.dtype == np.float32
    assert np.array_equal(spread, reference_segments(scores, frames))


@pytest.mark.parametrize("frames", range(1, 32))
def test_a_video_with_fewer_frames_than_segments_takes_scores_from_all_over_it(frames: int) -> None:
    spread = Segments(32).spread(np.arange(32, dtype=np.float32), frames)
    assert np.array_equal(spread, np.arange(frames) * 32 // frames)


def test_the_number_of_segments_does_not_depend_on_the_video() -> None:
    assert [Segments().count(frames) for frames in (0, 1, 31, 32, 1000)] == [32] * 5
    assert len(Segments().spread(np.zeros(32, np.float32), 0)) == 0


@pytest.mark.parametrize(("scores", "frames"), [(31, 100), (33, 100), (0, 1)])
def test_scores_of_another_number_of_segments_are_refused(scores: int, frames: int) -> None:
    with pytest.raises(ValueError, match=f"{scores} clip scores for {frames} frames, which make 32 clips"):
        Segments().spread(np.zeros(scores, np.float32), frames)


# --- frames of a clip ------------------------------------------------------------------------------------------------

CLIPPINGS = [Clipping(16, "pad"), Clipping(16, "drop"), Clipping(1), Clipping(7, "drop"), Segments(), Segments(3)]


@pytest.mark.parametrize("clipping", CLIPPINGS, ids=str)
@pytest.mark.parametrize("frames", [*LENGTHS, 2, 31, 1000])
def test_frames_of_a_clip_are_those_that_get_its_score(clipping: Clipping | Segments, frames: int) -> None:
    clips = clipping.count(frames)
    spread = clipping.spread(np.arange(clips, dtype=np.float32), frames)
    end = 0
    for clip in range(clips):
        start, stop = clipping.frames_of(clip, frames)
        assert start == end, "without gaps, in order"
        assert np.array_equal(np.flatnonzero(spread == clip), np.arange(start, stop))
        end = stop
    assert end == frames


def test_frames_of_a_clip_by_hand() -> None:
    assert [Clipping().frames_of(clip, 40) for clip in range(3)] == [(0, 16), (16, 32), (32, 40)]
    assert [Clipping(16, "drop").frames_of(clip, 40) for clip in range(2)] == [(0, 16), (16, 40)]
    assert [Segments(3).frames_of(clip, 11) for clip in range(3)] == [(0, 3), (3, 6), (6, 11)]
    assert [Segments(4).frames_of(clip, 2) for clip in range(4)] == [(0, 1), (1, 1), (1, 2), (2, 2)]


@pytest.mark.parametrize("clip", [-1, 3])
@pytest.mark.parametrize("clipping", [Clipping(), Segments(3)], ids=str)
def test_a_clip_that_is_not_there_has_no_frames(clipping: Clipping | Segments, clip: int) -> None:
    with pytest.raises(ValueError, match=f"no clip {clip} in 40 frames, which make 3 clips"):
        clipping.frames_of(clip, 40)
