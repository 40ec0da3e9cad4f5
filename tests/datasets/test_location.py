"""Videos and their features are found in every common layout of the published data sets."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from xelvad.errors import UserError
from xelvad.pipeline.datasets import (
    Dataset,
    DatasetChoice,
    LabelledVideo,
    check_clear,
    locate,
    read_shanghaitech,
    read_ucf_crime,
)
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.videos.sources import VideoSource, find_videos

Layout = Callable[[LabelledVideo, int], str]


def by_class(video: LabelledVideo, number: int) -> str:
    normal = {"train": "Training_Normal_Videos_Anomaly", "test": "Testing_Normal_Videos_Anomaly"}[video.split]
    return f"{video.category or normal}/{video.name}.mp4"


def as_downloaded(video: LabelledVideo, number: int) -> str:
    if video.category:
        return f"Anomaly-Videos-Part-{1 + number % 4}/{video.category}/{video.name}.mp4"
    part = (
        f"Training-Normal-Videos-Part-{1 + number % 2}" if video.split == "train" else "Testing_Normal_Videos_Anomaly"
    )
    return f"{part}/{video.name}.mp4"


UCF_LAYOUTS: dict[str, Layout] = {
    "by class": by_class,
    "as downloaded": as_downloaded,
    "flat": lambda video, number: f"{video.name}.mp4",
    "by split": lambda video, number: f"{video.split}/{by_class(video, number)}",
    "coded anew": lambda video, number: f"{video.name}.AVI",
    "as frames": lambda video, number: f"frames/{video.name}",
}
SHANGHAI_LAYOUTS: dict[str, Layout] = {
    "as downloaded": lambda video, number: (
        f"training/videos/{video.name}.avi" if len(video.name) == 6 else f"testing/frames/{video.name}"
    ),
    "all frames": lambda video, number: f"shanghaitech/{video.split}/{video.name}",
    "all videos": lambda video, number: f"{video.name}.mp4",
}


@pytest.mark.parametrize(
    ("name", "layout"), [("ucf", name) for name in UCF_LAYOUTS] + [("shanghai", name) for name in SHANGHAI_LAYOUTS]
)
def test_all_are_found_in_every_layout(shared: Path, tmp_path: Path, name: str, layout: str) -> None:
    dataset: Dataset
    if name == "ucf":
        dataset, place = read_ucf_crime(shared / "ucf_crime"), UCF_LAYOUTS[layout]
    else:
        dataset, place = read_shanghaitech(shared / "shanghaitech"), SHANGHAI_LAYOUTS[layout]
    places = {video.name: place(video, number) for number, video in enumerate(dataset.videos)}
    store = FeatureStore(tmp_path / "features", "tiny")
    for place_of_video in places.values():
        video, sidecar = tmp_path / "videos" / place_of_video, store.sidecar_path(place_of_video)
        file = video if video.suffix else video / "000.jpg"
        for path in file, sidecar:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    location = locate(places, find_videos([tmp_path / "videos"]))
    assert location.found == {name: tmp_path / "videos" / path for name, path in places.items()}
    assert (location.missing, location.unclear, location.extra) == ([], {}, [])
    assert {name: store.find(name) for name in places} == places


def sources(*names: str) -> list[VideoSource]:
    return [VideoSource(name, Path("/v") / name) for name in names]


def test_what_is_missing_extra_or_unclear_is_said() -> None:
    there = sources("x/a.mp4", "y/a.mp4", "b.mp4", "d.mp4", "p/e.mp4")
    location = locate(["a", "b", "c", "e", "q/p/e"], there)
    assert location.found == {"b": Path("/v/b.mp4")}
    assert location.missing == ["c"]
    assert location.unclear == {
        "a": [Path("/v/x/a.mp4"), Path("/v/y/a.mp4")],
        "e": [Path("/v/p/e.mp4")],  # one file for two videos
        "q/p/e": [Path("/v/p/e.mp4")],
    }
    assert location.extra == sources("d.mp4")
    with pytest.raises(UserError, match=r"^a: could be any of /v/x/a\.mp4, /v/y/a\.mp4; move the others away"):
        check_clear(location)
    del location.unclear["a"]
    with pytest.raises(UserError, match=r"^e and q/p/e would both be /v/p/e\.mp4: give each its own file"):
        check_clear(location)
    check_clear(replace(location, unclear={}))


def test_what_is_named_in_full_is_no_other_video() -> None:
    location = locate(["a.mp4", "day/a.mp4", "b.mp4"], sources("day/a.mp4", "day/b.mp4"))
    assert location.found == {"day/a.mp4": Path("/v/day/a.mp4"), "b.mp4": Path("/v/day/b.mp4")}
    assert (location.missing, location.unclear) == (["a.mp4"], {})


def test_a_choice_finds_its_videos(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("video,split,label\nvideos/a.mp4,train,1\nb.mp4,train,0\n")
    (tmp_path / "elsewhere" / "day").mkdir(parents=True)
    for name in "a.mp4", "day/b.mp4":
        (tmp_path / "elsewhere" / name).touch()
    choice = DatasetChoice(manifest=tmp_path / "labels.csv")
    assert [choice.read().path_of(video) for video in choice.read().videos] == [
        tmp_path / "videos" / "a.mp4",
        tmp_path / "b.mp4",
    ]
    dataset = replace(choice, videos=tmp_path / "elsewhere").read()
    assert [dataset.path_of(video) for video in dataset.videos] == [
        tmp_path / "elsewhere" / "a.mp4",
        tmp_path / "elsewhere" / "day" / "b.mp4",
    ]
    (tmp_path / "elsewhere" / "night").mkdir()
    (tmp_path / "elsewhere" / "night" / "b.mp4").touch()
    with pytest.raises(UserError, match=r"^b\.mp4: could be any of"):
        replace(choice, videos=tmp_path / "elsewhere").read()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--manifest is missing"),
        ({"manifest": "a", "annotations": "b"}, "--annotations are those of a published data set"),
        ({"dataset": "ucf-crime", "manifest": "a", "annotations": "b"}, "leave one"),
        ({"dataset": "ucf-crime"}, "--dataset ucf-crime needs --annotations"),
        ({"dataset": "shanghaitech", "videos": "v"}, "--dataset shanghaitech needs --annotations"),
        ({"dataset": "xd-violence", "annotations": "b"}, "--dataset xd-violence needs --videos"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DatasetChoice(**{key: value if key == "dataset" else Path(value) for key, value in options.items()})


def test_a_published_data_set_has_no_folds(tmp_path: Path) -> None:
    for dataset in "ucf-crime", "shanghaitech", "xd-violence":
        with pytest.raises(UserError, match=f"--test_fold one: {dataset} has a split"):
            DatasetChoice(dataset, annotations=tmp_path, videos=tmp_path).read("one")


def test_a_choice_is_spelt_as_options() -> None:
    assert DatasetChoice(manifest=Path("a.csv")).options == ["--manifest", "a.csv"]
    assert DatasetChoice("ucf-crime", annotations=Path("l"), videos=Path("v")).options == [
        *("--dataset", "ucf-crime", "--annotations", "l", "--videos", "v"),
    ]
