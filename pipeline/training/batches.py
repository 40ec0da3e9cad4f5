"""Batches: which videos a step learns from, and their bags, read in the background while the step before computes.

A batch depends on the seed and the number of the step alone, so that a training can go on from any step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from ...models import Bags
from ..features.bags import TrainingVideos
from ..support.ahead import ahead

ABNORMAL, NORMAL, SAMPLING = range(3)  # streams of random numbers


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        bags: the clips.
        normal_videos: ``(N,)``, numbers of the normal videos.
        normal_rows: of each normal video, which rows of its bag were drawn, ``(T,)``.
    """

    bags: Bags
    normal_videos: NDArray[np.int64]
    normal_rows: tuple[NDArray[np.int64], ...]


class Batches:
    """Draws videos of both kinds: each kind shuffled anew whenever all of it has been drawn.

    Args:
        abnormal: the abnormal training videos.
        normal: the normal ones.
        size: videos of each kind in a batch; at most as many as there are.
        seed: of the order and of the sampling.

    Attributes:
        per_epoch: steps in which every video of the larger kind is drawn about once.
    """

    def __init__(self, abnormal: TrainingVideos, normal: TrainingVideos, size: int, seed: int) -> None:
        self._kinds = (abnormal, normal)
        self._sizes = tuple(min(size, len(kind)) for kind in self._kinds)
        self._seed = seed
        self.per_epoch = max(-(-len(kind) // size) for kind, size in zip(self._kinds, self._sizes, strict=True))
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def videos(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the abnormal and of the normal videos of a step, none twice within a kind."""
        abnormal, normal = (self._drawn(kind, step) for kind in (ABNORMAL, NORMAL))
        return abnormal, normal

    def load(self, step: int) -> Batch:
        """The bags of a step.

        Raises:
            UserError: a damaged feature file.
        """
        rng = np.random.default_rng([self._seed, SAMPLING, step])
        drawn = self.videos(step)
        chosen = [[(kind, video) for video in videos.tolist()] for kind, videos in zip(self._kinds, drawn, strict=True)]
        abnormal, normal = (tuple(kind.length(video) for kind, video in each) for each in chosen)
        # In NumPy: torch would wake a second set of threads, which get in the way of those that compute.
        clips = np.empty((sum(abnormal + normal), self._kinds[NORMAL].feature_dim), np.float32)
        rooms = np.split(clips, np.cumsum(abnormal + normal)[:-1])
        rows = [kind.draw(video, rng, room) for (kind, video), room in zip(chain(*chosen), rooms, strict=True)]
        return Batch(Bags(torch.from_numpy(clips), abnormal, normal), drawn[NORMAL], tuple(rows[len(abnormal) :]))

    def stream(self, start: int, stop: int) -> Iterator[Batch]:
        """The bags of the steps from ``start`` to before ``stop``, read in a thread ahead of time."""
        return ahead(map(self.load, range(start, stop)))

    def _drawn(self, kind: int, step: int) -> NDArray[np.int64]:
        size = self._sizes[kind]
        turn, place = divmod(step, len(self._kinds[kind]) // size)  # a remainder that fills no batch waits
        return self._order(kind, turn)[place * size : (place + 1) * size]

    def _shuffled(self, kind: int, turn: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, kind, turn]).permutation(len(self._kinds[kind]))
