"""The whole way on both data sets that the paper uses, by the commands that the documentation names.

The lists are the official ones, every video is there under its name and in the layout of the download, and each is as
long as its annotation needs. What the videos show is not real, and neither is the network: `TINY` has random weights.
"""

import contextlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn

from xelvad.extractors import EXTRACTORS, ExtractorSpec
from xelvad.extractors.preprocessing import Pictures
from xelvad.pipeline.cli import main
from xelvad.pipeline.datasets import Dataset, DatasetChoice
from xelvad.pipeline.datasets.choice import DatasetName
from xelvad.pipeline.features.store import FeatureStore

pytestmark = pytest.mark.slow

SIZE = 16  # pixels of both sides of a frame
SHORT = 20  # frames of a video of which no list says how long it is: a clip, and an incomplete one
TINY = ExtractorSpec(
    name="tiny-random",
    description="The mean colour of every frame, mixed at random",
    module=__name__,
    feature_dim=8,
    preprocessing=Pictures(SIZE, SIZE, (127.5,) * 3, (127.5,) * 3),
    default_weights="tiny-random-has-none",
)
FAST = ["--runtime", "eager", "--batch", "64"]
TRAINING = ["--extractor", TINY.name, "--iterations", "4", "--validation", "0", "--follow-test", "false"]


def build(spec: ExtractorSpec) -> nn.Module:
    """The network of `TINY`."""
    return nn.Sequential(nn.AvgPool3d((1, SIZE, SIZE)), nn.Flatten(), nn.Linear(3 * spec.clip_length, spec.feature_dim))


# --- the data sets on disk -------------------------------------------------------------------------------------------


def frame(number: int) -> np.ndarray:
    """A frame that is grey, and flickers."""
    return np.full((SIZE, SIZE, 3), 40 * (number % 5) + number // 5 % 30, np.uint8)


class Films:
    """Writes videos of any length, all cut from one that is encoded once."""

    def __init__(self, longest: int, codec: str, pixels: str) -> None:
        self.codec, self.pixels = codec, pixels
        with av.open(io.BytesIO(), "w", format="avi") as container:
            stream = self._stream(container)
            pictures = (av.VideoFrame.from_ndarray(frame(number), format="rgb24") for number in range(longest))
            self.packets = [bytes(packet) for picture in pictures for packet in stream.encode(picture)]

    def _stream(self, container: av.container.OutputContainer) -> av.VideoStream:
        stream = container.add_stream(self.codec, rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = SIZE, SIZE, self.pixels, Fraction(1, 30)
        return stream

    def write(self, path: Path, frames: int) -> None:
        """A video of so many frames, with a title of its own: the audit would take two equal files for a mistake."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            container.metadata["title"] = path.stem
            stream = self._stream(container)
            for number, content in enumerate(self.packets[:frames]):
                packet = av.Packet(content)
                packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number, number, True
                packet.time_base = Fraction(1, 30)
                container.mux(packet)


def lengths(dataset: Dataset) -> dict[str, int]:
    """The frames of each video: those of its mask, or five behind its last anomalous one, before it if overlong."""
    found = {}
    for video in dataset.videos:
        end = max((end for _, end in video.spans or ()), default=SHORT)
        found[video.name] = video.frames or (end - 5 if video.overlong else end + 5 * bool(video.spans))
    return found


def make_ucf_crime(dataset: Dataset, folder: Path) -> None:
    """All 1,900 videos, in the folders of the download."""
    frames = lengths(dataset)
    films = Films(max(frames.values()), "png", "rgb24")  # decord leaves it to PyAV: faster for 278,000 tiny frames
    normal = {"train": "Training-Normal-Videos-Part-1", "test": "Testing_Normal_Videos_Anomaly"}
    for number, video in enumerate(dataset.videos):
        place = f"Anomaly-Videos-Part-{1 + number % 4}/{video.category}" if video.category else normal[video.split]
        films.write(folder / place / f"{video.name}.mp4", frames[video.name])


def make_shanghaitech(dataset: Dataset, folder: Path) -> None:
    """Originally-training videos as .avi, originally-test videos as folders of as many frames as their masks have."""
    films = Films(SHORT, "mjpeg", "yuvj420p")
    pictures = [folder.parent / f"{number}.jpg" for number in range(150)]
    for number, picture in enumerate(pictures):
        Image.fromarray(frame(number)).save(picture)
    for video in dataset.videos:
        if video.frames is None:
            films.write(folder / "training" / "videos" / f"{video.name}.avi", SHORT)
    for first, video in enumerate(video for video in dataset.videos if video.frames is not None):
        place = folder / "testing" / "frames" / video.name
        place.mkdir(parents=True)
        for number in range(video.frames):
            (place / f"{number:03}.jpg").hardlink_to(pictures[(first + number) % len(pictures)])


# --- the way ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """A data set on disk, and what was printed on the way through it."""

    name: DatasetName
    folder: Path
    dataset: Dataset
    given: list[str]
    recipe: str

    @property
    def runs(self) -> list[str]:
        return [str(self.folder / "runs" / name) for name in (self.recipe, f"{self.recipe}+xel")]

    @property
    def features(self) -> list[str]:
        return ["--features", str(self.folder / "features")]

    @cached_property
    def printed(self) -> dict[str, str]:
        """What each command printed; each must end well."""
        results, videos = self.folder / "results", ["--videos", str(self.folder / "videos")]
        steps = {
            "audit": ["audit", *self.given, *videos],
            "extract": ["extract", *videos, *self.features, "--extractor", TINY.name, "--weights", "random", *FAST],
            "audit again": ["audit", *self.given, *videos, *self.features, "--extractor", TINY.name],
        }
        for run in self.runs:
            recipe = ["--recipe", f"{self.name}/{Path(run).name}"]
            steps[f"train {run}"] = ["train", *self.given, *self.features, "--out", run, *recipe, *TRAINING]
        for protocol in ("exact", "xel"):
            out = ["--protocol", protocol, "--out", f"{results}/{protocol}"]
            steps[protocol] = ["evaluate", "--run", *self.runs, *self.given, *self.features, *out]
        out = ["--out", f"{results}/figures", "--protocol", "xel"]
        steps["compare"] = ["compare", *self.runs, *self.given, *self.features, *out]
        steps["results"] = ["results", *self.runs, "--paper", "xel", *self.given, *self.features]
        return {name: said(step) for name, step in steps.items()}

    def metrics(self, protocol: str) -> dict:
        return json.loads((self.folder / "results" / protocol / "metrics.json").read_text())


def said(command: list[str]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = main(command)
    assert code == 0, printed.getvalue()
    return printed.getvalue()


@pytest.fixture(scope="module", params=["ucf-crime", "shanghaitech"])
def way(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterable[Way]:
    name: DatasetName = request.param
    folder, lists = tmp_path_factory.mktemp(name), shared / name.replace("-", "_")
    dataset = DatasetChoice(dataset=name, annotations=lists).labels()
    {"ucf-crime": make_ucf_crime, "shanghaitech": make_shanghaitech}[name](dataset, folder / "videos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXTRACTORS, TINY.name, TINY)
        given = ["--dataset", name, "--annotations", str(lists)]
        way = Way(name, folder, dataset, given, {"ucf-crime": "srf", "shanghaitech": "ar-net"}[name])
        assert way.printed  # within the patch
        yield way


# --- what must come of it --------------------------------------------------------------------------------------------


def rows_of(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]


def test_the_audit_finds_every_video_and_nothing_wrong(way: Way) -> None:
    counts = {"ucf-crime": (800, 810, 150, 140), "shanghaitech": (175, 63, 155, 44)}[way.name]
    kinds = ("train, normal", "train, abnormal", "test, normal", "test, abnormal")
    for step, columns in {"audit": 3, "audit again": 4}.items():
        printed = way.printed[step]
        assert rows_of(printed) == [[kind, *[str(count)] * columns] for kind, count in zip(kinds, counts, strict=True)]
        assert f"{sum(lengths(way.dataset).values()):,} frames" in printed
        assert "nothing is wrong" in printed
        overlong = [line for line in printed.splitlines() if "cut off there as is known" in line]
        assert len(overlong) == (5 if way.name == "ucf-crime" else 0)


def test_every_video_has_features_of_its_length(way: Way) -> None:
    assert way.printed["extract"] == f"{len(way.dataset.videos)} extracted, 0 were there, 0 set aside\n"
    store = FeatureStore(way.folder / "features", TINY.name)
    found = store.read_all([video.name for video in way.dataset.videos])
    assert [each.sidecar.frames for each in found] == list(lengths(way.dataset).values())
    assert [each.shape for each in found] == [(-(-each.sidecar.frames // 16), TINY.feature_dim) for each in found]


@pytest.mark.parametrize("protocol", ["exact", "xel"])
def test_each_protocol_counts_the_frames_that_it_names(way: Way, protocol: str) -> None:
    frames = [lengths(way.dataset)[video.name] for video in way.dataset.of("test")]
    counted = sum(frames) if protocol == "exact" else sum(count // 16 * 16 for count in frames)
    written = way.metrics(protocol)
    assert written["protocol"] == protocol
    assert f"protocol {protocol}" in way.printed[protocol]
    assert [run["run"] for run in written["runs"]] == [Path(run).name for run in way.runs]
    for run in written["runs"]:
        assert (run["videos"], run["frames"]) == (len(frames), counted)


def test_the_auc_is_that_of_the_written_scores_and_the_lists(way: Way) -> None:
    """The truth is taken from the lists anew: an annotation of a frame too many would change it."""
    for run in way.metrics("exact")["runs"]:
        scores, truths = [], []
        for video in way.dataset.of("test"):
            scores.append(np.load(way.folder / "results" / "exact" / run["run"] / video.name / "scores.npy"))
            truth = np.zeros(len(scores[-1]), bool)
            for start, end in video.spans or ():
                truth[start:end] = True
            truths.append(truth)
        assert run["auc"] == pytest.approx(roc_auc_score(np.concatenate(truths), np.concatenate(scores)), abs=1e-12)


def test_categories_are_the_classes_or_the_scenes(way: Way) -> None:
    for run in way.metrics("xel")["runs"]:
        names = {video.category for video in way.dataset.of("test")} - {None}
        assert {category["category"] for category in run["categories"]} == names
        assert len(names) == 13


def test_the_comparison_is_of_the_same_protocol(way: Way) -> None:
    written = json.loads((way.folder / "results" / "figures" / "comparison.json").read_text())
    assert (written["protocol"], written["dataset"]) == ("xel", way.dataset.name)
    assert written["summary"] == way.metrics("xel")["summary"]
    assert written["comparisons"] == way.metrics("xel")["comparisons"]
    names = {path.name for path in (way.folder / "results" / "figures").iterdir()}
    assert {"roc.png", "roc.svg", "far_tpr.png", "far_tpr.svg", "table.md", "table.tex"} <= names
    assert len([name for name in names if name.startswith("scores_")]) == 8


def test_the_results_stand_beside_the_papers_and_say_what_is_unfair(way: Way) -> None:
    printed = way.printed["results"]
    published = {"ucf-crime": "83.47", "shanghaitech": "87.83*"}[way.name]
    method = {"ucf-crime": "SRF+XEL, C3D", "shanghaitech": "AR-Net+XEL, I3D-RGB"}[way.name]
    mean = way.metrics("xel")["summary"][1]["mean"]["auc"]
    (row,) = [row for row in rows_of(printed) if row[0] == f"{way.recipe}+xel, last"]
    assert row[1:5] == [method, "AUC %", published, f"{100 * mean:.2f}"]
    _, after = printed.split(f"{way.recipe}+xel: not a fair comparison")
    features, *quirks, settings = [line for line in after.splitlines() if line.startswith("  - ")]
    assert features == f"  - features of {TINY.name}, not {method.split(', ')[1]}"
    assert f"settings other than those of recipe {way.name}/{way.recipe}+xel: iterations 4, not " in settings
    assert len(quirks) == (1 if way.recipe == "srf" else 0), "videos, labels and protocol are the paper's"
    assert "here: protocol xel" in printed
