"""Options of the upkeep of data sets and of features folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import UserError
from ...extractors.precision import Precision
from ...extractors.weights import RANDOM


@dataclass(frozen=True)
class AuditConfig:
    """What is looked at.

    Attributes:
        deep: decode every video and count its frames, instead of trusting what its header says.
        extractor: whose features, where there is a folder of features.
    """

    deep: bool = False
    extractor: str = "i3d-rgb"


@dataclass(frozen=True)
class VerifyConfig:
    """What is verified.

    Attributes:
        extractor: whose features; those of all that there are by default.
        deep: read every video and compare its digest, also where its size and time are those of when it was extracted.
    """

    extractor: Sequence[str] = ()
    deep: bool = False


@dataclass(frozen=True)
class GarbageConfig:
    """What nobody needs.

    Attributes:
        extractor: whose features; those of all that there are by default.
        other_fingerprints: also features that the extractor would make otherwise now: with other weights, for instance.
        weights: by which it makes them now, as given to `xelvad extract`; the extractor's own by default.
        precision: as given to `xelvad extract`: int8 makes other features.
    """

    extractor: Sequence[str] = ()
    other_fingerprints: bool = False
    weights: str | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.other_fingerprints and not self.extractor:
            raise UserError("--other-fingerprints: of which extractor? name it by --extractor")
        if not self.other_fingerprints and (self.weights is not None or self.precision != "auto"):
            raise UserError("--weights and --precision say which fingerprints are others: add --other-fingerprints")
        if len(self.extractor) > 1 and self.weights not in (None, RANDOM):
            raise UserError(f"weights: {self.weights} cannot fit {' and '.join(self.extractor)}: look at one by one")
