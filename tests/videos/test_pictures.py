"""Pictures of folders of frames: upright, in eight bits, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xelvad.pipeline.videos.probe import VideoError
from xelvad.pipeline.videos.reader import open_video


def frames_of(folder: Path) -> np.ndarray:
    return np.concatenate([block.frames for block in open_video(folder).blocks(16)])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_as_their_camera_says(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((40, 64, 3), np.uint8)
    upright[:10, :16] = 200  # a light corner, top left
    # What a camera stores for each orientation, by the definition of Exif.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "0.png", exif=exif)
    (frame,) = frames_of(tmp_path)
    assert frame.shape == upright.shape
    np.testing.assert_array_equal(frame, upright)


def test_sixteen_bits_are_scaled_from_their_whole_range(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    Image.fromarray(values).save(tmp_path / "0.png")
    Image.fromarray(values).save(tmp_path / "1.tif")
    for frame in frames_of(tmp_path):
        np.testing.assert_array_equal(frame, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["float", "32 bits"])
def test_numbers_without_a_known_range_are_refused(tmp_path: Path, kind: str) -> None:
    values = np.full((8, 8), 0.5, np.float32) if kind == "float" else np.full((8, 8), 100_000, np.int32)
    Image.fromarray(values).save(tmp_path / "0.tif")
    with pytest.raises(VideoError, match=r"0\.tif: a picture of .* numbers"):
        frames_of(tmp_path)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "1"])
def test_all_modes_become_red_green_blue(tmp_path: Path, mode: str) -> None:
    colour = Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode)
    colour.save(tmp_path / ("0.jpg" if mode == "CMYK" else "0.png"))
    np.testing.assert_allclose(frames_of(tmp_path), 255, atol=1)


def test_a_picture_that_claims_to_be_huge_is_refused_unread(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "0.pgm")
    (tmp_path / "0.pgm").write_bytes(b"P5 100000 100000 255\n" + bytes(64))
    with pytest.raises(VideoError, match=r"0\.pgm"):
        open_video(tmp_path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["0.png", "1.png", "2.png"], []),
        (["img_009.png", "img_010.png", "img_011.png"], []),
        (["a.png", "b.png"], []),
        (["0.png", "1.png", "5.png"], ["the numbers of the pictures leave out 3 between 0 and 5"]),
        (["0.png", "0.bmp", "1.png"], ["1 picture has a number that another one has"]),
    ],
)
def test_numbers_that_leave_gaps_or_come_twice_are_said(tmp_path: Path, names: list[str], said: list[str]) -> None:
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert list(open_video(tmp_path).notes) == said
