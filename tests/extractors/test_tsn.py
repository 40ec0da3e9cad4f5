"""TSN's BN-Inception against the published layers, frame by frame in two dimensions, and the layouts of its weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xelvad.errors import UserError
from xelvad.extractors import create_extractor, spec_of, weights
from xelvad.extractors.origins import Download
from xelvad.extractors.tsn import BNInception

SPEC = spec_of("tsn-rgb")

# num_output of the published bn_inception_rgb_deploy.prototxt, block by block, in its order of layers: 1x1, 3x3_reduce,
# 3x3, double_3x3_reduce, double_3x3_1, double_3x3_2, pool_proj.
PUBLISHED = {
    "3a": [64, 64, 64, 64, 96, 96, 32],
    "3b": [64, 64, 96, 64, 96, 96, 64],
    "3c": [None, 128, 160, 64, 96, 96, None],
    "4a": [224, 64, 96, 96, 128, 128, 128],
    "4b": [192, 96, 128, 96, 128, 128, 128],
    "4c": [160, 128, 160, 128, 160, 160, 128],
    "4d": [96, 128, 192, 160, 192, 192, 128],
    "4e": [None, 128, 192, 192, 256, 256, None],
    "5a": [352, 192, 320, 160, 224, 224, 128],
    "5b": [352, 192, 320, 192, 224, 224, 128],
}
LAYERS = ["1x1", "3x3_reduce", "3x3", "double_3x3_reduce", "double_3x3_1", "double_3x3_2", "pool_proj"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the user's cache."""
    monkeypatch.setenv("XELVAD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Seeded weights named and shaped as the published ones: of frames, and without the head."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def add(name: str, inputs: int, outputs: int, kernel: int) -> None:
        scale = (2 / (inputs * kernel**2)) ** 0.5  # keeps activations in range
        state[f"{name}.weight"] = scale * torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        for kind in ("weight", "running_var"):
            state[f"{name}_bn.{kind}"] = 0.5 + torch.rand(outputs, generator=generator)
        for kind in ("bias", "running_mean"):
            state[f"{name}_bn.{kind}"] = 0.1 * torch.randn(outputs, generator=generator)

    add("conv1_7x7_s2", 3, 64, 7)
    add("conv2_3x3_reduce", 64, 64, 1)
    add("conv2_3x3", 64, 192, 3)
    channels = 192
    for block, widths in PUBLISHED.items():
        single, reduce, triple, double_reduce, double, last, projected = widths
        inputs = [channels, channels, reduce, channels, double_reduce, double, channels]
        for layer, before, width in zip(LAYERS, inputs, widths, strict=True):
            if width is not None:
                kernel = 3 if layer in ("3x3", "double_3x3_1", "double_3x3_2") else 1
                add(f"inception_{block}_{layer}", int(before or 0), width, kernel)
        channels = (single or 0) + int(triple or 0) + int(last or 0) + (channels if projected is None else projected)
    assert channels == 1024
    return state


def reference(frames: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The published layers: frames ``(T, 3, 224, 224)`` to what its global_pool gives of each, ``(T, 1024)``."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        x = F.conv2d(x, weight, state[f"{name}.bias"], stride, padding=weight.shape[-1] // 2)
        mean, variance = (state[f"{name}_bn.running_{kind}"] for kind in ("mean", "var"))
        return F.batch_norm(x, mean, variance, state[f"{name}_bn.weight"], state[f"{name}_bn.bias"], eps=1e-5).relu()

    x = F.max_pool2d(conv("conv1_7x7_s2", frames, 2), 3, 2, ceil_mode=True)
    x = F.max_pool2d(conv("conv2_3x3", conv("conv2_3x3_reduce", x)), 3, 2, ceil_mode=True)
    for block in PUBLISHED:
        name = f"inception_{block}_"
        stride = 2 if block in ("3c", "4e") else 1
        triple = conv(name + "3x3", conv(name + "3x3_reduce", x), stride)
        double = conv(name + "double_3x3_1", conv(name + "double_3x3_reduce", x))
        double = conv(name + "double_3x3_2", double, stride)
        if stride == 2:
            x = torch.cat([triple, double, F.max_pool2d(x, 3, 2, ceil_mode=True)], dim=1)
        else:
            pooled = F.max_pool2d(x, 3, 1, 1) if block == "5b" else F.avg_pool2d(x, 3, 1, 1)
            x = torch.cat([conv(name + "1x1", x), triple, double, conv(name + "pool_proj", pooled)], dim=1)
    return F.avg_pool2d(x, 7).flatten(1)


def test_features_are_the_mean_over_frames_of_the_published_network(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({"state_dict": published}, tmp_path / "kinetics.pth")
    tsn = create_extractor("tsn-rgb", str(tmp_path / "kinetics.pth"))
    frames = np.random.default_rng(1).integers(0, 256, (1, 3, 256, 340, 3), np.uint8)  # nothing is resized
    features = tsn(tsn.preprocess(frames))
    # The centre of the frames, blue first, less the means of blue, green and red.
    bgr = frames[0, :, 16:240, 58:282, ::-1].astype(np.float32) - np.float32([104, 117, 123])
    of_frames = reference(torch.from_numpy(bgr.transpose(0, 3, 1, 2).copy()), published)
    expected = of_frames.mean(dim=0)
    assert features.shape == (1, SPEC.feature_dim) == (1, 1024)
    assert (of_frames[0] - of_frames[1]).abs().max() > 0.01 * expected.max(), "frames that are alike prove nothing"
    assert (features[0] - expected).abs().max() <= 1e-5 * expected.max()
    assert (tsn(tsn.preprocess(frames[:, ::-1].copy())) - features).abs().max() <= 1e-5 * expected.max()


def test_the_layers_are_the_published_ones(published: dict[str, Tensor]) -> None:
    network = BNInception()
    assert {name for name in network.state_dict() if not name.endswith("num_batches_tracked")} == set(published)
    assert sum(parameter.numel() for parameter in network.parameters()) == 10_270_240
    assert all(norm.eps == 1e-5 for norm in network.modules() if isinstance(norm, nn.BatchNorm3d))


@pytest.mark.parametrize("layout", ["kinetics", "pretrainedmodels", "tsn-pytorch", "own"])
def test_every_public_layout_gives_the_same_state(published: dict[str, Tensor], tmp_path: Path, layout: str) -> None:
    saved: dict[str, Any] = {
        "kinetics": {"state_dict": published},
        "pretrainedmodels": {name: tensor[None] if "_bn." in name else tensor for name, tensor in published.items()}
        | {"last_linear.weight": torch.zeros(1000, 1024), "last_linear.bias": torch.zeros(1000)},
        "tsn-pytorch": {
            "state_dict": {f"module.base_model.{name}": tensor for name, tensor in published.items()}
            | {"module.new_fc.weight": torch.zeros(101, 1024), "module.new_fc.bias": torch.zeros(101)}
        },
        "own": {name: tensor[:, :, None] if tensor.ndim == 4 else tensor for name, tensor in published.items()},
    }[layout]
    torch.save(saved, tmp_path / "tsn.pth")
    state, _ = weights.load(SPEC, str(tmp_path / "tsn.pth"))
    assert state is not None
    assert set(state) == set(published)
    assert all(torch.equal(state[name].flatten(), tensor.flatten()) for name, tensor in published.items())


def test_a_checkpoint_of_another_network_says_what_differs(published: dict[str, Tensor], tmp_path: Path) -> None:
    other = {name: tensor for name, tensor in published.items() if not name.startswith("inception_5b")}
    torch.save(other | {"conv1_7x7_s2.weight": torch.zeros(64, 10, 7, 7)}, tmp_path / "flow.pth")
    with pytest.raises(UserError) as caught:
        weights.load(SPEC, str(tmp_path / "flow.pth"))
    assert "flow.pth: weights of another network than tsn-rgb: inception_5b_1x1.weight is missing" in str(caught.value)


def test_weights_are_pinned_by_the_digits_of_their_publisher() -> None:
    origin = weights.CATALOGUE[SPEC.default_weights].origin
    assert isinstance(origin, Download)
    assert origin.sha256 == origin.url.rpartition("-")[2].removesuffix(".pth")
    assert len(origin.sha256) == 12
