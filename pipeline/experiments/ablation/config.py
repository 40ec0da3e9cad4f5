"""Options of an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....errors import UserError
from ...training.recipes import GENERAL, detector_recipe, recipe_names

MODES = ("epoch", "batch")


@dataclass(frozen=True)
class AblationConfig:
    """What is compared.

    Attributes:
        detectors: names of detectors that learn in epochs.
        modes: when the hard instance bank is refreshed: "epoch", "batch", or both in turn.
        seeds: trainings of each configuration, from the recipe's seed on.
        recipes: folder of recipes: detector d is trained by RECIPES/d, with the weights and the schedule of XEL from
            RECIPES/d+xel where there is one.
        test_fold: the fold to test on, all others are for training; "all" tests on every fold in turn and takes their
            frames together.
        iterations: of each training; by default the recipe's.
        extractor: whose features to learn from; by default the recipe's.
        validation: share of the training videos that are put aside; by default the recipe's.
        workers: trainings at a time, each in a process of one thread.
    """

    detectors: Sequence[str] = ("mil", "srf", "ar-net")
    modes: Sequence[str] = MODES
    seeds: int = 3
    recipes: str = GENERAL
    test_fold: str | None = None
    iterations: int | None = None
    extractor: str | None = None
    validation: float | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("seeds", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
        if not self.detectors or not self.modes:
            raise UserError("an ablation needs at least one of --detectors and one of --modes")
        unknown = [mode for mode in self.modes if mode not in MODES]
        if unknown:
            raise UserError(f"there is no mode {', '.join(unknown)}; known: {', '.join(MODES)}")
        folders = sorted({name.split("/")[0] for name in recipe_names()})
        if self.recipes not in folders:
            raise UserError(f"there are no recipes {self.recipes!r}; known: {', '.join(folders)}")
        if "svm" in self.detectors:
            raise UserError("svm is fitted in one go: it has no epochs and no XEL, so there is nothing to take away")
        known = [name.split("/")[1] for name in recipe_names() if name.startswith(f"{self.recipes}/")]
        known = [name for name in known if name != "svm" and not name.endswith("+xel")]
        for detector in self.detectors:
            if self.recipes == GENERAL:
                detector_recipe(detector)  # refuses one that there is not
            elif detector not in known:
                raise UserError(f"{self.recipes} has no detector {detector!r}; known: {', '.join(known)}")
