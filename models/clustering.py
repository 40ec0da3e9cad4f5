"""2-means: the two groups that the clips of a video fall into. Deterministic, on any device, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

STARTS = 3
POWER_STEPS = 4
LLOYD_STEPS = 100


@torch.no_grad()
def two_means(points: Tensor) -> Tensor:
    """Split points into two clusters so that squared distances to the cluster centres are small.

    Begins with the halves on both sides of the mean along the first principal axis, which is the relaxed optimum of
    2-means (Ding & He, "K-means clustering via principal component analysis", ICML 2004), and along the two axes after
    it, found by a few power steps; then Lloyd's iterations, of all starts at once, until nothing moves. The best wins.
    No start is random: equal points give equal clusters.

    Args:
        points: ``(T, D)``, T ≥ 1; a gradient is not followed.

    Returns:
        ``(T,)`` bool, the cluster of each point. All False if there are no two distinct points.
    """
    centred = points - points.mean(dim=0)
    starts = min(STARTS, *points.shape)
    farthest = centred.square().sum(dim=1).topk(starts).indices
    axes = torch.linalg.qr(centred[farthest].T).Q  # (D, starts)
    for _ in range(POWER_STEPS):
        axes = torch.linalg.qr(((centred @ axes).T @ centred).T).Q  # (T, starts), (starts, D) -> (D, starts)
    assigned = centred @ axes > 0  # (T, starts)
    for _ in range(LLOYD_STEPS):
        ones, total = _sizes_and_sums(centred, assigned)
        # Centred points: the sums of both clusters are each other's negative.
        one, other = total / ones.clamp_min(1), -total / (len(points) - ones).clamp_min(1)
        moved = centred @ (one - other).T > (one.square().sum(dim=1) - other.square().sum(dim=1)) / 2
        if torch.equal(moved, assigned):
            break
        assigned = moved
    ones, total = _sizes_and_sums(centred, assigned)
    # The sum of squared distances is smallest where that between the centres is largest.
    between = total.square().sum(dim=1, keepdim=True) * (1 / ones + 1 / (len(points) - ones))
    between = between.where((ones > 0) & (ones < len(points)), 0)
    best = int(between.argmax())
    return assigned[:, best] if between[best] > 0 else torch.zeros_like(assigned[:, 0])


def _sizes_and_sums(points: Tensor, assigned: Tensor) -> tuple[Tensor, Tensor]:
    """Of the cluster of each start: how many points ``(starts, 1)``, and their sum ``(starts, D)``."""
    weights = assigned.to(points.dtype).T  # (starts, T)
    return weights.sum(dim=1, keepdim=True), weights @ points


def centre_distance(points: Tensor, clusters: Tensor, otherwise: float) -> Tensor:
    """Distance of two clusters' centres, with gradient: ``(T, D), (T,) bool -> ()``; ``otherwise`` if one is empty."""
    ones = int(clusters.sum())
    if not 0 < ones < len(points):
        return points.new_tensor(otherwise)
    weights = clusters.to(points.dtype)  # (T,)
    weights = weights / ones - (1 - weights) / (len(points) - ones)
    return (weights @ points).norm()
