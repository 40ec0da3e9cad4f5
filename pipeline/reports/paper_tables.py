"""Tables of results for papers and read-mes: several runs, mean ± standard deviation over seeds, the best in bold.

What was chosen on the test videos is an upper bound, not a result: it is marked, and never bold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.evaluation import Summary
from ..evaluation.metrics import METRICS
from ..scoring.runs import in_words
from .tables import NONE

LOWER_IS_BETTER = frozenset({"far_normal"})
HEADS = ("run", "weights", "seeds")
DAGGER = "Chosen on the very videos it is measured on: an upper bound, not a result, and never bold."
SPREAD = "Mean ± sample standard deviation over the seeds."
BOLD = "Bold: the best mean, as printed; ties together."

LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the beginning of a line it would be an option of the line break before
} | {character: rf"\{character}" for character in "&%$#_{}"}


@dataclass(frozen=True)
class Cell:
    """One figure as it is printed, a dash where there is none: mean, spread of several seeds, whether it is best."""

    mean: str
    spread: str | None
    best: bool


def markdown_table(rows: Sequence[Summary]) -> str:
    """The table in Markdown, with notes."""
    lines = [[*HEADS, *METRICS.values()], ["---", "---", *["--:"] * (1 + len(METRICS))]]
    for row, cells in zip(rows, cells_of(rows), strict=True):
        figures = [(f"**{cell.mean}**" if cell.best else cell.mean) + _after(cell, " ± ") for cell in cells]
        lines.append(
            [escape_markdown(row.run), in_words(row.weights) + "†" * row.chosen_on_test, str(row.seeds), *figures]
        )
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*table, "", " ".join(_notes(rows, "† ")), ""])


def latex_table(rows: Sequence[Summary]) -> str:
    r"""The table as a ``tabular`` for ``\input``: it needs the package booktabs, and brings no float and no caption."""
    titles = [escape_latex(title) for title in METRICS.values()]
    lines = []
    for row, cells in zip(rows, cells_of(rows), strict=True):
        dagger = r"$^\dagger$" * row.chosen_on_test
        figures = [
            (rf"\textbf{{{cell.mean}}}" if cell.best else cell.mean) + _after(cell, r" $\pm$ ") for cell in cells
        ]
        lines.append([escape_latex(row.run), escape_latex(in_words(row.weights)) + dagger, str(row.seeds), *figures])
    notes = " ".join(_notes(rows, r"$^\dagger$")).replace("±", r"$\pm$")
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            rf"\begin{{tabular}}{{ll{'r' * (1 + len(titles))}}}",
            r"\toprule",
            rf"{' & '.join([*HEADS, *titles])} \\",
            r"\midrule",
            *(rf"{' & '.join(line)} \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
            f"% {notes}",
            "",
        ]
    )


def cells_of(rows: Sequence[Summary]) -> list[list[Cell]]:
    """The figures of each row in per cent, in the order of the columns.

    The best mean is that of the highest figure, of false alarm rates the lowest, among all rows but those chosen on the
    test videos. Means are compared as they are printed, so that two equal numbers are both bold or both not.
    """
    columns = []
    for name in METRICS:
        means = [NONE if mean is None else f"{100 * mean:.2f}" for mean in (row.mean[name] for row in rows)]
        eligible = [
            float(mean) for mean, row in zip(means, rows, strict=True) if mean != NONE and not row.chosen_on_test
        ]
        best = (min if name in LOWER_IS_BETTER else max)(eligible, default=None)
        columns.append(
            [
                Cell(
                    mean,
                    None if row.spread is None or (spread := row.spread[name]) is None else f"{100 * spread:.2f}",
                    mean != NONE and float(mean) == best and not row.chosen_on_test,
                )
                for mean, row in zip(means, rows, strict=True)
            ]
        )
    return [list(cells) for cells in zip(*columns, strict=True)]


def escape_latex(text: str) -> str:
    """A name as LaTeX prints it."""
    return "".join(LATEX_CHARACTERS.get(character, character) for character in text)


def escape_markdown(text: str) -> str:
    """A name that neither ends its cell nor becomes a mark-up of its own."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>|~" else character for character in text)


def _after(cell: Cell, sign: str) -> str:
    return "" if cell.spread is None else f"{sign}{cell.spread}"


def _notes(rows: Sequence[Summary], dagger: str) -> list[str]:
    notes = [SPREAD] if any(row.spread is not None for row in rows) else []
    return [*notes, BOLD, *([dagger + DAGGER] if any(row.chosen_on_test for row in rows) else [])]
