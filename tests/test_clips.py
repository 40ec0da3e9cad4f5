from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from xelvad.pipeline.clips import Clipping, Tail

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
