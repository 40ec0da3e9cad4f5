"""Scaling: features of any origin, brought to where detectors learn from them.

A network's own features are alike in every dimension, and their length says little: L2 normalisation is all they need,
as in the papers. Features that measure different things, places beside speeds beside counts, are not: the dimension
with the largest numbers would drown all others, and a detector that is made for features of length 1 learns nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import Scale
from .store import Features

FEW = 0.1  # of the dimensions: see `Statistics.uneven`
SHORTEST = np.float32(1e-12)  # a row of zeros stays one


@dataclass
class Statistics:
    """Mean and deviation of every dimension over all clips, in one pass, exact however many there are.

    Blocks are joined as by Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979: nothing is subtracted that is nearly equal.

    Attributes:
        count: of clips, each crop one.
        mean: ``(F,)`` float64.
        squares: ``(F,)`` float64, summed squares of the distances from the mean.
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, blocks: Iterable[NDArray[np.float32]]) -> Statistics:
        """Statistics of blocks ``(…, F)``, at least one clip in all."""
        found: Statistics | None = None
        for block in blocks:
            rows = block.reshape(-1, block.shape[-1]).astype(np.float64)
            mean = rows.mean(axis=0)
            new = cls(len(rows), mean, np.square(rows - mean).sum(axis=0))
            found = new if found is None else found._joined(new)
        if found is None:
            raise ValueError("no clips to take the mean of")
        return found

    def _joined(self, other: Statistics) -> Statistics:
        count, apart = self.count + other.count, other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        return Statistics(count, mean, self.squares + other.squares + apart**2 * (self.count * other.count / count))

    @property
    def deviation(self) -> NDArray[np.float64]:
        """``(F,)``, of the clips that were seen; 1 where a dimension never changes but by rounding."""
        deviation = np.sqrt(self.squares / self.count)
        return np.where(deviation > 1e-6 * np.abs(self.mean), deviation, 1.0)

    @property
    def uneven(self) -> bool:
        """Whether a few dimensions hold nearly all of the variance, so that the others would be drowned.

        How many hold it is counted by the participation ratio, ``(Σσ²)² / Σσ⁴``: F where all vary alike, 1 where a
        single one does. Uneven is less than a tenth of F.
        """
        total = float(np.square(self.squares).sum())
        return total > 0 and float(self.squares.sum()) ** 2 / total < FEW * len(self.squares)


@dataclass(frozen=True)
class Scaling:
    """How clip features are scaled before a detector sees them, in training and ever after; a run keeps it.

    Attributes:
        scale: never "auto".
        mean: ``(F,)`` float32, subtracted; None where nothing is.
        deviation: ``(F,)`` float32, divided by; None as the mean.
    """

    scale: Scale
    mean: NDArray[np.float32] | None = None
    deviation: NDArray[np.float32] | None = None

    @classmethod
    def fit(cls, scale: Scale, videos: Iterable[Features]) -> Scaling:
        """The scaling that suits the training videos; they are read, once, only where their numbers matter.

        "auto" becomes "standard+l2" where `Statistics.uneven` says so, else "l2". No label and no test video is looked
        at.

        Raises:
            UserError: NaN or infinite features.
        """
        if scale in ("none", "l2"):
            return cls(scale)
        statistics = Statistics.of(piece for video in videos for piece in video.pieces())
        if scale == "auto":
            scale = "standard+l2" if statistics.uneven else "l2"
        if scale == "l2":
            return cls(scale)
        return cls(scale, statistics.mean.astype(np.float32), statistics.deviation.astype(np.float32))

    @classmethod
    def restored(cls, scale: Scale, arrays: dict[str, Any]) -> Scaling:
        """What `arrays` gave.

        Raises:
            KeyError: numbers that the scale needs are missing.
        """
        return cls(scale, arrays["mean"], arrays["deviation"]) if "standard" in scale else cls(scale)

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The numbers that a run must keep, by name; none where the features alone decide."""
        if self.mean is None or self.deviation is None:
            return {}
        return {"mean": self.mean, "deviation": self.deviation}

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(…, F) -> (…, F)``, first standardised, then of length 1, each where the scale says so."""
        if self.mean is not None and self.deviation is not None:
            features = (features - self.mean) / self.deviation
        if "l2" in self.scale:
            lengths = np.sqrt(np.einsum("...f,...f->...", features, features))[..., None]
            features = features / np.maximum(lengths, SHORTEST)
        return np.asarray(features, np.float32)
