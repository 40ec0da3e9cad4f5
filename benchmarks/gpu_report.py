"""What the sections of `gpu.py` are told and tell: the machine, figures with their goals, and the page they become.

Nothing here imports torch when it is imported: the processes that decode videos start faster without.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NETWORKS = ("i3d-rgb", "c3d", "r3d-18", "i3d-r50")
COLUMNS = ("section", "what", "value", "unit", "goal", "reached", "note")


@dataclass(frozen=True)
class Setting:
    """Where and how much is measured.

    Attributes:
        device: "cuda", "cuda:1" or "cpu".
        small: sizes that a CPU computes within seconds, to try every section.
        networks: those whose speed is measured.
    """

    device: str
    small: bool = False
    networks: tuple[str, ...] = NETWORKS

    @property
    def is_cuda(self) -> bool:
        """Whether there are streams, page-locked memory and half precision; else their places are taken, and said."""
        return self.device.startswith("cuda")

    @property
    def batches(self) -> tuple[int, ...]:
        """Clips that go through a network at once."""
        return (1,) if self.small else (1, 8, 32, 128)

    @property
    def batch(self) -> int:
        """Of these the one at which ways of doing the same are compared."""
        return 2 if self.small else 32


@dataclass(frozen=True)
class Row:
    """A figure.

    Attributes:
        what: was measured; no two rows of a section are of the same.
        value: None where nothing was measured.
        unit: of the value.
        goal: what it was to be, in words; empty where there is no goal.
        reached: whether it is; None where there is no goal, or no value.
        must: whether the run fails where it is not.
        note: what else there is to say.
    """

    what: str
    value: float | None
    unit: str = ""
    goal: str = ""
    reached: bool | None = None
    must: bool = False
    note: str = ""


@dataclass
class Section:
    """A part of the run, and what it found.

    Attributes:
        name: of the section.
        deadline: when it should be done, by the monotonic clock.
        figures: shared by all sections: what later ones take up.
        rows: what was measured.
        notes: what holds for all of it.
        error: why it failed, in a line; empty where it did not.
        seconds: that it took.
    """

    name: str
    deadline: float = math.inf
    figures: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0

    def row(
        self,
        what: str,
        value: float,
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        must: bool = False,
        note: str = "",
    ) -> None:
        """A figure, with what it should be at least or at most; NaN reaches no goal."""
        goal, reached = "", None
        if at_least is not None:
            goal, reached = f"at least {at_least:g}", value >= at_least
        elif at_most is not None:
            goal, reached = f"at most {at_most:g}", value <= at_most
        self.rows.append(Row(what, float(value), unit, goal, reached, must, note))

    def missing(self, what: str, why: str, must: bool = False) -> None:
        """A figure that is not there."""
        self.rows.append(Row(what, None, must=must, note=f"not measured: {why}"))

    @property
    def left(self) -> float:
        """Seconds until it should be done."""
        return self.deadline - time.monotonic()

    @property
    def status(self) -> str:
        """In a word or two."""
        if self.error or any(row.must and not row.reached for row in self.rows):
            return "failed"
        return "passed" if any(row.value is not None for row in self.rows) else "not measured"

    @property
    def plain(self) -> dict[str, Any]:
        """For JSON, which has no NaN."""
        rows = [asdict(row) | {"value": _finite(row.value)} for row in self.rows]
        return {
            "status": self.status,
            "error": self.error,
            "seconds": round(self.seconds, 2),
            "notes": self.notes,
            "rows": rows,
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def write(out: Path, machine: dict[str, Any], sections: Sequence[Section]) -> str:
    """Write the JSON file ``out`` and the page beside it; returns the page."""
    found = {"machine": machine, "sections": {section.name: section.plain for section in sections}}
    page = page_of(machine, sections)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", "utf-8")
    out.with_suffix(".md").write_text(page, "utf-8")
    return page


def page_of(machine: dict[str, Any], sections: Sequence[Section]) -> str:
    """All figures in one table, with what was said about them."""
    rows = [_cells(section, row) for section in sections for row in section.rows]
    done = [f"{section.name} {section.status} ({section.seconds:.0f} s)" for section in sections]
    lines = [
        "# xelvad on this device",
        "",
        *(f"- {key}: {value}" for key, value in machine.items()),
        f"- sections: {', '.join(done)}",
        *(f"- {section.name} failed: {section.error}" for section in sections if section.error),
        *(f"- {section.name}: {note}" for section in sections for note in section.notes),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]
    return "\n".join(lines) + "\n"


def _cells(section: Section, row: Row) -> list[str]:
    reached = "" if row.reached is None else "yes" if row.reached else "no"
    cells = [section.name, row.what, shown(row.value, row.unit), row.unit, row.goal, reached, row.note]
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]


def shown(value: float | None, unit: str) -> str:
    """A value with as many digits as say something."""
    if value is None:
        return "–"
    if unit == "cosine":
        return f"{value:.6f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def synchronise(device: str) -> None:
    """Wait until a device has done what it was told."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def seconds_of(action: Callable[[], object], setting: Setting, about: float = 0.5) -> float:
    """Wall time of an action and of what it starts on the device, over repetitions of about so many seconds.

    It has been done three times before: the first time chooses kernels, and asks for memory. Where all is small it is
    done once.
    """

    def repeated(times: int) -> float:
        synchronise(setting.device)
        began = time.perf_counter()
        for _ in range(times):
            action()
        synchronise(setting.device)
        return (time.perf_counter() - began) / times

    if setting.small:
        return repeated(1)
    repeated(2)
    return repeated(min(max(int(about / repeated(1)), 1), 200))
