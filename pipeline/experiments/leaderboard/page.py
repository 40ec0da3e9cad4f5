"""What a leaderboard shows: tables, the same on the terminal and in Markdown, and a file of plain numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ....files import write_text
from ...evaluation.resampling import over_seeds
from ...reports.paper_tables import escape_markdown
from ...reports.tables import NONE, ResultTable, per_cent, points
from ...scoring.config import FAR_TARGET
from ...scoring.runs import in_words
from .records import Board, Standing
from .statistics import PairedTest, Ranks, holm, paired_test, rank

SHARES = {
    "auc": "AUC %",
    "auc_abnormal": "AUC abnormal %",
    "ap": "AP %",
    "far": "FAR %",
    "tpr": "TPR %",
}
GAINS = {
    "auc": "AUC",
    "auc_abnormal": "AUC abnormal",
    "far_fixed": "FAR at 0.5",
    "far": "FAR",
    "tpr": "TPR",
}


def write_tables(board: Board, tables: Sequence[ResultTable], out: Path) -> None:
    """Write ``leaderboard.md``, and ``leaderboard.csv`` with a row for every training, figures as they are."""
    lines = [line for table in tables for line in _markdown(table)]
    write_text(out / "leaderboard.md", "\n".join(lines))
    rows = [
        {"detector": standing.detector, "xel": standing.xel} | _flat(asdict(trial))
        for standing in board.standings
        for trial in standing.trials
    ]
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "leaderboard.csv", buffer.getvalue())


def tables_of(board: Board, beside: Sequence[Board] = ()) -> list[ResultTable]:
    """The standings, what XEL changes, the way to other places, and the ranks; those that hold anything."""
    found = [standings_table(board), xel_table(board)]
    found += [across_table(board, other) for other in beside if _travelled(board, other)]
    found += [across_table(other, board) for other in beside if _travelled(other, board)]
    ranks = ranks_of([board, *beside])
    if ranks is not None:
        found.append(ranks_table(ranks, [board, *beside]))
    return [table for table in found if table.rows]


def standings_table(board: Board) -> ResultTable:
    """All entries, best AUC first."""
    rows = []
    for place, standing in enumerate(board.standings, start=1):
        lost = sum(trial.learned == "nothing" for trial in standing.trials)
        rows.append(
            (
                str(place),
                standing.entry.title + (f" ({lost} of {len(standing.trials)} learned nothing)" if lost else ""),
                *(per_cent(over_seeds(standing.of_seeds(name))) for name in SHARES),
                _number(standing.mean("alarms_per_hour"), ".1f"),
                f"{standing.parameters:,}",
                _number(_seconds(standing), ".1f"),
                f"{standing.clips_per_second:,.0f}",
            )
        )
    first = board.standings[0]
    seeds = len({trial.seed for trial in first.trials})
    folds = (
        f"each of {len(board.folds)} folds was the test set once; means of the folds" if board.folds else "one split"
    )
    return ResultTable(
        f"Leaderboard on {board.dataset}",
        ("", "detector", *SHARES.values(), "false alarms / h", "parameters", "training, s", "clips/s"),
        tuple(rows),
        (
            f"{folds}, {seeds} seed{'s' if seeds > 1 else ''}{', ± over seeds' if seeds > 1 else ''}; every decoded "
            f"frame counts; features of {board.extractor}; weights: {in_words(board.weights)}",
            f"FAR over the frames of normal videos, TPR and false alarms an hour at the threshold that allows "
            f"{100 * FAR_TARGET:g} % of the frames of the normal validation videos; nothing was chosen by test videos",
            "training and scoring on one core each, the mean of all trainings; clips of 256 at a time",
        ),
    )


def xel_table(board: Board) -> ResultTable:
    """What XEL changes for each detector, paired by seed and fold."""
    plain = {standing.detector: standing for standing in board.standings if not standing.xel}
    pairs = [(plain[each.detector], each) for each in board.standings if each.xel and each.detector in plain]
    pairs.sort(key=lambda pair: list(plain).index(pair[0].detector))
    tests = [{name: change(*pair, name, board.test_share) for name in GAINS} for pair in pairs]
    p_values = [None if (auc := test["auc"]) is None else auc.p_value for test in tests]
    known = [value for value in p_values if value is not None]
    adjusted = iter(holm(known))
    rows = [
        (
            without.entry.title,
            *(_interval(test[name]) for name in GAINS),
            *((NONE, NONE) if p_value is None else (f"{p_value:.3f}", f"{next(adjusted):.3f}")),
        )
        for (without, _), test, p_value in zip(pairs, tests, p_values, strict=True)
    ]
    correction = (
        "folds share most of their training videos: the variance is corrected for it (Nadeau & Bengio 2003)"
        if board.test_share
        else "of these test videos: trainings differ in nothing but their seed"
    )
    return ResultTable(
        "What XEL changes",
        ("detector", *(f"{name}, points" for name in GAINS.values()), "p of AUC", "p, Holm"),
        tuple(rows),
        (
            "mean difference of all pairs of one seed and one fold, 95 % interval by Student's t; " + correction,
            f"p, Holm: corrected for the number of detectors, {len(rows)}",
            "FAR and TPR at the threshold of each training's validation videos; FAR at 0.5 beside it",
        ),
    )


def change(without: Standing, with_xel: Standing, figure: str, test_share: float) -> PairedTest | None:
    """The paired test of a figure with XEL against without; None where a training does not have it."""
    before = {(trial.seed, trial.fold): getattr(trial, figure) for trial in without.trials}
    pairs = [(getattr(trial, figure), before.get((trial.seed, trial.fold))) for trial in with_xel.trials]
    if any(one is None or other is None for one, other in pairs):
        return None
    return paired_test([one - other for one, other in pairs], test_share)


def across_table(board: Board, to: Board) -> ResultTable:
    """What is lost when detectors that learned on one data set are tested on another."""
    at_home = {standing.entry: standing.mean("auc") for standing in to.standings}
    rows = []
    for standing in board.standings:
        there = [trial.across[to.dataset] for trial in standing.trials if to.dataset in trial.across]
        home, here = at_home.get(standing.entry), standing.mean("auc")
        auc = sum(there) / len(there)
        drop = None if home is None else auc - home
        cells = (per_cent((here, None)), per_cent((auc, None)), per_cent((home, None)), points(drop))
        rows.append((standing.entry.title, *cells))
    return ResultTable(
        f"Across: trained on {board.dataset}, tested on {to.dataset}",
        ("detector", f"AUC % on {board.dataset}", f"AUC % on {to.dataset}", "AUC % trained there", "drop, points"),
        tuple(rows),
        ("means of all trainings; every video there is a test video, since none of them taught anything",),
    )


def ranks_of(boards: Sequence[Board]) -> Ranks | None:
    """The ranks, by AUC, of the entries that all leaderboards have; None of one leaderboard, or of a single entry."""
    shared = [standing.entry for standing in boards[0].standings]
    for board in boards[1:]:
        there = {standing.entry for standing in board.standings}
        shared = [entry for entry in shared if entry in there]
    figures = {}
    for entry in shared:
        aucs = [each.mean("auc") for board in boards for each in board.standings if each.entry == entry]
        known = [auc for auc in aucs if auc is not None]
        if len(known) == len(boards):
            figures[entry.title] = known
    return rank(figures) if len(boards) > 1 and len(figures) > 1 else None


def ranks_table(ranks: Ranks, boards: Sequence[Board]) -> ResultTable:
    """Mean ranks over several data sets."""
    return ResultTable(
        f"Ranks over {ranks.data_sets} data sets",
        ("detector", "mean rank"),
        tuple((name, f"{value:.2f}") for name, value in zip(ranks.names, ranks.ranks, strict=True)),
        (
            f"by AUC on {', '.join(board.dataset for board in boards)}",
            f"Friedman's test that all are the same: p {ranks.p_value:.3f}; ranks that lie less than "
            f"{ranks.critical_difference:.2f} apart cannot be told apart (Nemenyi, 5 %; Demšar 2006)",
        ),
    )


def _travelled(board: Board, to: Board) -> bool:
    return all(to.dataset in trial.across for standing in board.standings for trial in standing.trials)


def _interval(test: PairedTest | None) -> str:
    if test is None:
        return NONE
    if test.low is None or test.high is None:
        return points(test.mean)
    return f"{points(test.mean)} ({points(test.low)} to {points(test.high)})"


def _seconds(standing: Standing) -> float | None:
    known = [trial.seconds for trial in standing.trials if trial.seconds is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else f"{value:{form}}"


def _flat(trial: dict[str, object]) -> dict[str, object]:
    across = trial.pop("across")
    assert isinstance(across, dict)
    return trial | {f"auc on {name}": auc for name, auc in across.items()}


def _markdown(table: ResultTable) -> list[str]:
    head = [table.columns, ["---"] * 2 + ["--:"] * (len(table.columns) - 2)]
    body = [[escape_markdown(cell) for cell in row] for row in table.rows]
    return [
        f"# {table.title}",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (*head, *body)),
        "",
        *(f"- {note}" for note in table.notes),
        "",
    ]
