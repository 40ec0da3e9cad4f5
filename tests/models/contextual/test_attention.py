"""The context encoder of UR-DMU and BN-WVAD against the formulas in NumPy."""

import numpy as np
import pytest
import torch

from xelvad.models.contextual.attention import ContextEncoder, GlobalLocalAttention, encoder_width, local_weights

from ...helpers.encoder import attention, encode, local_average
from ...helpers.numeric import BATCHES, draw_bags, numeric_gradient, parameters_of

LENGTHS = [1, 2, 17, 40]


@pytest.mark.parametrize("clips", [*LENGTHS, 300])
def test_local_weights_are_the_formula_and_sum_to_one(clips: int) -> None:
    weights = local_weights(clips, torch.empty(0, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(weights, local_average(clips), atol=1e-15)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_inside_a_long_video_local_weights_are_those_of_the_published_code() -> None:
    """It divides by the sums of the other dimension, which differ at the ends of a video alone."""
    steps = np.arange(200)
    published = np.exp(-np.abs(steps[:, None] - steps) / np.e)
    published /= published.sum(axis=1)
    weights = local_weights(200, torch.empty(0, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(weights[80:120], published[80:120], atol=1e-9)
    assert published[0].sum() < 0.85


@pytest.mark.parametrize("clips", LENGTHS)
def test_attention_and_its_gradients_are_the_formula(clips: int) -> None:
    torch.manual_seed(0)
    module = GlobalLocalAttention(8, dropout=0.5).double().eval()
    rng = np.random.default_rng(0)
    videos, weights = rng.normal(size=(3, clips, 8)), rng.normal(size=(3, clips, 8))
    given = torch.from_numpy(videos).requires_grad_()
    out = module(given)
    for one, video in zip(out.detach(), videos, strict=True):
        np.testing.assert_allclose(one, attention(*parameters_of(module), video), atol=1e-12)
    (out * torch.from_numpy(weights)).sum().backward()

    def weighted(*points: np.ndarray) -> float:
        return sum(float((attention(*points[:-1], v) * w).sum()) for v, w in zip(points[-1], weights, strict=True))

    points = [*parameters_of(module), videos]
    gradients = [*(parameter.grad for parameter in module.parameters()), given.grad]
    for p, gradient in enumerate(gradients):
        direction = rng.normal(size=points[p].shape)

        def along(distance: np.ndarray, p: int = p, direction: np.ndarray = direction) -> float:
            return weighted(*points[:p], points[p] + distance * direction, *points[p + 1 :])

        slope = numeric_gradient(along, np.zeros(()))
        assert float((gradient.numpy() * direction).sum()) == pytest.approx(float(slope), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("clips", LENGTHS)
def test_the_encoder_is_the_published_network(clips: int) -> None:
    torch.manual_seed(0)
    encoder = ContextEncoder(6, dropout=0.5).double().eval()
    videos = np.random.default_rng(0).normal(size=(2, clips, 6))
    with torch.no_grad():
        encoded = encoder(torch.from_numpy(videos))
    for ours, video in zip(encoded, videos, strict=True):
        np.testing.assert_allclose(ours, encode(iter(parameters_of(encoder)), video), atol=1e-8)


@pytest.mark.parametrize("lengths", BATCHES)
def test_packed_videos_are_encoded_each_alone(lengths: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    encoder, bags = ContextEncoder(6, dropout=0.5).double().eval(), draw_bags(lengths, 6)
    alone = [encoder(video[None])[0] for kind in bags.split(bags.clips) for video in kind]
    torch.testing.assert_close(encoder.packed(bags), torch.cat(alone))


@pytest.mark.parametrize(
    ("feature_dim", "width"), [(4, 128), (16, 128), (256, 128), (300, 148), (1024, 512), (2048, 512), (4096, 512)]
)
def test_the_width_is_half_the_features_as_published_for_i3d_within_bounds(feature_dim: int, width: int) -> None:
    assert encoder_width(feature_dim) == width == ContextEncoder(feature_dim, 0.0).width


def test_every_published_layer_drops_out() -> None:
    encoder = ContextEncoder(4, dropout=0.3)
    dropouts = [layer.p for layer in encoder.modules() if isinstance(layer, torch.nn.Dropout)]
    assert dropouts == [0.3] * 6  # behind attention, GELU and feed-forward network of both layers
    videos = torch.randn(1, 9, 4)
    assert not torch.equal(encoder(videos), encoder(videos))
    assert torch.equal(encoder.eval()(videos), encoder(videos))
