"""Pace: for how long a training goes on, when it is judged, and when XEL sets in.

Either for a count of iterations, as papers give it, with XEL's warm-up a share of it. Or by what is learned: the
warm-up ends when the detector tells its training videos apart, and is the same share of all iterations as ever, so that
features of any kind and number get the time that they need: a detector of a few measurements learns for longer than one
of a thousand activations, which soon knows its training videos by heart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...models import MarginSchedule
from .config import TrainingConfig

TOLD_APART = 0.8  # AUC of the training videos by their highest scores at which the warm-up ends
FEWEST = 40  # iterations of a warm-up: the first looks may be lucky
SPACING = 0.1  # of the iterations done: so much later the training videos are looked at again


@dataclass
class Pace:
    """What follows from the number of iterations done, and from how well the training videos are told apart.

    Attributes:
        config: of the training.
        per_epoch: iterations in an epoch.
        looked_after: after how many iterations the training videos were looked at last.
        learned_after: iterations after which they were told apart; None until then, and where nobody looks.
    """

    config: TrainingConfig
    per_epoch: int
    looked_after: int = 0
    learned_after: int | None = None

    @property
    def looks(self) -> bool:
        """Whether the training videos are looked at now and then."""
        return self.config.until_learned and self.learned_after is None

    @property
    def total(self) -> int:
        """Iterations in all; at most, while that depends on what is learned."""
        if self.learned_after is None:
            return self.config.iterations
        return min(round(self.learned_after / self.config.xel.warmup), self.config.iterations)

    @property
    def schedule(self) -> MarginSchedule | None:
        """When XEL sets in, and how its margin grows; None while that depends on what is learned."""
        if self.looks:
            return None
        xel = self.config.xel
        return MarginSchedule.spread_over(self.total, xel.warmup, xel.margins, xel.margin_step)

    def margin(self, iteration: int) -> float | None:
        """ε of XEL at an iteration, counted from 0; None while XEL has not set in."""
        schedule = self.schedule
        return None if schedule is None else schedule(iteration)

    def is_judged(self, done: int) -> bool:
        """Whether the detector is judged after so many iterations.

        As often as the configuration says, or where the training videos are to be looked at.
        """
        if self.looks:
            longest = round(self.config.xel.warmup * self.config.iterations)
            spacing = max(self.per_epoch, SPACING * self.looked_after, FEWEST / 4)
            return done >= min(self.looked_after + spacing, max(longest, 1))
        evaluations = min(self.config.evaluations, self.total)
        return done in {self.total * (number + 1) // evaluations for number in range(evaluations)}

    def look(self, done: int, auc: float) -> None:
        """Take in how well the training videos are told apart after so many iterations."""
        self.looked_after = done
        told_apart = done >= FEWEST and auc >= TOLD_APART
        if told_apart or done >= self.config.xel.warmup * self.config.iterations:
            self.learned_after = done

    @property
    def state(self) -> dict[str, Any]:
        """To go on from."""
        return {"looked_after": self.looked_after, "learned_after": self.learned_after}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.looked_after, self.learned_after = state["looked_after"], state["learned_after"]
