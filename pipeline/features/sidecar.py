"""The sidecar of a feature file: what it was made of and with.

Format 2 is format 1 and the digest of the features. A reader takes a key that it does not know for damage, and says to
delete the file and extract again: so the number rose with the key, and versions that know 1 alone say that. Files of
format 1 are read as ever, and become 2 once their sidecar is written again; no features have to be made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...schema import Count, Name, PlainName, Range, above_zero, parse, read_json, shown
from ..datasets import MAX_FRAMES
from ..videos.clips import Clipping, Segments

FORMAT, READ = 2, (1, 2)  # what is written, and what is read
TIME_TOLERANCE = 0.005  # seconds: decoders report times in single precision
SLOWEST = 1e-6  # frames per second, and no less where frames lie years apart
MAX_CROPS = 1 << 10
MAX_DIM = 1 << 20  # numbers of a clip
DAMAGED, ADVICE = "a damaged sidecar", "delete it and extract the video again"


@dataclass(frozen=True)
class Timeline:
    """Presentation time of every frame: evenly spaced where it is, a list where it is not."""

    start: float  # seconds
    rate: Annotated[float, above_zero]  # frames per second
    seconds: tuple[float, ...] | None = None  # of each frame, where they are not evenly spaced

    @classmethod
    def of(cls, times: Sequence[float] | NDArray[np.float64], rate: float) -> Timeline:
        """The shortest description of ``times``, given the container's frame rate (used for a single frame)."""
        times = np.asarray(times, np.float64)
        start = round(float(times[0]), 6)
        if len(times) > 1:
            rate = (len(times) - 1) / max(float(times[-1] - times[0]), 1e-9)
        even = np.abs(times - (start + np.arange(len(times)) / rate)).max() <= TIME_TOLERANCE
        return cls(start, max(round(rate, 6), SLOWEST), None if even else tuple(np.round(times, 4).tolist()))

    def times(self, frames: int) -> NDArray[np.float64]:
        """Seconds, ``(frames,)``."""
        if self.seconds is not None:
            return np.asarray(self.seconds, np.float64)
        return self.start + np.arange(frames) / self.rate


@dataclass(frozen=True)
class Sidecar:
    """What a feature file was made of and with."""

    video: Name
    video_bytes: Count
    video_modified: int  # nanoseconds since 1970: what was changed since is compared by its digest
    video_sha256: str
    frames: Annotated[int, Range(0, MAX_FRAMES)]  # decoded, each of which gets a score
    declared_frames: Count  # what the container promised; 0 where it does not say
    salvaged_frames: Count
    timeline: Timeline
    clipping: Clipping | Segments
    extractor: PlainName
    fingerprint: str
    feature_dim: Annotated[int, Range(1, MAX_DIM)]
    decoder: str
    version: str
    crops: Annotated[int, Range(1, MAX_CROPS)] | None = None  # per clip; None: the array has no axis for them
    runtime: str = ""  # what computed them
    reuse_static: Annotated[float, Range(0, 255)] = 0.0  # grey levels by which a still clip may differ from its source
    reused: tuple[Count, ...] = ()  # numbers of the clips that have the features of the one before
    notes: tuple[str, ...] = ()  # what the decoder met: frames that are hidden, made up, or missing
    # Of the array's numbers as they lie on disk, little-endian, in C order; not of the header of the .npy file, which
    # is written once more when all are known: what `hashlib.sha256(np.load(path).tobytes())` gives. None in format 1.
    features_sha256: str | None = None
    format: int = FORMAT

    @classmethod
    def read(cls, path: Path) -> Sidecar:
        """Read a sidecar, which may be anybody's: nothing of it is believed that does not fit the rest.

        Raises:
            UserError: missing, damaged, or of another version of the format; names the file and the key.
        """
        fields = read_json(path, ADVICE, "extract the video again", DAMAGED)
        if isinstance(fields, dict) and fields.get("format") not in READ:
            known = " and ".join(map(str, READ))
            raise UserError(
                f"{path}: a feature file of format {shown(fields.get('format'))}, this version reads {known}"
            )
        sidecar = parse(cls, fields, path, ADVICE, DAMAGED)
        wrong = sidecar._contradiction()
        if wrong:
            raise UserError(f"{path}: {DAMAGED} ({wrong}); {ADVICE}")
        return sidecar

    def text(self) -> str:
        """The file's content, of the present format."""
        return json.dumps(asdict(replace(self, format=FORMAT)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that it stands beside: ``(clips, feature_dim)`` or ``(clips, crops, feature_dim)``."""
        rows = (self.feature_dim,) if self.crops is None else (self.crops, self.feature_dim)
        return self.clipping.count(self.frames), *rows

    @property
    def is_imported(self) -> bool:
        """Whether others made the features: ``video_bytes`` and so on are then of their file, not of the video."""
        return self.fingerprint == imported_fingerprint(self.extractor)

    def _contradiction(self) -> str:
        """What about this cannot be, though every key alone could; empty where there is nothing."""
        times = self.timeline.seconds
        if times is not None and len(times) != self.frames:
            return f"timeline.seconds: {len(times)} times of {self.frames} frames"
        if self.salvaged_frames > self.frames:
            return f"salvaged_frames: {self.salvaged_frames} of {self.frames} frames"
        longest = self.clipping.length if isinstance(self.clipping, Clipping) else self.clipping.segments
        if longest > MAX_FRAMES:
            return f"clipping: {longest} is more than the {MAX_FRAMES} frames that a video may have"
        clips = self.clipping.count(self.frames)
        if any(clip >= clips for clip in self.reused) or any(later <= clip for clip, later in pairwise(self.reused)):
            return f"reused: not numbers of {clips} clips, in order"
        return ""


def imported_fingerprint(extractor: str) -> str:
    """The fingerprint of features that others made, filed under the name of an extractor."""
    return f"imported {extractor}"


def check_fingerprint(where: Path, found: str, wanted: str | None) -> None:
    """Refuse features of another extractor or of other weights.

    Raises:
        UserError: the fingerprints differ; names both.
    """
    if wanted is not None and found != wanted:
        raise UserError(f"{where}: made by «{found}», not by «{wanted}»; use another --features folder")
