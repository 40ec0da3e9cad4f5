"""Stillness: most surveillance video shows a scene in which nothing moves, and the same clip has the same features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 16  # pixels of both sides of a block; its mean has a sixteenth of a pixel's noise


class Stillness:
    """Tells which clips of a video show what the last clip that was not still showed, frame by frame.

    A clip is still if the mean of no block of any frame lies further than the tolerance from that of the same block in
    the same frame of the reference, the last clip that was not still. Slow change adds up, since the reference stays.

    Args:
        tolerance: in grey levels, 0 to 255.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self._reference: NDArray[np.float32] | None = None

    def is_still(self, clip: NDArray[np.uint8]) -> bool:
        """Whether a clip ``(length, height, width, 3)`` shows the same as the reference; if not, it becomes that."""
        means = block_means(clip)
        if self._reference is not None and np.abs(means - self._reference).max() <= self.tolerance:
            return True
        self._reference = means
        return False


def block_means(clip: NDArray[np.uint8], block: int = BLOCK) -> NDArray[np.float32]:
    """Means of blocks of pixels, ``(T, H, W, 3) -> (T, ⌈H / block⌉, ⌈W / block⌉, 3)``; edge blocks are smaller."""
    height, width = clip.shape[1:3]
    rows, columns = np.arange(0, height, block), np.arange(0, width, block)
    sums = np.add.reduceat(clip, rows, axis=1, dtype=np.uint16)  # 16 × 255 fits; along rows first: it runs in memory
    sums = np.add.reduceat(sums, columns, axis=2, dtype=np.uint32)
    pixels = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    return (sums / pixels[:, :, None]).astype(np.float32)
