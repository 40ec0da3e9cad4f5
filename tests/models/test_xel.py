"""XEL against the published formulas in NumPy, and as a plug-in for any detector."""

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xelvad.models import (
    MIL,
    SRF,
    XEL,
    ARNet,
    Bags,
    LearningDetector,
    MarginSchedule,
    dynamic_margin_loss,
    hardest,
    highest,
    validation_loss,
)

from ..helpers.numeric import OneFeature, draw_bags, numeric_gradient

SHAPES = [(1, 1), (1, 9), (5, 1), (7, 13)]  # B abnormal videos, M bank rows


pytestmark = pytest.mark.usefixtures("one_thread")


def reference_validation(bank: NDArray[np.float64]) -> float:
    return float(np.mean([abs(score - 0) for score in bank]))


def reference_margin(abnormal_max: NDArray[np.float64], bank: NDArray[np.float64], margin: float) -> float:
    return float(np.mean([[max(0.0, margin - a + s) for s in bank] for a in abnormal_max]))


@pytest.mark.parametrize(("videos", "rows"), SHAPES)
@pytest.mark.parametrize("margin", [0.5, 0.8, 1.0])
def test_margin_loss_and_its_gradients_are_the_formula(videos: int, rows: int, margin: float) -> None:
    rng = np.random.default_rng(videos * 100 + rows)
    abnormal_max, bank = rng.random(videos), rng.random(rows)
    a, s = (torch.tensor(array, requires_grad=True) for array in (abnormal_max, bank))
    loss = dynamic_margin_loss(a, s, margin)
    loss.backward()
    assert loss.item() == pytest.approx(reference_margin(abnormal_max, bank, margin), abs=1e-12)
    expected = numeric_gradient(lambda x: reference_margin(x, bank, margin), abnormal_max)
    np.testing.assert_allclose(a.grad, expected, atol=1e-7)
    expected = numeric_gradient(lambda x: reference_margin(abnormal_max, x, margin), bank)
    np.testing.assert_allclose(s.grad, expected, atol=1e-7)


@pytest.mark.parametrize("rows", [1, 2, 800])
def test_validation_loss_and_its_gradient_are_the_formula(rows: int) -> None:
    bank = np.random.default_rng(rows).random(rows)
    s = torch.tensor(bank, requires_grad=True)
    loss = validation_loss(s)
    loss.backward()
    assert loss.item() == pytest.approx(reference_validation(bank), abs=1e-12)
    np.testing.assert_allclose(s.grad, numeric_gradient(reference_validation, bank), atol=1e-7)


def test_margin_loss_vanishes_once_every_pair_is_separated() -> None:
    assert dynamic_margin_loss(torch.tensor([0.9, 1.0]), torch.tensor([0.0, 0.1]), margin=0.75).item() == 0


def test_the_official_schedule_of_ucf_crime() -> None:
    schedule = MarginSchedule(warmup=7500, step=7500)
    assert schedule(0) is None
    assert schedule(7499) is None
    assert [schedule(7500 * k) for k in range(1, 7)] == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert schedule(52_499) == 1.0
    assert schedule(10**9) == 1.0


def test_the_official_schedule_of_ucf_crime_as_shares_of_its_iterations() -> None:
    assert MarginSchedule.spread_over(50_000, warmup_share=0.15, step_share=0.15) == MarginSchedule(7500, 7500)


@pytest.mark.parametrize(("iterations", "step"), [(1, 1), (10, 1), (100, 10), (999, 100)])
def test_a_step_of_a_share_leaves_the_last_margin_the_rest(iterations: int, step: int) -> None:
    schedule = MarginSchedule.spread_over(iterations, warmup_share=0.2, margins=(0.3, 0.6, 0.9), step_share=0.1)
    margins = [schedule(i) for i in range(round(0.2 * iterations), iterations)]
    expected = [0.3] * step + [0.6] * step + [0.9] * iterations
    assert margins == expected[: len(margins)]


@pytest.mark.parametrize("iterations", [1, 7, 100, 1000])
def test_a_spread_schedule_warms_up_and_then_divides_the_rest_evenly(iterations: int) -> None:
    schedule = MarginSchedule.spread_over(iterations)
    margins = [schedule(i) for i in range(iterations)]
    assert margins.count(None) == round(0.15 * iterations)
    grown = [m for m in margins if m is not None]
    assert grown == sorted(grown)
    if iterations >= 100:
        assert [len([m for m in grown if m == e]) for e in schedule.margins[:-1]] == [schedule.step] * 5
        assert set(grown) == set(schedule.margins)


@pytest.mark.parametrize(
    "wrong", [{"warmup": -1}, {"step": 0}, {"margins": ()}, {"margins": (0.0,)}, {"margins": (1.1,)}]
)
def test_an_impossible_schedule_is_refused(wrong: dict[str, int | tuple[float, ...]]) -> None:
    arguments: dict[str, int | tuple[float, ...]] = {"warmup": 0, "step": 1} | wrong
    with pytest.raises(ValueError, match="margin schedule"):
        MarginSchedule(**arguments)


def clips_that_score(*scores: float) -> Tensor:
    """Features of clips to which `OneFeature` gives these scores."""
    return torch.tensor([[score, 0.1, 0.2] for score in scores], dtype=torch.float64)


@pytest.mark.parametrize("rows", [1, 3, 6, 7])
def test_a_step_compares_with_so_many_rows_of_the_bank_drawn_anew(rows: int) -> None:
    detector = OneFeature()
    levels = [2.0**-power for power in range(1, 7)]  # any sum of some tells which
    xel = XEL(MarginSchedule(warmup=0, step=10), rows=rows)
    xel.bank.refresh(detector, [[clips_that_score(level)] for level in levels])
    drawn = []
    for _ in range(60):
        terms = xel.terms(detector, clips_that_score(0.9, 0.2), 0)
        count = min(rows, len(levels))
        code = round(terms["validation"].item() * count * 64)
        seen = [level for level in levels if code & round(level * 64)]
        assert len(seen) == count
        assert terms["margin"].item() == pytest.approx(reference_margin(np.array([0.9, 0.2]), np.array(seen), 0.5))
        drawn.append(seen)
    assert {level for seen in drawn for level in seen} == set(levels)
    assert (len({tuple(seen) for seen in drawn}) == 1) == (rows >= 6)


def test_comparing_with_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        XEL(MarginSchedule(warmup=0, step=1), rows=0)


def test_terms_are_the_weighted_losses_of_both_sides_without_dropout() -> None:
    detector = OneFeature().train()
    xel = XEL(MarginSchedule(warmup=0, step=10), validation_weight=2.0, margin_weight=3.0)
    xel.bank.refresh(detector, [[torch.rand(4, 3, dtype=torch.float64)] for _ in range(6)])
    terms = xel.terms(detector, clips_that_score(0.3, 0.9), iteration=25)
    scores = xel.bank.instances[:, 0].numpy()
    assert terms["validation"].item() == pytest.approx(2 * reference_validation(scores))
    assert terms["margin"].item() == pytest.approx(3 * reference_margin(np.array([0.3, 0.9]), scores, 0.7))
    sum(terms.values()).backward()
    assert detector.weight.grad is not None
    assert detector.weight.grad.abs() > 0, "both are scored with gradient"
    assert detector.training


def test_there_are_no_terms_during_the_warm_up() -> None:
    assert XEL(MarginSchedule(warmup=5, step=1)).terms(OneFeature(), torch.rand(2, 3), iteration=4) == {}


def test_an_empty_bank_after_the_warm_up_is_a_mistake_that_is_named() -> None:
    with pytest.raises(RuntimeError, match="refresh"):
        XEL(MarginSchedule(warmup=0, step=1)).terms(OneFeature(), torch.rand(2, 3), iteration=0)


@pytest.mark.parametrize("dropout", [True, False])
def test_dropout_is_on_only_where_the_published_script_has_it_on(dropout: bool) -> None:
    detector = OneFeature().train()
    xel = XEL(lambda iteration: 0.8, dropout=dropout)
    xel.bank.refresh(detector, [[torch.rand(4, 3, dtype=torch.float64)] for _ in range(20)])
    drawn = [xel.terms(detector, clips_that_score(0.5), 0) for _ in range(5)]
    plain = xel.terms(detector.eval(), clips_that_score(0.5), 0)
    for term in ("validation", "margin"):
        assert ({each[term].item() for each in drawn} == {plain[term].item()}) != dropout


@pytest.mark.parametrize(("scores", "apart"), [((0.0,), 0.0), ((0.5, 0.3), 0.0), ((0.7, 0.6), 0.15), ((1.0,), 0.5)])
def test_progressive_losses_weigh_as_much_as_the_abnormal_clips_stand_above_the_bank(
    scores: tuple[float, ...], apart: float
) -> None:
    xel, plain = (XEL(lambda iteration: 0.8, validation_weight=2.0, progressive=kind) for kind in (True, False))
    for each in (xel, plain):
        each.bank.refresh(OneFeature(), [[clips_that_score(0.2, 0.4)], [clips_that_score(0.6)]])  # 0.5 in the mean
    detector = OneFeature()
    found, expected = (each.terms(detector, clips_that_score(*scores), 0) for each in (xel, plain))
    for name in ("validation", "margin"):
        assert found[name].item() == pytest.approx(apart * expected[name].item())
        slope, full = (
            torch.autograd.grad(terms[name], detector.weight, retain_graph=True)[0].item()
            for terms in (found, expected)
        )
        assert slope == pytest.approx(apart * full), "no gradient passes through the factor"


class ScoresByMode(nn.Module):
    """Tells nothing apart but whether dropout is on: the way out of a margin whose sides are scored in two modes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def score(self, features: Tensor) -> Tensor:
        """``(…, F) -> (…)``."""
        return torch.sigmoid(self.weight if self.training else -self.weight).expand(features.shape[:-1])


@pytest.mark.parametrize("dropout", [True, False])
def test_a_detector_that_tells_nothing_but_dropout_apart_gains_nothing(dropout: bool) -> None:
    """Guards against the two sides being scored in different modes, which flattened every detector."""
    detector, xel = ScoresByMode().train(), XEL(lambda iteration: 0.8, validation_weight=0.0, dropout=dropout)
    xel.bank.refresh(detector, [[torch.rand(4, 2)] for _ in range(3)])
    optimiser = torch.optim.SGD(detector.parameters(), lr=1.0)
    for _ in range(20):
        margin = xel.terms(detector, torch.rand(2, 2), 0)["margin"]
        assert margin.item() == pytest.approx(0.8)
        optimiser.zero_grad()
        margin.backward()
        optimiser.step()
    assert detector.weight.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", [MIL, SRF, ARNet])
def test_xel_works_with_every_detector_that_learns(kind: type[LearningDetector]) -> None:
    torch.manual_seed(0)
    detector = kind(4).double().train()
    bags = draw_bags(((1, 7, 40), (3, 2, 18, 5)), 4)
    abnormal, normal = bags.split(bags.clips)
    xel = XEL(lambda iteration: 0.8)
    xel.bank.refresh(detector, (video.split(2) for video in normal))
    loss = detector.loss(bags)
    chosen = hardest(abnormal, loss.abnormal_scores)
    terms = xel.terms(detector, chosen, iteration=0)
    assert detector.training
    (bank,) = scores_of(detector.eval(), (xel.bank.instances,))
    np.testing.assert_allclose(bank, [video.max() for video in scores_of(detector, normal)])
    (abnormal_max,) = scores_of(detector, (chosen,))
    assert terms["validation"].item() == pytest.approx(reference_validation(bank))
    assert terms["margin"].item() == pytest.approx(reference_margin(abnormal_max, bank, 0.8))
    for value in terms.values():
        gradients = torch.autograd.grad(value, list(detector.parameters()), retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients)


def scores_of(detector: LearningDetector, videos: tuple[Tensor, ...]) -> list[NDArray[np.float64]]:
    with torch.no_grad():
        return [detector.score(video).numpy() for video in videos]


STRONG, WEAK = torch.eye(8)[0] * 3, torch.eye(8)[1] * 0.7
SEEDS = 3


@cache
def train_beside_planted_hard_normals(
    kind: type[LearningDetector], learning_rate: float, validation: bool, margin: bool
) -> tuple[float, float]:
    """A detector trained by its own loss and the chosen terms of XEL: how it treats normal videos it never trains on.

    Anomalies are clips with a strong and a weak sign. Hard normal videos hold a clip with the strong sign, and the weak
    one reversed. They are in the bank, but no batch draws them, so that the detector's own loss, which sees nothing but
    ordinary normal videos beside the anomalies, learns the strong sign.

    Returns:
        The highest score of hard normal videos, and by how much that of abnormal videos exceeds it; means over videos
        and seeds.
    """
    outcomes = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        abnormal, normal, hard = ([0.3 * torch.randn(length, 8) for length in (3, 8, 5, 4)] for _ in range(3))
        for plain, unusual in zip(abnormal, hard, strict=True):
            plain[2] += STRONG + WEAK
            unusual[1] += STRONG - WEAK
        detector, bags = kind(8), Bags.pack(abnormal, normal)
        xel = XEL(lambda iteration: 1.0, validation_weight=float(validation), margin_weight=float(margin))
        optimiser = torch.optim.SGD(detector.parameters(), lr=learning_rate)
        for iteration in range(50):
            if iteration % 10 == 0:
                xel.bank.refresh(detector, [[video] for video in normal + hard])
            loss = detector.train().loss(bags)
            terms = xel.terms(detector, hardest(abnormal, loss.abnormal_scores), iteration)
            optimiser.zero_grad()
            sum(terms.values(), loss.total).backward()
            optimiser.step()
        detector.eval()
        level, most_abnormal = (
            highest([detector.score(v) for v in videos]).mean().item() for videos in (hard, abnormal)
        )
        outcomes.append((level, most_abnormal - level))
    return tuple(np.mean(outcomes, axis=0).tolist())


@pytest.mark.parametrize("margin", [False, True], ids=["alone", "beside the margin loss"])
def test_the_validation_loss_lowers_the_scores_of_planted_hard_normals(margin: bool) -> None:
    without, _ = train_beside_planted_hard_normals(MIL, 0.03, validation=False, margin=margin)
    level, _ = train_beside_planted_hard_normals(MIL, 0.03, validation=True, margin=margin)
    assert without > 0.5, "else nothing was hard"
    assert level < without - 0.2


@pytest.mark.parametrize("validation", [False, True], ids=["alone", "beside the validation loss"])
def test_the_margin_loss_lifts_abnormal_videos_above_planted_hard_normals(validation: bool) -> None:
    _, without = train_beside_planted_hard_normals(MIL, 0.03, validation=validation, margin=False)
    _, gap = train_beside_planted_hard_normals(MIL, 0.03, validation=validation, margin=True)
    assert without < 0.6, "else there is nothing left to lift"
    assert gap > without + 0.1


@pytest.mark.parametrize(("kind", "learning_rate"), [(MIL, 0.03), (SRF, 0.03), (ARNet, 0.1)])
def test_xel_lowers_the_scores_of_planted_hard_normals_whatever_the_detector(
    kind: type[LearningDetector], learning_rate: float
) -> None:
    without, gap_without = train_beside_planted_hard_normals(kind, learning_rate, validation=False, margin=False)
    level, gap = train_beside_planted_hard_normals(kind, learning_rate, validation=True, margin=True)
    assert level < without - 0.1
    assert gap > gap_without + 0.05
