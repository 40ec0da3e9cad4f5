"""Protocols: which frames of a test video count, and which score each of them takes. Results name theirs.

They differ by a few frames at the end of every video and, under "mil", by what is scored. Figures of different
protocols do not belong into one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ..features.scaling import Scaling
from ..features.store import Features
from ..videos.clips import Clipping, Segments
from .config import ProtocolName
from .inference import frame_scores, score_segments

if TYPE_CHECKING:
    from ...models import Detector


@dataclass(frozen=True)
class FrameProtocol:
    """How scores and ground truth are brought together.

    Attributes:
        name: by which results name it.
        description: in words.
        segments: average the clips of a video into so many segments and score these; None scores clips as they are.
        complete_clips: leave out the frames behind the last complete clip, in scores and ground truth alike.
    """

    name: ProtocolName
    description: str
    segments: int | None = None
    complete_clips: bool = False

    def score(self, name: str, detector: Detector, features: Features, scaling: Scaling) -> NDArray[np.float32]:
        """One score in [0, 1] for every decoded frame of the video ``name``, ``(frames,)``, also for those left out.

        Raises:
            UserError: features of imported segments that cannot be brought into this protocol, or not finite.
        """
        sidecar = features.sidecar
        if self.segments is None:
            return frame_scores(detector, features, scaling)
        cut = Segments(self.segments)
        if isinstance(sidecar.clipping, Segments) and sidecar.clipping != cut:
            raise UserError(
                f"{name}: imported as {sidecar.clipping.segments} segments, protocol {self.name} needs {self.segments}"
            )
        return cut.spread(score_segments(detector, features, scaling, self.segments), sidecar.frames)

    def counted(self, name: str, features: Features) -> int:
        """How many of the frames of the video ``name`` count, from the first one on; 0 if it is shorter than a clip.

        Raises:
            UserError: imported segments know of no clips.
        """
        frames, clipping = features.sidecar.frames, features.sidecar.clipping
        if not self.complete_clips:
            return frames
        if not isinstance(clipping, Clipping):
            raise UserError(
                f"{name}: imported as {clipping.segments} segments, which have no clips; "
                f"protocol {self.name} counts complete clips: use --protocol mil or exact"
            )
        return frames // clipping.length * clipping.length


PROTOCOLS: dict[ProtocolName, FrameProtocol] = {
    protocol.name: protocol
    for protocol in (
        FrameProtocol("exact", "every decoded frame counts, with the score of its clip"),
        FrameProtocol(
            "xel",
            "complete clips only: scores and ground truth end with the last one (Yu et al., IEEE SPL 2021)",
            complete_clips=True,
        ),
        FrameProtocol(
            "mil",
            "32 segments a video, each of a 32nd of its frames, the last one of the remainder too "
            "(Sultani et al., CVPR 2018)",
            segments=32,
        ),
    )
}
