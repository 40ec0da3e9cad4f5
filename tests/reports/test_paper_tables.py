"""Tables of results, against what should be printed."""

import re

import pytest

from xelvad.pipeline.evaluation.evaluation import Summary
from xelvad.pipeline.evaluation.resampling import Interval
from xelvad.pipeline.reports.paper_tables import cells_of, escape_latex, escape_markdown, latex_table, markdown_table

NAMES = ("auc", "ap", "auc_abnormal", "far_normal", "tpr")


def row(run: str, *figures: float, weights: str = "last", spread: float | None = None) -> Summary:
    """A row with these figures in per cent, the spread the same for all."""
    mean = {name: figure / 100 for name, figure in zip(NAMES, figures, strict=True)}
    if spread is None:
        return Summary(run, weights, 1, mean, None, Interval(0.1, 0.9))
    return Summary(run, weights, 3, mean, dict.fromkeys(NAMES, spread / 100), None)


ROWS = [
    row("m_1", 80, 30, 70, 1.5, 9, spread=0.254),
    row("mil+xel", 82.004, 29, 70, 0, 44, spread=1),
    row("mil+xel", 99, 99, 99, 0, 99, weights="best_on_test", spread=1),
    row("a & b", 81.996, 31, 69.5, 0, 44),
]
MARKDOWN = """\
| run | weights | seeds | AUC % | AP % | AUC abnormal % | FAR normal % | TPR % |
| --- | --- | --: | --: | --: | --: | --: | --: |
| m\\_1 | last | 3 | 80.00 ± 0.25 | 30.00 ± 0.25 | **70.00** ± 0.25 | 1.50 ± 0.25 | 9.00 ± 0.25 |
| mil+xel | last | 3 | **82.00** ± 1.00 | 29.00 ± 1.00 | **70.00** ± 1.00 | **0.00** ± 1.00 | **44.00** ± 1.00 |
| mil+xel | best on test† | 3 | 99.00 ± 1.00 | 99.00 ± 1.00 | 99.00 ± 1.00 | 0.00 ± 1.00 | 99.00 ± 1.00 |
| a & b | last | 1 | **82.00** | **31.00** | 69.50 | **0.00** | **44.00** |

Mean ± sample standard deviation over the seeds. Bold: the best mean, as printed; ties together. \
† Chosen on the very videos it is measured on: an upper bound, not a result, and never bold.
"""
LATEX = r"""% needs \usepackage{booktabs}
\begin{tabular}{llrrrrrr}
\toprule
run & weights & seeds & AUC \% & AP \% & AUC abnormal \% & FAR normal \% & TPR \% \\
\midrule
m\_1 & last & 3 & 80.00 $\pm$ 0.25 & 30.00 $\pm$ 0.25 & \textbf{70.00} $\pm$ 0.25 & 1.50 $\pm$ 0.25 & 9.00 $\pm$ 0.25 \\
a \& b & last & 1 & \textbf{82.00} & \textbf{31.00} & 69.50 & \textbf{0.00} & \textbf{44.00} \\
\bottomrule
\end{tabular}
% Mean $\pm$ sample standard deviation over the seeds. Bold: the best mean, as printed; ties together.
"""


def test_markdown() -> None:
    assert markdown_table(ROWS) == MARKDOWN


def test_latex() -> None:
    assert latex_table([ROWS[0], ROWS[3]]) == LATEX
    assert r"mil+xel & best on test$^\dagger$ & 3 & 99.00 $\pm$ 1.00 &" in latex_table(ROWS)
    assert "% " + r"Mean $\pm$" in latex_table(ROWS)
    assert r"$^\dagger$Chosen on the very videos" in latex_table(ROWS)


def test_every_line_of_latex_has_as_many_cells_as_columns() -> None:
    lines = [line for line in latex_table(ROWS).splitlines() if line.endswith(r"\\")]
    columns = re.search(r"tabular\}\{(\w+)\}", latex_table(ROWS))[1]
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(columns)}
    assert len(lines) == 1 + len(ROWS)


def test_the_best_is_the_highest_but_of_false_alarms_the_lowest() -> None:
    best = [[cell.best for cell in cells] for cells in cells_of([row("a", 1, 5, 3, 4, 5), row("b", 2, 4, 3, 5, 5.1)])]
    assert best == [[False, True, True, True, False], [True, False, True, False, True]]


def test_where_all_rows_were_chosen_on_the_test_videos_nothing_is_bold() -> None:
    table = markdown_table([row("a", 1, 2, 3, 4, 5, weights="best_on_test")])
    assert "**" not in table
    assert "†" in table


def test_a_single_seed_has_no_spread_to_explain() -> None:
    assert "±" not in markdown_table([ROWS[3]])
    assert "pm" not in latex_table([ROWS[3]])


@pytest.mark.parametrize(
    ("name", "latex", "markdown"),
    [
        ("plain-1.5+x", "plain-1.5+x", "plain-1.5+x"),
        ("a_b", r"a\_b", r"a\_b"),
        ("50% & $5 #1", r"50\% \& \$5 \#1", "50% & $5 #1"),
        ("{x}", r"\{x\}", "{x}"),
        ("a\\b", r"a\textbackslash{}b", r"a\\b"),
        ("^~<>|", r"\textasciicircum{}\textasciitilde{}\textless{}\textgreater{}\textbar{}", r"^\~\<\>\|"),
        ("*b* [l] `c`", "*b* {[}l] `c`", r"\*b\* \[l\] \`c\`"),
        ("Überfall", "Überfall", "Überfall"),
    ],
)
def test_names_are_printed_as_they_are(name: str, latex: str, markdown: str) -> None:
    assert escape_latex(name) == latex
    assert escape_markdown(name) == markdown
