"""Products of float32 matrices on a CPU: by the faster of the libraries that PyTorch has for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """For the length of a block, let oneDNN multiply float32 matrices where it beats MKL and is as exact.

    PyTorch leaves such products to MKL, which is made for Intel's processors. Its setting "medium" leaves them to
    oneDNN, faster by a tenth on AMD's (benchmarks/training.py), and lets that round to bfloat16. It does so only where
    the processor is made for that; `_rounds` looks whether it does here. Elsewhere nothing changes.
    """
    if device.type != "cpu" or not _exact_on_amd():
        yield
        return
    with _precision("medium"):
        yield


@lru_cache(maxsize=1)
def _exact_on_amd() -> bool:
    """Whether this is a processor of AMD's, and "medium" does not round here."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "AMD" in str(capabilities.get("cpu_name")) and not _rounds()


def _rounds() -> bool:
    """Whether "medium" loses what bfloat16 cannot hold."""
    value = 1 + 2**-12  # in bfloat16: 1
    rows = torch.full((64, 512), value)
    with _precision("medium"):
        product = torch.matmul(rows, rows.t())
    return bool((product / (512 * value**2) - 1).abs().max() > 1e-6)


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
