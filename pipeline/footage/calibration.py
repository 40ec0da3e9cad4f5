"""Clips of the drawn street by which networks are put into 8 bits: the same everywhere, of nobody's footage."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ...extractors.precision import Calibration

CLIPS = 27
LENGTH, LEAD = 16, 16  # frames of a clip, and of the film before it


def drawn_clips() -> Iterator[NDArray[np.uint8]]:
    """Clips ``(16, 240, 320, 3)`` of as many streets, with and without incidents."""
    from .recording import ANOMALIES, film  # draws, which takes Pillow: only where a network is quantised

    kinds = (None, *ANOMALIES)
    for seed in range(CLIPS):
        shown = film(frames=LEAD + LENGTH, anomaly=kinds[seed % len(kinds)], seed=seed)
        yield np.stack(list(islice(shown.pictures, LEAD, LEAD + LENGTH)))


DRAWN_FOOTAGE = Calibration("drawn footage", drawn_clips)
