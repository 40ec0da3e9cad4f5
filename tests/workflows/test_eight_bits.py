"""From videos to scores in 8 bits: features keep to themselves, and a run brings its precision along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from xelvad.extractors import EXTRACTORS, ExtractorSpec
from xelvad.extractors.networks import GlobalAverage
from xelvad.extractors.preprocessing import Pictures
from xelvad.pipeline.cli import main
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.footage.recording import draw_dataset

PICTURES = Pictures(40, 32, (100.0, 110.0, 120.0), (50.0, 60.0, 70.0))
SMALL = ExtractorSpec("small", "A convolution", __name__, 24, PICTURES)


class Small(nn.Module):
    """A network that is quantised in a second."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(3, 24, 3, stride=2), nn.ReLU(), GlobalAverage())

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


def build(spec: ExtractorSpec) -> nn.Module:
    """As `create_extractor` asks for it."""
    return Small()


def test_a_run_that_learned_from_eight_bits_scores_in_eight_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXTRACTORS, "small", SMALL)
    manifest = draw_dataset(tmp_path / "footage", videos=6, frames=32)
    videos, features, run = (str(tmp_path / name) for name in ("footage/videos", "features", "run"))
    how = ["--extractor", "small", "--weights", "random"]
    assert main(["extract", videos, "--features", features, *how, "--precision", "int8"]) == 0
    video = next(Path(videos).glob("test_*.mp4"))
    sidecar = FeatureStore(Path(features), "small").read(video.name).sidecar
    assert " | int8, ranges of drawn footage, nncf " in sidecar.fingerprint
    assert ", int8, cpu" in sidecar.runtime

    capsys.readouterr()
    assert main(["extract", videos, "--features", features, *how, "--precision", "float32"]) == 2
    assert "int8, ranges of drawn footage" in capsys.readouterr().err, "they are not mixed"

    training = ["--extractor", "small", "--iterations", "20", "--recipe", "general/mil", "--test-fold", "test"]
    assert main(["train", "--manifest", str(manifest), "--features", features, "--out", run, *training]) == 0
    scored = ["score", str(video), "--run", run, "--weights", "random", "--out", str(tmp_path / "scored")]
    assert main(scored) == 0
    (scores,) = (np.load(path) for path in (tmp_path / "scored").rglob("scores.npy"))
    assert scores.shape == (32,)
    capsys.readouterr()
    assert main([*scored, "--precision", "float32"]) == 2
    assert "name its weights by --weights and --precision" in capsys.readouterr().err
