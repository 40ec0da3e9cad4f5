"""Options of the training; they become a run's ``config.yaml``.

They stand apart, as in every room, because the command line reads them, and must not wait for torch. The defaults are
those of MIL; what suits the others, and what the papers used, are the files in ``recipes/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...errors import UserError
from ..features.config import BagConfig

QUIRKS = {
    "xel-dropout": "XEL scores what it compares, the bank and the abnormal maxima, with dropout on",
    "detached-clusters": "SRF clusters detached activations behind the dropout: its cluster loss has no gradient",
    "no-flip": "SRF's pseudo-labels never change places",
    "constant-bank": "before its first refresh, the bank is a constant 0.5",
    "extra-rows": "the bank has as many rows as the larger kind has videos; rows too many stay constant",
}


@dataclass(frozen=True)
class XELConfig:
    """Cross-epoch learning.

    Attributes:
        mode: "off"; "epoch" refreshes the hard instance bank once an epoch, "batch" the rows of a step's normal videos
            at every step.
        validation_weight: λ1, weight of the validation loss; 0 drops it.
        margin_weight: λ2, weight of the dynamic margin loss; 0 drops it.
        warmup: share of the iterations before XEL sets in.
        margins: values of the margin ε, in turn. One value is a fixed margin.
        margin_step: share of the iterations that each margin lasts; equal parts of those after the warm-up by default.
        progressive: multiply both losses by how far the abnormal videos' highest clips stand above the bank in the
            mean, so that they do not undo what was learned while the detector tells little apart; not in the paper.
        rows: with how many rows of the bank a step compares, drawn anew at each; null for all, as in the paper. For
            detectors that look at neighbours a row is 32 clips, and all of them would be most of a step's cost.
    """

    mode: Literal["off", "epoch", "batch"] = "off"
    validation_weight: float = 1.0
    margin_weight: float = 1.0
    warmup: float = 0.15
    margins: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    margin_step: float | None = None
    progressive: bool = False
    rows: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise UserError(f"xel.warmup is a share of the iterations, in [0, 1), not {self.warmup}")
        if not self.margins or not all(0 < margin <= 1 for margin in self.margins):
            raise UserError(f"xel.margins are numbers in (0, 1], not {self.margins}")
        if self.margin_step is not None and not 0 < self.margin_step <= 1:
            raise UserError(f"xel.margin_step is a share of the iterations, in (0, 1], not {self.margin_step}")
        if min(self.validation_weight, self.margin_weight) < 0:
            raise UserError("xel.validation_weight and xel.margin_weight cannot be negative")
        if self.rows is not None and self.rows < 1:
            raise UserError(f"xel.rows must be at least 1, not {self.rows}; leave it out for all rows of the bank")


@dataclass(frozen=True)
class TrainingConfig:
    """How a detector is trained.

    Attributes:
        detector: its name, such as "mil", "srf", "ar-net", "rtfm"; "svm" is the papers' baseline. docs/detectors.md has
            all.
        options: of the detector itself, by name, as its class documents them; its own defaults are the papers'. SRF's
            "labels" may be "scores" or "guided".
        extractor: whose features to learn from.
        iterations: steps of the optimiser; at most so many with until-learned.
        until_learned: end the warm-up when the training videos are told apart, by an AUC of 0.8 of their highest
            scores, and make it the share xel.warmup of all steps, with XEL or without.
        batch: abnormal and normal videos each per step; at most as many as there are.
        optimiser: "adam" or "adagrad".
        learning_rate: of the optimiser.
        weight_decay: of the optimiser.
        betas: of Adam.
        seed: of the initial weights, the order of the videos, dropout, and the choice of validation videos.
        validation: share of the training videos, of each label, that are put aside to choose the best weights by; 0 for
            none.
        evaluations: how often within a training the validation videos, and the test videos, are scored.
        follow_test: also follow the test videos' AUC, where they are annotated and their features are there, and keep
            the weights at its best: what others report, and an upper bound for what can be reported honestly.
        quirks: "none"; "official", all mistakes of the published SRF+XEL script; or some of them by name, separated by
            commas: xel-dropout, detached-clusters, no-flip, constant-bank, extra-rows.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
        bags: how clips become bags.
        xel: cross-epoch learning.
    """

    detector: str = "mil"
    options: dict[str, bool | float | str] = field(default_factory=dict, hash=False)
    extractor: str = "i3d-rgb"
    iterations: int = 500
    until_learned: bool = False
    batch: int = 30
    optimiser: Literal["adam", "adagrad"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    seed: int = 0
    validation: float = 0.1
    evaluations: int = 20
    follow_test: bool = True
    quirks: str = "none"
    device: str = "auto"
    bags: BagConfig = field(default_factory=BagConfig)
    xel: XELConfig = field(default_factory=XELConfig)

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "learning_rate", "evaluations"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
        if self.until_learned and not self.xel.warmup:
            raise UserError("xel.warmup must be above 0 with until_learned: it says how many steps follow the warm-up")
        if self.weight_decay < 0 or self.seed < 0:
            raise UserError("weight_decay and seed cannot be negative")
        if not 0 <= self.validation < 1:
            raise UserError(f"validation is a share of the training videos, in [0, 1), not {self.validation}")
        unknown = self.quirk_names - QUIRKS.keys()
        if unknown:
            raise UserError(f"there is no quirk {', '.join(sorted(unknown))}; official is all of: {', '.join(QUIRKS)}")

    @property
    def quirk_names(self) -> frozenset[str]:
        """Which mistakes of the published script are made on purpose."""
        if self.quirks in ("none", "official"):
            return frozenset(QUIRKS if self.quirks == "official" else ())
        return frozenset(name.strip() for name in self.quirks.split(","))
