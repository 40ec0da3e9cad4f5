import csv
from collections import Counter
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from xelvad.pipeline.footage import ANOMALIES, EVENTS, draw_dataset, draw_video, film, recording

SMALL = {"width": 160, "height": 120}


def pictures_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def drawn(frames: int = 48, anomaly: str | None = None, seed: int = 1, event: str | None = None) -> np.ndarray:
    return np.stack(list(film(frames=frames, anomaly=anomaly, seed=seed, event=event, **SMALL).pictures))


def without_noise(pictures: np.ndarray) -> np.ndarray:
    return pictures.reshape(len(pictures), 30, 4, 40, 4, 3).mean(axis=(2, 4))


def test_same_arguments_give_the_same_file(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.mp4" for number in range(4)]  # x264 with AVX-512 may differ once in a while
    for path in paths:
        draw_video(path, frames=16, anomaly="collision", seed=3, **SMALL)
    assert len({path.read_bytes() for path in paths}) == 1
    assert (drawn(frames=16, seed=3) != drawn(frames=16, seed=4)).any()


@pytest.mark.parametrize("anomaly", [None, *ANOMALIES])
def test_video_has_the_frames_asked_for(tmp_path: Path, anomaly: str | None) -> None:
    path = tmp_path / "new folder" / "video.mp4"
    spans = draw_video(path, frames=37, anomaly=anomaly, seed=5, **SMALL)
    assert pictures_of(path).shape == (37, 120, 160, 3)
    assert [entry.name for entry in path.parent.iterdir()] == ["video.mp4"]
    assert all(0 < start < stop <= 37 for start, stop in spans)
    assert len(spans) == (anomaly is not None)


@pytest.mark.parametrize("anomaly", ANOMALIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_abnormal_video_departs_from_its_normal_twin_where_the_span_begins(anomaly: str, seed: int) -> None:
    ((start, _),) = film(frames=48, anomaly=anomaly, seed=seed, **SMALL).spans
    normal, abnormal = drawn(seed=seed), drawn(anomaly=anomaly, seed=seed)
    assert (normal[:start] == abnormal[:start]).all()
    departed = (normal[start:] != abnormal[start:]).any(axis=(1, 2, 3))
    assert departed[1:].all()  # a car that rushes in takes a frame to show its nose
    assert np.abs(normal[start + 4].astype(float) - abnormal[start + 4]).max() > 60


@pytest.mark.parametrize("anomaly", ANOMALIES)
def test_more_moves_inside_the_span_than_outside(anomaly: str) -> None:
    inside, outside = [], []
    for seed in range(3):
        made = film(frames=96, anomaly=anomaly, seed=seed, **SMALL)
        ((start, stop),) = made.spans
        blurred = without_noise(np.stack(list(made.pictures)))
        energy = (np.abs(np.diff(blurred, axis=0)) > 6).mean(axis=(1, 2, 3))  # of frame i + 1 against frame i
        within = np.isin(np.arange(1, 96), np.arange(start, stop))
        inside.append(energy[within].mean())
        outside.append(energy[~within].mean())
    assert np.mean(inside) > 1.5 * np.mean(outside)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("seed", [3, 5])  # of one the event begins behind the anomaly, of the other before it
def test_event_happens_beside_the_anomaly_and_changes_nothing_of_it(event: str, seed: int) -> None:
    made = film(frames=96, anomaly="running", event=event, seed=seed, **SMALL)
    ((start, stop),) = spans = film(frames=96, anomaly="running", seed=seed, **SMALL).spans
    assert made.spans == spans
    plain, eventful = drawn(96, "running", seed), np.stack(list(made.pictures))
    begins = stop if 96 - stop > start else 0
    seen = (np.abs(without_noise(plain) - without_noise(eventful)) > 20).any(axis=(1, 2, 3))
    assert not seen[:begins].any()
    assert seen[begins + 5 : begins + 30].mean() > 0.8


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("seed", [3, 5])
def test_event_is_normal_and_the_same_with_and_without_an_anomaly_behind_it(event: str, seed: int) -> None:
    assert film(frames=96, anomaly=None, event=event, seed=seed, **SMALL).spans == ()
    normal, abnormal = drawn(96, None, seed, event), drawn(96, "collision", seed, event)
    ((start, _),) = film(frames=96, anomaly="collision", seed=seed, **SMALL).spans
    assert (normal[:start] == abnormal[:start]).all()
    assert (normal == drawn(96, None, seed, event)).all()


def test_span_is_a_quarter_to_half_of_a_short_video_and_seconds_of_a_long_one() -> None:
    for frames, shortest, longest in ((16, 4, 8), (48, 12, 24), (192, 55, 87), (400, 100, 100)):
        for seed in range(20):
            ((start, stop),) = film(frames=frames, anomaly="running", seed=seed, width=32, height=24).spans
            assert frames // 8 <= start < stop < frames
            assert shortest <= stop - start <= longest


def test_dataset_is_balanced_and_its_table_tells_the_truth(tmp_path: Path) -> None:
    path = draw_dataset(tmp_path, videos=12, frames=16, seed=7)
    assert path == tmp_path / "annotations.csv"
    assert path.read_text().splitlines()[0] == "video,fold,label,frames,anomalous_frames_half_open"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter((row["fold"], row["label"]) for row in rows) == {
        ("train", "0"): 4, ("train", "1"): 4, ("test", "0"): 2, ("test", "1"): 2,
    }  # fmt: skip
    assert {row["video"] for row in rows} == {f"videos/{p.name}" for p in (tmp_path / "videos").iterdir()}
    for row in rows:
        assert row["frames"] == "16"
        assert bool(row["anomalous_frames_half_open"]) == (row["label"] == "1") == ("normal" not in row["video"])
        for span in row["anomalous_frames_half_open"].split():
            start, stop = map(int, span.split("-"))
            assert 0 < start < stop <= 16
    assert len(pictures_of(tmp_path / rows[0]["video"])) == 16


@pytest.mark.parametrize(("videos", "train", "test"), [(24, [3, 3, 2], [2, 1, 1]), (18, [2, 2, 2], [1, 1, 1])])
def test_kinds_of_anomaly_take_turns_in_either_fold(videos: int, train: list[int], test: list[int]) -> None:
    shots = recording._plan(videos)
    for fold, expected in (("train", train), ("test", test)):
        counts = Counter(shot.anomaly for shot in shots if shot.fold == fold)
        assert sorted((counts[kind] for kind in ANOMALIES), reverse=True) == expected
        assert counts[None] == sum(expected)


def test_events_are_rare_and_found_in_either_fold_with_and_without_anomaly() -> None:
    shots = recording._plan(60)
    for fold in ("train", "test"):
        for abnormal in (False, True):
            chosen = [shot for shot in shots if shot.fold == fold and (shot.anomaly is not None) == abnormal]
            assert sum(shot.event is not None for shot in chosen) == len(chosen) // 10
        assert {shot.event for shot in shots if shot.fold == fold} == {None, *EVENTS}
    assert all((shot.event or "") in shot.video for shot in shots), "the name tells"
    assert len({shot.video for shot in shots}) == 60


def test_interrupted_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(**options: object) -> recording.Film:
        def pictures():
            yield from islice(film(**options).pictures, 5)
            raise RuntimeError("out of paint")

        return recording.Film((), pictures())

    monkeypatch.setattr(recording, "film", failing)
    with pytest.raises(RuntimeError, match="paint"):
        draw_video(tmp_path / "video.mp4", frames=16, anomaly=None, seed=0, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_unknown_event_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown event 'picnic'.*children"):
        film(frames=48, anomaly=None, event="picnic", seed=0)


def test_unknown_anomaly_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown anomaly 'picnic'.*running, collision, flash_and_smoke"):
        film(frames=48, anomaly="picnic", seed=0)


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"frames": 15}, "at least 16 frames"), ({"width": 161}, "even"), ({"height": 121}, "even")],
)
def test_impossible_videos_are_refused(tmp_path: Path, options: dict[str, int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        draw_video(tmp_path / "video.mp4", **{"frames": 16, "anomaly": None, "seed": 0, **options})
    assert list(tmp_path.iterdir()) == []


def test_dataset_of_too_few_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 6 videos"):
        draw_dataset(tmp_path, videos=5)
