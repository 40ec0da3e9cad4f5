"""Batches: clips of any videos through one network, one batch under way while the next one gathers.

A clip's features do not depend on what else is in its batch. Computing alone: whoever asks says whose each clip is,
and gets its features back when they are there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from .runtimes import Engine, Started

Owner = TypeVar("Owner")


class ClipBatches(Generic[Owner]):
    """Runs one extractor over clips as they come.

    Args:
        engine: runs the network.
        size: clips in a batch.
    """

    def __init__(self, engine: Engine, size: int) -> None:
        self.engine, self.size = engine, size
        self._gathered: list[tuple[Owner, Tensor]] = []
        self._under_way: tuple[list[Owner], Started] | None = None

    def __len__(self) -> int:
        """How many clips are not computed."""
        return len(self._gathered) + (0 if self._under_way is None else len(self._under_way[0]))

    def add(self, owner: Owner, inputs: Tensor) -> list[tuple[Owner, NDArray[np.float32]]]:
        """Take a preprocessed clip; returns the features of those that have been computed since, in order.

        Args:
            owner: comes back with the clip's features.
            inputs: as the extractor's preprocessing gives them, without an axis for the batch.
        """
        self._gathered.append((owner, inputs))
        return self.advance() if len(self._gathered) == self.size else []

    def advance(self) -> list[tuple[Owner, NDArray[np.float32]]]:
        """Start with what has gathered, so that the device does not wait, and collect what was under way before."""
        started = None
        if self._gathered:
            owners, inputs = zip(*self._gathered, strict=True)
            # Always as many clips: libraries compute a smaller batch by other means, and the last bits of a clip's
            # features would tell with how many others it was computed.
            full = inputs + inputs[-1:] * (self.size - len(inputs))
            started = list(owners), self.engine.start(full)
        computed, self._gathered, self._under_way = self._under_way, [], started
        if computed is None:
            return []
        owners_of_it, features = computed
        return list(zip(owners_of_it, self.engine.finish(features), strict=False))
