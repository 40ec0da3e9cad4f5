import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import av
import numpy as np
import pytest
from PIL import Image

from xelvad.errors import UserError
from xelvad.pipeline.reports import page
from xelvad.pipeline.reports.page import Curve, ReportedVideo, RocCurve, write_page
from xelvad.pipeline.reports.tables import ResultTable

NASTY = "Tür \"Nord\" & 'Süd'/<b>x</b></script><script>alert(1)</script><!-- 監視 {{films}} {{title}}.mp4"
CLIP = 16


class Page(HTMLParser):
    """The page as a browser takes it apart: scripts by id or position, and everything that could load a file."""

    def __init__(self, path):
        super().__init__()
        self.scripts, self.text, self.loads = {}, "", []
        self._script = None
        self.feed(path.read_text("utf-8"))
        self.data = json.loads(self.scripts["report-data"])
        self.videos = self.data["videos"]

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "script":
            self._script = attributes.get("id", f"script {len(self.scripts)}")
            self.scripts[self._script] = ""
        self.loads += [value for name, value in attributes.items() if name in ("src", "href") and value[0] != "#"]

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None

    def handle_data(self, data):
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] += data


def write_folder(path, count, size=(64, 48)):
    """Frame `i` is grey of brightness `2 i`."""
    path.mkdir()
    for index in range(count):
        Image.new("L", size, 2 * index).save(path / f"{index}.png")
    return path


def write_film(path, count):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(count):
            noise = np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def clip_scores(*scores, frames=None):
    return np.repeat(np.array(scores, np.float32), CLIP)[:frames]


def reported(name="a.mp4", source=None, scores=None, spans=None, times=None):
    scores = clip_scores(0.1, 0.9, 0.2) if scores is None else scores
    times = np.arange(len(scores)) / 25 if times is None else times
    return ReportedVideo(name, source, times, (Curve("MIL+XEL", scores),), spans)


def page_of(tmp_path, *videos, **options):
    path = tmp_path / "report.html"
    write_page(path, **({"title": "Report", "videos": videos, "settings": {}} | options))
    return Page(path)


def test_page_holds_what_was_given_whatever_the_names(tmp_path):
    video = reported(NASTY)
    roc = RocCurve(NASTY, np.array([0, 0.5, 1]), np.array([0, 0.9, 1]), 0.7)
    page = page_of(tmp_path, video, title=NASTY, settings={NASTY: NASTY}, roc=[roc])
    assert page.videos[0]["name"] == page.data["title"] == NASTY
    assert page.data["settings"] == [[NASTY, NASTY]]
    assert page.data["roc"] == [{"label": NASTY, "area": "70.00 %", "x": [0, 0.5, 1], "y": [0, 0.9, 1]}]
    assert NASTY in page.text
    assert "alert(1)" not in page.scripts  # it did not become an element
    assert [name for name in page.scripts if name.startswith("script")] == [
        "script 0",
        "script 2",
        "script 3",
        "script 4",
    ]


def test_page_needs_no_other_file(tmp_path):
    page = page_of(tmp_path, reported(source=write_folder(tmp_path / "frames", 48)))
    assert page.loads == ["data:,"]  # the icon
    assert "Plotly" in page.scripts["script 0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "report.html"]


def test_scores_are_one_point_per_run_up_to_the_end_of_the_last_frame(tmp_path):
    scores = clip_scores(0.1, 0.1, 0.75, 0.2, frames=60)
    curve = page_of(tmp_path, reported(scores=scores)).videos[0]["curves"][0]
    assert curve["label"] == "MIL+XEL"
    assert curve["times"] == [0, 1.28, 1.92, 2.4]
    assert curve["scores"] == [0.1, 0.75, 0.2, 0.2]


def test_all_detectors_are_shown_and_the_first_one_counts(tmp_path):
    first, second = clip_scores(0.1, 0.8, 0.1), clip_scores(0.9, 0.3, 1.0)
    video = ReportedVideo("a", None, np.arange(48) / 25, (Curve("MIL+XEL", first), Curve("MIL", second)), None)
    shown = page_of(tmp_path, video).videos[0]
    assert [curve["label"] for curve in shown["curves"]] == ["MIL+XEL", "MIL"]
    assert shown["highest"] == {"score": 0.8, "time": 0.64}
    assert shown["alarm"] == 0.64


@pytest.mark.parametrize(("score", "seconds"), [(0.49996, 0), (0.5, 0.64), (0.50004, 0.64)])
def test_a_score_that_reaches_the_threshold_is_an_alarm_as_in_the_metrics(tmp_path, score, seconds):
    assert page_of(tmp_path, reported(scores=clip_scores(0.1, score, 0.2))).videos[0]["alarm"] == seconds


@pytest.mark.parametrize(
    ("spans", "label", "seconds"),
    [
        (None, None, []),
        ((), "normal", []),
        (((10, 20), (40, 48)), "anomalous", [[0.4, 0.8], [1.6, 1.92]]),
        (((40, 90),), "anomalous", [[1.6, 1.92]]),  # annotated beyond the last frame that can be decoded
    ],
)
def test_ground_truth(tmp_path, spans, label, seconds):
    shown = page_of(tmp_path, reported(spans=spans)).videos[0]
    assert (shown["label"], shown["spans"]) == (label, seconds)


def test_time_axis_is_that_of_the_frames(tmp_path):
    times = np.array([5.0, 5.04, 5.2, 5.1, 5.3])  # varying, and once going back
    shown = page_of(tmp_path, reported(scores=np.array([0, 0, 0.6, 0.9, 0.1], np.float32), times=times)).videos[0]
    assert (shown["start"], shown["end"]) == (5, pytest.approx(5.37))
    assert shown["curves"][0]["times"] == [5, 5.2, 5.2, 5.3, pytest.approx(5.37)]
    assert shown["alarm"] == pytest.approx(0.1)
    assert page_of(tmp_path, reported(scores=np.ones(1, np.float32))).videos[0]["end"] == 0.04


def test_thumbnails_are_the_middles_of_the_highest_clips_apart_from_each_other(tmp_path):
    #                     0    1    2    3    4    5    6    7
    scores = clip_scores(0.1, 0.9, 0.8, 0.7, 0.6, 0.2, 0.3, 0.0, frames=125)
    shown = page_of(tmp_path, reported(source=write_folder(tmp_path / "frames", 125), scores=scores)).videos[0]
    # Clips 1 and 4 leave room of 1.28 s between each other; 7 is the next that keeps away; 2 makes up the number.
    assert [each["score"] for each in shown["thumbnails"]] == [0.9, 0.8, 0.6, 0.0]
    middles = [CLIP + 7, 2 * CLIP + 7, 4 * CLIP + 7, (7 * CLIP + 124) // 2]
    assert [each["time"] for each in shown["thumbnails"]] == [frame / 25 for frame in middles]
    for each, frame in zip(shown["thumbnails"], middles, strict=True):
        jpeg = base64.b64decode(each["image"].removeprefix("data:image/jpeg;base64,"))
        assert abs(np.asarray(Image.open(io.BytesIO(jpeg))).mean() - 2 * frame) < 2


def test_short_videos_have_fewer_thumbnails(tmp_path):
    shown = page_of(tmp_path, reported(scores=clip_scores(0.5, 0.5, 0.7))).videos[0]
    assert [each["score"] for each in shown["thumbnails"]] == [0.7, 0.5]
    assert all(each["image"] is None for each in shown["thumbnails"])


def test_embedded_film_plays_all_frames(tmp_path):
    page = page_of(tmp_path, reported(), reported(source=write_folder(tmp_path / "frames", 48)))
    player = page.videos[1]["player"]
    assert (player["width"], player["height"], player["offset"]) == (64, 48, 0)
    with av.open(io.BytesIO(base64.b64decode(page.scripts[player["film"]]))) as container:
        assert len(list(container.decode(video=0))) == 48


def test_films_beyond_the_limit_are_linked(tmp_path):
    films = [write_film(tmp_path / name, 48) for name in ("one.mp4", "a:b #2?100%.mp4", "three.mp4")]
    videos = [reported(film.name, film) for film in films]
    whole = page_of(tmp_path, *videos)
    sizes = [len(whole.scripts[f"film-{index}"]) for index in range(3)]
    limit = (sizes[0] + sizes[1] / 2) / 1e6
    (tmp_path / "out").mkdir()
    page = page_of(tmp_path / "out", *videos, embed_limit_mb=limit)
    first, second, third = (video["player"] for video in page.videos)
    assert first["film"] == "film-0"
    assert "note" not in first
    for player, film in zip((second, third), films[1:], strict=True):
        assert "film" not in player
        assert "embed_limit_mb" in player["note"]
        assert unquote(player["original"]) == f"./../{film.name}"
        assert not set(player["original"]) & set("#? ")
    assert sum(len(text) for name, text in page.scripts.items() if name.startswith("film-")) <= limit * 1e6
    assert all(each["image"] for video in page.videos for each in video["thumbnails"])


def test_limit_counts_the_bytes_of_the_page(tmp_path):
    video = reported(source=write_film(tmp_path / "film.mp4", 48))
    encoded = len(page_of(tmp_path, video).scripts["film-0"])
    assert "film" in page_of(tmp_path, video, embed_limit_mb=(encoded + 4) / 1e6).videos[0]["player"]
    assert "film" not in page_of(tmp_path, video, embed_limit_mb=(encoded - 8) / 1e6).videos[0]["player"]


def test_folder_beyond_the_limit_says_so(tmp_path):
    folder = write_folder(tmp_path / "frames", 48)
    player = page_of(tmp_path, reported(source=folder), embed_limit_mb=0).videos[0]["player"]
    assert "original" not in player
    assert "embed_limit_mb" in player["note"]
    assert str(folder) in player["note"]


def test_missing_and_broken_videos_cost_only_their_own_film(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a film")
    folder = write_folder(tmp_path / "frames", 48)
    sources = [None, tmp_path / "gone.mp4", broken, folder]
    page = page_of(tmp_path, *(reported(source=source) for source in sources))
    notes = [video["player"].get("note") for video in page.videos]
    assert "not at hand" in notes[0]
    assert "gone.mp4" in notes[1]
    assert "broken.mp4" in notes[2]
    assert notes[3] is None
    assert all(video["curves"][0]["scores"] for video in page.videos)


def test_an_interrupted_report_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("the old one")

    def fail(*_):
        assert path.read_text() == "the old one"
        raise KeyboardInterrupt

    monkeypatch.setattr(page.shutil, "copyfileobj", fail)
    with pytest.raises(KeyboardInterrupt):
        write_page(path, title="New", videos=[reported()], settings={})
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("report.html", "the old one")]


def test_folders_are_made_and_failures_named(tmp_path):
    path = tmp_path / "new" / "folder" / "report.html"
    write_page(path, title="T", videos=[], settings={})
    assert Page(path).videos == []
    below_a_file: Path = path / "report.html"
    with pytest.raises(UserError, match="the report cannot be written"):
        write_page(below_a_file, title="T", videos=[], settings={})


def test_names_that_are_not_unicode(tmp_path):
    name = b"camera-\xff.mp4".decode("utf-8", "surrogateescape")
    assert page_of(tmp_path, reported(name), title=name).videos[0]["name"] == name
    assert page.relative_url(tmp_path / name, tmp_path) == "./camera-%FF.mp4"


def test_tables_own_thresholds_and_the_reach_of_the_charts(tmp_path):
    table = ResultTable("Thresholds & <b>", ("run", "FAR"), ((NASTY, "1.00"),), ("a note",))
    curves = (Curve("MIL+XEL", clip_scores(0.01, 0.02, 0.01), 0.015), Curve("MIL", clip_scores(0.0, 0.04, 0.0)))
    data = page_of(tmp_path, ReportedVideo("a", None, np.arange(48) / 25, curves, None), tables=[table]).data
    assert data["tables"] == [
        {"title": table.title, "columns": ["run", "FAR"], "rows": [[NASTY, "1.00"]], "notes": ["a note"]}
    ]
    assert [curve["threshold"] for curve in data["videos"][0]["curves"]] == [0.015, None]
    assert data["top"] == pytest.approx(0.04)
    assert page_of(tmp_path).data["top"] == 1
