"""Scores of errors, and videos that come in blocks."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from xelvad.models.framewise.detector import FramewiseDetector, irregularity


class Surroundings(FramewiseDetector):
    """The error of a frame names all frames it depends on, and where in its group of two it stands."""

    name, title = "surroundings", "Surroundings"
    before, behind, grid = 3, 2, 2

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def frame_errors(self, frames: Tensor) -> Tensor:
        self.seen += len(frames)
        values = frames[:, 0, 0].double()
        around = [values[max(t - 3, 0) : t + 3] for t in range(len(values))]
        return torch.stack([(each * torch.arange(1, len(each) + 1)).sum() + t % 2 / 2 for t, each in enumerate(around)])


@pytest.mark.parametrize("lengths", [(1,), (5, 0, 1), (1,) * 30, (2, 3, 17, 1, 1, 40), (64, 64, 3), (7, 100)])
def test_errors_in_blocks_are_those_of_the_whole_video(lengths: Sequence[int]) -> None:
    video = torch.randint(256, (sum(lengths), 1, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    handed_on = list(Surroundings().errors_in_blocks(video.split(lengths)))
    assert torch.equal(torch.cat(handed_on), Surroundings().frame_errors(video))


def test_of_a_long_video_only_the_surroundings_of_a_block_are_looked_at_again() -> None:
    detector = Surroundings()
    assert sum(map(len, detector.errors_in_blocks(torch.zeros(10, 100, 1, 1, dtype=torch.uint8)))) == 1000
    assert detector.seen <= 1000 + 10 * (3 + 2 + 1)


def test_errors_come_as_soon_as_enough_frames_stand_behind() -> None:
    stream = Surroundings().errors_in_blocks(torch.zeros(3, 10, 1, 1, dtype=torch.uint8))
    assert [len(errors) for errors in stream] == [8, 10, 10, 2]


def test_of_a_video_without_frames_there_are_no_errors() -> None:
    assert not list(Surroundings().errors_in_blocks([]))
    assert not list(Surroundings().errors_in_blocks([torch.zeros(0, 1, 1, dtype=torch.uint8)]))


def test_irregularity_is_one_minus_the_published_regularity() -> None:
    errors = np.random.default_rng(0).uniform(2, 9, size=50)
    regularity = 1 - (errors - errors.min()) / errors.max()
    np.testing.assert_allclose(irregularity(torch.from_numpy(errors)), 1 - regularity, atol=1e-15)


@pytest.mark.parametrize("errors", [[0.0], [0.0, 0.0], [3.0], [0.0, 1e-30, 5.0]])
def test_irregularity_is_a_score_of_whatever_video(errors: list[float]) -> None:
    scores = irregularity(torch.tensor(errors))
    assert bool(((scores >= 0) & (scores <= 1)).all())


def test_a_median_normal_frame_scores_a_quarter_and_one_in_a_hundred_more_than_a_half() -> None:
    detector = Surroundings()
    normal = torch.from_numpy(np.random.default_rng(0).gamma(2, size=1001)).float()
    detector.calibrate(normal)
    assert detector.levels.tolist() == pytest.approx(np.quantile(normal.numpy(), [0.5, 0.99]), rel=1e-6)
    assert detector.scores_of(detector.levels).tolist() == pytest.approx([0.25, 0.5])
    assert (detector.scores_of(normal) > 0.5).float().mean().item() == pytest.approx(0.01, abs=1e-3)


def test_scores_rise_with_the_errors_and_stay_within_zero_and_one() -> None:
    detector = Surroundings()
    detector.calibrate(torch.tensor([1.0, 2.0, 4.0]))
    scores = detector.scores_of(torch.tensor([0.0, 1.0, 2.0, 4.0, 5.0, 40.0, 400.0, 4000.0]))
    assert bool((scores.diff() > 0).all()), "also where a logistic function has long been 1"
    assert scores[0] >= 0
    assert scores[-1] <= 1


def test_where_nothing_moved_in_normal_videos_every_error_is_large() -> None:
    detector = Surroundings()
    detector.calibrate(torch.zeros(100))
    scores = detector.scores_of(torch.tensor([0.0, 0.01]))
    assert scores.tolist() == pytest.approx([0.5, 1.0], abs=1e-3)


def test_what_scores_are_measured_by_is_saved_with_the_weights() -> None:
    calibrated, loaded = Surroundings(), Surroundings()
    calibrated.calibrate(torch.arange(10.0))
    loaded.load_state_dict(calibrated.state_dict())
    assert torch.equal(loaded.levels, torch.tensor([4.0, 9.0]))
