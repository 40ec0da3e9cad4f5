"""Convolution over time of packed videos, against one in NumPy."""

import numpy as np
import pytest
import torch

from xelvad.models.contextual.temporal import TemporalConv

from ...helpers.layers import convolved

LENGTHS = [(1,), (7,), (5, 5, 5), (3, 1, 12, 1, 2)]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("kernel", "dilation", "bias"), [(1, 1, True), (3, 1, False), (3, 4, True), (5, 2, True)])
def test_every_video_is_convolved_as_if_it_were_alone(
    lengths: tuple[int, ...], kernel: int, dilation: int, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = TemporalConv(3, 4, kernel, dilation, bias).double()
    videos = [torch.randn(length, 3).double() for length in lengths]
    parameters = [parameter.detach().numpy() for parameter in layer.parameters()]  # weight, and bias if there is one
    expected = [convolved(video.numpy(), *parameters, dilation=dilation) for video in videos]
    np.testing.assert_allclose(layer(torch.cat(videos), lengths).detach(), np.concatenate(expected), atol=1e-12)


def test_gradients_stay_within_a_video_and_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    layer = TemporalConv(2, 3, dilation=2).double()
    clips = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda packed: layer(packed, (5, 1, 3)), clips)
    layer(clips, (5, 1, 3))[:5].sum().backward()
    assert clips.grad[:5].all()
    assert not clips.grad[5:].any()


def test_parts_of_a_clip_go_through_the_same_kernels() -> None:
    torch.manual_seed(0)
    layer = TemporalConv(2, 2, kernel=5, groups=2).double()
    clips = torch.randn(9, 6).double()
    weight, bias = (parameter.detach().numpy() for parameter in layer.parameters())  # (2, 1, 5) and (2,)
    expected = np.zeros((9, 6))
    for channel in range(6):
        head = channel % 2
        for piece in (slice(0, 4), slice(4, 9)):
            video = clips[piece, [channel]].numpy()
            expected[piece, [channel]] = convolved(video, weight[[head]], bias[[head]])
    np.testing.assert_allclose(layer(clips, (4, 5)).detach(), expected, atol=1e-12)
