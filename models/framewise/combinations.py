"""Sparse combinations: motion is normal if a few basis vectors that were seen together can rebuild it.

Lu, Shi & Jia, "Abnormal Event Detection at 150 FPS in Matlab", ICCV 2013. A video is cut into small cubes of space and
time; what changes within a cube is normalised and compressed by PCA. From the cubes of normal videos a few combinations
of 20 basis vectors are learned, each to represent as many cubes as it can. A cube that none rebuilds is abnormal.

Where the published code departs from the paper, this is the code: a cube holds the changes over time of the blurred
picture (the paper: gradients in all three directions), is scaled to unit length (mean 0, variance 1), and all places
share one PCA and one set of combinations (each place its own, for which one camera would have to be watched for hours).
The three sizes of the picture are the paper's; the code has the largest alone, which is an option.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .detector import FramewiseDetector

SCALES = ((20, 20), (30, 40), (120, 160))  # height and width of the pictures that a frame is looked at in
PATCH = 10  # edge of a cube, pixels
LENGTH = 5  # of a cube, changes from frame to frame
HALF = LENGTH // 2  # changes on either side of a cube's middle; and, of the smoothing, errors in all three directions
SHORTEST = LENGTH + 1  # frames that have a cube
DIMENSIONS = 100  # of a cube behind PCA
BASIS = 20  # s, vectors of a combination
GROUP = 8  # frames that are computed at once, in tensors of always the same shape
MOST_COMBINATIONS = 64  # K at most, ours: the paper's places needed ten each
MOST_ROUNDS = 20  # of learning one combination, ours; most settle in fewer
NOTHING = 1e-10  # share of the largest eigenvalue below which a direction holds nothing but rounding


def blurred(pictures: Tensor) -> Tensor:
    """Gaussian 3 × 3 with σ = 1, its weights normalised within the picture: ``(n, 1, h, w)`` to the same shape."""
    weights = torch.exp(-torch.tensor([1.0, 0.0, 1.0], dtype=pictures.dtype, device=pictures.device) / 2)
    white = torch.ones_like(pictures[:1])  # blurred, the share of the weights that lies within
    sums = F.conv2d(torch.cat([pictures, white]), torch.outer(weights, weights)[None, None], padding=1)
    return sums[:-1] / sums[-1:]


def patches(pictures: Tensor, step: int) -> Tensor:
    """The 10 × 10 patches of pictures, one every ``step`` pixels, row by row: ``(n, 1, h, w) -> (n, places, 100)``."""
    return F.unfold(pictures, PATCH, stride=step).transpose(1, 2)


def principal_components(cubes: Tensor, count: int) -> Tensor:
    """The directions of the largest variance of cubes ``(N, D)``, largest first: orthonormal rows ``(count, D)``."""
    centred = cubes - cubes.mean(dim=0)
    return torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -count:].flip(1).T


def span(features: Tensor, size: int) -> Tensor:
    """The subspace in which features ``(N, D)`` have the least squared reconstruction error: basis ``(size, D)``.

    Rows are orthonormal, or zero where the features span less.
    """
    values, vectors = torch.linalg.eigh(features.T @ features)
    return (vectors * (values > NOTHING * values[-1]))[:, -size:].T


def reconstruction_errors(features: Tensor, combinations: Tensor) -> Tensor:
    """The least squared error of features ``(N, D)`` of unit length over combinations ``(K, s, D)``: ``(N,)``, ≤ 1.

    The error of a combination is ``‖R x‖²`` with ``R = S(SᵀS)⁻¹Sᵀ − I``. Where the vectors of S are orthonormal that is
    ``‖x‖² − ‖Sᵀx‖²``, for which the bases are all that has to be known beforehand. A combination of zeros rebuilds
    nothing.

    Source: Lu et al., ICCV 2013, Eq. 13 and Algorithm 2. Their code takes the first combination that is good enough.
    """
    parts = features @ combinations.flatten(0, 1).T  # (N, K · s)
    rebuilt = parts.square().unflatten(1, combinations.shape[:2]).sum(dim=2)  # (N, K)
    return (1 - rebuilt.amax(dim=1)).clamp(min=0)


def learn_combinations(
    features: Tensor,
    threshold: float = 0.1,
    basis: int = BASIS,
    most: int = MOST_COMBINATIONS,
) -> Tensor:
    """Combinations that represent features ``(N, D)`` of unit length: ``(K ≤ most, basis, D)``, the greatest first.

    In each pass one combination is learned, for as many of the features that are left as it can represent: by turns the
    basis that rebuilds those chosen best, and the choice of those that it rebuilds with an error of ``threshold`` or
    less. Both lower the sum of ``error − threshold`` over those chosen. Those represented are taken out; what is left
    behind the last pass is too rare to count as normal.

    The paper takes gradient steps towards the best basis, which is known: the leading eigenvectors. And where it
    would choose nobody, as it may far from all features, we choose the ``basis`` features with the lowest errors, which
    span a basis that represents them, so that every pass represents some.

    Args:
        features: cubes behind PCA.
        threshold: λ, the squared error up to which a feature counts as represented. 0.1 in the published code.
        basis: s, vectors of a combination.
        most: K at most.

    Source: Lu et al., ICCV 2013, Algorithm 1.
    """
    learned: list[Tensor] = []
    while len(features) and len(learned) < most:
        chosen = torch.ones(len(features), dtype=torch.bool, device=features.device)  # (N,), γ
        for _ in range(MOST_ROUNDS):
            combination = span(features[chosen], basis)
            errors = reconstruction_errors(features, combination[None])
            lowest = errors.kthvalue(min(basis, len(errors))).values
            before, chosen = chosen, errors <= lowest.clamp(min=threshold)
            if torch.equal(before, chosen):
                break
        learned.append(combination)
        features = features[~chosen]
    return torch.stack(learned)


class SparseCombinations(FramewiseDetector):
    """The least error that any combination of learned basis vectors leaves of a cube, smoothed, at its worst place.

    A cube of less motion than a threshold has no error. The errors of the cubes around a frame are averaged over 5 × 5
    places and 5 frames, and the frame's error in [0, 1] is the largest of these; the published code compares
    each with a threshold around 0.1.

    At either end of a video, where cubes would reach beyond it, a frame has those of the nearest frame with whole ones.
    A video of fewer than six frames has no whole cube and no error.

    Args:
        scales: height and width of the pictures; the code's are ``((120, 160),)``.
        motion_threshold: sum of the changes of a cube's brightness, in [0, 1], above which it moves.

    Attributes:
        components: ``(100, 500)``, PCA of the cubes, orthonormal rows.
        combinations: ``(64, 20, 100)``, an orthonormal basis each; those behind the last learned one are zero, and lose
            against every other.

    Example:
        >>> detector = SparseCombinations()
        >>> video = torch.randint(256, (40, 48, 64), dtype=torch.uint8)
        >>> detector.fit(torch.cat(list(detector.cubes(video))))
        >>> detector.frame_errors(video).shape
        torch.Size([40])
    """

    name, title = "sparse-combinations", "Lu et al."
    before = 2 * HALF  # a frame's cubes begin two changes before it, and those of the frames averaged with it
    behind = 2 * HALF + 1  # the change from a frame is to the next
    grid = GROUP
    components: Tensor
    combinations: Tensor

    def __init__(self, scales: Sequence[tuple[int, int]] = SCALES, motion_threshold: float = 5.0) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.motion_threshold = motion_threshold
        self.register_buffer("components", torch.eye(DIMENSIONS, LENGTH * PATCH**2))
        self.register_buffer("combinations", torch.zeros(MOST_COMBINATIONS, BASIS, DIMENSIONS))

    @torch.no_grad()
    def cubes(self, frames: Tensor, step: int = PATCH // 2) -> Iterator[Tensor]:
        """What is learned from: the cubes of some frames of a normal video, those that move.

        Args:
            frames: uint8 ``(n, H, W)``. Which of the cubes are kept is the caller's choice: a `Reservoir`'s, of some
                ten thousand.
            step: pixels from cube to cube; 5, half a cube, in the published code.

        Yields:
            ``(moving, 500)``, of unit length.
        """
        for cubes, moving in self._cubes(frames, step):
            yield cubes[moving]

    @torch.no_grad()
    def fit(self, cubes: Tensor, threshold: float = 0.1) -> None:
        """Learns from cubes ``(N, 500)`` of normal videos, all in one go. `threshold` is λ.

        Raises:
            ValueError: no cubes, as of videos in which nothing moves.
        """
        if not len(cubes):
            raise ValueError("no cubes: nothing moves in the videos")
        self.components.copy_(principal_components(cubes.double(), DIMENSIONS))
        learned = learn_combinations(self._compressed(cubes).double(), threshold)
        self.combinations.zero_()[: len(learned)] = learned

    @torch.no_grad()
    def frame_errors(self, frames: Tensor) -> Tensor:
        """Uint8 ``(n ≥ 1, H, W)`` to ``(n,)`` in [0, 1]."""
        smoothed = torch.cat([self._smoothed(*cubes) for cubes in self._cubes(frames, PATCH)])  # (≥ cubes, places)
        last = max(len(frames) - SHORTEST, 0)
        middles = torch.arange(len(frames), device=smoothed.device) - HALF  # (n,), the cubes that lie around each frame
        around = [smoothed[(middles + k).clamp(0, last)] for k in range(-HALF, HALF + 1)]  # 5 times (n, places)
        return (sum(around[1:], around[0]) / len(around)).amax(dim=1)

    def _cubes(self, frames: Tensor, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Eight frames at a time: cubes ``(8, places, 500)`` of unit length, and which of them move ``(8, places)``.

        The first ones lie around the third frame. The last group is filled up with cubes that do not move.
        """
        whole = len(frames) - SHORTEST + 1  # frames that have cubes
        groups = max(-(-whole // GROUP), 1)
        filling = frames[-1:].expand((groups + 1) * GROUP - len(frames), -1, -1)
        changes = self._changes(torch.cat([frames, filling]), step)  # (≥ 8 · groups + 4, places, 100)
        for first in range(0, groups * GROUP, GROUP):
            cubes = torch.cat([changes[first + k : first + k + GROUP] for k in range(LENGTH)], dim=2)
            there = torch.arange(first, first + GROUP, device=cubes.device) < whole
            yield F.normalize(cubes, dim=2), (cubes.sum(dim=2) > self.motion_threshold) & there[:, None]

    def _changes(self, frames: Tensor, step: int) -> Tensor:
        """What changes from frame to frame in each patch: uint8 ``(n, H, W)`` to ``(n − 1, places, 100)``."""
        changes = []
        for groups in zip(*(self._pictures(group) for group in frames.split(GROUP)), strict=True):
            pictures = torch.cat(groups)  # (n, 1, h, w), of one size
            changes.append(patches((pictures[1:] - pictures[:-1]).abs(), step))
        return torch.cat(changes, dim=1)

    def _pictures(self, frames: Tensor) -> list[Tensor]:
        """Frames in all sizes, blurred: uint8 ``(8, H, W)`` to ``(8, 1, h, w)`` each, in [0, 1]."""
        pictures = frames[:, None].to(self.components) / 255
        return [blurred(F.adaptive_avg_pool2d(pictures, scale)) for scale in self.scales]

    def _compressed(self, cubes: Tensor) -> Tensor:
        """``(N, 500) -> (N, 100)`` of unit length. As in the published code, the mean is not taken off."""
        return F.normalize(cubes @ self.components.T)

    def _smoothed(self, cubes: Tensor, moving: Tensor) -> Tensor:
        """The errors of cubes ``(8, places, 500)``, averaged over 5 × 5 places of each picture: ``(8, places)``.

        All are computed, also of those that do not move, so that it is always the same matrix product.
        """
        errors = reconstruction_errors(self._compressed(cubes.flatten(0, 1)), self.combinations)
        errors = errors.view(moving.shape) * moving
        grids = [(height // PATCH, width // PATCH) for height, width in self.scales]
        maps = errors.split([rows * columns for rows, columns in grids], dim=1)
        padded = [
            F.pad(each.unflatten(1, grid), (HALF,) * 4, "replicate") for each, grid in zip(maps, grids, strict=True)
        ]
        return torch.cat([F.avg_pool2d(each, LENGTH, stride=1).flatten(1) for each in padded], dim=1)
