"""Detectors that learn from the frames of normal videos go the whole way, and say what goes wrong."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from xelvad.models import ConvAutoencoder
from xelvad.pipeline.cli import main
from xelvad.pipeline.framewise import errors as framewise_errors

from ..helpers.drawings import draw_video

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES, ODD = 60, (25, 45)
SMALL = {"size": 35, "widths": (8, 6, 4)}  # of an auto-encoder that learns in seconds


def write_video(path: Path, seed: int, odd: tuple[int, int] = (0, 0), frames: int = FRAMES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = 120, 160, "yuv420p"
        for picture in draw_video(seed, frames, odd).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine normal training videos, two abnormal ones, and two test videos of either kind."""
    folder = tmp_path_factory.mktemp("drawn")
    lines = ["video,split,label,frames,anomalous_frames_half_open"]
    kinds = [("train", 0)] * 9 + [("train", 1)] * 2 + [("test", 0)] * 2 + [("test", 1)] * 2
    for seed, (split, label) in enumerate(kinds):
        name = f"{split}{label}/{seed:02}.mp4"
        write_video(folder / "videos" / name, seed, ODD if label else (0, 0))
        lines.append(f"{name},{split},{label},{FRAMES},{f'{ODD[0]}-{ODD[1]}' if label else ''}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def arguments(data: Path) -> list[str]:
    where = ["--manifest", str(data / "labels.csv"), "--videos", str(data / "videos")]
    return [*where, "--features", str(data / "features")]


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    out = data / "run"
    command = ["train", *arguments(data), "--detector", "sparse-combinations", "--validation", "0.2"]
    assert main([*command, "--out", str(out)]) == 0
    return out


def test_it_finds_what_moves_otherwise_and_every_frame_has_a_score(data: Path, trained: Path) -> None:
    results = data / "results"
    assert main(["evaluate", *arguments(data), "--run", str(trained), "--out", str(results)]) == 0
    (found,) = json.loads((results / "metrics.json").read_text())["runs"]
    assert found["auc"] > 0.85
    assert found["calibration"]["source"] == "validation"
    scores = np.load(results / "run" / "test1" / "13.mp4" / "scores.npy")
    assert scores.shape == (FRAMES,)
    assert scores[slice(*ODD)].mean() > scores[: ODD[0]].mean()


def test_a_new_video_is_scored_alone_as_it_was_among_others(data: Path, trained: Path) -> None:
    assert main(["evaluate", *arguments(data), "--run", str(trained), "--out", str(data / "again")]) == 0
    path = data / "videos" / "test1" / "14.mp4"
    assert main(["score", str(path), "--run", str(trained), "--out", str(data / "scored")]) == 0
    alone = np.load(data / "scored" / "14.mp4" / "scores.npy")
    np.testing.assert_array_equal(alone, np.load(data / "again" / "run" / "test1" / "14.mp4" / "scores.npy"))
    assert (data / "scored" / "report.html").is_file()


def test_a_training_again_gives_the_same_bytes_and_makes_no_errors_anew(
    data: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framewise_errors, "_write", lambda *_: pytest.fail("errors that are there were made again"))
    command = ["train", *arguments(data), "--detector", "sparse-combinations", "--validation", "0.2"]
    assert main([*command, "--out", str(data / "twin")]) == 0
    for name in ("detector.safetensors", "manifest.json", "metrics.json"):
        assert (data / "twin" / name).read_bytes() == (trained / name).read_bytes()


def test_abnormal_and_test_videos_teach_nothing(data: Path, trained: Path, tmp_path: Path) -> None:
    """With others in their places, the same is learned."""
    other = tmp_path / "other"
    for number, line in enumerate((data / "labels.csv").read_text().splitlines()[1:]):
        name, split, label = line.split(",")[:3]
        if (split, label) == ("train", "0"):
            (other / name).parent.mkdir(parents=True, exist_ok=True)
            (other / name).write_bytes((data / "videos" / name).read_bytes())
        else:
            write_video(other / name, 100 + number)
    where = ["--manifest", str(data / "labels.csv"), "--videos", str(other), "--features", str(tmp_path / "features")]
    command = ["train", *where, "--detector", "sparse-combinations", "--validation", "0.2"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    learned = [json.loads((run / "manifest.json").read_text())["fingerprint"] for run in (trained, tmp_path / "run")]
    assert learned[0] == learned[1]


def test_the_auto_encoder_goes_the_same_way_and_its_errors_fall_by_learning(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(ConvAutoencoder, name, value)
    where = ["--manifest", str(data / "labels.csv"), "--videos", str(data / "videos")]
    typical = []
    for steps in ("1", "60"):
        out, features = tmp_path / steps, ["--features", str(tmp_path / f"features-{steps}")]
        command = [
            "train",
            *where,
            *features,
            "--detector",
            "conv-ae",
            "--iterations",
            steps,
            "--learning-rate",
            "0.003",
        ]
        assert main([*command, "--out", str(out)]) == 0
        errors = [np.load(path) for path in (tmp_path / f"features-{steps}").rglob("test0/*.npy")]
        assert [each.shape for each in errors] == [(FRAMES, 1)] * 2
        typical.append(np.median(errors))
    assert typical[1] < 0.95 * typical[0]
    assert main(["evaluate", *where, *features, "--run", str(out), "--out", str(tmp_path / "results")]) == 0
    (found,) = json.loads((tmp_path / "results" / "metrics.json").read_text())["runs"]
    assert found["frames"] == 4 * FRAMES


def test_a_video_that_cannot_be_read_is_set_aside(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    whole = data / "videos" / "test0" / "11.mp4"
    command = ["score", str(whole), str(tmp_path / "broken.mp4"), "--run", str(trained)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    assert "broken.mp4" in capsys.readouterr().err
    assert len(np.load(tmp_path / "out" / "11.mp4" / "scores.npy")) == FRAMES


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--xel", "epoch"], "learns from normal videos alone"),
        (["--options", '{"patch": 3}'], "sparse-combinations has no option patch"),
    ],
)
def test_wrong_requests_are_one_line(
    data: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *arguments(data), "--detector", "sparse-combinations", "--out", str(tmp_path / "run")]
    assert main([*command, *more]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_without_videos_it_says_so(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--manifest", str(data / "labels.csv"), "--features", str(tmp_path / "features")]
    assert main(["train", *where, "--detector", "sparse-combinations", "--out", str(tmp_path / "run")]) == 2
    assert "name their folder by --videos" in capsys.readouterr().err
