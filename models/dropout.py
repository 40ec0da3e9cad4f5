"""Dropout whose dice do not hold up the matrix products on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

STEPS = 2**16  # the probability is a multiple of 1 / STEPS


class Dropout(nn.Module):
    """As `torch.nn.Dropout`, from torch's own random numbers, but four decisions to a draw of 64 bits.

    torch draws a number of its own for every element, one after the other: a tenth of a training step. Here sixteen
    bits decide about an element, so that its probability is exact to 8e-6; what is kept is scaled by the exact inverse.
    On other devices than the CPU, torch's own is used.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"a dropout probability lies in [0, 1), not {p}")
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Any shape; unchanged in evaluation mode."""
        if not self.training or not self.p:
            return values
        if values.device.type != "cpu":
            return F.dropout(values, self.p)
        return values * self._factors(values)

    def after_relu(self, values: Tensor) -> Tensor:
        """The dropout of `F.relu`, of any shape, keeping one tensor for the gradient, not three: the result."""
        if not self.training or not self.p or values.device.type != "cpu":
            return self(F.relu(values))
        result: Tensor = _DroppedReLU.apply(values, self._factors(values), self._scale)
        return result

    @property
    def _dropped(self) -> int:
        """How many of the `STEPS` sides of a die say that an element is dropped."""
        return round(self.p * STEPS)

    @property
    def _scale(self) -> float:
        """What is kept is multiplied by this, the exact inverse of its share."""
        return STEPS / (STEPS - self._dropped)

    def _factors(self, values: Tensor) -> Tensor:
        """What every element is multiplied by: 0 or the scale."""
        draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        dice = draws.view(torch.int16)[: values.numel()].view(values.shape)
        kept = torch.ge(dice, self._dropped - STEPS // 2, out=torch.empty_like(values))  # 0 or 1, with no bool between
        return kept.mul_(self._scale)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"p={self.p}"


class _DroppedReLU(torch.autograd.Function):
    """ReLU and multiplication by ``factors``, which are 0 or ``scale``. Where the result is 0, so is the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factors: Tensor, scale: float) -> Tensor:
        result = F.relu(values).mul_(factors)
        ctx.save_for_backward(result)
        ctx.scale = scale
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, result, 0).mul_(ctx.scale), None, None
