"""The networks of libraries against the libraries: their own forward pass, weights and preprocessing."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models.video as library
from pytorchvideo.models.hub import i3d_r50
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from xelvad.errors import UserError
from xelvad.extractors import EXTRACTORS, create_extractor, weights
from xelvad.extractors.networks import ClipExtractor
from xelvad.extractors.origins import Download
from xelvad.extractors.preprocessing import Pictures

ENUMS = {
    "r3d-18": library.R3D_18_Weights,
    "mc3-18": library.MC3_18_Weights,
    "r2plus1d-18": library.R2Plus1D_18_Weights,
    "s3d": library.S3D_Weights,
    "swin3d-t": library.Swin3D_T_Weights,
    "swin3d-s": library.Swin3D_S_Weights,
    "swin3d-b": library.Swin3D_B_Weights,
    "mvit-v1-b": library.MViT_V1_B_Weights,
    "mvit-v2-s": library.MViT_V2_S_Weights,
}
TORCHVISION = [spec for spec in EXTRACTORS.values() if spec.module == ".torchvision_video"]
# The smallest input that takes every way through a network: a library's forward pass is the same at any size, but for
# MViT, whose positions belong to one size.
SIDES = {"mvit-v1-b": 224, "mvit-v2-s": 224, "s3d": 224}


def test_every_network_of_torchvision_is_tried() -> None:
    assert {spec.name for spec in TORCHVISION} == set(ENUMS)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the user's cache."""
    monkeypatch.setenv("XELVAD_CACHE", str(tmp_path / "cache"))


def original_of(name: str) -> nn.Module:
    """The library's whole network, head and all, with seeded weights and statistics that are not the initial ones."""
    torch.manual_seed(5)
    network = i3d_r50() if name.startswith("i3d-r50") else getattr(library, EXTRACTORS[name].network)()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def into_the_head(name: str, network: nn.Module, x: Tensor) -> Tensor:
    """What the library's classifying layer is given, averaged over places where it is given several."""
    heads = [module for module in network.modules() if isinstance(module, (nn.Linear, nn.Conv3d))]
    head = heads[-1]  # of all libraries' networks: the classifying layer is the last
    assert 400 in (getattr(head, "out_features", 0), getattr(head, "out_channels", 0))
    given: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with torch.inference_mode():
        network(x)
    handle.remove()
    (features,) = given
    if name.startswith("i3d-r50"):  # pytorchvideo's heads project with the channels last
        features = features.movedim(-1, 1)
    return features.flatten(2).mean(2) if features.ndim > 2 else features


def adapted(name: str, original: nn.Module) -> ClipExtractor:
    """The extractor with the weights of a library's whole network."""
    spec = EXTRACTORS[name]
    state = weights._convert({key: tensor.numpy() for key, tensor in original.state_dict().items()}, name, "library")
    with torch.device("meta"):  # no time for random weights
        network = import_module(spec.module, "xelvad.extractors").build(spec)
    network.to_empty(device="cpu").load_state_dict(state, strict=True)
    return ClipExtractor(spec, network, spec.fingerprint("of the library"))


@pytest.mark.parametrize("name", [*ENUMS, "i3d-r50"])
def test_features_are_what_the_library_gives_its_head(name: str) -> None:
    original = original_of(name)
    extractor = adapted(name, original)
    # 8 frames are what I3D-ResNet50 is published for: its head then looks at all places at once, as a mean does.
    frames, side = (8, 224) if name == "i3d-r50" else (16, SIDES.get(name, 64))
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (1, 3, frames, side, side), dtype=torch.uint8, generator=generator)
    pictures = extractor.spec.preprocessing
    assert isinstance(pictures, Pictures)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (pictures.mean, pictures.std))
    expected = into_the_head(name, original, (clips.float() - mean) / std)
    features = extractor(clips)
    assert features.shape == expected.shape == (1, extractor.spec.feature_dim)
    assert expected.std() > 0
    assert (features - expected).abs().max() <= 2e-6 * expected.abs().max()


@pytest.mark.parametrize("name", ["r3d-18", "s3d", "swin3d-t"])  # their heads are called fc, classifier, and head
def test_a_published_checkpoint_is_loaded_without_its_head(tmp_path: Path, name: str) -> None:
    original = original_of(name)
    torch.save(original.state_dict(), tmp_path / "published.pth")
    loaded, published = (
        create_extractor(name, str(tmp_path / "published.pth")).network[1].state_dict(),
        original.state_dict(),
    )
    heads = set(published) - set(loaded)
    assert {head.split(".")[0] for head in heads} == {{"r3d-18": "fc", "s3d": "classifier"}.get(name, "head")}
    for key, tensor in loaded.items():
        assert torch.equal(tensor, published[key])


@pytest.mark.parametrize("name", ENUMS)
def test_preprocessing_and_weights_are_those_that_torchvision_publishes(name: str) -> None:
    enum, spec = ENUMS[name].KINETICS400_V1, EXTRACTORS[name]
    transforms, pictures = enum.transforms(), spec.preprocessing
    assert isinstance(pictures, Pictures)
    assert pictures.mean == pytest.approx([255 * value for value in transforms.mean], rel=1e-9)
    assert pictures.std == pytest.approx([255 * value for value in transforms.std], rel=1e-9)
    resize = [pictures.resize] if isinstance(pictures.resize, int) else [*pictures.resize]
    assert (resize, [pictures.crop] * 2) == (list(transforms.resize_size), list(transforms.crop_size))
    assert transforms.interpolation == InterpolationMode.BILINEAR
    assert (pictures.order, pictures.interpolation, pictures.antialias) == ("RGB", "bilinear", False)
    assert (pictures.crops, pictures.rounding) == (None, "torchvision")

    known = weights.CATALOGUE[spec.default_weights]
    assert (known.name, known.extractors) == (f"{name}-kinetics400", (name,))
    assert isinstance(known.origin, Download)
    assert known.origin.url == enum.url
    # torch.hub checks the digits between the last dash and the dot of the file's name
    assert known.origin.sha256 == enum.url.rpartition("-")[2].removesuffix(".pth")
    assert len(known.origin.sha256) == 8
    assert len(enum.meta["categories"]) == 400


@pytest.mark.parametrize("name", [name for name in EXTRACTORS if name != "i3d-conc"])
def test_what_comes_out_is_what_the_specification_says(name: str) -> None:
    spec = EXTRACTORS[name]
    assert name in weights.CATALOGUE[spec.default_weights].extractors
    with torch.device("meta"):  # shapes alone: nothing is computed, and no weights take memory
        network = import_module(spec.module, "xelvad.extractors").build(spec)
        side, crops = spec.preprocessing.crop, spec.crops or 1
        x = torch.empty(crops, spec.preprocessing.channels, spec.clip_length, side, side)
        features = network.eval()(x)
    assert features.shape == (crops, spec.feature_dim)
    if spec.preprocessing.channels == 3:
        shown = spec.preprocessing(np.zeros((2, spec.clip_length, 24, 32, 3), np.uint8))
        assert shown.shape == (2, *((crops,) if spec.crops else ()), 3, spec.clip_length, side, side)


def test_ten_crops_give_each_crop_features_of_its_own(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 16, 256, 340, 3), np.uint8)
    ten = create_extractor("i3d-r50-10crop", "random")
    shown = ten.preprocess(frames)[:, 3:6, :, :4, ::8, ::8]  # any ten of any size: here three small ones
    features = ten(shown)
    assert features.shape == (1, 3, 2048)
    one = create_extractor("i3d-r50", "random")
    for number in range(3):
        alone = one(shown[:, number])[0]
        assert (features[0, number] - alone).abs().max() <= 2e-6 * alone.abs().max()
    assert not torch.equal(features[0, 0], features[0, 1])


@pytest.mark.parametrize(
    ("name", "other"), [("r3d-18", "mc3-18"), ("swin3d-t", "swin3d-s"), ("i3d-r50", "r3d-18"), ("s3d", "swin3d-t")]
)
def test_a_checkpoint_of_another_network_of_the_library_is_refused(tmp_path: Path, name: str, other: str) -> None:
    torch.save(getattr(library, EXTRACTORS[other].network)().state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"other\.pth: weights of another network than {name}: .* and \d+ more$"):
        weights.load(EXTRACTORS[name], str(tmp_path / "other.pth"))


def test_wrapped_checkpoints_are_those_inside(tmp_path: Path) -> None:
    # pytorchvideo publishes {"model_state": …}; DataParallel puts "module." before every name.
    state = i3d_r50().state_dict()
    torch.save({"model_state": state}, tmp_path / "I3D_8x8_R50.pyth")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "parallel.pth")
    inside, digest = weights.load(EXTRACTORS["i3d-r50"], str(tmp_path / "I3D_8x8_R50.pyth"))
    parallel, same = weights.load(EXTRACTORS["i3d-r50"], str(tmp_path / "parallel.pth"))
    assert inside is not None
    assert parallel is not None
    assert same == digest
    assert inside.keys() == parallel.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in inside.items())
    missing = {name for name in state if name not in inside}
    assert {name for name in missing if not name.endswith("num_batches_tracked")} == {
        "blocks.6.proj.weight",
        "blocks.6.proj.bias",
    }
