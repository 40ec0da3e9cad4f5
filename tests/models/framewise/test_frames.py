"""Luma and the sample of a stream."""

import numpy as np
import pytest
import torch

from xelvad.models.framewise.frames import Reservoir, grey


def test_grey_is_the_luma_of_bt_601() -> None:
    colours = np.random.default_rng(0).integers(0, 256, size=(3, 40, 50, 3), dtype=np.uint8)
    luma = colours @ np.array([0.299, 0.587, 0.114])
    found = grey(torch.from_numpy(colours))
    assert found.dtype == torch.uint8
    assert found.shape == (3, 40, 50)
    np.testing.assert_allclose(found, luma, atol=0.5 + 1e-9)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_grey_of_grey_is_itself(value: int) -> None:
    assert grey(torch.full((1, 1, 3), value, dtype=torch.uint8)).item() == value


def test_a_reservoir_holds_all_rows_until_it_is_full_and_never_more() -> None:
    reservoir = Reservoir(10)
    reservoir.add(torch.empty(0, 2))
    for first in range(0, 30, 3):
        reservoir.add(torch.arange(first, first + 3.0)[:, None].expand(-1, 2))
        assert len(reservoir.rows) == min(first + 3, 10)
        if first < 7:
            assert sorted(reservoir.rows[:, 0].tolist()) == list(range(first + 3))
    assert len(set(reservoir.rows[:, 0].tolist())) == 10, "without replacement"


def test_rows_of_all_blocks_are_equally_likely_to_stay() -> None:
    torch.manual_seed(0)
    counts = torch.zeros(20)
    for _ in range(2000):
        reservoir = Reservoir(5)
        for block in torch.arange(20.0)[:, None].split([1, 9, 4, 6]):
            reservoir.add(block)
        counts[reservoir.rows[:, 0].long()] += 1
    np.testing.assert_allclose(counts / 2000, 0.25, atol=0.05)  # five standard deviations
