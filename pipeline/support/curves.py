"""Curves over a training: whoever wants them passes something in that takes their points."""

from __future__ import annotations

from typing import Protocol

CURVE_EVERY = 10  # iterations between two points


class Curves(Protocol):
    """Takes the points of curves, as TensorBoard's writer does."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """One point."""

    def flush(self) -> None:
        """Let nothing be lost that was taken so far."""
