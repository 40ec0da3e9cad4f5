"""The screening in bfloat16 against the exact search."""

import pytest
import torch

from xelvad.models import MIL, SRF, ARNet, HardInstanceBank, LearningDetector
from xelvad.models.screening import screened_hardest_clips


@pytest.mark.parametrize("crops", [(), (3,)])
@pytest.mark.parametrize("kind", [MIL, SRF, ARNet])
def test_screening_finds_the_same_clips_as_float32(kind: type[LearningDetector], crops: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    detector = kind(256)
    videos = [torch.randn(int(length), *crops, 256) for length in torch.randint(1, 600, (30,))]
    exact, screened = HardInstanceBank(), HardInstanceBank()
    exact.refresh(detector, (video.split(100) for video in videos))
    screened.refresh(detector, (video.split(100) for video in videos), screened_hardest_clips)
    assert torch.equal(screened.clips, exact.clips)
    assert torch.equal(screened.instances, exact.instances)
    torch.testing.assert_close(screened.scores, exact.scores, rtol=1e-5, atol=1e-7)
    assert screened.scores.dtype == torch.float32


def test_of_equal_clips_the_first_is_taken() -> None:
    torch.manual_seed(0)
    videos = [torch.rand(length, 8).repeat_interleave(7, dim=0) for length in (1, 5, 40)]
    bank = HardInstanceBank()
    bank.refresh(MIL(8), (video.split(100) for video in videos), screened_hardest_clips)
    assert all(clip % 7 == 0 for clip in bank.clips.tolist())


def test_a_video_without_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="without clips"):
        HardInstanceBank().refresh(MIL(2), [[torch.rand(3, 2)], []], screened_hardest_clips)
