"""Conv-AE's layers, loss and errors against their definitions, and on drawn videos."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from xelvad.models.framewise.autoencoder import ConvAutoencoder, draw_stacks

from ...helpers.drawings import draw_video, frame_auc
from ...helpers.numeric import numeric_gradient

SIZE = (67, 67)
ODD = (30, 50)


class Small(ConvAutoencoder):
    """The same layers with fewer filters on smaller pictures: 15 to 7 and 7 to 3 in pooling, odd as 55 and 27 are."""

    size, widths = 67, (16, 12, 8)


class Tiny(ConvAutoencoder):
    """So few numbers that all gradients can be checked."""

    size, widths = 35, (3, 2, 2)


def random_video(frames: int, size: tuple[int, int] = (40, 50), seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, size=(frames, *size), dtype=np.uint8))


def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each 2 × 2 pixels, and a mask of the pixels that these are; the odd last row is left out."""
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    blocks = x[:, :, :height, :width].unfold(2, 2, 2).unfold(3, 2, 2)  # (B, C, h, w, 2, 2)
    largest = blocks.amax(dim=(4, 5))
    mask = torch.zeros_like(x)
    mask[:, :, :height, :width] = (x[:, :, :height, :width] == spread(largest)).to(x)
    return largest, mask


def spread(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def unpool(x: Tensor, mask: Tensor) -> Tensor:
    everywhere = torch.zeros_like(mask)
    everywhere[:, :, : x.shape[2] * 2, : x.shape[3] * 2] = spread(x)
    return everywhere * mask


def reference_forward(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    def layer(name: str) -> tuple[Tensor, Tensor]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    x, first = pool(torch.tanh(F.conv2d(x, *layer("encoder.0"), stride=4)))
    x, second = pool(torch.tanh(F.conv2d(x, *layer("encoder.1"), padding=2)))
    x = torch.tanh(F.conv2d(x, *layer("encoder.2"), padding=1))
    x = unpool(torch.tanh(F.conv_transpose2d(x, *layer("decoder.0"), padding=1)), second)
    x = unpool(torch.tanh(F.conv_transpose2d(x, *layer("decoder.1"), padding=2)), first)
    return torch.tanh(F.conv_transpose2d(x, *layer("decoder.2"), stride=4))


def small_detector(step: int = 5) -> Small:
    torch.manual_seed(0)
    detector = Small(step)
    detector.observe(random_video(20, seed=1))
    return detector


def test_the_layers_have_the_published_sizes() -> None:
    detector = ConvAutoencoder()
    shapes = {name: tuple(weight.shape) for name, weight in detector.named_parameters() if weight.dim() == 4}
    assert shapes == {
        "encoder.0.weight": (512, 10, 11, 11),
        "encoder.1.weight": (256, 512, 5, 5),
        "encoder.2.weight": (128, 256, 3, 3),
        "decoder.0.weight": (128, 256, 3, 3),
        "decoder.1.weight": (256, 512, 5, 5),
        "decoder.2.weight": (512, 10, 11, 11),
    }
    outputs: list[tuple[int, ...]] = []
    for layer in (*detector.encoder, *detector.decoder):
        layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(tuple(output.shape[1:])))
    with torch.no_grad():
        assert detector(torch.rand(1, 10, 227, 227)).shape == (1, 10, 227, 227)
    encoded = [(512, 55, 55), (256, 27, 27), (128, 13, 13)]
    assert outputs == [*encoded, (256, 13, 13), (512, 27, 27), (10, 227, 227)]


def test_weights_begin_as_caffes_xavier_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    detector = ConvAutoencoder()
    for layer in (*detector.encoder, *detector.decoder):
        bound = (3 / (layer.weight.numel() / len(layer.weight))) ** 0.5
        assert 0.98 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


@pytest.mark.parametrize("kind", [Small, Tiny])
@pytest.mark.parametrize("stacks", [1, 3])
def test_what_is_rebuilt_is_what_the_layers_say(kind: type[ConvAutoencoder], stacks: int) -> None:
    torch.manual_seed(0)
    detector = kind().double()
    x = torch.randn(stacks, 10, kind.size, kind.size, dtype=torch.float64)
    with torch.no_grad():
        found = detector(x)
    torch.testing.assert_close(found, reference_forward(detector.state_dict(), x), atol=1e-12, rtol=0)
    assert found.abs().max() < 1


def test_the_loss_and_its_gradients_are_half_the_squared_error_of_a_stack() -> None:
    torch.manual_seed(0)
    detector = Tiny().double()
    stacks = torch.rand(3, 10, 35, 35, dtype=torch.float64)
    loss = detector.loss(stacks)
    loss.backward()
    weights = detector.state_dict()

    def reference(weights: dict[str, Tensor]) -> float:
        difference = (reference_forward(weights, stacks) - stacks).numpy()
        return float(np.mean([np.sum(each**2) / 2 for each in difference]))

    assert loss.item() == pytest.approx(reference(weights), rel=1e-12)
    rng = np.random.default_rng(0)
    for name, parameter in detector.named_parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()
        direction = torch.from_numpy(rng.normal(size=parameter.shape))

        def along(distance: np.ndarray, name: str = name, direction: Tensor = direction) -> float:
            return reference({**weights, name: weights[name] + float(distance) * direction})

        slope = float(numeric_gradient(along, np.zeros(()), step=1e-7))
        assert (parameter.grad * direction).sum().item() == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_the_mean_picture_is_that_of_all_frames_observed() -> None:
    video = random_video(23)
    detector = Small().double()
    for block in video.split([1, 10, 12]):
        detector.observe(block)
    raw = Small().double().prepare(video)
    torch.testing.assert_close(detector.mean, raw.mean(dim=0), atol=1e-12, rtol=0)
    torch.testing.assert_close(detector.prepare(video), raw - raw.mean(dim=0), atol=1e-12, rtol=0)
    assert raw.min() >= 0
    assert raw.max() <= 1
    assert detector.observed == 23


def test_a_picture_of_the_right_size_is_taken_as_it_is() -> None:
    video = random_video(2, SIZE)
    np.testing.assert_allclose(Small().prepare(video), video.numpy() / 255, atol=1e-6)


def reference_errors(detector: ConvAutoencoder, video: Tensor, step: int) -> list[float]:
    frames = len(video)
    pictures = detector.prepare(torch.cat([video, *[video[-1:]] * (10 - frames)]))
    starts = [start for start in range(len(pictures)) if start + 10 <= len(pictures) and start % step == 0]
    starts = starts if starts[-1] + 10 == len(pictures) else [*starts, len(pictures) - 10]
    errors: list[list[float]] = [[] for _ in pictures]
    for start in starts:
        stack = pictures[start : start + 10]
        rebuilt = reference_forward(detector.state_dict(), stack[None])[0]
        for t in range(10):
            errors[start + t].append(float(np.sqrt(np.sum((rebuilt[t] - stack[t]).detach().numpy() ** 2))))
    return [float(np.mean(each)) for each in errors[:frames]]


@pytest.mark.parametrize("frames", [1, 2, 9, 10, 11, 15, 23])
@pytest.mark.parametrize("step", [1, 5, 10])
def test_a_frames_error_is_the_mean_over_the_stacks_that_hold_it(frames: int, step: int) -> None:
    detector, video = small_detector(step).double(), random_video(frames)
    found = detector.frame_errors(video)
    assert found.shape == (frames,)
    np.testing.assert_allclose(found, reference_errors(detector, video, step), atol=1e-10)


@pytest.mark.parametrize("frames", [3, 10, 41])
@pytest.mark.parametrize("step", [1, 4, 5, 10])
@pytest.mark.parametrize("block", [1, 16])
def test_a_video_in_blocks_has_the_errors_of_the_whole_to_the_bit(frames: int, step: int, block: int) -> None:
    detector, video = small_detector(step), random_video(frames)
    assert torch.equal(torch.cat(list(detector.errors_in_blocks(video.split(block)))), detector.frame_errors(video))


@pytest.mark.parametrize("step", [0, 11])
def test_stacks_that_leave_out_frames_are_refused(step: int) -> None:
    with pytest.raises(ValueError, match="1 to 10"):
        ConvAutoencoder(step)


@pytest.mark.parametrize(("frames", "strides"), [(10, {1}), (18, {1}), (19, {1, 2}), (27, {1, 2}), (28, {1, 2, 3})])
def test_stacks_take_every_frame_every_second_or_every_third(frames: int, strides: set[int]) -> None:
    torch.manual_seed(0)
    stacks = draw_stacks(torch.arange(frames)[:, None, None].expand(-1, 2, 3), 300)
    assert stacks.shape == (300, 10, 2, 3)
    numbers = stacks[:, :, 0, 0]
    steps = numbers.diff(dim=1)
    assert bool((steps == steps[:, :1]).all())
    assert set(steps[:, 0].tolist()) == strides
    assert numbers.min() == 0
    assert numbers.max() == frames - 1


def test_a_video_shorter_than_a_stack_is_not_learned_from() -> None:
    with pytest.raises(ValueError, match="the video 9"):
        draw_stacks(torch.zeros(9, 4, 4), 1)


def test_what_was_learned_is_loaded_into_a_new_detector() -> None:
    detector, loaded, video = small_detector(), Small(), random_video(12)
    detector.calibrate(detector.frame_errors(video))
    loaded.load_state_dict(detector.state_dict(), strict=True)
    assert torch.equal(loaded.scores_of(loaded.frame_errors(video)), detector.scores_of(detector.frame_errors(video)))
    assert loaded.observed == 20


def test_a_square_that_moves_fast_is_found_after_slow_ones_were_learned() -> None:
    torch.manual_seed(0)
    detector = Small()
    normal = [draw_video(seed, 60, size=SIZE, squares=1) for seed in range(10)]
    videos = [draw_video(seed, 80, ODD, SIZE, squares=1) for seed in range(100, 108)]
    for video in normal:
        detector.observe(video)
    pictures = [detector.prepare(video) for video in normal]
    assert frame_auc([detector.frame_errors(video) for video in videos], ODD) < 0.6, "unlearned it is not"
    optimizer = torch.optim.Adagrad(detector.parameters(), lr=0.005, weight_decay=0.0005)
    for _ in range(80):
        loss = detector.loss(torch.cat([draw_stacks(each, 2) for each in pictures]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert frame_auc([detector.frame_errors(video) for video in videos], ODD) > 0.8
