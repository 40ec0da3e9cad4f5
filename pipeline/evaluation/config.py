"""Options of evaluating a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import UserError
from ..scoring.config import FAR_TARGET, PROTOCOL_NAMES, EventConfig, ProtocolName


@dataclass(frozen=True)
class EvaluationConfig:
    """How a run is evaluated.

    Attributes:
        protocol: which frames count, and which score each takes. "exact": every decoded frame. "xel": complete clips
            only, as the papers on XEL and SRF do. "mil": 32 segments a video, as Sultani et al. do.
        far_target: besides 0.5, rates and events are given at the threshold that lets at most this share of the frames
            of normal validation videos through, in (0, 1).
        events: how frame scores become events.
    """

    protocol: ProtocolName = "exact"
    far_target: float = FAR_TARGET
    events: EventConfig = field(default_factory=EventConfig)

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOL_NAMES:
            raise UserError(f"there is no protocol {self.protocol!r}; known: {', '.join(PROTOCOL_NAMES)}")
        if not 0 < self.far_target < 1:
            raise UserError(f"far_target is a share of the frames, in (0, 1), not {self.far_target}")
