"""TV-L1 flow of known movements, and the extractor that joins both streams."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from xelvad.errors import UserError
from xelvad.extractors import EXTRACTORS, create_extractor, flow, weights
from xelvad.extractors.flow import Flow
from xelvad.extractors.preprocessing import Pictures, SideBySide
from xelvad.pipeline.cli import main

from ..helpers.footage import Footage

SMALL = Flow(resize=64, crop=48)


def moving(positions: list[tuple[float, float]], height: int = 64, width: int = 80) -> NDArray[np.uint8]:
    """A smooth, uneven texture whose contents lie at ``(x, y)`` in each frame: ``(1, T, height, width, 3)``."""
    rng = np.random.default_rng(0)
    waves = [
        (rng.uniform(0.1, 0.45), rng.uniform(0.1, 0.45) * rng.choice([-1, 1]), rng.uniform(0, 6)) for _ in range(6)
    ]
    frames = []
    for x, y in positions:
        rows, columns = np.mgrid[:height, :width].astype(float)
        texture = sum(np.sin(a * (columns - x) + b * (rows - y) + phase) for a, b, phase in waves)
        frames.append(np.repeat(128 + 20 * texture[..., None], 3, axis=2).round().clip(0, 255).astype(np.uint8))
    return np.stack(frames)[None]


@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, -2), (-2.5, 1.5)])
def test_a_known_translation_gives_the_known_flow(x: float, y: float) -> None:
    result = SMALL(moving([(0, 0), (x, y)]))
    assert (result.shape, result.dtype) == ((1, 2, 2, 48, 48), torch.float32)
    inner = result[0, :, 0, 4:-4, 4:-4].numpy() * 20  # pixels a frame
    assert np.median(inner[0]) == pytest.approx(x, abs=0.1)
    assert np.median(inner[1]) == pytest.approx(y, abs=0.1)
    assert np.abs(inner - np.array([x, y])[:, None, None]).mean() < 0.15


def test_displacements_are_those_at_the_size_that_the_network_sees() -> None:
    """Twice as large frames that move twice as far have the same flow."""
    large = moving([(0, 0), (3, 2)]).repeat(2, axis=2).repeat(2, axis=3)
    inner = SMALL(large)[0, :, 0, 8:-8, 8:-8].numpy() * 20
    assert np.median(inner[0]) == pytest.approx(3, abs=0.15)
    assert np.median(inner[1]) == pytest.approx(2, abs=0.15)


def test_each_field_is_from_a_frame_to_the_next_and_the_last_is_repeated() -> None:
    fields = SMALL(moving([(0, 0), (2, 0), (2, 2), (-1, 2)]))[0].numpy() * 20
    medians = np.median(fields[:, :, 8:-8, 8:-8], axis=(2, 3)).T  # (T, 2)
    assert medians == pytest.approx(np.array([(2, 0), (0, 2), (-3, 0), (-3, 0)]), abs=0.15)
    assert np.array_equal(fields[:, 3], fields[:, 2])
    assert not np.array_equal(fields[:, 2], fields[:, 1])


def test_a_single_frame_does_not_move() -> None:
    result = SMALL(moving([(0, 0)]))
    assert result.shape == (1, 2, 1, 48, 48)
    assert not result.any()


class Counting:
    """Stands in for TV-L1: displacements are the columns' numbers minus 40, the rows' minus 32."""

    def calc(self, first: NDArray[np.uint8], second: NDArray[np.uint8], _: None) -> NDArray[np.float32]:
        rows, columns = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)
        return np.stack([columns - 40, rows - 32], axis=-1)


@pytest.mark.parametrize("bound", [20.0, 5.0])
def test_flow_is_clamped_cropped_from_the_centre_and_scaled(monkeypatch: pytest.MonkeyPatch, bound: float) -> None:
    cv2 = flow._opencv()
    monkeypatch.setattr(cv2.optflow, "DualTVL1OpticalFlow_create", Counting)
    result = Flow(resize=64, crop=48, bound=bound)(np.zeros((2, 3, 64, 80, 3), np.uint8)).numpy()
    x = np.arange(80)[16:64] - 40
    y = np.arange(64)[8:56] - 32
    for number, t in np.ndindex(2, 3):
        assert result[number, 0, t] == pytest.approx(np.tile(np.clip(x, -bound, bound) / bound, (48, 1)))
        assert result[number, 1, t] == pytest.approx(np.tile(np.clip(y, -bound, bound) / bound, (48, 1)).T)
    assert (result.min(), result.max()) == (-1, 1)


def test_the_published_setting_is_the_default_and_is_said() -> None:
    assert (Flow().resize, Flow().crop, Flow().bound, Flow.channels, Flow.crops) == (256, 224, 20, 2, None)
    assert EXTRACTORS["i3d-flow"].preprocessing == Flow()
    texts = {str(one) for one in [Flow(), Flow(resize=257), Flow(crop=112), Flow(bound=10)]}
    assert len(texts) == 4


# --- without OpenCV's extra modules ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plain_opencv", [False, True])
def test_without_opencvs_extra_modules_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], plain_opencv: bool
) -> None:
    if plain_opencv:
        monkeypatch.setattr(flow, "import_module", lambda _: SimpleNamespace())
    else:
        monkeypatch.setattr(flow, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r'^optical flow needs OpenCV.s extra modules: pip install "xelvad\[flow\]"$'):
        SMALL(moving([(0, 0)]))
    Footage.video(tmp_path / "videos/1.mp4", 17, codec="mpeg4")
    arguments = ["--videos", str(tmp_path / "videos"), "--features", str(tmp_path / "features"), "--device", "cpu"]
    for runtime in ["eager", "openvino"]:
        arguments += ["--runtime", runtime, "--extractor", "i3d-flow", "--weights", "random"]
        assert main(["extract", *arguments]) == 2
        printed = capsys.readouterr().err
        assert 'pip install "xelvad[flow]"' in printed.splitlines()[-1]
        assert "Traceback" not in printed
    assert not [path for path in (tmp_path / "features").rglob("*") if path.is_file()]


# --- both streams ----------------------------------------------------------------------------------------------------


def test_both_streams_are_shown_their_own_channels() -> None:
    clips = moving([(0, 0), (2, 1), (2, 1)])
    colour = Pictures(64, 48, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
    side = SideBySide((colour, SMALL))
    shown = side(clips)
    assert (side.crop, side.channels, side.crops) == (48, 5, None)
    assert (shown.shape, shown.dtype) == ((1, 5, 3, 48, 48), torch.float32)
    assert torch.equal(shown[:, :3], colour(clips).float())
    assert torch.equal(shown[:, 3:], SMALL(clips))
    assert str(side) == f"{colour} + {SMALL}"
    conc = EXTRACTORS["i3d-conc"].preprocessing
    assert conc == SideBySide((EXTRACTORS["i3d-rgb"].preprocessing, EXTRACTORS["i3d-flow"].preprocessing))


def test_joined_features_are_those_of_the_two_streams_one_behind_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XELVAD_CACHE", str(tmp_path / "cache"))
    digests = []
    for number, name in enumerate(["i3d-rgb", "i3d-flow"]):
        state = create_extractor(name, "random").network[1].state_dict()
        state = {key: tensor + 0.01 * number for key, tensor in state.items() if "num_batches" not in key}
        torch.save(state, tmp_path / f"{name}.pt")
        digests.append(weights.add(f"{name}-kinetics400", tmp_path / f"{name}.pt")[1])
    joined, colour, moves = (create_extractor(name) for name in ("i3d-conc", "i3d-rgb", "i3d-flow"))
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (1, 3, 9, 224, 224), dtype=torch.uint8, generator=generator)
    fields = torch.rand((1, 2, 9, 224, 224), generator=generator) * 2 - 1
    features = joined(torch.cat([pictures.float(), fields], dim=1))
    expected = torch.cat([colour(pictures), moves(fields)], dim=1)
    assert features.shape == expected.shape == (1, 2048)
    assert (features - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert expected[:, :1024].std() > 0
    assert expected[:, 1024:].std() > 0
    assert joined.fingerprint == f"i3d-conc | {joined.spec.preprocessing} | weights {digests[0]} + {digests[1]}"
    assert weights.digest_of(joined.spec, None) == " + ".join(digests)
    with pytest.raises(UserError, match="i3d-conc joins i3d-rgb and i3d-flow: it takes no weights of its own"):
        create_extractor("i3d-conc", str(tmp_path / "i3d-rgb.pt"))


def test_without_the_weights_of_a_stream_one_line_says_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XELVAD_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"^i3d-flow-kinetics400: .*flow_imagenet\.pt.*xelvad weights add i3d-flow"):
        create_extractor("i3d-flow")
