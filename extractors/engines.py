"""Engines: networks that are running, each started once and kept, since starting one takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from . import create_extractor
from .precision import Calibration, Precision

if TYPE_CHECKING:
    from .runtimes import Engine, Runtime


class Engines:
    """The engines of one way to make features; none is started before it is asked for.

    Args:
        weights: as `create_extractor`; the other arguments are as those of `Engine`.
        runtime: by which they run.
        device: on which.
        precision: in which.
        calibration: clips to quantise by.
    """

    def __init__(
        self, weights: str | None, runtime: Runtime, device: str, precision: Precision, calibration: Calibration
    ) -> None:
        self._weights, self._how = weights, (runtime, device, precision, calibration)
        self._started: dict[str, Engine] = {}

    def start(self, extractors: Iterable[str], say: Callable[[str], None]) -> dict[str, Engine]:
        """The engines of some extractors, by name.

        Args:
            extractors: names.
            say: is told of each that is started now.

        Raises:
            UserError: unknown weights, or the device, the runtime or the precision is not to be had here.
        """
        from .runtimes import Engine

        names = list(extractors)
        for name in names:
            if name not in self._started:
                self._started[name] = Engine(create_extractor(name, self._weights), *self._how)
                say(f"{name}: {self._started[name].description}")
        return {name: self._started[name] for name in names}
