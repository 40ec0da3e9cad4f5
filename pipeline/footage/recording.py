"""Films what happens in the street, records it as a camera would, and collects the videos to a data set.

The same arguments give the same pixels: every random choice comes from `numpy.random.default_rng(seed)`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import av
import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from ...files import replacing, write_text
from .events import Children
from .scene import Camera, Canvas, Picture, draw_backdrop
from .street import Collision, FlashAndSmoke, Incident, Light, Running, Street

Spans = tuple[tuple[int, int], ...]

INCIDENTS: dict[str, type[Incident]] = {"running": Running, "collision": Collision, "flash_and_smoke": FlashAndSmoke}
HARD_NORMAL: dict[str, type[Children]] = {"children": Children}
ANOMALIES: tuple[str, ...] = tuple(INCIDENTS)
EVENTS: tuple[str, ...] = tuple(HARD_NORMAL)
RARITY = 10  # of so many normal, and of so many abnormal videos one has an event
CAMERAS = 4  # a small installation: few places, seen in many videos
MINIMUM_FRAMES = 16  # a clip: less leaves no room for an incident
MINIMUM_VIDEOS = 6  # less leaves the test fold without normal or without abnormal videos
# One thread and no shortcuts that depend on the processor: else x264's bytes differ between machines, and with AVX-512
# even from run to run.
ENCODING = {"crf": "20", "preset": "veryfast", "x264-params": "cpu-independent=1"}
HEADER = ("video", "fold", "label", "frames", "anomalous_frames_half_open")


class Sensor:
    """Turns what the lens sees into what the recorder stores: drifting light, flickering exposure, noise, a clock.

    Args:
        camera: gives the size of the picture.
        fps: frames per second.
        name: what the recorder calls the camera.
        rng: decides on tint, drift, noise and the time of day.
    """

    NOISE_MARGIN = 48  # pixels by which the noise is larger than a picture: every frame shows another part of it

    def __init__(self, camera: Camera, fps: int, name: str, rng: Generator):
        row, column = np.mgrid[-1 : 1 : camera.height * 1j, -1 : 1 : camera.width * 1j]
        vignette = 1 - 0.11 * (row**2 + column**2)
        self._gain = (vignette[..., None] * rng.uniform(0.95, 1.05, 3) * rng.uniform(0.85, 1.05)).astype(np.float32)
        size = (camera.height + self.NOISE_MARGIN, camera.width + self.NOISE_MARGIN)
        self._noise = (rng.normal(0, 2.6, (*size, 1)) + rng.normal(0, 1.2, (*size, 3))).astype(np.float32)
        self._fps, self._rng = fps, rng
        # How far the light drifts (as a share), in how many seconds, and where in this wave the video begins (radians).
        self._drift, self._period, self._phase = rng.uniform((0.02, 4, 0), (0.05, 9, 2 * np.pi))
        self._label = f"{name}  2024-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}"
        self._start = int(rng.integers(6 * 3600, 19 * 3600))  # seconds after midnight
        self._stamp: Image.Image | None = None

    def expose(self, light: Light, frame: int) -> Picture:
        """Return the stored picture `(height, width, 3)` of a frame, given by its number and the light it gets."""
        wave = math.sin(2 * math.pi * frame / self._fps / self._period + self._phase)
        exposure = np.float32(1 + self._drift * wave + self._rng.normal(0, 0.006))
        top, left = self._rng.integers(0, self.NOISE_MARGIN, 2)
        height, width = light.shape[:2]
        stored = light * (self._gain * exposure) + self._noise[top : top + height, left : left + width]
        picture = Image.fromarray(np.clip(stored, 0, 255).astype(np.uint8))
        if frame % self._fps == 0 or self._stamp is None:
            self._stamp = self._write(self._start + frame // self._fps)
        picture.paste(self._stamp, (6, 4), self._stamp)
        return np.asarray(picture)

    def _write(self, clock: int) -> Image.Image:
        """Return the line that tells camera, date and time; `clock` is in seconds after midnight."""
        text = f"{self._label} {clock // 3600:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}"
        stamp = Image.new("RGBA", (200, 16))
        draw, font = ImageDraw.Draw(stamp), ImageFont.load_default()
        for offset, colour in ((1, (20, 20, 20)), (0, (235, 235, 228))):  # a dark rim keeps it readable
            draw.text((offset, offset), text, fill=colour, font=font)
        return stamp


@dataclass(frozen=True)
class Film:
    """A video in the making.

    Attributes:
        spans: where the anomaly can be seen, half-open, counted from frame 0; empty in a normal video.
        pictures: the frames in order, uint8 RGB `(height, width, 3)`, each drawn when it is asked for.
    """

    spans: Spans
    pictures: Iterator[Picture]


def film(
    *,
    frames: int,
    anomaly: str | None,
    seed: int,
    event: str | None = None,
    width: int = 320,
    height: int = 240,
    fps: int = 25,
) -> Film:
    """Film the street of a seed. Up to its first anomalous frame an abnormal video equals the normal one of its seed.

    Args:
        frames: number of frames, at least 16.
        anomaly: one of `ANOMALIES`, or None for a normal video.
        event: one of `EVENTS`, something hard to tell from an anomaly though it is normal, or None. It begins at the
            beginning or right behind the anomaly, where more time is left; in a normal video in the same place.
        seed: decides on everything else.
        width: pixels, even.
        height: pixels, even.
        fps: frames per second.

    Raises:
        ValueError: the anomaly or the event is unknown, there are too few frames, or a side is odd.
    """
    for kind, name, known in (("anomaly", anomaly, ANOMALIES), ("event", event, EVENTS)):
        if name is not None and name not in known:
            raise ValueError(f"unknown {kind} {name!r}: choose from {', '.join(known)}")
    if frames < MINIMUM_FRAMES:
        raise ValueError(f"a video needs at least {MINIMUM_FRAMES} frames, not {frames}")
    if width % 2 or height % 2:
        raise ValueError(f"width and height must be even for H.264, not {width}x{height}")
    site, life, noise, chance, luck = np.random.default_rng(seed).spawn(5)  # so that none disturbs what another decides
    number = int(site.integers(1, CAMERAS + 1))
    view = np.random.default_rng(number)
    camera = Camera(
        width,
        height,
        focal=width * view.uniform(0.95, 1.05),
        elevation=view.uniform(4.6, 5.6),
        pitch=math.radians(view.uniform(21, 25)),
        turn=math.radians(view.uniform(-8, 8)),
    )
    sensor = Sensor(camera, fps, f"CAM {number:02d}", noise)
    stage = _Stage(draw_backdrop(camera, view), Street(camera, life), sensor)
    span = _random_span(frames, fps, chance)
    script = _Script(
        span,
        None if anomaly is None else lambda street: INCIDENTS[anomaly](street, chance),
        span[1] if frames - span[1] > span[0] else 0,
        None if event is None else lambda street: HARD_NORMAL[event](street, luck),
    )
    return Film(() if anomaly is None else (span,), stage.play(frames, fps, script))


def _random_span(frames: int, fps: int, rng: Generator) -> tuple[int, int]:
    """Choose when the incident happens: two to three and a half seconds, of a short video a quarter to half of it."""
    length = int(np.clip(rng.uniform(2.2, 3.5) * fps, frames / 4, frames / 2))
    start = int(rng.integers(frames // 8, frames - length - frames // 16))
    return start, start + length


@dataclass(frozen=True)
class _Script:
    """What happens beside everyday life: an incident in a half-open span of frames, an event from a frame on, if any.

    `incident` and `event` make them begin on the street.
    """

    span: tuple[int, int]
    incident: Callable[[Street], Incident] | None
    start: int
    event: Callable[[Street], Children] | None


@dataclass(frozen=True)
class _Stage:
    """All that is needed to film one video."""

    backdrop: Image.Image
    street: Street
    sensor: Sensor

    def play(self, frames: int, fps: int, script: _Script) -> Iterator[Picture]:
        """Yield the frames of what the script says."""
        incident: Incident | None = None
        event: Children | None = None
        start, stop = script.span
        for frame in range(frames):
            progress, seconds = (frame - start) / (stop - start), (frame - start) / fps
            since = (frame - script.start) / fps  # the beginning of the event
            if script.event is not None and since >= 0:
                event = event or script.event(self.street)
                event.step(since)
            if script.incident is not None and start <= frame < stop:
                incident = incident or script.incident(self.street)
                incident.step(progress)
            else:
                incident = None
            self.street.step(1 / fps)
            canvas = Canvas(self.street.camera, self.backdrop)
            self.street.draw(canvas, incident.cars if incident else ())
            light = canvas.picture().astype(np.float32)
            if incident:
                incident.cover(light, progress, seconds)
            yield self.sensor.expose(light, frame)


def draw_video(
    path: Path,
    *,
    frames: int,
    anomaly: str | None,
    seed: int,
    event: str | None = None,
    width: int = 320,
    height: int = 240,
    fps: int = 25,
) -> Spans:
    """Draw a video into an MP4 file (H.264), which is whole or absent. The arguments are those of `film`.

    Returns:
        The spans in which the anomaly can be seen, half-open, counted from frame 0; none in a normal video.

    Raises:
        ValueError: as `film` does.
    """
    made = film(frames=frames, anomaly=anomaly, seed=seed, event=event, width=width, height=height, fps=fps)
    with replacing(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=ENCODING)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1
        for picture in made.pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return made.spans


@dataclass(frozen=True)
class _Shot:
    """One video of a data set that is to be drawn."""

    fold: str
    anomaly: str | None
    event: str | None
    number: int  # within its fold

    @property
    def video(self) -> str:
        """Path of the video in the data set."""
        what = "_".join(filter(None, (self.anomaly or "normal", self.event)))
        return f"videos/{self.fold}_{what}_{self.number:02d}.mp4"


def draw_dataset(folder: Path, *, videos: int = 24, frames: int = 192, seed: int = 0) -> Path:
    """Draw a small data set: two thirds to train, one third to test; half of either normal, half abnormal.

    In one of ten videos of either kind there is an event that is normal, and hard to tell from an anomaly.

    Args:
        folder: gets `videos/*.mp4` and `annotations.csv`, which is written last.
        videos: number of videos, at least 6.
        frames: number of frames of each, at least 16.
        seed: the same seed makes the same videos.

    Returns:
        Path of `annotations.csv`: video, fold (train or test), label (1 abnormal), number of frames, anomalous frames.

    Raises:
        ValueError: there are too few videos or frames.
    """
    if videos < MINIMUM_VIDEOS:
        raise ValueError(f"a data set needs at least {MINIMUM_VIDEOS} videos, not {videos}")
    shots = _plan(videos)
    seeds = np.random.SeedSequence(seed).generate_state(videos).tolist()

    def draw(shot: _Shot, seed: int) -> Spans:
        return draw_video(folder / shot.video, frames=frames, anomaly=shot.anomaly, seed=seed, event=shot.event)

    with ThreadPoolExecutor(max_workers=2) as threads:  # one video is encoded while another is drawn
        spans = list(threads.map(draw, shots, seeds))
    annotations = folder / "annotations.csv"
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEADER)
    for shot, anomalous in zip(shots, spans, strict=True):
        ranges = " ".join(f"{start}-{stop}" for start, stop in anomalous)
        table.writerow((shot.video, shot.fold, int(shot.anomaly is not None), frames, ranges))
    write_text(annotations, text.getvalue())
    return annotations


def _plan(videos: int) -> list[_Shot]:
    """Share out the videos: every second is abnormal, few of either kind have an event, and all kinds take turns."""
    anomalies, events = cycle(ANOMALIES), cycle(EVENTS)
    sizes = (("train", videos - videos // 3), ("test", videos // 3))
    return [
        _Shot(
            fold,
            next(anomalies) if number % 2 else None,
            next(events) if number // 2 % RARITY == 1 else None,
            number,
        )
        for fold, size in sizes
        for number in range(size)
    ]
