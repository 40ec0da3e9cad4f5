"""Our dropout against what dropout is: shares, scale, gradient, and nothing at all in evaluation."""

import pytest
import torch
from torch import nn
from xelvad.models.dropout import Dropout

ELEMENTS = 400_003  # not a multiple of the four decisions in a draw


@pytest.mark.parametrize("p", [0.1, 0.5, 0.6, 0.7])
def test_the_share_of_dropped_elements_is_p_and_the_rest_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(ELEMENTS))
    kept = dropped != 0
    assert 1 - kept.double().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / ELEMENTS) ** 0.5)
    torch.testing.assert_close(dropped[kept], torch.full((int(kept.sum()),), 1 / (1 - p)), rtol=5e-5, atol=0)


def test_neighbours_are_decided_independently() -> None:
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(ELEMENTS)) != 0).double() - 0.5
    for distance in (1, 2, 3, 4, 512):
        correlation = (kept[:-distance] * kept[distance:]).mean().item() / 0.25
        assert abs(correlation) < 4 / ELEMENTS**0.5


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 7), (0, 4)])
def test_gradient_flows_through_what_was_kept(shape: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    values = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    dropped = Dropout(0.6)(values)
    dropped.sum().backward()
    torch.testing.assert_close(values.grad * values, dropped.detach())


def test_it_draws_from_torchs_generator_anew_each_time() -> None:
    dropout, values = Dropout(0.5), torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(values), dropout(values)
    torch.manual_seed(3)
    torch.testing.assert_close(dropout(values), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dropout", [Dropout(0.6).eval(), Dropout(0.0).train()], ids=["evaluation", "p = 0"])
def test_nothing_is_dropped_in_evaluation_or_with_probability_0(dropout: nn.Module) -> None:
    values = torch.randn(100)
    assert dropout(values) is values


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_an_impossible_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        Dropout(p)
