"""The sidecar's timeline, and how a video is told from another one."""

import os
from pathlib import Path

import numpy as np
import pytest

from xelvad.pipeline.features.sidecar import Timeline
from xelvad.pipeline.videos.identity import digest, stamp


@pytest.mark.parametrize("rate", [25, 30000 / 1001, 7.5, 1000])
@pytest.mark.parametrize("start", [0.0, 1.4])
def test_evenly_spaced_times_need_no_list(rate: float, start: float) -> None:
    times = start + np.arange(5000) / rate
    timeline = Timeline.of(times.astype(np.float32), rate=1.0)
    assert timeline.seconds is None
    assert timeline.rate == pytest.approx(rate, rel=1e-4)
    assert np.abs(timeline.times(5000) - times).max() <= 0.005


def test_unevenly_spaced_times_are_kept() -> None:
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.09, 100))
    timeline = Timeline.of(times, rate=25)
    assert np.abs(timeline.times(100) - times).max() <= 1e-4
    one_late = np.arange(50) / 25
    one_late[20] += 0.03
    assert np.abs(Timeline.of(one_late, 25).times(50) - one_late).max() <= 1e-4


def test_a_single_frame_keeps_its_time_and_the_containers_rate() -> None:
    timeline = Timeline.of([2.5], rate=12.5)
    assert timeline == Timeline(start=2.5, rate=12.5)
    assert timeline.times(1).tolist() == [2.5]


def test_a_folder_of_pictures_changes_with_any_of_its_pictures(tmp_path: Path) -> None:
    for name in ["1.jpg", "2.jpg"]:
        (tmp_path / name).write_bytes(name.encode())
    before = stamp(tmp_path), digest(tmp_path)
    assert before == (stamp(tmp_path), digest(tmp_path))
    (tmp_path / "2.jpg").write_bytes(b"other")
    os.utime(tmp_path / "2.jpg", ns=(0, before[0][1] + 1))
    assert stamp(tmp_path) != before[0]
    assert digest(tmp_path) != before[1]
