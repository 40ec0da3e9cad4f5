"""Preprocessing against NumPy and Pillow, frame by frame and channel by channel, and against torchvision's own."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models.video
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import TenCrop

from xelvad.extractors import EXTRACTORS
from xelvad.extractors.preprocessing import Pictures

EVERY = {spec.name: spec.preprocessing for spec in EXTRACTORS.values() if isinstance(spec.preprocessing, Pictures)}
FIRST = {pictures: name for name, pictures in reversed(EVERY.items())}
SHOWN = {name: pictures for name, pictures in EVERY.items() if FIRST[pictures] == name}  # each kind once
ANTIALIASED = [name for name, pictures in SHOWN.items() if pictures.antialias]
TORCHVISION = {
    "r3d-18": torchvision.models.video.R3D_18_Weights,
    "s3d": torchvision.models.video.S3D_Weights,
    "swin3d-t": torchvision.models.video.Swin3D_T_Weights,
    "mvit-v1-b": torchvision.models.video.MViT_V1_B_Weights,
}
# Landscape, portrait, odd, square, smaller than any crop, larger, already at the size of some networks.
SIZES = [(240, 320), (320, 240), (288, 352), (121, 163), (90, 90), (50, 31), (480, 854), (256, 343), (128, 171)]


def clip(height: int, width: int, frames: int = 2) -> NDArray[np.uint8]:
    """Smooth areas, edges and noise; no value so near 0 or 255 that Pillow's two passes would clip half-way."""
    rng = np.random.default_rng(height * 1000 + width)
    coarse = rng.integers(0, 128, (1, frames, 9, 9, 3), np.uint8)
    rows, columns = (np.arange(size) * 9 // size for size in (height, width))
    return coarse[:, :, rows][:, :, :, columns] + rng.integers(64, 96, (1, frames, height, width, 3), np.uint8)


def resized_size(pictures: Pictures, height: int, width: int) -> tuple[int, int]:
    if isinstance(pictures.resize, tuple):
        return pictures.resize
    longer = pictures.resize * max(height, width) / min(height, width)
    longer = int(longer) if pictures.rounding == "torchvision" else int(np.floor(longer + 0.5))
    return (pictures.resize, longer) if height <= width else (longer, pictures.resize)


def plain(name: str, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``(T, H, W, 3) -> (crops, 3, T, crop, crop)``, as the network is shown it."""
    pictures = SHOWN[name]
    height, width = resized_size(pictures, *clips.shape[1:3])
    crop, how = pictures.crop, Image.Resampling[pictures.interpolation.upper()]
    top, left = (height - crop) / 2, (width - crop) / 2
    if pictures.rounding == "torchvision":
        top, left = round(top), round(left)
    corners = [(0, 0), (0, width - crop), (height - crop, 0), (height - crop, width - crop)] if pictures.crops else []
    places = [*corners, (int(top), int(left))]
    result = np.empty((pictures.crops or 1, 3, len(clips), crop, crop), np.float32)
    for t, c in np.ndindex(len(clips), 3):
        channel = clips[t, :, :, "RGB".index(pictures.order[c])]
        resized = np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize((width, height), how), np.float32)
        for number, (y, x) in enumerate(places):
            for view, frame in enumerate([resized, resized[:, ::-1]][: 2 if pictures.crops else 1]):
                cropped = frame[y : y + crop, x : x + crop]
                result[number + 5 * view, c, t] = (cropped - pictures.mean[c]) / pictures.std[c]
    return result


def shown(pictures: Pictures, clips: NDArray[np.uint8]) -> Tensor:
    """What the network itself is given, all crops one after the other."""
    layer, inputs = pictures.first_layer(), pictures(clips)
    return layer(inputs.flatten(0, -5))


def test_every_kind_of_preprocessing_is_tried() -> None:
    assert set(SHOWN) == {"i3d-rgb", "c3d", "c3d-xel", "i3d-r50", "i3d-r50-10crop", "tsn-rgb", *TORCHVISION}
    assert set(SHOWN) == {*ANTIALIASED, "tsn-rgb", *TORCHVISION}
    different = {spec.preprocessing for spec in EXTRACTORS.values()}
    assert len({str(one) for one in different}) == len(different), "what is shown otherwise must be called otherwise"


@pytest.mark.parametrize("name", ANTIALIASED)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_with_antialiasing_it_is_pillows(name: str, height: int, width: int) -> None:
    clips = clip(height, width)
    ours, expected = shown(SHOWN[name], clips).numpy(), plain(name, clips[0])
    assert ours.shape == expected.shape
    assert ours.dtype == np.float32
    # Pillow rounds between its two passes, torch does not: two grey levels at most, and hardly ever more than one.
    difference = np.abs(ours - expected) * np.float32(SHOWN[name].std)[:, None, None, None]
    unchanged = (height, width) == resized_size(SHOWN[name], height, width)
    assert difference.max() <= (1e-3 if unchanged else 2.001)
    assert difference.mean() <= 0.3


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_torchvisions_networks_are_shown_what_is_published(name: str, height: int, width: int) -> None:
    clips = clip(height, width)
    published = TORCHVISION[name].DEFAULT.transforms()
    expected = published(torch.from_numpy(clips).permute(0, 1, 4, 2, 3))  # it takes (B, T, C, H, W)
    ours = shown(SHOWN[name], clips)
    assert ours.shape == expected.shape
    grey_levels = (ours - expected).abs() * torch.tensor(SHOWN[name].std).view(3, 1, 1, 1)
    assert grey_levels.max() <= 1.1  # of 255: it rounds before it scales, and so do we
    assert grey_levels.mean() <= 0.6


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tsn_is_shown_what_opencv_makes_of_the_frames(height: int, width: int) -> None:
    cv2 = pytest.importorskip("cv2")
    clips = clip(height, width)
    resized = np.stack([cv2.resize(frame, (340, 256)) for frame in clips[0]])  # as the published script does
    expected = resized[:, 16:240, 58:282, ::-1].astype(np.float32) - np.float32([104, 117, 123])
    ours = shown(SHOWN["tsn-rgb"], clips)[0].permute(1, 2, 3, 0).numpy()
    assert ours.shape == expected.shape == (2, 224, 224, 3)
    assert np.abs(ours - expected).max() <= 1.1  # grey levels: it rounds its weights too
    assert np.abs(ours - expected).mean() <= 0.6


def test_c3d_is_shown_blue_first_and_that_of_xels_authors_red_first() -> None:
    clips = np.zeros((1, 16, 128, 171, 3), np.uint8)
    clips[...] = [10, 20, 30]  # red, green, blue
    assert [channel.unique().item() for channel in shown(SHOWN["c3d"], clips)[0]] == pytest.approx(
        [30 - 90.25, 20 - 97.66, 10 - 101.41]
    )
    assert [channel.unique().item() for channel in shown(SHOWN["c3d-xel"], clips)[0]] == pytest.approx(
        [10 - 104, 20 - 117, 30 - 128]
    )


@pytest.mark.parametrize(("height", "width"), [(256, 340), (256, 343), (301, 256)])
def test_ten_crops_come_in_torchvisions_order(height: int, width: int) -> None:
    clips, pictures = clip(height, width), SHOWN["i3d-r50-10crop"]
    expected = torch.stack(TenCrop(224)(torch.from_numpy(clips).permute(0, 1, 4, 2, 3)), dim=1)  # (B, 10, T, C, h, w)
    assert torch.equal(pictures(clips), expected.transpose(2, 3))
    assert torch.equal(SHOWN["i3d-r50"](clips), expected[:, 4].transpose(1, 2))


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("at_size", [True, False])
def test_the_result_is_uint8_of_its_own_memory_which_runs_channels_last(name: str, at_size: bool) -> None:
    pictures = SHOWN[name]
    size = resized_size(pictures, 100, 130) if at_size else (100, 130)
    clips = clip(*size)
    result = pictures(clips)
    before = result.clone()
    assert result.dtype == torch.uint8
    assert result.shape == (1, *((pictures.crops,) if pictures.crops else ()), 3, 2, pictures.crop, pictures.crop)
    assert result.flatten(0, -5)[0][None].is_contiguous(memory_format=torch.channels_last_3d)
    clips[:] = 0  # the decoder writes the next frames there
    assert torch.equal(result, before)


@pytest.mark.parametrize("name", SHOWN)
def test_clips_do_not_depend_on_their_neighbours(name: str) -> None:
    clips = np.concatenate([clip(60, 80), clip(60, 80)[:, ::-1]])
    assert torch.equal(SHOWN[name](clips), torch.cat([SHOWN[name](one[None]) for one in clips]))


def test_frames_that_are_cropped_to_themselves_are_copied_too() -> None:
    clips = clip(112, 112)
    result = Pictures((112, 112), 112, (0, 0, 0), (1, 1, 1))(clips)
    assert torch.equal(result, torch.from_numpy(clips.copy()).permute(0, 4, 1, 2, 3))
    clips[:] = 0
    assert result.any()


def test_the_text_says_whatever_changes_the_input() -> None:
    base = Pictures(256, 224, (1, 2, 3), (4, 5, 6))
    changes: list[dict[str, Any]] = [
        *({"resize": size} for size in (257, (256, 256), (256, 340), (340, 256))),
        *(
            {"mean": mean}
            for mean in [(1, 1, 1), (3, 2, 1), (1, 1, 2), (1, 2, 2), (1.0000002, 2, 3), (100.63983, 2, 3)]
        ),
        *({"std": std} for std in [(1, 1, 1), (4, 5, 5), (6, 5, 4), (55.332195, 5, 6)]),
        *({"crop": 112}, {"crops": 10}, {"order": "BGR"}, {"interpolation": "bicubic"}),
        *({"antialias": False}, {"rounding": "torchvision"}),
    ]
    assert {name for change in changes for name in change} == {field.name for field in fields(base)}
    assert len({str(base), *(str(replace(base, **change)) for change in changes)}) == len(changes) + 1
