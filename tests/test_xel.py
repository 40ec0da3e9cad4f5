"""XEL against the published formulas in NumPy, and as a plug-in for any detector."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from xelvad.models import MIL, XEL, HardInstanceBank, MarginSchedule, dynamic_margin_loss, validation_loss
from xelvad.models.xel import evaluating

from .numeric import numeric_gradient

SHAPES = [(1, 1), (1, 9), (5, 1), (7, 13)]  # B abnormal videos, M bank rows


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


class FirstFeature(nn.Module):
    """A detector that XEL has never seen: the score is the first feature, disturbed by dropout while training."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.5)

    def score(self, features: Tensor) -> Tensor:
        return self.weight * self.dropout(features)[..., 0]


def test_the_bank_holds_the_hardest_clip_of_every_normal_video() -> None:
    rng = np.random.default_rng(0)
    videos = [torch.from_numpy(rng.random((n, t, 4))) for n, t in [(3, 5), (1, 1), (2, 9)]]
    detector = FirstFeature().train()
    bank = HardInstanceBank()
    chosen = bank.refresh(detector, videos)
    expected = [max(video, key=lambda clip: clip[0]) for batch in videos for video in batch.numpy()]
    np.testing.assert_array_equal(bank.instances, np.stack(expected))
    assert chosen.tolist() == [int(video[:, 0].argmax()) for batch in videos for video in batch.numpy()]
    assert detector.training, "the detector is left in the mode it was in"


def test_the_bank_is_replaced_and_not_appended_to() -> None:
    bank, detector = HardInstanceBank(), FirstFeature()
    bank.refresh(detector, [torch.rand(4, 3, 2)])
    bank.refresh(detector, [torch.rand(2, 3, 2)])
    assert len(bank) == 2


def test_terms_are_the_weighted_losses_of_the_bank_without_dropout() -> None:
    detector = FirstFeature().train()
    xel = XEL(MarginSchedule(warmup=0, step=10), validation_weight=2.0, margin_weight=3.0)
    xel.bank.refresh(detector, [torch.rand(6, 4, 3, dtype=torch.float64)])
    abnormal_max = torch.tensor([0.3, 0.9], dtype=torch.float64)
    terms = xel.terms(detector, abnormal_max, iteration=25)
    scores = xel.bank.instances[:, 0].numpy()
    assert terms["validation"].item() == pytest.approx(2 * reference_validation(scores))
    assert terms["margin"].item() == pytest.approx(3 * reference_margin(abnormal_max.numpy(), scores, 0.7))
    sum(terms.values()).backward()
    assert detector.weight.grad is not None
    assert detector.weight.grad.abs() > 0, "the bank is scored with gradient"
    assert detector.training


def test_there_are_no_terms_during_the_warm_up() -> None:
    assert XEL(MarginSchedule(warmup=5, step=1)).terms(FirstFeature(), torch.rand(2), iteration=4) == {}


def test_an_empty_bank_after_the_warm_up_is_a_mistake_that_is_named() -> None:
    with pytest.raises(RuntimeError, match="refresh"):
        XEL(MarginSchedule(warmup=0, step=1)).terms(FirstFeature(), torch.rand(2), iteration=0)


def test_evaluating_leaves_the_mode_as_it_was_even_after_an_error() -> None:
    detector = MIL(4).train()

    def fail() -> None:
        with evaluating(detector):
            assert not detector.training
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert detector.training


@pytest.mark.parametrize("dropped", [None, "validation", "margin"])
def test_each_term_lowers_the_scores_of_planted_hard_normals(dropped: str | None) -> None:
    """A detector trained on XEL's terms alone must learn to call the bank normal; without a term, by that term less."""
    torch.manual_seed(0)
    detector = MIL(8, dropout=0.0)
    hard, abnormal = torch.randn(16, 1, 8) + 1, torch.randn(4, 1, 8) - 1
    xel = XEL(
        lambda iteration: 1.0,
        validation_weight=float(dropped != "validation"),
        margin_weight=float(dropped != "margin"),
    )
    optimiser = torch.optim.Adam(detector.parameters(), lr=1e-3)
    before = detector.score(hard).mean().item()
    gap_before = (detector.score(abnormal).mean() - detector.score(hard).mean()).item()
    for iteration in range(50):
        xel.bank.refresh(detector, [hard])
        loss = sum(xel.terms(detector, detector.score(abnormal).amax(dim=1), iteration).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    after = detector.score(hard).mean().item()
    gap_after = (detector.score(abnormal).mean() - detector.score(hard).mean()).item()
    assert after < 0.5 * before
    if dropped != "margin":
        assert gap_after > gap_before + 0.3, "the margin loss lifts abnormal videos above the bank"
