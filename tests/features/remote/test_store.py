"""Features at a URL: the same bytes under the same contract as in a folder, for a bounded number of requests."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from xelvad.errors import UserError
from xelvad.extractors import engines
from xelvad.leases import try_acquire
from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets import DatasetChoice
from xelvad.pipeline.evaluation.evaluation import evaluate
from xelvad.pipeline.experiments.leaderboard.records import Board, read_board, write_board
from xelvad.pipeline.features import extraction
from xelvad.pipeline.features.extraction import extract
from xelvad.pipeline.features.remote import index
from xelvad.pipeline.features.remote.address import RemoteFolder, folder_of
from xelvad.pipeline.features.remote.storage import Storage, storage_of
from xelvad.pipeline.features.remote.store import RemoteStore, open_store
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.features.tasks import ExtractionResult
from xelvad.pipeline.scoring.runs import load_run
from xelvad.pipeline.training.train import train
from xelvad.pipeline.videos.sources import VideoSource, find_videos

from ...helpers.features import SIDECAR, write_dataset
from ...helpers.footage import Footage
from ...helpers.objects import Requests
from ...training.test_train import dataset_of, quick
from ..test_extraction import COMMAND, EAGER, Listening, config, expected
from .conftest import files_of


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of 33 frames, three clips each."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        Footage.video(folder / f"day 1/{number} é.mp4", 33, codec="mpeg4", first=100 * number)
    return folder


def run(videos: Path, features: Path | RemoteFolder, **changes: object) -> ExtractionResult:
    return extract(find_videos([videos]), features, replace(config(), **changes))


def names(sources: list[VideoSource]) -> list[str]:
    return [source.name for source in sources]


def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str) -> None:
    """As on another machine, which has no copies."""
    monkeypatch.setenv("XELVAD_CACHE", str(tmp_path / where))


def upload(folder: Path, remote: RemoteFolder) -> None:
    """A features folder of this machine, put to a URL by other means."""
    system, root = fsspec.core.url_to_fs(remote.url)
    system.put(f"{folder}/", root, recursive=True)


# --- made there ------------------------------------------------------------------------------------------------------


def test_what_is_extracted_to_a_url_is_what_is_extracted_to_a_folder(
    videos: Path, tmp_path: Path, remote: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(videos, tmp_path / "local")
    result = run(videos, remote)
    assert names(result.extracted) == names(first.extracted)
    local = {path.relative_to(tmp_path / "local").as_posix(): path for path in (tmp_path / "local").rglob("*.*")}
    assert files_of(remote) == {name: path.read_bytes() for name, path in local.items()}
    monkeypatch.setattr(engines, "create_extractor", lambda *_: pytest.fail("there is nothing to do"))
    assert names(run(videos, remote).current) == names(first.extracted)
    anew(monkeypatch, tmp_path, "of another machine")
    assert names(run(videos, remote).current) == names(first.extracted)


def test_what_was_interrupted_between_array_and_sidecar_does_not_count(
    videos: Path, tmp_path: Path, remote: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Storage.put

    def until_a_sidecar(self: Storage, path: Path, name: str) -> None:
        if name.endswith("1 é.mp4.json"):
            raise KeyboardInterrupt
        put(self, path, name)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "put", until_a_sidecar)
        with pytest.raises(KeyboardInterrupt):
            run(videos, remote)
    written = set(files_of(remote))
    assert "tiny/day 1/1 é.mp4.npy" in written
    assert "tiny/day 1/1 é.mp4.json" not in written
    done = [name[len("tiny/") : -len(".json")] for name in written if name.endswith(".json")]
    assert "day 1/0 é.mp4" in done  # those behind it may be, too
    assert all(f"tiny/{name}.npy" in written for name in done)
    with pytest.raises(UserError, match="no features in"):
        open_store(remote, "tiny").find("day 1/1 é.mp4")
    result = run(videos, remote)
    assert names(result.current) == sorted(done)
    assert len(result.extracted) == 4 - len(done)
    assert np.array_equal(open_store(remote, "tiny").read("day 1/1 é.mp4").array, expected(33, first=100))


@pytest.mark.parametrize("change", ["cut off", "gone"])
def test_an_array_that_is_not_whole_is_made_again(
    videos: Path, remote: RemoteFolder, change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(videos, remote)
    whole = files_of(remote)
    system, root = fsspec.core.url_to_fs(remote.url)
    if change == "gone":
        system.rm_file(f"{root}/tiny/day 1/2 é.mp4.npy")
    else:
        system.pipe_file(f"{root}/tiny/day 1/2 é.mp4.npy", whole["tiny/day 1/2 é.mp4.npy"][:-4])
    with pytest.raises(UserError, match=f"^{remote.url}/tiny/day 1/2 é.mp4.npy: missing, or not as large"):
        open_store(remote, "tiny").read("day 1/2 é.mp4")
    assert names(run(videos, remote).extracted) == ["day 1/2 é.mp4"]
    assert files_of(remote) == whole


def test_only_a_video_that_changed_is_made_anew(tmp_path: Path, remote: RemoteFolder) -> None:
    for number in range(3):
        Footage.video(tmp_path / f"videos/{number}.mp4", 20, codec="mpeg4", first=100 * number)
    run(tmp_path / "videos", remote)
    os.utime(tmp_path / "videos/0.mp4", (1, 1))  # the same video, as its digest says
    Footage.video(tmp_path / "videos/1.mp4", 40, codec="mpeg4", first=500)
    result = run(tmp_path / "videos", remote)
    assert names(result.extracted) == ["1.mp4"]
    assert np.array_equal(open_store(remote, "tiny").read("1.mp4").array, expected(40, first=500))
    assert json.loads(files_of(remote)["tiny/0.mp4.json"])["video_modified"] == 1_000_000_000
    with pytest.raises(UserError, match=f"^{remote.url}/tiny/0.mp4.json: made with "):
        run(tmp_path / "videos", remote, tail="drop")


def test_two_processes_do_each_video_once(videos: Path, tmp_path: Path, bucket: RemoteFolder) -> None:
    arguments = ["extract", str(videos), "--features", bucket.url, "--extractor", "tiny", "--weights", "random", *EAGER]
    code = "from xelvad.pipeline.features.remote.store import RemoteStore\nRemoteStore.poll_seconds = 0.2\n" + COMMAND
    processes = [
        subprocess.Popen(
            [os.sys.executable, "-c", code, *arguments],
            env=os.environ | {"TINY_SECONDS": "0.1", "XELVAD_CACHE": str(tmp_path / f"machine {number}")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    counts = [[int(word) for word in printed.split() if word.isdigit()] for printed, _ in said]
    assert sum(extracted for extracted, _, _ in counts) == 4, said
    assert all(extracted + there == 4 for extracted, there, _ in counts)
    run(videos, tmp_path / "local")
    local = {path.relative_to(tmp_path / "local").as_posix(): path for path in (tmp_path / "local").rglob("*.*")}
    assert files_of(bucket) == {name: path.read_bytes() for name, path in local.items()}


def test_a_video_that_another_works_on_is_waited_for_and_not_done_twice(
    videos: Path, tmp_path: Path, remote: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(RemoteStore, "poll_seconds", 0.01)
    run(videos, tmp_path / "whole")
    name = "day 1/1 é.mp4"
    held = try_acquire(open_store(remote, "tiny").lease_on(name))
    assert held is not None

    def finish() -> None:
        system, root = fsspec.core.url_to_fs(remote.url)
        for suffix in ("npy", "json"):
            system.put_file(str(tmp_path / f"whole/tiny/{name}.{suffix}"), f"{root}/tiny/{name}.{suffix}")
        held.release()

    result = extract(find_videos([videos]), remote, config(), Listening(finish))
    assert names(result.current) == [name]
    assert len(result.extracted) == 3
    assert not [path for path in files_of(remote) if path.endswith((".lease", ".beat"))]


def test_what_was_set_aside_is_not_tried_again_until_it_is_asked_for(
    tmp_path: Path, remote: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Footage.video(tmp_path / "videos/1.mp4", 17, codec="mpeg4")
    bad = tmp_path / "videos/2.mp4"
    bad.write_text("no video")
    assert list(run(tmp_path / "videos", remote).failed) == ["2.mp4"]
    anew(monkeypatch, tmp_path, "of another machine")
    again = run(tmp_path / "videos", remote)
    assert "(set aside before; --retry tries again)" in again.failed["2.mp4"]
    assert "set aside before" not in run(tmp_path / "videos", remote, retry=True).failed["2.mp4"]
    Footage.video(bad, 33, codec="mpeg4")
    assert names(run(tmp_path / "videos", remote).extracted) == ["2.mp4"]
    entries = [json.loads(text) for name, text in sorted(files_of(remote).items()) if "/.quarantine/" in name]
    assert [entry["reason"] is None for entry in entries] == [False, False, True]


# --- read from there -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_training_and_evaluation_are_the_same_to_the_byte(tmp_path: Path, remote: RemoteFolder) -> None:
    write_dataset(tmp_path, videos=18)
    upload(tmp_path / "features", remote)
    dataset = dataset_of(tmp_path)
    places = {"local": tmp_path / "features", "there": remote}
    for name, place in places.items():
        train(dataset, place, tmp_path / name, quick("mil", "epoch"))
    files = [tmp_path / name / "detector.safetensors" for name in places]
    assert files[0].read_bytes() == files[1].read_bytes()
    local, there = (evaluate(load_run(tmp_path / name), dataset, place) for name, place in places.items())
    assert local.metrics == there.metrics
    for ours, theirs in zip(local.scores, there.scores, strict=True):
        assert np.array_equal(ours.scores, theirs.scores)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "there").rglob("*") if path.is_file())
    assert b"a-secret" not in everything


def test_scores_are_the_same_whether_features_are_made_or_there(
    tmp_path: Path, bucket: RemoteFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["video,split,label,anomalous_frames_half_open"]
    for number in range(6):
        Footage.video(tmp_path / f"videos/{number}.mp4", 40 + number, codec="mpeg4", first=50 * number)
        spans = "0-20" if number % 2 else ""
        labels.append(f"{number}.mp4,{'test' if number > 3 else 'train'},{number % 2},{spans}")
    (tmp_path / "labels.csv").write_text("\n".join(labels) + "\n")
    videos, weights = str(tmp_path / "videos"), ["--weights", "random", *EAGER]
    scores = {}
    for name, features in {"local": str(tmp_path / "features"), "there": bucket.url}.items():
        out, common = tmp_path / name, ["--features", features]
        assert main(["extract", videos, *common, "--extractor", "tiny", *weights]) == 0
        of = ["--manifest", str(tmp_path / "labels.csv"), *common]
        quickly = ["--iterations", "4", "--extractor", "tiny", "--validation", "0", "--follow_test", "false"]
        assert main(["train", *of, "--out", str(out / "run"), *quickly]) == 0
        assert main(["evaluate", *of, "--run", str(out / "run"), "--out", str(out / "evaluation")]) == 0
        assert (
            main(
                ["score", f"{videos}/5.mp4", *common, "--run", str(out / "run"), "--out", str(out / "scores"), *weights]
            )
            == 0
        )
        assert (
            main(
                [
                    "audit",
                    "--manifest",
                    str(tmp_path / "labels.csv"),
                    *common,
                    "--extractor",
                    "tiny",
                    "--videos",
                    videos,
                ]
            )
            == 0
        )
        scores[name] = np.load(out / "scores/5.mp4/scores.npy")
    assert len(scores["local"]) == 45
    assert np.array_equal(scores["local"], scores["there"])
    assert "Traceback" not in capsys.readouterr().err


def test_a_copy_is_made_anew_when_there_is_another_version(tmp_path: Path, remote: RemoteFolder, videos: Path) -> None:
    write_dataset(tmp_path, videos=3)
    upload(tmp_path / "features", remote)
    name = "video_01.mp4"
    before = open_store(remote, "i3d-rgb").read(name).read(slice(None))
    changed = np.load(tmp_path / f"features/i3d-rgb/{name}.npy") + 1
    opened = open_store(remote, "i3d-rgb").read(name)
    with open_store(remote, "i3d-rgb").write(name, 16) as writer:
        writer.append(changed)
        writer.finish(FeatureStore(tmp_path / "features", "i3d-rgb").read(name).sidecar)
    shutil.rmtree(tmp_path / "cache")
    assert np.array_equal(open_store(remote, "i3d-rgb").read(name).read(slice(None)), before + 1)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match="was changed or removed while it was being read"):
        opened.read(slice(None))


def test_one_that_is_evicted_is_fetched_again_and_the_bound_holds(
    tmp_path: Path, remote: RemoteFolder, cache: Path
) -> None:
    store_here = FeatureStore(tmp_path / "features", "tiny")
    rows = np.random.default_rng(0).normal(size=(12, 50, 16)).astype(np.float32)
    for number, features in enumerate(rows):
        with store_here.write(f"{number}.mp4", 16) as writer:
            writer.append(features)
            writer.finish(replace(SIDECAR, video=f"{number}.mp4", frames=800, extractor="tiny"))
    upload(tmp_path / "features", remote)
    all_names, array = [f"{number}.mp4" for number in range(12)], 50 * 16 * 4 + 128

    def held() -> int:
        return sum(path.stat().st_size for path in cache.rglob("*.mp4.*"))

    small = replace(remote, cache_gb=(5 * array + 12 * 1000) / 1e9)
    found = list(open_store(small, "tiny").read_all(all_names))
    for _ in range(2):
        for features, wanted in zip(found, rows, strict=True):
            assert np.array_equal(features.read(slice(None)), wanted)
            assert held() <= small.cache_gb * 1e9
    with pytest.raises(
        UserError, match=r"3\.99e-05 GB are needed for features that are needed at once, and .* --cache_gb"
    ):
        open_store(small, "tiny").gather(all_names)
    five = open_store(small, "tiny")
    five.gather(all_names[:5])
    kept = sorted(cache.rglob("[0-4].mp4.npy"))
    assert len(kept) == 5
    five.read("7.mp4").read(slice(0, 1))
    assert all(path.exists() for path in kept), "what is needed at once stays"


@pytest.mark.parametrize("damage", ["nan", "another shape"])
def test_what_is_wrong_with_a_copy_is_said_of_the_file_that_it_is_of(
    tmp_path: Path, remote: RemoteFolder, damage: str
) -> None:
    write_dataset(tmp_path, videos=3)
    path = tmp_path / "features/i3d-rgb/video_01.mp4.npy"
    array = np.load(path)
    array[0, 0] = np.nan
    np.save(path, array if damage == "nan" else array.reshape(-1, 8))
    upload(tmp_path / "features", remote)
    features = open_store(remote, "i3d-rgb").read("video_01.mp4")
    with pytest.raises(UserError, match=f"^{remote.url}/i3d-rgb/video_01.mp4.npy: .*(NaN|not float32)"):
        features.read(slice(None))


# --- requests --------------------------------------------------------------------------------------------------------


def done_videos(folder: Path, count: int) -> list[VideoSource]:
    """Videos, and the features folder that has them all."""
    here, sources = FeatureStore(folder / "features", "tiny"), []
    (folder / "videos").mkdir()
    fingerprint = "tiny | frame numbers | weights random (seed 0)"
    for number in range(count):
        path = folder / f"videos/{number:05}.mp4"
        path.write_bytes(b"ten bytes.")
        sources.append(VideoSource(path.name, path))
        about = replace(SIDECAR, video=path.name, video_bytes=10, video_modified=path.stat().st_mtime_ns, frames=32)
        with here.write(path.name, 16) as writer:
            writer.append(np.zeros((2, 16), np.float32))
            writer.finish(replace(about, extractor="tiny", fingerprint=fingerprint))
    return sources


def test_a_start_over_features_that_are_there_asks_for_a_listing_and_no_file_of_them(
    tmp_path: Path, bucket: RemoteFolder, s3: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 100
    sources = done_videos(tmp_path, count)
    upload(tmp_path / "features", bucket)
    asked = []
    for machine in ("first", "first", "second", "third"):
        anew(monkeypatch, tmp_path, machine)
        s3.counts.clear()
        result = extract(sources, bucket, config())
        assert len(result.current) == count
        asked.append(dict(s3.counts))
    assert asked == [
        {"LIST": 1, "GET": count, "PUT": 1},  # sidecars that are in no index are asked for once, and put into one
        {"LIST": 1},  # copies are here
        {"LIST": 1, "GET": 1},  # and anywhere else the index says it
        {"LIST": 1, "GET": 1},
    ]


def test_what_a_run_has_made_is_in_an_index_for_the_next(
    tmp_path: Path, bucket: RemoteFolder, s3: Requests, monkeypatch: pytest.MonkeyPatch, videos: Path
) -> None:
    monkeypatch.setattr(index, "WORTH_IT", 3)
    run(videos, bucket)
    anew(monkeypatch, tmp_path, "another machine")
    s3.counts.clear()
    assert len(run(videos, bucket).current) == 4
    assert s3.counts == {"LIST": 1, "GET": 1}


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda _: b"no gzip", lambda _: b""])
def test_an_index_is_never_believed_against_what_is_there(
    tmp_path: Path, bucket: RemoteFolder, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(index, "WORTH_IT", 3)
    sources = done_videos(tmp_path, 8)
    upload(tmp_path / "features", bucket)
    extract(sources, bucket, config())
    other = replace(FeatureStore(tmp_path / "features", "tiny").read("00003.mp4").sidecar, decoder="another")
    system, root = fsspec.core.url_to_fs(bucket.url)
    FeatureStore(tmp_path / "features", "tiny").put_sidecar("00003.mp4", other)
    system.put_file(str(tmp_path / "features/tiny/00003.mp4.json"), f"{root}/tiny/00003.mp4.json")
    system.rm_file(f"{root}/tiny/00005.mp4.json")
    anew(monkeypatch, tmp_path, "another machine")
    there = open_store(bucket, "tiny")
    there.prepare([source.name for source in sources])
    assert there.sidecar("00003.mp4") == other
    assert there.sidecar("00005.mp4") is None
    (part,) = (name for name in files_of(bucket) if "/.index/" in name)
    system.pipe_file(f"{root}/{part}", damage(files_of(bucket)[part]))
    anew(monkeypatch, tmp_path, "a third machine")
    assert len(extract(sources[:5], bucket, config()).current) == 5


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_names_in_a_store_that_lead_out_of_it_are_nobodys(bucket: RemoteFolder, cache: Path) -> None:
    storage_of(bucket).write("tiny/a/../../../x.json", b"{}")
    storage_of(bucket).write("tiny/b.json", b"{}")
    there = open_store(bucket, "tiny")
    assert list(there._filed()) == ["b"]


def test_a_leaderboard_says_where_its_features_lie(tmp_path: Path, bucket: RemoteFolder) -> None:
    board = Board("a", DatasetChoice(manifest=tmp_path / "labels.csv"), bucket, "tiny", "tiny", (), 0.0, "last", ())
    write_board(board, tmp_path)
    assert read_board(tmp_path) == board


def test_only_a_folder_is_looked_through(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("verify", "gc"):
        assert main([command, "s3://bucket/features"]) == 2
        assert "xelvad: s3://bucket/features: only a folder can be looked through" in capsys.readouterr().err


def test_a_url_may_hold_no_secret() -> None:
    for url in ("sftp://me:secret@host/x", "https://host/x?signature=secret"):
        with pytest.raises(UserError, match="credentials belong into the environment") as caught:
            folder_of(url)
        assert "secret" not in str(caught.value)
    assert folder_of("some/folder") == Path("some/folder")
    assert folder_of("s3://bucket/x/") == RemoteFolder("s3://bucket/x")
