"""2-means: the two groups that the clips of a video fall into. Deterministic, on any device, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

POWER_STEPS = 4
LLOYD_STEPS = 100


@torch.no_grad()
def two_means(points: Tensor) -> Tensor:
    """Split points into two clusters so that squared distances to the cluster centres are small.

    Begins with the halves on both sides of the mean along the first principal axis, which is the relaxed optimum of
    2-means (Ding & He, "K-means clustering via principal component analysis", ICML 2004), found by a few power steps;
    then Lloyd's iterations until nothing moves. No random start, so no restarts: equal points give equal clusters.

    Args:
        points: ``(T, D)``, T ≥ 1; a gradient is not followed.

    Returns:
        ``(T,)`` bool, the cluster of each point. All False if there are no two distinct points.
    """
    centred = points - points.mean(dim=0)
    # The start of the power steps: the point farthest from the mean.
    axis = _unit(centred[centred.square().sum(dim=1).argmax()])
    for _ in range(POWER_STEPS):
        axis = _unit((centred @ axis) @ centred)  # (T,) @ (T, D) -> (D,)
    assigned = centred @ axis > 0
    for _ in range(LLOYD_STEPS):
        ones = int(assigned.sum())
        if not 0 < ones < len(points):
            return torch.zeros_like(assigned)
        # Centred points: with s the sum of the one cluster, that of the other is -s. So the centres are s / ones and
        # -s / others, and x is nearer to the first where x·s > |s|² (1 / ones - 1 / others) / 2.
        total = assigned.to(points.dtype) @ centred  # (D,)
        moved = centred @ total > (total @ total) * (0.5 / ones - 0.5 / (len(points) - ones))
        if torch.equal(moved, assigned):
            break
        assigned = moved
    return assigned


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp_min(torch.finfo(vector.dtype).tiny)


def centre_distance(points: Tensor, clusters: Tensor, otherwise: float) -> Tensor:
    """Distance of two clusters' centres, with gradient: ``(T, D), (T,) bool -> ()``; ``otherwise`` if one is empty."""
    ones = int(clusters.sum())
    if not 0 < ones < len(points):
        return points.new_tensor(otherwise)
    weights = clusters.to(points.dtype)  # (T,)
    weights = weights / ones - (1 - weights) / (len(points) - ones)
    return (weights @ points).norm()
