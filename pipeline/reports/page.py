"""The page: one HTML file, complete in itself, on which scores can be compared with what the video shows.

The page carries its data as JSON, plotly, and the previews of the videos as base64 text, so it needs no network and no
other file. Everything that depends on the reader (layout, charts, playing) is done by the scripts in ``assets``.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from ...errors import UserError
from ...files import replacing
from ..evaluation.metrics import THRESHOLD
from ..videos.config import FOLDER_FRAME_RATE
from ..videos.probe import VideoError
from ..videos.worker import Decoder
from .preview import Preview, container_start, make_preview

if TYPE_CHECKING:
    from .tables import ResultTable

THUMBNAILS = 4  # per video
SECONDS_APART = 1.0  # between the clips shown as thumbnails, so that they show different moments
DECIMALS = 4  # of scores, rates and seconds on the page

Data = dict[str, Any]  # becomes a JSON object


@dataclass(frozen=True)
class Curve:
    """One detector's scores for a video."""

    label: str  # e.g. "MIL+XEL"
    scores: NDArray[np.float32]  # (frames,), in [0, 1]
    threshold: float | None = None  # the detector's own, beside that of the page


@dataclass(frozen=True)
class ReportedVideo:
    """A video with its scores. The first curve is the one that the summary and the thumbnails speak of."""

    name: str  # relative POSIX path
    source: Path | None  # the video file or folder of frames; None if not at hand
    times: NDArray[np.float64]  # (frames,) presentation time of each frame in seconds
    curves: tuple[Curve, ...]
    spans: tuple[tuple[int, int], ...] | None  # anomalous frames, half-open; () = known to be normal; None = unknown


@dataclass(frozen=True)
class RocCurve:
    """One detector's receiver operating characteristic."""

    label: str
    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    area: float


@dataclass(frozen=True)
class ConstantSpan:
    """Consecutive frames ``[first, end)`` with the same score: usually a clip."""

    first: int
    end: int
    score: float

    @property
    def middle(self) -> int:
        """The frame that shows what the run is about."""
        return (self.first + self.end - 1) // 2


def write_page(
    path: Path,
    *,
    title: str,
    videos: Sequence[ReportedVideo],
    settings: Mapping[str, str],
    roc: Sequence[RocCurve] = (),
    tables: Sequence[ResultTable] = (),
    embed_limit_mb: float = 200.0,
) -> None:
    """Write the page; it is written under a temporary name and renamed, so `path` is never half a page.

    Args:
        path: the HTML file.
        title: heading of the page.
        videos: in the order in which the page shows them.
        settings: what was run, as names and values.
        roc: curves for one common figure.
        tables: of metrics, each with its notes; the first stands above the curves.
        embed_limit_mb: megabytes of the page that the videos may take up. A video that no longer fits is played from
            its original file, which only works where the browser can reach and decode that file.

    Raises:
        UserError: the page cannot be written. A video that cannot be read is no error: its section says why.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The films come last on the page but are made before its data is complete, hence a file of their own.
        with tempfile.TemporaryFile(dir=path.parent) as films, Decoder() as decoder:
            embedding = _Embedding(films, embed_limit_mb, path.parent, decoder)
            data = {
                "title": title,
                "settings": list(settings.items()),
                "roc": [_roc_data(curve) for curve in roc],
                "tables": [asdict(table) for table in tables],
                "threshold": THRESHOLD,
                "top": max((float(curve.scores.max()) for video in videos for curve in video.curves), default=1.0),
                "videos": [_video_data(video, embedding) for video in videos],
            }
            films.seek(0)
            with replacing(path) as page:
                _write_parts(page, title, data, films)
    except OSError as error:
        raise UserError(f"{path}: the report cannot be written ({error.strerror or error})") from error


def _write_parts(page: IO[bytes], title: str, data: Data, films: IO[bytes]) -> None:
    parts = shared_parts(title, data)
    parts |= {"video_script": asset("report_video.js"), "script": asset("report.js")}
    before, after = asset("report.html").split("{{films}}")
    page.write(filled(before, parts))
    shutil.copyfileobj(films, page)
    page.write(filled(after, parts))


def shared_parts(title: str, data: Data) -> dict[str, str]:
    """What any page of this style embeds so as to need no other file, by the names that templates use."""
    return {
        "title": html.escape(title),
        "style": asset("report.css"),
        "plotly": get_plotlyjs(),
        "data": to_json(data),
        "common_script": asset("report_common.js"),
    }


def asset(name: str) -> str:
    """The text of a file in ``assets``."""
    return (resources.files(__package__) / "assets" / name).read_text("utf-8")


def filled(template: str, parts: Mapping[str, str]) -> bytes:
    """`template` with each ``{{name}}`` replaced, in one go: what looks like a name within a part stays as it is."""
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)
    return text.encode("utf-8", errors="replace")  # a file name that is not unicode must not cost the page


def to_json(data: Data) -> str:
    """JSON that is safe inside a ``<script>`` element: without a ``<``, nothing can end it or open a comment."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _roc_data(curve: RocCurve) -> Data:
    points = np.round(np.column_stack([curve.false_positive_rate, curve.true_positive_rate]), DECIMALS)
    keep = np.append(True, np.any(np.diff(points, axis=0) != 0, axis=1))  # rounding makes points coincide
    x, y = points[keep].T.tolist()
    return {"label": curve.label, "area": f"{100 * curve.area:.2f} %", "x": x, "y": y}


def _video_data(video: ReportedVideo, embedding: _Embedding) -> Data:
    times, end = timeline(video.times)
    all_runs = [score_runs(curve.scores) for curve in video.curves]
    shown = highest_runs(all_runs[0], times, end)
    best = max(all_runs[0], key=lambda run: run.score)
    player, thumbnails = embedding.add(video.source, [run.middle for run in shown])
    alarm = np.diff(times, append=end)[video.curves[0].scores >= THRESHOLD].sum()
    return {
        "name": video.name,
        "start": _rounded(times[0]),
        "end": _rounded(end),
        "label": None if video.spans is None else "anomalous" if video.spans else "normal",
        "highest": {"score": best.score, "time": _rounded(times[best.first])},
        "alarm": _rounded(alarm),
        "spans": [[_rounded(_time_at(frame, times, end)) for frame in span] for span in video.spans or ()],
        "curves": [
            {
                "label": curve.label,
                "threshold": curve.threshold,
                # The last score is repeated at the end, or the last step would have no length.
                "times": [*(_rounded(times[run.first]) for run in runs), _rounded(end)],
                "scores": [*(run.score for run in runs), runs[-1].score],
            }
            for curve, runs in zip(video.curves, all_runs, strict=True)
        ],
        "player": player,
        "thumbnails": [
            {"time": _rounded(times[run.middle]), "score": run.score, "image": _data_uri(thumbnails.get(run.middle))}
            for run in shown
        ],
    }


def timeline(times: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The times of the frames, made never to go back (damaged files do), and the time at which the last frame ends."""
    forward = np.maximum.accumulate(times)
    frame_seconds = float(np.median(np.diff(forward))) if len(forward) > 1 else 1 / FOLDER_FRAME_RATE
    return forward, float(forward[-1]) + frame_seconds


def _time_at(frame: int, times: NDArray[np.float64], end: float) -> float:
    """The time at which `frame` begins; frames behind the last one begin where that one ends."""
    return float(times[frame]) if frame < len(times) else end


def _rounded(number: float) -> float:
    return round(float(number), DECIMALS)


def score_runs(scores: NDArray[np.float32]) -> list[ConstantSpan]:
    """The runs of equal scores, in order; scores that the page could not tell apart count as equal."""
    rounded = np.round(scores.astype(np.float64), DECIMALS)
    bounds = [0, *(np.flatnonzero(np.diff(rounded)) + 1).tolist(), len(rounded)]
    return [ConstantSpan(first, end, float(rounded[first])) for first, end in pairwise(bounds)]


def highest_runs(
    runs: Sequence[ConstantSpan], times: NDArray[np.float64], end: float, count: int = THUMBNAILS
) -> list[ConstantSpan]:
    """The `count` highest runs, best first, at least `SECONDS_APART` from each other.

    Runs that lie closer are taken only where the video has no others to make up the number.
    """

    def apart(run: ConstantSpan, other: ConstantSpan) -> bool:
        earlier, later = sorted((run, other), key=lambda either: either.first)
        return bool(times[later.first] - _time_at(earlier.end, times, end) >= SECONDS_APART)

    ranked = sorted(runs, key=lambda run: -run.score)
    chosen: list[ConstantSpan] = []
    for run in ranked:
        if len(chosen) < count and all(apart(run, other) for other in chosen):
            chosen.append(run)
    close = [run for run in ranked if run not in chosen]
    return sorted(chosen + close[: count - len(chosen)], key=lambda run: -run.score)


class _Embedding:
    """Puts films into the page, one after the other, as long as they fit."""

    def __init__(self, films: IO[bytes], limit_mb: float, folder: Path, decoder: Decoder) -> None:
        self._films = films
        self._decoder = decoder
        self._limit_mb = limit_mb
        self._bytes_left = max(0, int(limit_mb * 1e6))
        self._folder = folder  # of the page: links to originals are relative to it
        self._count = 0

    def add(self, source: Path | None, thumbnail_frames: Sequence[int]) -> tuple[Data, dict[int, bytes]]:
        """How the page plays `source` (or why it does not), and its thumbnails."""
        if source is None:
            return {"note": "The video itself was not at hand when this report was written."}, {}
        try:
            # Base64 writes 3 bytes as 4 characters.
            preview = make_preview(source, thumbnail_frames, self._decoder, byte_limit=self._bytes_left * 3 // 4)
        except (VideoError, OSError) as error:
            return {"note": f"The video cannot be shown. {error}"}, {}
        return self._player(source, preview), preview.thumbnails

    def _player(self, source: Path, preview: Preview) -> Data:
        player: Data = {"width": preview.width, "height": preview.height, "offset": _rounded(preview.start)}
        if preview.mp4 is not None:
            return player | {"film": self._embed(preview.mp4)}
        reason = f"Not embedded: the videos of this page would exceed embed_limit_mb = {self._limit_mb:g}."
        if source.is_dir():
            return player | {"note": f"{reason} A browser cannot play the folder of frames itself: {source}"}
        offset = _rounded(preview.start - container_start(source))  # the film begins at 0, the original may not
        return player | {"note": reason, "original": relative_url(source, self._folder), "offset": offset}

    def _embed(self, mp4: bytes) -> str:
        identifier = f"film-{self._count}"
        encoded = base64.b64encode(mp4)
        self._films.write(b'<script type="text/plain" id="%s">%s</script>\n' % (identifier.encode(), encoded))
        self._bytes_left -= len(encoded)
        self._count += 1
        return identifier


def relative_url(file: Path, folder: Path) -> str:
    """The URL of `file` as seen from a page in `folder`."""
    relative = Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
    return "./" + quote(os.fsencode(relative))  # "./" keeps a name such as "a:b.mp4" from being taken for a scheme


def _data_uri(jpeg: bytes | None) -> str | None:
    return None if jpeg is None else "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
