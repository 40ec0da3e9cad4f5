"""Grey pictures from coloured ones, and a fair sample of a stream."""

from __future__ import annotations

import torch
from torch import Tensor


def grey(frames: Tensor) -> Tensor:
    """The luma of RGB pictures, uint8 ``(…, 3)`` to uint8 ``(…)``, rounded; in whole numbers, so the same anywhere.

    Source: ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.
    """
    red, green, blue = frames.int().unbind(-1)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).to(torch.uint8)


class Reservoir:
    """A uniform sample, without replacement, of all rows that were ever added, in bounded memory.

    Every row draws a random key when it comes, and the rows with the highest keys stay.

    Args:
        capacity: rows that are kept at most.

    Attributes:
        rows: ``(≤ capacity, D)``, in no particular order.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows = torch.empty(0)
        self._keys = torch.empty(0, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Takes rows ``(n, D)`` into the sample, or not, by torch's generator."""
        keys = torch.rand(len(rows), dtype=torch.float64, device=rows.device)
        if len(self.rows):
            rows, keys = torch.cat([self.rows, rows]), torch.cat([self._keys, keys])
        kept = keys.topk(min(self.capacity, len(keys))).indices
        self.rows, self._keys = rows[kept], keys[kept]
