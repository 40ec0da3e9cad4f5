"""How a detector is trained: the typed settings that become options of the command line and a run's ``config.yaml``.

They stand apart from the training itself because the command line reads them, and must not wait for torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..errors import UserError
from .bags import BagConfig


@dataclass(frozen=True)
class XELConfig:
    """Cross-epoch learning.

    Attributes:
        mode: "off", or "epoch" to refresh the hard instance bank once an epoch.
        validation_weight: λ1, weight of the validation loss.
        margin_weight: λ2, weight of the dynamic margin loss.
        warmup: share of the iterations before XEL sets in.
        margins: values of the margin ε, each for an equal part of the iterations after the warm-up.
    """

    mode: Literal["off", "epoch"] = "off"
    validation_weight: float = 1.0
    margin_weight: float = 1.0
    warmup: float = 0.15
    margins: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class TrainingConfig:
    """How a detector is trained.

    Attributes:
        detector: "mil".
        extractor: whose features to learn from.
        iterations: steps of the optimiser.
        batch: abnormal and normal videos each per step; at most as many as there are.
        learning_rate: of Adam.
        weight_decay: of Adam.
        seed: of the initial weights, the order of the videos and dropout.
        bags: how clips become bags.
        xel: cross-epoch learning.
    """

    detector: str = "mil"
    extractor: str = "i3d-rgb"
    iterations: int = 1000
    batch: int = 30
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    seed: int = 0
    bags: BagConfig = field(default_factory=BagConfig)
    xel: XELConfig = field(default_factory=XELConfig)

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "learning_rate"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.xel.warmup < 1:
            raise UserError(f"xel.warmup is a share of the iterations, in [0, 1), not {self.xel.warmup}")
        if not self.xel.margins or not all(0 < margin <= 1 for margin in self.xel.margins):
            raise UserError(f"xel.margins are numbers in (0, 1], not {self.xel.margins}")
