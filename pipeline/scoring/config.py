"""Options of how clip scores become frame scores and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ...errors import UserError

ProtocolName = Literal["exact", "xel", "mil"]
FAR_TARGET = 0.01  # share of the frames of normal videos that may be false alarms
PROTOCOL_NAMES: tuple[ProtocolName, ...] = get_args(ProtocolName)


@dataclass(frozen=True)
class EventConfig:
    """How frame scores become events.

    Attributes:
        release: an event begins where a score reaches the threshold, and reaches as far before and behind as scores
            stay at this share of the threshold, in (0, 1]. Below 1 it does not fall apart at a short dip.
        gap: events with at most so many frames between them are one.
    """

    release: float = 1.0
    gap: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.release <= 1:
            raise UserError(f"events.release is a share of the threshold, in (0, 1], not {self.release}")
        if self.gap < 0:
            raise UserError(f"events.gap is a number of frames, 0 or more, not {self.gap}")
