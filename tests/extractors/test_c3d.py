"""C3D against a network written out in NumPy, and the public layouts of its weights."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from xelvad.errors import UserError
from xelvad.extractors import create_extractor, spec_of, weights
from xelvad.extractors.c3d import C3D

SPEC = spec_of("c3d")
Array = NDArray[np.float32]

# Tran et al., ICCV 2015, figure 3, in the names of c3d.pickle.
CONVOLUTIONS = {"conv1": 64, "conv2": 128, "conv3a": 256, "conv3b": 256}
CONVOLUTIONS |= {"conv4a": 512, "conv4b": 512, "conv5a": 512, "conv5b": 512}
POOLED_BEHIND = ["conv1", "conv2", "conv3b", "conv4b", "conv5b"]
DENSE = {"fc6": (4096, 8192), "fc7": (4096, 4096), "fc8": (487, 4096)}  # Sports-1M has 487 classes


@pytest.fixture(scope="module")
def pickle_layout() -> dict[str, Tensor]:
    """Seeded weights that keep activations in range, named and shaped as in c3d.pickle; fc7 and fc8 take no memory."""
    rng = np.random.default_rng(0)
    state: dict[str, Array] = {}
    channels = 3
    for name, width in CONVOLUTIONS.items():
        scale = np.sqrt(2 / (27 * channels))
        state[f"{name}.weight"] = rng.normal(0, scale, (width, channels, 3, 3, 3)).astype(np.float32)
        state[f"{name}.bias"] = rng.normal(0, 0.1, width).astype(np.float32)
        channels = width
    state["fc6.weight"] = rng.standard_normal(DENSE["fc6"], np.float32) * np.float32(np.sqrt(2 / 8192))
    state["fc6.bias"] = rng.standard_normal(4096, np.float32)
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    for name in ["fc7", "fc8"]:
        tensors |= {f"{name}.weight": torch.zeros(DENSE[name]), f"{name}.bias": torch.zeros(DENSE[name][0])}
    return tensors


def mmaction_layout(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The names of c3d_sports1m_pretrain_20201016-dcc47ddc.pth: ``conv1a.conv.weight``, ``fc6.weight``."""
    renamed = {}
    for name, tensor in state.items():
        layer, kind = name.split(".")
        inner = f"{layer if layer[-1] in 'ab' else layer + 'a'}.conv.{kind}" if layer.startswith("conv") else name
        renamed[prefix + inner] = tensor
    return renamed


def convolve(x: Array, weight: Array, bias: Array) -> Array:
    """``(C, T, H, W) -> (F, T, H, W)``: the frames' patches side by side, times the filters; then ReLU."""
    channels, frames, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1)))
    result = np.empty((len(weight), frames, height, width), np.float32)
    for t in range(frames):
        shifts = [
            padded[:, t + k, i : i + height, j : j + width].reshape(channels, -1) for k, i, j in np.ndindex(3, 3, 3)
        ]
        columns = np.concatenate(shifts)  # (27·C, H·W)
        filters = weight.reshape(len(weight), channels, 27).transpose(0, 2, 1).reshape(len(weight), -1)
        result[:, t] = (filters @ columns + bias[:, None]).reshape(-1, height, width)
    return np.maximum(result, 0)


def pool(x: Array, first: bool, last: bool) -> Array:
    """Max of blocks of 2 × 2 × 2, of 1 × 2 × 2 for pool1; pool5 has a border of one around each frame."""
    if last:
        x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))  # behind a ReLU zero is as low as anything
    depth = 1 if first else 2
    channels, frames, height, width = (
        size // step * step for size, step in zip(x.shape, (1, depth, 2, 2), strict=True)
    )
    x = x[:channels, :frames, :height, :width]
    blocks = x.reshape(channels, frames // depth, depth, height // 2, 2, width // 2, 2)
    return blocks.max(axis=(2, 4, 6))


def reference(x: Array, state: dict[str, Tensor]) -> Array:
    """fc6 of one clip ``(3, 16, 112, 112)``, float32."""
    for name in CONVOLUTIONS:
        x = convolve(x, state[f"{name}.weight"].numpy(), state[f"{name}.bias"].numpy())
        if name in POOLED_BEHIND:
            x = pool(x, name == "conv1", name == "conv5b")
    assert x.shape == (512, 1, 4, 4)
    hidden: Array = np.maximum(state["fc6.weight"].numpy() @ x.ravel() + state["fc6.bias"].numpy(), 0)
    return hidden


def test_features_are_those_of_a_network_written_out(pickle_layout: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(pickle_layout, tmp_path / "c3d.pickle")
    c3d = create_extractor("c3d", str(tmp_path / "c3d.pickle"))
    frames = np.random.default_rng(1).integers(0, 256, (1, 16, 128, 171, 3), np.uint8)  # nothing is resized
    features = c3d(c3d.preprocess(frames)).numpy()
    # The centre of the frame, blue first, minus the means of FACTS: B 90.25, G 97.66, R 101.41; no scaling.
    bgr = frames[0, :, 8:120, 29:141, ::-1].astype(np.float32) - np.float32([90.25, 97.66, 101.41])
    expected = reference(bgr.transpose(3, 0, 1, 2), pickle_layout)
    assert (features.shape, features.dtype) == ((1, SPEC.feature_dim), np.float32)
    assert SPEC.feature_dim == 4096
    assert 0.2 < np.mean(expected > 0) < 0.8, "a reference that is dead or has no ReLU proves nothing"
    assert np.abs(features[0] - expected).max() <= 1e-4 * np.abs(expected).max()
    assert c3d(c3d.preprocess(frames)).min() == 0


def test_the_layers_are_those_of_the_paper() -> None:
    state = C3D().state_dict()
    convolutions = [tuple(tensor.shape) for name, tensor in state.items() if name.endswith("weight") and "conv" in name]
    widths = list(CONVOLUTIONS.values())
    assert convolutions == [(b, a, 3, 3, 3) for a, b in zip([3, *widths], widths, strict=False)]
    assert sum(tensor.numel() for tensor in state.values()) == 27_655_936 + 8192 * 4096 + 4096


def own_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of `C3D`."""
    named = {re.sub(r"^conv([12])\.", r"conv\1a.", name): tensor for name, tensor in state.items()}
    return {name if name.startswith("fc") else f"features.{name}": tensor for name, tensor in named.items()}


@pytest.mark.parametrize("layout", ["c3d.pickle", "mmaction", "mmaction in a recogniser", "own"])
def test_every_public_layout_gives_the_same_state(
    pickle_layout: dict[str, Tensor], tmp_path: Path, layout: str
) -> None:
    features = {name: tensor for name, tensor in pickle_layout.items() if not name.startswith(("fc7", "fc8"))}
    head = {name: tensor[:1] for name, tensor in pickle_layout.items() if name.startswith(("fc7", "fc8"))}
    saved: dict[str, Any] = {
        "c3d.pickle": features | head,
        "mmaction": {"meta": {"epoch": 3}, "state_dict": mmaction_layout(features | head)},
        "mmaction in a recogniser": mmaction_layout(features | head, "module.backbone.")
        | {"module.cls_head.fc_cls.weight": torch.zeros(1), "module.cls_head.fc_cls.bias": torch.zeros(1)},
        "own": own_layout(features),
    }[layout]
    torch.save(saved, tmp_path / "c3d.pth")
    state, _ = weights.load(SPEC, str(tmp_path / "c3d.pth"))
    expected = own_layout(features)
    assert state is not None
    assert set(state) == set(expected) == set(C3D().state_dict())
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_checkpoint_of_another_network_says_what_differs(tmp_path: Path, pickle_layout: dict[str, Tensor]) -> None:
    other = {name: tensor for name, tensor in pickle_layout.items() if name.startswith(("conv1", "conv2"))}
    torch.save(
        other | {"conv1.weight": torch.zeros(64, 3, 7, 7, 7), "layer9.weight": torch.zeros(1)}, tmp_path / "a.pt"
    )
    with pytest.raises(UserError) as caught:
        weights.load(SPEC, str(tmp_path / "a.pt"))
    assert str(caught.value) == (
        f"{tmp_path}/a.pt: weights of another network than c3d: features.conv3a.weight is missing; "
        "features.conv3a.bias is missing; features.conv3b.weight is missing and 13 more"
    )
    complete = {name: tensor for name, tensor in pickle_layout.items() if not name.startswith(("fc7", "fc8"))}
    complete["fc6.weight"] = torch.zeros(1).expand(4096, 4608)  # as without the padding of pool5
    torch.save(complete | {"layer9.weight": torch.zeros(1)}, tmp_path / "b.pt")
    with pytest.raises(UserError) as caught:
        weights.load(SPEC, str(tmp_path / "b.pt"))
    assert str(caught.value).endswith(
        "c3d: layer9.weight is unknown; fc6.weight has shape (4096, 4608), not (4096, 8192)"
    )
