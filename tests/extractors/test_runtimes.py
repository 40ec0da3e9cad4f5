"""Every runtime against the plain network: eager, float32, nothing folded."""

import copy
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xelvad.errors import UserError
from xelvad.extractors import EXTRACTORS, ExtractorSpec, create_extractor, runtimes
from xelvad.extractors.networks import ClipExtractor, GlobalAverage
from xelvad.extractors.preprocessing import Pictures
from xelvad.extractors.runtimes import Engine, Runtime, choose_device, choose_runtime, fold_batch_norm, stacked

CPU, META = torch.device("cpu"), torch.device("meta")
TAKE_ANY_SIZE = ["i3d-r50", "r3d-18", "swin3d-t"]  # and are tested at a small one, which is quicker
WITH_BATCH_NORM = ["i3d-rgb", "i3d-conc", "i3d-r50", "s3d", "r3d-18", "mc3-18", "r2plus1d-18", "tsn-rgb"]


def unsettle(extractor: ClipExtractor) -> ClipExtractor:
    """Batch-norm statistics as after training: the initial ones, 0 and 1, would fold into nothing."""
    generator = torch.Generator().manual_seed(3)
    for module in extractor.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.1, generator=generator)
    return extractor


def scene(batch: int = 1, frames: int = 16, height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    """A bright patch that moves over noise."""
    clips = np.random.default_rng(0).integers(0, 128, (batch, frames, height, width, 3), np.uint8)
    for b, t in np.ndindex(batch, frames):
        clips[b, t, 10 + b : 30 + b, 2 * t : 2 * t + 25] += 120
    return clips


def assert_same(ours: NDArray[np.float32], plain: NDArray[np.float32], tolerance: float = 1e-3) -> None:
    """Features ``(…, F)``: the same direction, and the same numbers."""
    assert ours.shape == plain.shape
    assert ours.dtype == np.float32
    assert plain.std() > 0
    cosine = (ours * plain).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(plain, axis=-1)
    assert cosine.min() >= 0.9999
    assert np.abs(ours - plain).max() <= tolerance * np.abs(plain).max()


# --- the networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["i3d-rgb", "c3d", "i3d-r50", "r3d-18", "s3d", "swin3d-t", "tsn-rgb"])
def test_eager_and_openvino_give_the_features_of_the_plain_network(name: str) -> None:
    extractor = create_extractor(name) if name == "i3d-rgb" else unsettle(create_extractor(name, "random"))
    if name in TAKE_ANY_SIZE:
        smaller = replace(extractor.spec.preprocessing, resize=(72, 80), crop=64)
        extractor.spec = replace(extractor.spec, preprocessing=smaller)
    clip = extractor.preprocess(scene())
    plain = extractor(clip).numpy()
    state = {key: tensor.clone() for key, tensor in extractor.state_dict().items()}
    for runtime in ["eager", "openvino"]:
        engine = Engine(extractor, runtime, "cpu", "float32")
        assert_same(engine([clip[0]]), plain)
        assert engine.description.startswith(f"{runtime} (")
        assert engine.description.endswith("), float32, cpu")
    assert extractor.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in extractor.state_dict().items())


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_all_batch_norms_are_folded_and_the_extractor_keeps_its_own(name: str) -> None:
    extractor = unsettle(create_extractor(name, "random"))
    before = [type(module) for module in extractor.modules()]
    state = {key: tensor.clone() for key, tensor in extractor.state_dict().items()}
    folded = fold_batch_norm(extractor.network)
    assert nn.BatchNorm3d in before
    assert not [module for module in folded.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert [type(module) for module in extractor.modules()] == before
    assert all(torch.equal(tensor, state[key]) for key, tensor in extractor.state_dict().items())
    if name.endswith("-18"):  # takes small inputs, so that computing it twice is quick; for others see above
        x = torch.randint(0, 256, (2, 3, 8, 32, 32), dtype=torch.uint8)
        assert_same(folded(x).numpy(), extractor(x).numpy(), 1e-5)


def test_a_convolution_that_others_read_before_its_batch_norm_is_not_folded() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    extractor = unsettle(tiny(Twice()))
    x = torch.rand(1, 3, 4, 8, 8)
    assert torch.allclose(fold_batch_norm(extractor.network)(x), extractor.network(x), rtol=1e-5)


@pytest.mark.parametrize("name", [*WITH_BATCH_NORM, "c3d", "swin3d-t"])
def test_on_another_device_everything_is_there_and_in_half_precision(name: str) -> None:
    """What a GPU is given, on the device that computes nothing: wherever precisions meet, torch refuses."""
    spec = EXTRACTORS[name]
    with META:
        extractor = create_extractor(name, "random")
    run = runtimes.START["eager"](extractor, META, "float16")
    dtype = torch.uint8 if spec.preprocessing.channels == 3 else torch.float32
    side = spec.preprocessing.crop
    features = run(torch.empty(2, spec.preprocessing.channels, 16, side, side, dtype=dtype, device=META))
    assert (features.device, features.dtype, features.shape) == (META, torch.float16, (2, spec.feature_dim))


def test_half_precision_gives_nearly_the_same_features() -> None:
    extractor = unsettle(create_extractor("r3d-18", "random"))
    x = torch.randint(0, 256, (1, 3, 4, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        features = runtimes.START["eager"](extractor, CPU, "float16")(x)
    assert features.dtype == torch.float16
    assert_same(features.float().numpy(), extractor(x).numpy(), 1e-2)
    assert {parameter.dtype for parameter in extractor.parameters()} == {torch.float32}


# --- a tiny network --------------------------------------------------------------------------------------------------

PICTURES = Pictures(12, 8, (100.0, 110.0, 120.0), (50.0, 60.0, 70.0))


class Tiny(nn.Module):
    """One convolution of each kind, and all that is recorded of what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 6, 3, padding=1, bias=False), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 5, 1), GlobalAverage()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def tiny(network: nn.Module | None = None, pictures: Pictures = PICTURES) -> ClipExtractor:
    spec = ExtractorSpec("tiny", "A convolution", __name__, 5, pictures, clip_length=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return unsettle(ClipExtractor(spec, network or Tiny(), "tiny"))


@pytest.mark.parametrize("runtime", [runtime for runtime in get_args(Runtime) if runtime != "auto"])
@pytest.mark.parametrize("crops", [None, 10])
def test_every_runtime_runs_clips_of_several_videos_crop_by_crop(runtime: Runtime, crops: Any) -> None:
    extractor = tiny(pictures=replace(PICTURES, crops=crops))
    clips = extractor.preprocess(scene(3, 4, 12, 17))
    features = Engine(extractor, runtime, "cpu")(list(clips))
    plain = np.stack([extractor(clip[None])[0].numpy() for clip in clips])
    assert features.shape == ((3, 10, 5) if crops else (3, 5))
    assert_same(features, plain, 1e-5)
    assert not np.allclose(features[0], features[1])


def test_clips_of_several_videos_are_one_batch() -> None:
    extractor = tiny()
    engine = Engine(extractor, "eager", "cpu")
    shapes: list[tuple[int, ...]] = []
    inner = engine._network

    def recording(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return inner(x)

    engine._network = recording
    engine(list(extractor.preprocess(scene(3, 4))))
    assert shapes == [(3, 3, 4, 8, 8)]
    ten = tiny(pictures=replace(PICTURES, crops=10))
    engine(list(ten.preprocess(scene(2, 4))))
    assert shapes[1:] == [(20, 3, 4, 8, 8)]


@pytest.mark.parametrize("crops", [(), (10,)])
@pytest.mark.parametrize("last", [True, False])
def test_a_batch_is_its_clips_channels_last(crops: tuple[int, ...], last: bool) -> None:
    rng = np.random.default_rng(0)
    frames = [torch.from_numpy(rng.integers(0, 256, (*crops, 4, 5, 6, 3), np.uint8)) for _ in range(3)]
    clips = (
        [each.movedim(-1, -4) for each in frames] if last else [each.movedim(-1, -4).contiguous() for each in frames]
    )
    batch = stacked(clips)
    assert torch.equal(batch, torch.stack(clips))
    assert batch.movedim(-4, -1).is_contiguous()


def test_weights_lie_channels_last_and_the_extractor_is_not_changed() -> None:
    extractor = tiny()
    state = copy.deepcopy(extractor.state_dict())
    for runtime in ["eager", "compile", "openvino"]:
        Engine(extractor, runtime, "cpu")
    assert all(torch.equal(tensor, state[key]) for key, tensor in extractor.state_dict().items())
    folded = runtimes._on(fold_batch_norm(extractor.network), CPU, "float32")
    network = folded.__closure__[1].cell_contents if folded.__closure__ else None
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv3d)]
    assert len(convolutions) == 2
    assert all(one.weight.is_contiguous(memory_format=torch.channels_last_3d) for one in convolutions)


def test_engines_on_a_gpu_compute_in_half_precision_and_on_a_cpu_in_single() -> None:
    assert Engine(tiny(), "eager", "cpu").arithmetic == "float32"
    engine = Engine(tiny(), "eager", "meta")  # stands for any other device
    assert engine.arithmetic == "float16"
    assert engine.device == META


def test_float32_on_a_gpu_is_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert Engine(tiny(), "eager", "meta").arithmetic == "float16"
    assert torch.backends.cudnn.allow_tf32
    assert Engine(tiny(), "eager", "meta", "float32").arithmetic == "float32"
    assert not torch.backends.cudnn.allow_tf32


# --- what is chosen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("installed", "chosen"), [(True, "openvino"), (False, "eager")])
def test_auto_is_openvino_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, installed: bool, chosen: str) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda name: object() if installed and name == "openvino" else None)
    assert choose_runtime("auto", CPU) == chosen
    assert choose_runtime("auto", torch.device("cuda")) == "eager"
    if chosen == "eager":
        assert Engine(tiny(), "auto", "cpu").runtime == "eager"


def test_what_is_not_installed_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda _: None)
    monkeypatch.setattr(runtimes.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r'--runtime openvino is not installed: pip install "xelvad\[openvino\]"'):
        Engine(tiny(), "openvino", "cpu")
    with pytest.raises(UserError, match=r"--runtime compile needs a C\+\+ compiler"):
        Engine(tiny(), "compile", "cpu")
    assert choose_runtime("compile", torch.device("cuda")) == "compile"
    with pytest.raises(UserError, match="--runtime openvino runs on the CPU, not on cuda; take eager or compile"):
        choose_runtime("openvino", torch.device("cuda"))


@pytest.mark.parametrize("device", ["cuda:99", "gpu", ""])
def test_a_device_that_is_not_there_is_one_line(device: str) -> None:
    with pytest.raises(UserError, match=rf"^--device {device}: not to be had here \(.+\)$") as caught:
        Engine(tiny(), "eager", device)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("there", [True, False])
def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    asked: list[torch.device] = []
    monkeypatch.setattr(runtimes.torch, "empty", lambda *_, device: asked.append(device))
    assert choose_device("auto").type == ("cuda" if there else "cpu")
    assert [device.type for device in asked] == ["cuda" if there else "cpu"]
