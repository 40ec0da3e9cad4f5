"""Progress: what stages report while they work, and what the user sees of it.

A stage is given a `Report` and knows no more: `SILENT` for programs, `CONSOLE` for commands, which shows a live display
on a terminal and plain lines elsewhere, all on stderr.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

PLAIN_SECONDS = 10.0  # between two plain lines within an item
ITEM_SECONDS = 1.0  # between two plain lines of finished items


_console = Console(stderr=True, highlight=False)


class Report(Protocol):
    """Whom a stage tells what it is doing."""

    def say(self, message: str) -> None:
        """Something that the user should know now."""

    def progress(self, verb: str, items: int, unit: str) -> Progress:
        """Items (videos, runs) of units (clips, iterations) are about to be worked on."""


class Progress:
    """Progress over items (videos, runs) that consist of units (clips, iterations), which nobody sees.

    A context manager for the time of the work.
    """

    def __init__(self, verb: str, items: int, unit: str) -> None:
        self.verb, self.items, self.unit = verb, items, unit

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def start(self, name: str, units: int = 0) -> None:
        """Begin the next item, of so many units (0: not known yet)."""

    def expect(self, units: int) -> None:
        """Say how many units the current item has (0: not known)."""

    def advance(self, units: int = 1) -> None:
        """Count units of the current item as done."""

    def finish(self, name: str = "", units: int | None = None) -> None:
        """Count an item as done: the current one, or, where several are under way, the one of that name and size."""

    def say(self, message: str) -> None:
        """Something that the user should know now."""


class _Silent:
    def say(self, message: str) -> None:
        pass

    def progress(self, verb: str, items: int, unit: str) -> Progress:
        return Progress(verb, items, unit)


class _Console:
    """On stderr."""

    def say(self, message: str) -> None:
        _console.print(message, markup=False, soft_wrap=True)

    def progress(self, verb: str, items: int, unit: str) -> Progress:
        return ShownProgress(verb, items, unit)


SILENT: Report = _Silent()
CONSOLE: Report = _Console()


class ShownProgress(Progress):
    """Progress that the user sees.

    On a terminal: one bar over all items with the time left, one for the current item with units per second. Elsewhere
    plain lines: of finished items at most one a second, and the last; within an item one every ten seconds.
    """

    def __init__(self, verb: str, items: int, unit: str) -> None:
        super().__init__(verb, items, unit)
        self.done_items = self.done_units = 0
        self._name = ""
        self._item_units = self._expected = 0
        self._began = self._spoke = time.monotonic()
        self._rich: RichProgress | None = None
        self._overall = self._current = TaskID(0)

    def __enter__(self) -> Progress:
        if _console.is_terminal:
            self._rich = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=_console,
                transient=True,
            )
            self._overall = self._rich.add_task(self.verb, total=self.items, rate="")
            self._current = self._rich.add_task("", total=None, rate="")
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def start(self, name: str, units: int = 0) -> None:
        """Begin the next item, of so many units (0: not known yet)."""
        self._name, self._item_units, self._expected = name, 0, units
        if self._rich is not None:
            self._rich.reset(self._current, total=units or None, description=name)

    def expect(self, units: int) -> None:
        """Say how many units the current item has (0: not known)."""
        self._expected = units
        if self._rich is not None:
            self._rich.update(self._current, total=units or None)

    def advance(self, units: int = 1) -> None:
        """Count units of the current item as done."""
        self._item_units += units
        self.done_units += units
        if self._rich is not None:
            self._rich.update(self._current, advance=units, rate=self._rate())
            within = min(self._item_units / self._expected, 1) if self._expected else 0
            self._rich.update(self._overall, completed=self.done_items + within)
        elif time.monotonic() - self._spoke > PLAIN_SECONDS:
            of = f"/{self._expected}" if self._expected else ""
            self._plain(f"{self._name}: {self._item_units}{of} {self.unit}, {self._rate()}")

    def finish(self, name: str = "", units: int | None = None) -> None:
        """Count an item as done: the current one, or, where several are under way, the one of that name and size."""
        self.done_items += 1
        if self._rich is not None:
            self._rich.update(self._overall, completed=self.done_items)
        elif self.done_items == self.items or time.monotonic() - self._spoke >= ITEM_SECONDS:
            count = self._item_units if units is None else units
            self._plain(f"{name or self._name}: {count} {self.unit}, {self._rate()}{self._time_left()}")

    def say(self, message: str) -> None:
        """Print a line above the display."""
        CONSOLE.say(message)

    def _rate(self) -> str:
        return f"{self.done_units / max(time.monotonic() - self._began, 1e-9):.1f} {self.unit}/s"

    def _time_left(self) -> str:
        remaining = self.items - self.done_items
        if not remaining:
            return ""
        seconds = (time.monotonic() - self._began) / self.done_items * remaining
        return f", about {seconds:.0f} s left" if seconds < 120 else f", about {seconds / 60:.0f} min left"

    def _plain(self, text: str) -> None:
        self._spoke = time.monotonic()
        print(f"[{self.done_items}/{self.items}] {self.verb} {text}", file=sys.stderr, flush=True)
