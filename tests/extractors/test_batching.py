"""Batches of clips: every clip gets its own features back, whatever the size of the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from xelvad.extractors.batching import ClipBatches


class Doubling:
    """An engine whose features are twice its inputs; it says how large its batches were."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def start(self, inputs: tuple[Tensor, ...]) -> Tensor:
        self.sizes.append(len(inputs))
        return 2 * torch.stack(inputs)

    def finish(self, features: Tensor) -> np.ndarray:
        return features.numpy()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("clips", [0, 1, 6, 7, 20])
def test_every_clip_comes_back_once_in_order_with_its_features(clips: int, size: int) -> None:
    engine = Doubling()
    batches: ClipBatches[int] = ClipBatches(engine, size)
    found: list[tuple[int, np.ndarray]] = []
    for number in range(clips):
        found += batches.add(number, torch.full((2,), float(number)))
        assert len(batches) == number + 1 - len(found)
        assert len(batches) < 2 * size + 1, "no more than two batches wait"
    while len(batches):
        found += batches.advance()
    assert [number for number, _ in found] == list(range(clips))
    assert all((features == 2 * number).all() for number, features in found)
    assert engine.sizes == [size] * -(-clips // size), "a batch that is not full is computed like one that is"
