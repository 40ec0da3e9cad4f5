"""The sidecar: its timeline, how a video is told from another one, and what is refused of other people's."""

import json
import os
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from xelvad.errors import UserError
from xelvad.pipeline.datasets import MAX_FRAMES
from xelvad.pipeline.features.sidecar import Sidecar, Timeline
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.videos.clips import Clipping, Segments
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


# --- of strangers ----------------------------------------------------------------------------------------------------

SIDECAR = Sidecar(
    video="day/a.mp4",
    video_bytes=1000,
    video_modified=1,
    video_sha256="00",
    frames=40,
    declared_frames=40,
    salvaged_frames=0,
    timeline=Timeline(0.0, 25.0),
    clipping=Clipping(),
    extractor="i3d-rgb",
    fingerprint="f",
    feature_dim=5,
    decoder="PyAV",
    version="1",
    crops=2,
    reused=(1, 2),
)
PLAIN = json.loads(json.dumps(asdict(SIDECAR)))
TIMED = PLAIN | {"timeline": {"start": 0.0, "rate": 25.0, "seconds": [0.04 * frame for frame in range(40)]}}


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


WRONG = [
    *("null", "true", "-1", "0", "2.5", "1e400", "NaN", "-Infinity", str(10**12), str(10**18), "1" + "0" * 5000),
    *('"text"', '""', '"../../x"', '"a\\u0000\\nb"', '"\\ud800"', "[]", "[1, 2]", '["a"]', "{}", '{"a": 1}'),
    *('{"segments": 0}', '{"segments": 1000000000000}', '{"length": 1000000000000}', "[-1]", "[2, 1]", nested(5000)),
]


def read_or_refused(folder: Path, text: str) -> str:
    """Reads a feature file with this sidecar, and all that is made of it; the message where it is refused."""
    store = FeatureStore(folder, "i3d-rgb")
    (store.folder / "day").mkdir(parents=True, exist_ok=True)
    np.save(store.array_path("day/a.mp4"), np.ones((3, 2, 5), np.float32))
    path = store.sidecar_path("day/a.mp4")
    path.write_text(text)
    try:
        features = store.read("day/a.mp4")
        times = features.sidecar.timeline.times(features.sidecar.frames)
        assert len(times) == features.sidecar.frames <= MAX_FRAMES
        assert np.isfinite(times).all()
        assert len(features.sidecar.clipping.spread(np.ones(3, np.float32), features.sidecar.frames)) == len(times)
        message = ""
    except UserError as error:
        message = str(error)
    if message:
        assert str(store.folder / "day" / "a.mp4") in message, "it names the file"
        assert "\n" not in message
        assert len(message) < 500 + 2 * len(str(path))
    return message


def with_key(fields: dict[str, object], key: str, text: str) -> str:
    """The sidecar with one key, such as ``timeline.rate``, of another value, given as JSON."""
    outer, _, inner = key.partition(".")
    changed = fields | {outer: {**fields[outer], inner: "MARK"} if inner else "MARK"}
    return json.dumps(changed).replace('"MARK"', text)


KEYS = [*PLAIN, "timeline.start", "timeline.rate", "timeline.seconds", "clipping.length", "clipping.tail"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("fields", [PLAIN, TIMED], ids=["even", "timed"])
def test_any_value_of_any_key_is_read_or_refused_by_name(tmp_path: Path, fields: dict[str, object], key: str) -> None:
    # Guards against tracebacks, and against memory that is taken because a file says so.
    assert read_or_refused(tmp_path, json.dumps(fields)) == ""
    for text in WRONG:
        read_or_refused(tmp_path, with_key(fields, key, text))
    assert f"({key}: must be " in read_or_refused(tmp_path, with_key(fields, key, '{"a": [true]}')) or "." not in key
    without = {name: value for name, value in fields.items() if name != key}
    read_or_refused(tmp_path, json.dumps(without))


@pytest.mark.parametrize("text", [*WRONG, "", "{", "\ufeff{}", json.dumps(PLAIN)[:-1], json.dumps(PLAIN | {"a": 1})])
def test_any_other_file_is_refused(tmp_path: Path, text: str) -> None:
    assert read_or_refused(tmp_path, text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": -1}, f"frames: must lie in 0 to {MAX_FRAMES}, not -1"),
        ({"frames": 10**18, "clipping": {"segments": 3}}, f"frames: must lie in 0 to {MAX_FRAMES}, not {10**18}"),
        ({"frames": "many"}, "frames: must be a whole number, not 'many'"),
        ({"frames": True}, "frames: must be a whole number, not True"),
        ({"frames": 40.0}, "frames: must be a whole number, not 40.0"),
        ({"frames": [40]}, "frames: must be a whole number, not a list (1)"),
        ({"video": "../a.mp4"}, "video: must be a relative path without .., not '../a.mp4'"),
        ({"video": "/a.mp4"}, "video: must be a relative path without .., not '/a.mp4'"),
        ({"video": "a\0"}, "video: must be a relative path without .., not 'a\\x00'"),
        ({"timeline": {"start": 0, "rate": 0}}, "timeline.rate: must be above 0, not 0"),
        ({"timeline": {"start": 0}}, "timeline: key 'rate' is missing"),
        ({"timeline": {"start": 0, "rate": 1, "seconds": [0.5]}}, "timeline.seconds: 1 times of 40 frames"),
        ({"timeline": {"start": 0, "rate": 1, "seconds": [None]}}, "timeline.seconds[0]: must be a number, not None"),
        ({"clipping": {"length": 16, "tail": "cut"}}, "clipping.tail: must be 'pad' or 'drop', not 'cut'"),
        ({"clipping": {"segments": 0}}, "clipping: a video cannot have 0 segments"),
        ({"crops": 0}, "crops: must lie in 1 to 1024, not 0"),
        ({"reused": [1, 3]}, "reused: not numbers of 3 clips, in order"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"salvaged_frames": 41}, "salvaged_frames: 41 of 40 frames"),
    ],
)
def test_what_is_wrong_with_a_sidecar_is_said(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    assert message in read_or_refused(tmp_path, json.dumps(PLAIN | changes))


def test_frames_as_of_years_take_no_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        for frames in (10**9, 10**12, 10**18):
            changed = PLAIN | {"frames": frames, "clipping": {"segments": 3}, "reused": []}
            assert "frames: must lie in" in read_or_refused(tmp_path, json.dumps(changed))
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_frames_that_lie_years_apart_give_a_sidecar_that_is_read(tmp_path: Path) -> None:
    timeline = Timeline.of([0.0, 1e8], 25)
    sidecar = replace(SIDECAR, frames=2, timeline=timeline, clipping=Segments(3), reused=())
    assert read_or_refused(tmp_path, json.dumps(asdict(sidecar))) == ""
