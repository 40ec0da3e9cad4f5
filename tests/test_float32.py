"""Faster products are products of the same precision, and leave PyTorch's settings as they were."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from xelvad.pipeline import float32

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _looked_at_anew() -> Iterator[None]:
    float32._exact_on_amd.cache_clear()
    yield
    float32._exact_on_amd.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name}, raising=False)


@pytest.mark.parametrize("shape", [(1, 5, 3), (33, 257, 65), (450, 4096, 512)])
def test_products_are_as_exact_as_ever(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "AMD")  # so that the setting is tried on any processor; where it rounds it must not be taken
    rng = np.random.default_rng(0)
    rows, inner, columns = shape
    one, other = rng.random((rows, inner), np.float32), rng.random((inner, columns), np.float32)
    exact = one.astype(np.float64) @ other.astype(np.float64)
    with float32.fast_products(CPU):
        product = torch.from_numpy(one) @ torch.from_numpy(other)
    assert np.abs(product.numpy() / exact - 1).max() < 1e-5  # bfloat16 would be off by 1e-3


def test_only_amds_processors_are_given_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float32, "_rounds", lambda: False)
    for name, expected in (("AMD EPYC", "medium"), ("Intel(R) Xeon(R)", "highest"), ("", "highest")):
        float32._exact_on_amd.cache_clear()
        pretend(monkeypatch, name)
        with float32.fast_products(CPU):
            assert torch.get_float32_matmul_precision() == expected
        with float32.fast_products(torch.device("meta")):
            assert torch.get_float32_matmul_precision() == "highest"


def test_a_library_that_rounds_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "AMD EPYC")
    monkeypatch.setattr(float32, "_rounds", lambda: True)
    with float32.fast_products(CPU):
        assert torch.get_float32_matmul_precision() == "highest"


def test_rounding_to_bfloat16_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    product = torch.matmul
    monkeypatch.setattr(torch, "matmul", lambda one, other: product(one.bfloat16(), other.bfloat16()).float())
    assert float32._rounds()


def test_the_setting_is_put_back_even_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "AMD EPYC")
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(KeyError), float32.fast_products(CPU):
            raise KeyError
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
