"""Batches: every video has its turn, and what a step learns from depends on the seed and its number alone."""

import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from xelvad.errors import UserError
from xelvad.pipeline.features.bags import TrainingVideos
from xelvad.pipeline.features.config import BagConfig
from xelvad.pipeline.features.scaling import Scaling
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.training.batches import Batch, Batches

from ..helpers.features import write_features

CLIPS = BagConfig(segments=0, clips=4, scale="none")


pytestmark = pytest.mark.usefixtures("one_thread")


def videos_of(folder: Path, kind: str, clips: list[int], crops: int | None = None) -> TrainingVideos:
    """Videos whose features say where they come from: the video, the clip and the crop."""
    names = [f"{kind}_{number}.mp4" for number in range(len(clips))]
    for number, (name, count) in enumerate(zip(names, clips, strict=True)):
        places = np.stack(np.meshgrid([number], np.arange(count), np.arange(crops or 1), indexing="ij"), axis=-1)[0]
        write_features(folder, name, (places if crops else places[:, 0]).astype(np.float32), 16 * count)
    store = FeatureStore(folder, "i3d-rgb")
    return TrainingVideos(
        names, list(store.read_all(names)), CLIPS, Scaling("none"), "even" if kind == "abnormal" else "run"
    )


def batches_of(folder: Path, abnormal: int = 6, normal: int = 4, size: int = 2, seed: int = 0) -> Batches:
    kinds = {"abnormal": abnormal, "normal": normal}
    return Batches(
        *(videos_of(folder, kind, [3 + n for n in range(count)]) for kind, count in kinds.items()), size, seed
    )


def assert_same(one: Batch, other: Batch) -> None:
    assert torch.equal(one.bags.clips, other.bags.clips)
    assert (one.bags.abnormal, one.bags.normal) == (other.bags.abnormal, other.bags.normal)
    assert one.normal_videos.tolist() == other.normal_videos.tolist()
    assert [rows.tolist() for rows in one.normal_rows] == [rows.tolist() for rows in other.normal_rows]


def test_every_video_is_drawn_once_before_any_twice(tmp_path: Path) -> None:
    batches = batches_of(tmp_path)
    abnormal, normal = zip(*(batches.videos(step) for step in range(6)), strict=True)
    orders = {
        "abnormal": [np.concatenate(abnormal[turn : turn + 3]).tolist() for turn in (0, 3)],
        "normal": [np.concatenate(normal[turn : turn + 2]).tolist() for turn in (0, 2, 4)],
    }
    assert all(sorted(order) == list(range(6)) for order in orders["abnormal"])
    assert all(sorted(order) == list(range(4)) for order in orders["normal"])
    assert len({tuple(order) for kind in orders.values() for order in kind}) == 5, "each turn is shuffled anew"
    assert batches.per_epoch == 3


def test_a_remainder_that_fills_no_batch_waits_for_another_turn_and_gets_it(tmp_path: Path) -> None:
    batches = batches_of(tmp_path, abnormal=7, normal=2)
    turns = [np.concatenate([batches.videos(step)[0] for step in range(turn, turn + 3)]) for turn in range(0, 60, 3)]
    assert all(len(set(turn.tolist())) == 6 for turn in turns)
    assert set(np.concatenate(turns).tolist()) == set(range(7))
    assert batches.per_epoch == 4


def test_batches_are_no_larger_than_the_data(tmp_path: Path) -> None:
    batch = batches_of(tmp_path, abnormal=1, normal=3, size=30).load(0)
    assert len(batch.bags.abnormal) == 1
    assert sorted(batch.normal_videos.tolist()) == [0, 1, 2]


def test_a_batch_holds_the_clips_that_it_says(tmp_path: Path) -> None:
    batches = batches_of(tmp_path)
    for step in range(12):
        batch, (abnormal, normal) = batches.load(step), batches.videos(step)
        videos = batch.bags.split(batch.bags.clips.to(torch.int64))  # (T, 3): video, clip, crop
        assert batch.normal_videos.tolist() == normal.tolist()
        for kind, numbers in zip(videos, (abnormal, normal), strict=True):
            assert [video[:, 0].unique().tolist() for video in kind] == [[number] for number in numbers.tolist()]
        for video, number in zip(videos[0], abnormal.tolist(), strict=True):
            length = 3 + number
            assert video[:, 1].tolist() == np.round(np.linspace(0, length - 1, min(length, 4))).astype(int).tolist()
        for video, rows in zip(videos[1], batch.normal_rows, strict=True):
            assert video[:, 1].tolist() == rows.tolist() == list(range(rows[0], rows[0] + len(rows)))


def test_each_draw_takes_one_crop_of_a_video(tmp_path: Path) -> None:
    kinds = (videos_of(tmp_path, kind, [3] * 4, crops=5) for kind in ("abnormal", "normal"))
    batches, crops = Batches(*kinds, 2, seed=0), []
    for step in range(8):
        bags = batches.load(step).bags
        drawn = [video[:, 2].unique().tolist() for kind in bags.split(bags.clips) for video in kind]
        assert all(len(crop) == 1 for crop in drawn)
        crops.append(tuple(crop[0] for crop in drawn))
    assert len({crop for step in crops for crop in step}) == 5
    assert any(len(set(step)) > 1 for step in crops), "each video of a step has a crop of its own"


def test_a_stream_from_the_middle_is_that_from_the_beginning(tmp_path: Path) -> None:
    whole = list(batches_of(tmp_path).stream(0, 11))
    rest = list(batches_of(tmp_path).stream(7, 11))
    assert (len(whole), len(rest)) == (11, 4)
    for one, other in zip(whole[7:], rest, strict=True):
        assert_same(one, other)
    assert_same(batches_of(tmp_path).load(9), whole[9])


def test_another_seed_gives_another_order(tmp_path: Path) -> None:
    first, second = ([batches_of(tmp_path, seed=seed).videos(step) for step in range(6)] for seed in (0, 1))
    for kind in (0, 1):
        assert [step[kind].tolist() for step in first] != [step[kind].tolist() for step in second]


def test_runs_of_a_long_video_differ_from_step_to_step_and_from_seed_to_seed(tmp_path: Path) -> None:
    kinds = [videos_of(tmp_path, kind, [1000]) for kind in ("abnormal", "normal")]
    starts = [
        [int(batches.load(step).normal_rows[0][0]) for step in range(5)]
        for batches in (Batches(*kinds, 1, seed) for seed in (0, 1))
    ]
    assert len(set(starts[0] + starts[1])) == 10


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_a_damaged_file_is_named_by_the_step_that_needs_it_and_the_reader_ends(tmp_path: Path) -> None:
    batches = batches_of(tmp_path)
    path = tmp_path / "i3d-rgb" / "abnormal_5.mp4.npy"
    array = np.load(path)
    array[2] = np.nan
    np.save(path, array)
    needed = next(step for step in range(6) if 5 in batches.videos(step)[0])
    read: list[Batch] = []
    with pytest.raises(UserError, match=r"abnormal_5.mp4.npy: holds NaN"):
        read.extend(batches.stream(0, 6))
    assert len(read) == needed
    assert readers() == []


def test_the_reader_ends_with_a_stream_that_is_left_early(tmp_path: Path) -> None:
    with closing(batches_of(tmp_path).stream(0, 1000)) as stream:
        next(stream)
        assert len(readers()) == 1
    assert readers() == []
