"""Hard normal events of made-up footage: rare, nothing to worry about, and a little like one of the anomalies.

They belong to everyday life: nobody takes fright, and they run their course, whatever happens meanwhile.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from .street import Person, Street

RACE = (4.5, 6.5)  # metres per second


class Children:
    """Children race each other along the near pavement, to and fro, nearly as fast as people flee in a panic.

    Args:
        street: the street that it happens on, as it is when it begins.
        rng: decides on how it happens.
    """

    def __init__(self, street: Street, rng: Generator):
        self.street, self.rng = street, rng
        self._awaited = np.sort(rng.uniform(0, 1.2, rng.integers(8, 12))).tolist()  # seconds

    def step(self, seconds: float) -> None:
        """Let those come into sight whose time it is."""
        while self._awaited and self._awaited[0] <= seconds:
            self._awaited.pop(0)
            self.street.people.append(self._child())

    def _child(self) -> Person:
        rng = self.rng
        forth, z, pace = rng.random() < 0.5, rng.uniform(5.5, 9.5), rng.uniform(*RACE)
        left, right = self.street.camera.visible_range(z)
        ends = (left - 0.6, right + 3) if forth else (right + 0.6, left - 3)
        place, goal = np.array([ends[0], z]), np.array([ends[1], rng.uniform(5.5, 9.5)])
        child = self.street.person(place, goal, pace)
        child.look = replace(child.look, stature=rng.uniform(1.2, 1.45), build=rng.uniform(0.65, 0.8))
        child.velocity = pace * (goal - place) / np.hypot(*(goal - place))
        return child
