"""Which arithmetic is taken, and that features in it are those in float32, over hard pictures too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xelvad.errors import UserError
from xelvad.extractors import EXTRACTORS, ExtractorSpec, create_extractor, precision
from xelvad.extractors.networks import ClipExtractor, GlobalAverage
from xelvad.extractors.precision import Calibration, Precision, choose_precision, multiplies_bfloat16
from xelvad.extractors.preprocessing import Pictures
from xelvad.extractors.runtimes import Engine
from xelvad.pipeline.footage.recording import film

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
I3D = EXTRACTORS["i3d-rgb"]
UNMEASURED = replace(I3D, bfloat16=False)


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: True)


@pytest.fixture
def unable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: False)


@pytest.mark.usefixtures("able")
def test_auto_is_the_fastest_of_which_the_features_are_known_to_be_the_same() -> None:
    assert choose_precision("auto", I3D, "openvino", CPU) == "bfloat16"
    assert choose_precision("auto", UNMEASURED, "openvino", CPU) == "float32"
    assert choose_precision("auto", I3D, "eager", CPU) == "float32"
    assert choose_precision("auto", UNMEASURED, "eager", CUDA) == "float16"
    assert choose_precision("bfloat16", UNMEASURED, "openvino", CPU) == "bfloat16"
    for runtime, device in (("openvino", CPU), ("eager", CUDA)):
        assert choose_precision("float32", I3D, runtime, device) == "float32"  # type: ignore[arg-type]


@pytest.mark.usefixtures("unable")
def test_a_processor_that_does_not_multiply_bfloat16_is_not_made_to() -> None:
    assert choose_precision("auto", I3D, "openvino", CPU) == "float32"
    with pytest.raises(UserError, match="--precision bfloat16: this processor does not multiply it; take float32"):
        choose_precision("bfloat16", I3D, "openvino", CPU)


@pytest.mark.parametrize(("wanted", "device"), [("int8", CPU), ("int8", CUDA), ("bfloat16", CPU)])
def test_what_only_openvino_computes_is_refused_elsewhere(wanted: Precision, device: torch.device) -> None:
    with pytest.raises(
        UserError, match=f"--precision {wanted} needs --runtime openvino on a CPU, not eager on {device}"
    ):
        choose_precision(wanted, I3D, "eager", device)
    if wanted == "bfloat16":
        assert choose_precision(wanted, I3D, "eager", CUDA) == "bfloat16"


def test_what_is_no_precision_is_one_line() -> None:
    with pytest.raises(UserError, match="--precision is one of auto, float32, bfloat16, int8, not half"):
        choose_precision("half", I3D, "eager", CPU)  # type: ignore[arg-type]


def hard_clips() -> dict[str, NDArray[np.uint8]]:
    """Drawn footage, and what stretches the range of numbers within a network."""
    flash = np.zeros((16, 240, 320, 3), np.uint8)
    flash[8] = 255
    return {
        "street": np.stack(list(film(frames=16, anomaly=None, seed=1).pictures)),
        "black": np.zeros_like(flash),
        "white": np.full_like(flash, 255),
        "noise": np.random.default_rng(0).integers(0, 256, flash.shape, np.uint8),
        "flash": flash,
    }


def test_i3d_in_bfloat16_gives_the_features_of_float32() -> None:
    extractor = create_extractor("i3d-rgb")
    if not multiplies_bfloat16():
        with pytest.raises(UserError, match="this processor does not multiply it"):
            Engine(extractor, "openvino", "cpu", "bfloat16")
        return
    inputs = [extractor.preprocess(clip[None])[0] for clip in hard_clips().values()]
    plain = extractor(torch.stack(inputs)).numpy()
    engine = Engine(extractor, "openvino", "cpu", "bfloat16")
    assert ", bfloat16, cpu" in engine.description
    features = engine(inputs)
    assert features.dtype == np.float32
    assert not np.array_equal(features, plain), "computed in bfloat16"
    cosine = (features * plain).sum(-1) / np.linalg.norm(features, axis=-1) / np.linalg.norm(plain, axis=-1)
    assert cosine.min() >= 0.9995, dict(zip(hard_clips(), cosine, strict=True))


class Network(nn.Module):
    """A small one of the layers that clip networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv3d(16, 32, 3), nn.ReLU(), GlobalAverage()
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipExtractor:
    """An extractor whose conversions are kept in a cache of the test's own."""
    monkeypatch.setenv("XELVAD_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    pictures = Pictures(40, 32, (100.0, 110.0, 120.0), (50.0, 60.0, 70.0))
    return ClipExtractor(ExtractorSpec("small", "", __name__, 32, pictures), Network(), "small | weights 1")


def some_clips() -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    for brightness in range(20, 260, 40):
        yield (brightness * rng.random((16, 48, 64, 3))).astype(np.uint8)


NOISE = Calibration("noise", some_clips)


def test_eight_bits_give_nearly_the_same_features_under_a_fingerprint_of_their_own(
    small: ClipExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [small.preprocess(clip[None])[0] for clip in some_clips()]
    plain = small(torch.stack(inputs)).numpy()
    engine = Engine(small, "openvino", "cpu", "int8", NOISE)
    assert engine.fingerprint == f"small | weights 1 | int8, ranges of noise, nncf {version('nncf')}"
    assert ", int8, cpu" in engine.description
    features = engine(inputs)
    cosine = (features * plain).sum(-1) / np.linalg.norm(features, axis=-1) / np.linalg.norm(plain, axis=-1)
    assert 0.99 <= cosine.min() < 1 - 1e-6, "computed in 8 bits"
    monkeypatch.setattr("nncf.quantize", lambda *_, **__: pytest.fail("quantised again"))
    assert np.array_equal(Engine(small, "openvino", "cpu", "int8", NOISE)(inputs), features)
    assert np.allclose(Engine(small, "openvino", "cpu", "float32")(inputs), plain, rtol=1e-4), "kept apart"
    with pytest.raises(pytest.fail.Exception, match="quantised again"):
        Engine(small, "openvino", "cpu", "int8", replace(NOISE, name="other noise"))


def test_eight_bits_need_what_quantises(small: ClipExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="int8 needs clips"):
        Engine(small, "openvino", "cpu", "int8")
    monkeypatch.setattr(precision, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r'--precision int8 is not installed: pip install "xelvad\[int8\]"'):
        Engine(small, "openvino", "cpu", "int8", NOISE)


def test_nothing_is_told_to_the_makers_of_the_runtime() -> None:
    """OpenVINO reports over the network, unless asked not to, who imports it; NNCF what is quantised."""
    code = (
        "from xelvad.extractors.precision import multiplies_bfloat16; multiplies_bfloat16();"
        "import sys, openvino.tools.ovc, nncf.telemetry;"
        "print(*(name for name, module in sys.modules.items() if name.startswith('openvino_telemetry') and module))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == ""
