"""Six files of the C3D features that Sultani et al. published go the whole way: import, training, evaluation.

Their videos are test videos of UCF-Crime. Here, three of them are for training. No list says how long they are, so that
lengths are made up, just long enough for the annotation; the spans are the official ones.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets import Dataset, read_ucf_crime
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.videos.clips import Segments

pytestmark = pytest.mark.slow

TRAIN = ("Normal_Videos_024_x264", "Shooting033_x264", "Shoplifting028_x264")
TEST = ("Normal_Videos_006_x264", "Explosion008_x264", "RoadAccidents022_x264")
NORMAL_FRAMES = 1000


@pytest.fixture(scope="module")
def genuine(shared: Path) -> Path:
    return shared / "ucf_crime" / "c3d_fc6_32seg"


@pytest.fixture(scope="module")
def folder(genuine: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of these six videos, their features, and a trained MIL and MIL+XEL."""
    folder = tmp_path_factory.mktemp("genuine")
    (folder / "lists").mkdir()
    (folder / "lists" / "Anomaly_Train.txt").write_text("".join(f"{name}.mp4\n" for name in TRAIN))
    lines = {}
    for line in (shared / "ucf_crime" / "Temporal_Anomaly_Annotation.txt").read_text().splitlines():
        name, *cells = line.split()
        frames = max(int(cell) for cell in cells[1:]) + 123 if cells[0] != "Normal" else NORMAL_FRAMES
        lines[name.removesuffix(".mp4")] = f"{' '.join([name, *cells])} {frames}\n"
    (folder / "lists" / "Temporal_Anomaly_Annotation.txt").write_text("".join(lines[name] for name in TEST))
    source = ["--source", str(genuine.parent), "--extractor", "c3d"]  # files lie in a folder below
    assert main(["import", *source, *given(folder)]) == 0
    for name, mode in (("mil", "off"), ("mil+xel", "epoch")):
        train = ["train", *given(folder), "--out", f"{folder}/{name}", "--extractor", "c3d", "--xel", mode]
        assert main([*train, "--iterations", "20", "--batch", "2", "--validation", "0"]) == 0
    return folder


def given(folder: Path) -> list[str]:
    return ["--dataset", "ucf-crime", "--annotations", f"{folder}/lists", "--features", f"{folder}/features"]


def labels(folder: Path) -> Dataset:
    return read_ucf_crime(folder / "lists")


def scores_by_hand(run: Path, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the trained network makes of 32 segments, by its weights alone."""
    weights = safetensors.numpy.load_file(run / "detector.safetensors")
    layers = [(weights[name], weights[name.replace("weight", "bias")]) for name in weights if name.endswith("weight")]
    hidden = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    (first, b1), (second, b2), (third, b3) = sorted(layers, key=lambda layer: -layer[0].shape[0])
    hidden = np.maximum(hidden @ first.T + b1, 0) @ second.T + b2
    return 1 / (1 + np.exp(-(hidden @ third.T + b3)[:, 0]))


def test_the_files_are_imported_as_they_are(folder: Path, genuine: Path) -> None:
    assert {path.stem for path in genuine.glob("*.txt")} == {*TRAIN, *TEST}
    store = FeatureStore(folder / "features", "c3d")
    for name, features in zip((*TRAIN, *TEST), store.read_all([*TRAIN, *TEST]), strict=True):
        assert features.shape == (32, 4096)
        assert features.sidecar.clipping == Segments(32)
        array = features.read(slice(None))
        assert np.array_equal(array, np.loadtxt(genuine / f"{name}.txt").astype(np.float32))
        assert np.abs(np.linalg.norm(array, axis=1) - 1).max() < 1e-4


@pytest.mark.parametrize("protocol", ["mil", "exact"])
def test_they_are_scored_and_measured_segment_by_segment(folder: Path, genuine: Path, protocol: str) -> None:
    runs, out = [f"{folder}/mil", f"{folder}/mil+xel"], folder / protocol
    assert main(["evaluate", "--run", *runs, *given(folder), "--out", str(out), "--protocol", protocol]) == 0
    written = json.loads((out / "metrics.json").read_text())["runs"]
    aucs = {run["run"]: run["auc"] for run in written if run["weights"] == "last"}
    for run in ("mil", "mil+xel"):
        scores, truths = [], []
        for video in labels(folder).of("test"):
            segments = scores_by_hand(folder / run, np.loadtxt(genuine / f"{video.name}.txt"))
            assert video.frames is not None
            frames = np.arange(video.frames)
            scores.append(segments[np.minimum(frames // (video.frames // 32), 31)])  # the last one has the remainder
            truths.append(np.any([(frames >= a) & (frames < b) for a, b in video.spans or ((0, 0),)], axis=0))
            np.testing.assert_allclose(np.load(out / run / video.name / "scores.npy"), scores[-1], atol=1e-6)
        expected = roc_auc_score(np.concatenate(truths), np.concatenate(scores))
        assert aucs[run] == pytest.approx(expected, abs=1e-6)


def test_segments_have_no_complete_clips(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = ["evaluate", "--run", f"{folder}/mil", *given(folder), "--out", str(tmp_path / "out")]
    assert main([*evaluate, "--protocol", "xel"]) == 2
    assert "imported as 32 segments, which have no clips" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_they_stand_beside_what_was_published_by_the_protocol_of_segments(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["results", f"{folder}/mil", f"{folder}/mil+xel", *given(folder)]) == 0
    printed = capsys.readouterr().out
    assert "MIL+XEL, C3D" in printed
    assert "here: protocol mil, 32 segments a video" in printed
    assert "features of" not in printed, "they are those of the paper"
    assert "  - 3 test videos, not 290\n" in printed
