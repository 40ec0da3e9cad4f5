"""Pace: for how long a training goes on, when it is judged, and when XEL sets in.

Either for a count of iterations, as papers give it, XEL by shares of it. Or until the training videos are told apart:
what was not learned by then is not learned from video-level labels, and a network of a thousand inputs goes on to learn
its training videos by heart. Then XEL sets in, for as many iterations again, its margin growing in equal steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..models import MarginSchedule
from .settings import TrainingConfig

ENOUGH = 0.99  # AUC of the training videos by their highest scores that there is nothing to add to
GAIN = 0.03  # what the last half of the iterations must have added to it for more to be worth while
FEWEST, FEWEST_EPOCHS = 200, 5  # iterations, and epochs, before a training may end for want of gain
SPACING = 0.1  # of the iterations done: so much later the training videos are looked at again


@dataclass
class Pace:
    """What follows from the number of iterations done, and from how well the training videos are told apart.

    Attributes:
        config: of the training.
        per_epoch: iterations in an epoch.
        seen: after how many iterations the training videos were looked at, and the AUC that was found.
        learned_after: iterations after which the detector had learned; None until then, and where nobody looks.
    """

    config: TrainingConfig
    per_epoch: int
    seen: list[tuple[int, float]] = field(default_factory=list)
    learned_after: int | None = None

    @property
    def looks(self) -> bool:
        """Whether the training videos are looked at now and then."""
        return self.config.until_learned and self.learned_after is None

    @property
    def total(self) -> int:
        """Iterations in all, as far as is known; at most while that depends on what is learned."""
        if not self.config.until_learned:
            return self.config.iterations
        alone = self.config.iterations if self.learned_after is None else self.learned_after
        return alone if self.config.xel.mode == "off" else 2 * alone

    @property
    def schedule(self) -> MarginSchedule | None:
        """When XEL sets in, and how its margin grows; None while that depends on what is learned."""
        xel = self.config.xel
        if not self.config.until_learned:
            return MarginSchedule.spread_over(self.config.iterations, xel.warmup, xel.margins, xel.margin_step)
        if self.learned_after is None:
            return None
        return MarginSchedule(self.learned_after, -(-self.learned_after // len(xel.margins)), xel.margins)

    def margin(self, iteration: int) -> float | None:
        """ε of XEL at an iteration, counted from 0; None while XEL has not set in."""
        schedule = self.schedule
        return None if schedule is None else schedule(iteration)

    def is_judged(self, done: int) -> bool:
        """Whether the detector is judged after so many iterations.

        As often as the configuration says, or where the training videos are to be looked at.
        """
        if self.looks:
            last = self.seen[-1][0] if self.seen else 0
            return done >= min(last + max(self.per_epoch, SPACING * last, 10), self.config.iterations)
        evaluations = min(self.config.evaluations, self.total)
        return done in {self.total * (number + 1) // evaluations for number in range(evaluations)}

    def look(self, done: int, auc: float) -> None:
        """Take in how well the training videos are told apart after so many iterations."""
        self.seen.append((done, auc))
        before = max((value for step, value in self.seen if step <= done / 2), default=0.0)
        gained = max(value for _, value in self.seen) - before
        may_end = done >= max(FEWEST, FEWEST_EPOCHS * self.per_epoch)
        if auc >= ENOUGH or (may_end and gained < GAIN) or done >= self.config.iterations:
            self.learned_after = done

    @property
    def state(self) -> dict[str, Any]:
        """To go on from."""
        return {"seen": [list(pair) for pair in self.seen], "learned_after": self.learned_after}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.seen = [(int(step), float(auc)) for step, auc in state["seen"]]
        self.learned_after = state["learned_after"]
