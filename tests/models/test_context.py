"""Detectors that look at neighbours: videos in groups, the rows of XEL's bank, and XEL on top of them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from xelvad.models import MIL, XEL, HardInstanceBank, MarginSchedule, hardest
from xelvad.models.context import Windows, hardest_windows, in_groups, scorer_of_rows
from xelvad.models.detector import row_of

from ..helpers.detectors import Neighbours, sigmoid_less_mean


@pytest.mark.parametrize("lengths", [(1,), (5, 5, 5), (3, 1, 3, 9, 1)])
def test_videos_of_equal_length_go_together_and_come_back_in_their_places(lengths: tuple[int, ...]) -> None:
    clips = torch.arange(float(sum(lengths)))[:, None]
    together: list[tuple[int, ...]] = []

    def forward(videos: Tensor) -> tuple[Tensor, Tensor]:
        together.append(tuple(videos.shape))
        return videos.cumsum(dim=1)[..., 0], videos

    sums, same = in_groups(forward, clips, lengths)
    assert torch.equal(same, clips)
    assert torch.equal(sums, torch.cat([video.cumsum(0)[:, 0] for video in clips.split(list(lengths))]))
    assert sorted(together) == sorted((lengths.count(length), length, 1) for length in set(lengths))


def test_scores_of_crops_and_videos_of_any_leading_shape_are_those_of_each_alone() -> None:
    features = torch.randn(2, 3, 7, 2)
    scores = Neighbours().eval().score(features)
    np.testing.assert_allclose(scores.detach(), sigmoid_less_mean(features[..., 0].numpy()), rtol=1e-5)


@pytest.mark.parametrize(
    ("clips", "clip", "expected"),
    [
        (9, 4, [2, 3, 4, 5]),
        (9, 0, [0, 1, 2, 3]),
        (9, 8, [5, 6, 7, 8]),
        (4, 3, [0, 1, 2, 3]),
        (3, 2, [0, 0, 1, 2]),
        (1, 0, [0, 0, 0, 0]),
    ],
)
def test_a_row_is_the_clip_with_its_neighbours(clips: int, clip: int, expected: list[int]) -> None:
    video = torch.arange(float(clips))[:, None]
    assert row_of(video, clip, 4)[:, 0].tolist() == expected
    assert row_of(video, clip).tolist() == [clip]


def test_the_hardest_clips_come_with_their_neighbours() -> None:
    videos = [torch.randn(length, 2) for length in (9, 2)]
    scores = [torch.zeros(9), torch.zeros(2)]
    scores[0][6], scores[1][1] = 1, 1
    rows = hardest(videos, scores, context=4)
    assert torch.equal(rows[0], videos[0][4:8])
    assert torch.equal(rows[1], videos[1][[0, 0, 1, 1]])


def test_a_bank_of_windows_holds_the_hardest_of_every_video_its_crops_and_pieces() -> None:
    torch.manual_seed(0)
    detector, bank = Neighbours().train(), HardInstanceBank()
    plain, cropped, pieces = torch.randn(9, 2), torch.randn(6, 3, 2), torch.randn(10, 2)
    bank.refresh(detector, [[plain], [cropped], pieces.split(5)], hardest_windows)
    assert detector.training
    assert bank.instances.shape == (3, 4, 2)
    of_crops = sigmoid_less_mean(cropped.permute(1, 0, 2)[..., 0].numpy())  # (crops, t)
    crop, clip = np.unravel_index(of_crops.argmax(), of_crops.shape)
    assert bank.clips[1] == clip
    assert bank.scores[1].item() == pytest.approx(of_crops.max())
    assert torch.equal(bank.instances[1], row_of(cropped[:, crop], int(clip), 4))
    of_pieces = np.concatenate([sigmoid_less_mean(piece[:, 0].numpy()) for piece in pieces.split(5)])
    assert bank.clips[2] == of_pieces.argmax()
    assert bank.clips[0] == sigmoid_less_mean(plain[:, 0].numpy()).argmax()


def test_a_video_without_clips_has_no_hardest_window() -> None:
    with pytest.raises(ValueError, match="no hardest clip"):
        list(hardest_windows(Neighbours(), [[torch.empty(0, 2)]]))


def test_xel_scores_windows_without_dropout_and_gives_the_published_losses() -> None:
    detector = Neighbours().double().train()
    xel = XEL(MarginSchedule(warmup=0, step=1, margins=(0.5,)))
    normal = [torch.randn(9, 2).double(), torch.randn(5, 2).double()]
    abnormal = torch.randn(3, 4, 2).double()
    xel.bank.refresh(detector, [[video] for video in normal], hardest_windows)
    terms = xel.terms(scorer_of_rows(detector), abnormal, 0)
    bank = sigmoid_less_mean(xel.bank.instances[..., 0].numpy()).max(axis=1)
    highest = sigmoid_less_mean(abnormal[..., 0].numpy()).max(axis=1)
    hinges = [max(0.0, 0.5 - high + low) for high in highest for low in bank]
    assert terms["validation"].item() == pytest.approx(bank.mean())
    assert terms["margin"].item() == pytest.approx(np.mean(hinges))
    sum(terms.values(), torch.zeros(())).backward()
    assert detector.weight.grad is not None
    assert detector.training


def test_only_detectors_with_context_are_scored_by_windows() -> None:
    plain = MIL(2)
    assert scorer_of_rows(plain) is plain
    assert isinstance(scorer_of_rows(Neighbours()), Windows)
