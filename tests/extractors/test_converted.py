"""Converted networks are kept whole, found again, and made again when they are damaged or belong to something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch import nn

from xelvad.extractors import EXTRACTORS
from xelvad.extractors.converted import converted, is_whole, key_of
from xelvad.extractors.networks import ClipExtractor, GlobalAverage

EXAMPLE = torch.zeros(1, 3, 16, 24, 24)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XELVAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


@pytest.fixture
def extractor() -> ClipExtractor:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(3, 8, 3), nn.ReLU(), GlobalAverage())
    return ClipExtractor(replace(EXTRACTORS["i3d-rgb"], feature_dim=8), network, "a fingerprint")


def features(extractor: ClipExtractor) -> np.ndarray:
    model, kept = converted(extractor, EXAMPLE)
    settings = {"INFERENCE_PRECISION_HINT": "f32"} | ({} if kept is None else {"CACHE_DIR": str(kept)})
    inputs = np.random.default_rng(0).normal(size=EXAMPLE.shape).astype(np.float32)
    return openvino.Core().compile_model(model, "CPU", settings)([inputs])[0]


def test_a_conversion_is_made_once_and_gives_the_same_bits_again(
    extractor: ClipExtractor, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="xelvad"):
        first = features(extractor)
    assert "converting the network for OpenVINO, once" in caplog.text
    monkeypatch.setattr(openvino, "convert_model", lambda *_, **__: pytest.fail("converted again"))
    np.testing.assert_array_equal(features(extractor), first)
    (folder,) = cache.iterdir()
    assert is_whole(folder), "and nothing half-made is left"


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "without a digest"])
def test_a_damaged_conversion_is_made_again(extractor: ClipExtractor, cache: Path, damage: str) -> None:
    first = features(extractor)
    (folder,) = cache.iterdir()
    weights = folder / "model.bin"
    data = weights.read_bytes()
    match damage:
        case "cut":
            weights.write_bytes(data[:-8])
        case "changed":
            weights.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        case "gone":
            weights.unlink()
        case _:
            (folder / "sha256").unlink()
    assert not is_whole(folder)
    np.testing.assert_array_equal(features(extractor), first)
    assert is_whole(folder)


def test_what_belongs_to_something_else_is_not_taken(extractor: ClipExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {key_of(extractor, EXAMPLE), key_of(extractor, EXAMPLE[..., :20])}
    extractor.fingerprint = "other weights"
    keys.add(key_of(extractor, EXAMPLE))
    monkeypatch.setattr("xelvad.extractors.converted.version", lambda _: "0.0")
    keys.add(key_of(extractor, EXAMPLE))
    assert len(keys) == 4


def test_where_nothing_can_be_kept_it_is_converted_all_the_same(
    extractor: ClipExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = features(extractor)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XELVAD_CACHE", str(tmp_path / "file"))
    np.testing.assert_allclose(features(extractor), expected, rtol=1e-5)


def test_random_weights_are_not_kept(extractor: ClipExtractor, cache: Path) -> None:
    extractor.fingerprint = "i3d-rgb | … | weights random (seed 0)"
    assert features(extractor).shape == (1, 8)
    assert not cache.exists()
