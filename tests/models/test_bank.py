"""The hard instance bank against a search through all clips in NumPy."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from xelvad.models import MIL, HardInstanceBank
from xelvad.models.bank import evaluating

from ..helpers.numeric import OneFeature

LENGTHS = (5, 1, 9, 2, 30)


def draw_videos(shape: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    """Videos ``(T, *shape)`` with features in [0, 1)."""
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.random((length, *shape))) for length in LENGTHS]


def pieces(video: Tensor, size: int) -> Iterator[Tensor]:
    yield from video.split(size)


def reference_bank(videos: list[Tensor], feature: int = 0) -> tuple[NDArray[np.float64], list[int]]:
    """The row of features that scores highest in each video, over all crops, and the number of its clip."""
    rows, clips = [], []
    for video in videos:
        candidates = [
            (row[feature], clip, row)
            for clip, crops in enumerate(video.numpy())
            for row in (crops if crops.ndim == 2 else crops[None])
        ]
        _, clip, row = max(candidates, key=lambda candidate: candidate[0])
        rows.append(row)
        clips.append(clip)
    return np.stack(rows), clips


@pytest.mark.parametrize("shape", [(4,), (1, 4), (10, 4)], ids=["clips", "one crop", "ten crops"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_bank_holds_the_hardest_clip_of_every_video_read_whole_or_in_pieces(
    shape: tuple[int, ...], size: int
) -> None:
    videos = draw_videos(shape)
    bank = HardInstanceBank()
    turnover = bank.refresh(OneFeature(), (pieces(video, size) for video in videos))
    rows, clips = reference_bank(videos)
    np.testing.assert_array_equal(bank.instances, rows)
    np.testing.assert_array_equal(bank.scores, rows[:, 0])
    assert bank.clips.tolist() == clips
    assert bank.ages.tolist() == [1] * len(videos)
    assert turnover == 1.0
    assert len(bank) == len(videos)


def test_clips_are_chosen_without_dropout_and_the_detector_is_left_in_its_mode() -> None:
    videos = draw_videos((4,))
    for training in (True, False):
        detector, bank = OneFeature().train(training), HardInstanceBank()
        bank.refresh(detector, [[video] for video in videos])
        np.testing.assert_array_equal(bank.instances, reference_bank(videos)[0])
        assert detector.training == detector.dropout.training == training


def test_a_refresh_reports_turnover_and_counts_ages() -> None:
    videos, bank = draw_videos((2,)), HardInstanceBank()
    before, after = (reference_bank(videos, feature)[1] for feature in (0, 1))
    changed = [old != new for old, new in zip(before, after, strict=True)]
    assert 0 < sum(changed) < len(changed)
    assert bank.refresh(OneFeature(0), [[video] for video in videos]) == 1.0
    assert bank.refresh(OneFeature(0), [[video] for video in videos]) == 0.0
    assert bank.ages.tolist() == [2] * len(videos)
    assert bank.refresh(OneFeature(1), [[video] for video in videos]) == pytest.approx(np.mean(changed))
    assert bank.ages.tolist() == [1 if new else 3 for new in changed]
    np.testing.assert_array_equal(bank.instances, reference_bank(videos, 1)[0])
    assert bank.clips.tolist() == after


def test_scores_follow_the_weights_even_where_the_clip_stays() -> None:
    videos, bank, detector = draw_videos((2,)), HardInstanceBank(), OneFeature()
    bank.refresh(detector, [[video] for video in videos])
    before = bank.scores.clone()
    detector.weight.data.mul_(0.5)
    assert bank.refresh(detector, [[video] for video in videos]) == 0.0
    torch.testing.assert_close(bank.scores, before / 2)


def test_the_bank_has_no_part_in_any_gradient_and_none_in_the_features_memory() -> None:
    videos, bank = draw_videos((2,)), HardInstanceBank()
    bank.refresh(OneFeature(), [[video.requires_grad_()] for video in videos])
    before = bank.instances.clone()
    for video in videos:
        video.detach().zero_()
    assert not bank.instances.requires_grad
    assert not bank.scores.requires_grad
    assert torch.equal(bank.instances, before)


def test_rows_of_some_videos_are_replaced_and_the_others_left_alone() -> None:
    bank = HardInstanceBank()
    bank.refresh(OneFeature(), [[video] for video in draw_videos((2,))])
    before = {name: value.clone() for name, value in bank.state_dict().items()}
    kept, new = [0, 2, 3], [4, 1]
    clips = torch.tensor([int(before["clips"][4]), 17])  # the same clip as before, and another one
    instances, scores = torch.rand(2, 2).double(), torch.rand(2, requires_grad=True).double()
    assert bank.replace(torch.tensor(new), instances, clips, scores) == 0.5
    for name, value in bank.state_dict().items():
        assert torch.equal(value[kept], before[name][kept])
    assert torch.equal(bank.instances[new], instances)
    assert torch.equal(bank.scores[new], scores.detach())
    assert bank.clips[new].tolist() == clips.tolist()
    assert bank.ages[new].tolist() == [2, 1]
    assert not bank.scores.requires_grad


def test_a_bank_filled_by_replacing_keeps_a_copy() -> None:
    bank, instances = HardInstanceBank(), torch.rand(3, 2)
    given = instances.clone()
    assert bank.replace(torch.arange(3), instances, torch.tensor([4, 0, 1]), torch.rand(3)) == 1.0
    instances.zero_()
    assert torch.equal(bank.instances, given)
    assert bank.ages.tolist() == [1, 1, 1]


def test_a_constant_bank_belongs_to_no_clip_until_it_is_refreshed() -> None:
    bank = HardInstanceBank.constant(7, 3, value=0.25)
    assert len(bank) == 7
    assert torch.equal(bank.instances, torch.full((7, 3), 0.25))
    assert (bank.clips.tolist(), bank.ages.tolist(), bank.scores.tolist()) == ([-1] * 7, [0] * 7, [0.0] * 7)
    assert HardInstanceBank.constant(1, 1).instances.item() == 0.5, "as in the published script"
    videos = [video.float() for video in draw_videos((3,))]
    assert bank.refresh(OneFeature(), [[video] for video in videos]) == 1.0
    np.testing.assert_array_equal(bank.instances[:5], reference_bank(videos)[0])
    assert torch.equal(bank.instances[5:], torch.full((2, 3), 0.25)), "rows that no video has stay"
    assert bank.clips[5:].tolist() == [-1, -1]
    assert bank.ages.tolist() == [1] * 5 + [0] * 2


def test_a_bank_restored_from_another_one_goes_on_where_that_one_was() -> None:
    videos, bank, other = [[video] for video in draw_videos((2,))], HardInstanceBank(), HardInstanceBank.constant(2, 9)
    for feature in (0, 0, 1):
        bank.refresh(OneFeature(feature), videos)
    other.restore({name: value.clone() for name, value in bank.state_dict().items()})
    assert bank.refresh(OneFeature(0), videos) == other.refresh(OneFeature(0), videos) > 0
    for name, value in bank.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_a_bank_moves_with_the_module_that_holds_it() -> None:
    bank = HardInstanceBank.constant(2, 3)
    assert set(bank.state_dict()) == {"instances", "clips", "scores", "ages"}
    assert {value.device.type for value in bank.to("meta").state_dict().values()} == {"meta"}


def test_of_equal_clips_the_first_is_taken() -> None:
    torch.manual_seed(0)
    videos = [torch.rand(length, 8).repeat_interleave(7, dim=0) for length in (1, 5, 40)]
    bank = HardInstanceBank()
    bank.refresh(MIL(8), (video.split(100) for video in videos))
    assert all(clip % 7 == 0 for clip in bank.clips.tolist())


def test_videos_are_read_one_after_the_other() -> None:
    # What reads ahead may give up the rest of a video when the next one is asked for.
    videos, order = draw_videos((2,)), []

    def read(number: int) -> Iterator[Tensor]:
        for piece in videos[number].split(2):
            order.append(number)
            yield piece

    HardInstanceBank().refresh(OneFeature(), map(read, range(len(videos))))
    assert order == [number for number, length in enumerate(LENGTHS) for _ in range(-(-length // 2))]


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_a_video_without_clips_is_refused(empty: int) -> None:
    videos = [[torch.rand(3, 2)] for _ in range(3)]
    videos[empty] = []
    detector = OneFeature().train()
    with pytest.raises(ValueError, match="without clips"):
        HardInstanceBank().refresh(detector, videos)
    assert detector.training


def test_more_videos_than_rows_are_refused() -> None:
    bank = HardInstanceBank.constant(2, 2)
    with pytest.raises(ValueError, match="video 2 has no row in a bank of 2"):
        bank.refresh(OneFeature(), [[torch.rand(3, 2)] for _ in range(3)])
    with pytest.raises(ValueError, match="video 5 has no row"):
        bank.replace(torch.tensor([0, 5]), torch.rand(2, 2), torch.tensor([0, 0]), torch.rand(2))
    assert torch.equal(bank.instances, torch.full((2, 2), 0.5)), "and nothing is replaced"


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_leaves_the_mode_as_it_was_even_after_an_error(training: bool) -> None:
    detector = MIL(4).train(training)

    def fail() -> None:
        with evaluating(detector):
            assert not detector.training
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert detector.training == training
