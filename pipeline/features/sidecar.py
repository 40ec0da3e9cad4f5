"""The sidecar of a feature file: what it was made of and with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ..videos.clips import Clipping, Segments, clipping_from

FORMAT = 1
TIME_TOLERANCE = 0.005  # seconds: decoders report times in single precision


@dataclass(frozen=True)
class Timeline:
    """Presentation time of every frame: evenly spaced where it is, a list where it is not."""

    start: float  # seconds
    rate: float  # frames per second
    seconds: tuple[float, ...] | None = None  # of each frame, where they are not evenly spaced

    @classmethod
    def of(cls, times: Sequence[float] | NDArray[np.float64], rate: float) -> Timeline:
        """The shortest description of ``times``, given the container's frame rate (used for a single frame)."""
        times = np.asarray(times, np.float64)
        start = round(float(times[0]), 6)
        if len(times) > 1:
            rate = (len(times) - 1) / max(float(times[-1] - times[0]), 1e-9)
        even = np.abs(times - (start + np.arange(len(times)) / rate)).max() <= TIME_TOLERANCE
        return cls(start, round(rate, 6), None if even else tuple(np.round(times, 4).tolist()))

    def times(self, frames: int) -> NDArray[np.float64]:
        """Seconds, ``(frames,)``."""
        if self.seconds is not None:
            return np.asarray(self.seconds, np.float64)
        return self.start + np.arange(frames) / self.rate


@dataclass(frozen=True)
class Sidecar:
    """What a feature file was made of and with."""

    video: str
    video_bytes: int
    video_modified: int  # nanoseconds since 1970: what was changed since is compared by its digest
    video_sha256: str
    frames: int  # decoded, each of which gets a score
    declared_frames: int  # what the container promised; 0 where it does not say
    salvaged_frames: int
    timeline: Timeline
    clipping: Clipping | Segments
    extractor: str
    fingerprint: str
    feature_dim: int
    decoder: str
    version: str
    crops: int | None = None  # crops per clip; None: the array has no axis for them
    runtime: str = ""  # what computed them
    reuse_static: float = 0.0  # grey levels by which still clips may differ from the one whose features they have
    reused: tuple[int, ...] = ()  # numbers of these clips
    format: int = FORMAT

    @classmethod
    def read(cls, path: Path) -> Sidecar:
        """Read a sidecar.

        Raises:
            UserError: damaged, or of another version of the format.
        """
        try:
            fields = json.loads(path.read_text())
            if fields.get("format") != FORMAT:
                raise UserError(f"{path}: a feature file of format {fields.get('format')}, this version reads {FORMAT}")
            seconds = fields["timeline"]["seconds"]
            fields["timeline"]["seconds"] = tuple(seconds) if seconds is not None else None
            fields["timeline"] = Timeline(**fields["timeline"])
            fields["clipping"] = clipping_from(fields["clipping"])
            fields["reused"] = tuple(fields.get("reused", ()))
            return cls(**fields)
        except FileNotFoundError as error:
            raise UserError(f"{path}: missing; extract the video again") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: a damaged sidecar ({error}); delete it and extract the video again") from error


def check_fingerprint(where: Path, found: str, wanted: str | None) -> None:
    """Refuse features of another extractor or of other weights.

    Raises:
        UserError: the fingerprints differ; names both.
    """
    if wanted is not None and found != wanted:
        raise UserError(f"{where}: made by «{found}», not by «{wanted}»; use another --features folder")
