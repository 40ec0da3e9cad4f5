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


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 7), (0, 4), (64, 33)])
@pytest.mark.parametrize("training", [True, False])
def test_behind_a_relu_it_is_the_dropout_of_the_relu_to_the_bit(shape: tuple[int, ...], training: bool) -> None:
    torch.manual_seed(4)
    dropout, start, weights = Dropout(0.6).train(training), torch.randn(shape), torch.randn(shape)
    ways = {"one": dropout.after_relu, "two": lambda values: dropout(values.relu())}
    results, gradients = [], []
    for way in ways.values():
        torch.manual_seed(5)
        values = start.clone().requires_grad_()
        results.append(way(values))
        (results[-1] * weights).sum().backward()
        gradients.append(values.grad)
    assert torch.equal(*results)
    assert torch.equal(*gradients)


def test_behind_a_relu_it_keeps_one_tensor_for_the_gradient() -> None:
    kept: list[torch.Tensor] = []
    values = torch.randn(50, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        result = Dropout(0.6).after_relu(values)
    assert len(kept) == 1
    assert torch.equal(kept[0], result)


@pytest.mark.parametrize("dropout", [Dropout(0.6).eval(), Dropout(0.0).train()], ids=["evaluation", "p = 0"])
def test_nothing_is_dropped_in_evaluation_or_with_probability_0(dropout: nn.Module) -> None:
    values = torch.randn(100)
    assert dropout(values) is values


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_an_impossible_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        Dropout(p)
