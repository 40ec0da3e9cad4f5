"""Tables of results: what stands in their cells is what was measured."""

from dataclasses import replace

import numpy as np
import pytest

from xelvad.pipeline.evaluation.evaluation import Comparison, Evaluation, measure
from xelvad.pipeline.evaluation.metrics import ScoredVideo
from xelvad.pipeline.evaluation.resampling import Difference, Interval
from xelvad.pipeline.reports.tables import ResultTable, per_cent, points, result_tables
from xelvad.pipeline.scoring.config import EventConfig
from xelvad.pipeline.scoring.protocols import PROTOCOLS
from xelvad.pipeline.scoring.thresholds import Calibration


def evaluation(shift: float = 0.0, calibrated: float | None = 0.25, **changes: object) -> Evaluation:
    """Scores of which everything can be told: an annotated event found at 0.5, a false one at 0.3."""
    truth = np.zeros(40, bool)
    truth[10:20] = True
    scores = np.where(truth, 0.8, 0.1) + shift
    scores[30:34] = 0.3
    videos = [
        ScoredVideo("n", False, np.full(10, 0.05, np.float32), np.zeros(10, bool), "calm"),
        ScoredVideo("a", True, scores.astype(np.float32), truth, "fight"),
    ]
    thresholds = {"fixed": 0.5} | ({} if calibrated is None else {"calibrated": calibrated})
    fields = {
        "run": "mil",
        "seed": None,
        "weights": "last",
        "learned": None,
        "protocol": PROTOCOLS["xel"],
        "intervals": {name: Interval(0.1, 0.9) for name in ("auc", "ap", "auc_abnormal")},
        "calibration": None if calibrated is None else Calibration(calibrated, 0.01, "validation", 1, 10),
        "notes": ("a note",),
        "videos": tuple(videos),
        "scores": (),
    }
    measures = measure(videos, [[], [(10, 20)]], thresholds, EventConfig())
    return Evaluation(**(vars(measures) | fields | changes))


def tables(*evaluations: Evaluation, comparisons: tuple[Comparison, ...] = ()) -> dict[str, ResultTable]:
    return {table.title: table for table in result_tables(evaluations, comparisons)}


def test_the_first_table_names_its_protocol() -> None:
    table = tables(evaluation())["Frames, protocol xel"]
    assert table.rows == (("mil", "last", "100.00 (10.0 to 90.0)", "100.00", "100.00", "0.00", "100.00"),)
    assert any("complete clips only" in note for note in table.notes)


def test_every_row_is_as_wide_as_its_table() -> None:
    difference = Difference(-0.01, 0.03, 0.02, 0.25)
    differences = dict.fromkeys(("auc", "ap", "auc_abnormal"), difference)
    comparisons = (Comparison("mil", "srf", None, differences), Comparison("mil", "srf", 3, differences))
    found = tables(evaluation(), evaluation(run="srf"), comparisons=comparisons)
    assert list(found) == ["Frames, protocol xel", "Thresholds", "Events", "Categories", "Differences"]
    for table in found.values():
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert found["Differences"].rows[0][:2] == ("mil less srf", "+2.00 (−1.0 to +3.0), p = 0.250")
    assert found["Differences"].rows[1][0] == "mil less srf, seed 3"


@pytest.mark.parametrize(
    ("figure", "form", "text"),
    [
        ((0.12345, None), ".2f", "12.35"),
        ((0.5, 0.0123), ".2f", "50.00 ± 1.23"),
        ((0.0, 0.0), ".1f", "0.0 ± 0.0"),
        ((-0.1, 0.02), "+.2f", "−10.00 ± 2.00"),
    ],
)
def test_figures_are_mean_and_spread_in_per_cent(figure: tuple[float, float | None], form: str, text: str) -> None:
    assert per_cent(figure, form) == text


def test_differences_have_a_sign() -> None:
    assert (points(0.0213), points(-0.5, 1), points(0.0)) == ("+2.13", "−50.0", "+0.00")


def test_thresholds_have_all_three_false_alarm_rates() -> None:
    table = tables(evaluation())["Thresholds"]
    assert table.rows == (
        ("mil", "fixed, 0.5", "0.00", "0.00", "0.00", "100.00"),
        ("mil", "calibrated, 0.25", "0.00", "10.00", "13.33", "100.00"),  # 4 of 40, 4 of 30
    )
    assert "mil: a note" in table.notes


def test_events_are_counted_at_each_threshold() -> None:
    rows = tables(evaluation())["Events"].rows
    assert rows[0] == ("mil", "fixed", "1 of 1", *["100.0 / 100.0 / 100.0"] * 3, "100.00")
    assert rows[1][2:4] == ("2 of 1", "50.0 / 50.0 / 50.0")
    nothing = tables(evaluation(shift=-0.5))["Events"].rows[0]
    assert nothing[2:] == ("0 of 1", "– / – / –", "0.0 / 0.0 / 0.0", "0.0 / 0.0 / 0.0", "0.00")


def test_without_a_calibrated_threshold_the_fixed_one_stands_alone() -> None:
    found = tables(evaluation(calibrated=None))
    assert [row[1] for row in found["Thresholds"].rows] == ["fixed, 0.5"]
    assert [row[1] for row in found["Events"].rows] == ["fixed"]
    one_of_two = tables(evaluation(seed=0), evaluation(seed=1, calibrated=None))
    assert [row[1] for row in one_of_two["Thresholds"].rows] == ["fixed, 0.5"]


def test_seeds_are_given_by_mean_and_spread() -> None:
    seeds = [evaluation(seed=0, calibrated=0.25), evaluation(seed=1, calibrated=0.35)]
    rates = tables(*seeds)["Thresholds"].rows
    assert rates[1][:4] == ("mil", "calibrated, 0.25 to 0.35", "0.00 ± 0.00", "5.00 ± 7.07")
    assert tables(*seeds)["Events"].rows[1][2] == "1.5 of 1"
    assert [note for note in tables(*seeds)["Thresholds"].notes if "a note" in note] == ["mil: a note"]


def test_other_weights_stand_in_the_first_table_alone() -> None:
    found = tables(evaluation(), evaluation(weights="best_on_test"))
    assert [row[1] for row in found["Frames, protocol xel"].rows] == ["last", "best on test"]
    assert len(found["Thresholds"].rows) == 2


def test_a_category_without_an_auc_says_why() -> None:
    table = tables(evaluation(), evaluation(run="srf"))["Categories"]
    assert table.columns == ("category", "videos", "mil, AUC %", "srf, AUC %")
    assert table.rows == (
        ("calm", "1", "no anomalous frames", "no anomalous frames"),
        ("fight", "1", "100.00", "100.00"),
    )
    assert "Categories" not in tables(replace(evaluation(), categories=()))


@pytest.mark.parametrize("title", ["Categories", "Differences"])
def test_tables_with_nothing_in_them_are_left_out(title: str) -> None:
    assert title not in tables(replace(evaluation(), categories=()))


def test_a_note_that_holds_for_several_trainings_is_said_once() -> None:
    found = tables(
        evaluation(seed=0, notes=("all", "mil")),
        evaluation(seed=1, notes=("all", "mil", "one")),
        evaluation(run="srf", notes=("all",)),
    )["Thresholds"]
    assert found.notes[1:] == ("mil, srf: all", "mil: mil", "mil/seed-1: one")


def test_what_is_not_defined_is_a_dash() -> None:
    only_abnormal, only_normal = evaluation().videos[1:], evaluation().videos[:1]
    for videos, spans, frames, thresholds, events in (
        (only_abnormal, [[(10, 20)]], ("100.00", "100.00", "–", "–", "100.00"), ("–", "0.00", "0.00", "100.00"), False),
        (only_normal, [[]], ("–", "–", "–", "0.00", "–"), ("0.00", "0.00", "–", "–"), True),
    ):
        measured = vars(measure(videos, spans, {"fixed": 0.5}, EventConfig()))
        changed = evaluation(**measured, videos=videos, intervals={})
        difference = Comparison("mil", "srf", None, {"auc": Difference(-0.01, 0.03, 0.02, 0.25)})
        found = tables(changed, replace(changed, run="srf"), comparisons=(difference,))
        assert found["Frames, protocol xel"].rows[0] == ("mil", "last", *frames)
        assert found["Thresholds"].rows[0][2:] == thresholds
        assert (found["Events"].rows[0][2:] == ("–",) * 5) == events
        assert found["Differences"].rows[0][2:] == ("–", "–")
        seeds = [replace(changed, seed=0), replace(changed, seed=1, metrics=evaluation().metrics)]
        cells = tables(*seeds)["Frames, protocol xel"].rows[0][2:]
        assert [cell == "–" for cell in cells] == [figure == "–" for figure in frames], (
            "averaged only where all have it"
        )
